//! The deployed Worker: what `entry.js` calls. Compiled with the feature `service` only, as a Worker that uses this crate
//! as a library has an entry of its own.

use std::{cell::Cell, panic};

use worker::{Context, Env, event};

use crate::{
    Sessions,
    app::misconfigured,
    library::into_platform,
    log::{self, Line},
    platform::write_log,
};

thread_local! {
    static HAS_PANIC_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Answers a request. It never returns `Err`: `worker` would write the error's text, which can hold data, to the log.
#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    // `worker`'s own hook writes the panic's text to the log. This one is set later, whatever the order in which start
    // functions run.
    if !HAS_PANIC_HOOK.replace(true) {
        panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
            write_log(&Line::new(log::Event::Panicked, ["a panic", &place.unwrap_or_default()].concat()));
        }));
    }
    Ok(match Sessions::from_env(&env) {
        Ok(sessions) => sessions.serve(&request, &context).await,
        Err(_) => into_platform(&misconfigured()),
    })
}
