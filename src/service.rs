//! The deployed Worker: what `entry.js` calls. Compiled with the feature `service` only, as a Worker that uses this crate
//! as a library has an entry of its own.

use std::{cell::OnceCell, panic};

use worker::{Context, Env, console_error, event};

use crate::{
    app::{App, misconfigured},
    config::Config,
    http::{Body, Problem, Request, Response},
    platform::{Platform, RequestHeaders, environment_json, write_response},
};

thread_local! {
    /// Lives as long as the isolate; `None` if the configuration is faulty. It is leaked because work that goes on after
    /// a response needs it without borrowing it from a request.
    static APP: OnceCell<Option<&'static App<Platform>>> = const { OnceCell::new() };
}

/// Answers a request. It never returns `Err`: `worker` would write the error's text, which can hold data, to the log.
#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let Some(app) = APP.with(|app| *app.get_or_init(|| start(&env))) else {
        return Ok(into_platform(&misconfigured()));
    };
    app.host.refresh_clock();
    let (method, url) = (request.method(), request.url());
    // The place belongs to the body, and is kept for as long.
    let (body, _place) = match app.needs_body(&url) {
        true => app.host.read_body(&request, &app.isolate.large_bodies).await,
        false => (Body::None, None),
    };
    let headers = RequestHeaders::new(&request);
    let response = app.respond(&Request::new(&method, &url, &headers, &body)).await;
    if app.has_background_work() {
        context.wait_until(app.run_background());
    }
    Ok(into_platform(&response))
}

/// Runs once per isolate, and again in the instance that replaces one after a trap.
fn start(env: &Env) -> Option<&'static App<Platform>> {
    // `worker`'s own hook writes the panic's text to the log. This one is set later, whatever the order in which start
    // functions run.
    panic::set_hook(Box::new(|panic| match panic.location() {
        Some(at) => console_error!("cloakroom: a panic at {}:{}", at.file(), at.line()),
        None => console_error!("cloakroom: a panic"),
    }));
    let app = Config::from_json(&environment_json(env)).and_then(|config| {
        let platform = Platform::new(env);
        let platform = platform.map_err(|_| vec!["UPSTASH_REDIS_REST_TOKEN cannot be sent".to_owned()])?;
        Ok(App::new(config, platform))
    });
    match app {
        Ok(app) => Some(Box::leak(Box::new(app))),
        Err(faults) => {
            let faults = faults.iter().map(|fault| format!("\n  - {fault}")).collect::<String>();
            console_error!("cloakroom: every request is answered 500 misconfigured, because of{faults}");
            None
        }
    }
}

#[allow(clippy::expect_used, reason = "an empty response with a valid status is accepted")]
fn into_platform(response: &Response) -> web_sys::Response {
    write_response(response).unwrap_or_else(|_| {
        // A header that the platform refuses is a mistake of ours. Its text is not for the log.
        console_error!("cloakroom: the response was refused by the platform");
        let detail = "something went wrong here; the request may or may not have been carried out";
        let internal = Response::from(Problem::internal(detail)).uncacheable();
        write_response(&internal).expect("a response of constants")
    })
}
