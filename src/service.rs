//! The deployed Worker: what `entry.js` calls. Compiled with the feature `service` only, as a Worker that uses this crate
//! as a library has an entry of its own.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    panic,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::future_to_promise;
use worker::{Context, Env, worker_sys};

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

/// Answers a request: a `Response`, or a promise of one that never rejects if it has to wait. `#[event(fetch)]` of `worker`
/// would make a promise of each; and write the text of an error, which can hold data, to the log.
#[allow(unreachable_pub, reason = "JavaScript reaches it")]
#[wasm_bindgen]
#[must_use]
pub fn fetch(request: web_sys::Request, env: Env, context: worker_sys::Context) -> JsValue {
    // `worker`'s own hook writes the panic's text to the log. This one is set later, whatever the order in which start
    // functions run.
    if !HAS_PANIC_HOOK.replace(true) {
        panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
            write_log(&Line::new(log::Event::Panicked, ["a panic", &place.unwrap_or_default()].concat()));
        }));
    }
    at_once(Box::pin(answer(request, env, Context::new(context))))
}

async fn answer(request: web_sys::Request, env: Env, context: Context) -> JsValue {
    let response = match Sessions::from_env(&env) {
        Ok(sessions) => sessions.serve(&request, &context).await,
        Err(_) => into_platform(&misconfigured()),
    };
    response.into()
}

/// What a future comes to; a promise of it if it has to wait.
fn at_once(mut future: Pin<Box<dyn Future<Output = JsValue>>>) -> JsValue {
    // It keeps the waker of its first poll, when there is no task yet that could be woken.
    let relay = Arc::new(Relay::default());
    let waker = Waker::from(Arc::clone(&relay));
    let mut poll = move || future.as_mut().poll(&mut task::Context::from_waker(&waker));
    if let Poll::Ready(value) = poll() {
        return value;
    }
    let rest = poll_fn(move |task| {
        relay.task.register(task.waker());
        // Its task is polled as soon as it is there, when nothing has happened yet.
        if relay.is_woken.swap(false, Ordering::Relaxed) { poll().map(Ok) } else { Poll::Pending }
    });
    future_to_promise(rest).into()
}

/// Wakes the task that was registered last, and remembers that it is to.
#[derive(Default)]
struct Relay {
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
        self.task.wake();
    }
}
