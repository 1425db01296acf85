//! The only module that knows JavaScript. `edge.js` is its other half: that one owns what takes time (the
//! request's body, the call to the store), this one is called with strings and answers with a string, so
//! that a request crosses the border twice, plus once for each call to the store.
//!
//! A request is a future that stops where it waits for the store. It is polled by hand: [`start`] runs it to
//! its first stop, [`resume`] brings the store's answer and runs it on.

#![allow(unreachable_pub, reason = "wasm-bindgen exports public functions only")]

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::OnceLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use wasm_bindgen::prelude::wasm_bindgen;

use crate::{
    config::Config,
    gate,
    host::{Answer, Call, Host, Unreachable},
    http::{Body, Code, HEADERS, Problem, Request, Response},
    isolate::Isolate,
    limit::{self, Subject},
    stats,
    time::{Time, milliseconds},
};

#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn get_random_values(bytes: &mut [u8]);
    #[wasm_bindgen(js_namespace = ["String", "prototype", "normalize"], js_name = call)]
    fn normalize(text: &str, form: &str) -> String;
    #[wasm_bindgen(js_namespace = ["String", "prototype", "toLowerCase"], js_name = call)]
    fn to_lower_case(text: &str) -> String;
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(line: &str);
}

/// How long a request waits for one answer of the store at the most: `store.timeout` is
/// shorter. One whose visitor went away is never resumed, and is forgotten after this time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The configuration, once it is read; `None` when it is faulty.
static CONFIG: OnceLock<Option<Config>> = OnceLock::new();

thread_local! {
    static ISOLATE: Rc<Isolate> = Rc::default();
    static WAITING: RefCell<Waiting> = RefCell::default();
}

/// The requests that wait for the store, by number: those that have waited longest first.
#[derive(Default)]
struct Waiting {
    last: u32,
    exchanges: Vec<(u32, Exchange)>,
}

/// One request on its way.
struct Exchange {
    future: Pin<Box<dyn Future<Output = Response>>>,
    counter: Rc<Counter>,
    since: Time,
}

/// Where a request's future and the world outside hand each other things.
#[derive(Default)]
struct Counter {
    now: Cell<u64>,
    outgoing: RefCell<Option<Wish>>,
    incoming: RefCell<Option<Result<Answer, Unreachable>>>,
}

/// What a request waits for.
enum Wish {
    Call(Call),
    Sleep(Duration),
}

/// The machine, as one request sees it.
struct Edge(Rc<Counter>);

impl Host for Edge {
    fn now(&self) -> Time {
        Time(self.0.now.get())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        get_random_values(bytes);
    }

    fn nfkc(&self, text: &str) -> String {
        normalize(text, "NFKC")
    }

    fn lower_case(&self, text: &str) -> String {
        to_lower_case(text)
    }

    async fn sleep(&self, duration: Duration) {
        // Whatever wakes it, it is awake.
        drop(self.0.wait_for(Wish::Sleep(duration)).await);
    }

    async fn send(&self, call: Call) -> Result<Answer, Unreachable> {
        self.0.wait_for(Wish::Call(call)).await
    }

    fn log(&self, line: &dyn Display) {
        console_error(&format!("cloakroom: {line}"));
    }
}

impl Counter {
    /// Hands a wish out, and stops until something comes in.
    async fn wait_for(&self, wish: Wish) -> Result<Answer, Unreachable> {
        self.outgoing.replace(Some(wish));
        poll_fn(|_| self.incoming.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

/// Reads the configuration: the environment as JSON. Logs what is wrong with it.
#[wasm_bindgen]
pub fn configure(environment: &str) {
    let config = Config::from_json(environment)
        .inspect_err(|faults| {
            let faults = faults.iter().map(|fault| format!("\n  - {fault}")).collect::<String>();
            console_error(&format!(
                "cloakroom: every request is answered 500 misconfigured, because of{faults}"
            ));
        })
        .ok();
    // An instance is configured once.
    drop(CONFIG.set(config));
}

/// The names of the headers that a request's head holds, a line each.
#[wasm_bindgen]
pub fn headers() -> String {
    HEADERS.join("\n")
}

/// Whose requests Cloudflare's own rate limit counts together, from the client's address.
#[wasm_bindgen]
pub fn subject(address: &str) -> String {
    Subject::address(address).to_string()
}

/// Begins a request. `head` is what [`Request::parse`] takes; a body that is too large comes as none. `is_over`: over
/// Cloudflare's own rate limit.
#[wasm_bindgen]
pub fn start(now: f64, head: String, body: Option<Vec<u8>>, too_large: bool, is_over: bool) -> String {
    let now = time(now);
    let Some(config) = CONFIG.get().and_then(Option::as_ref) else {
        let detail = "this Worker's configuration is faulty; its log says what to change";
        return write_response(
            Response::from(Problem::new(Code::Misconfigured, detail)).not_for_caches(),
            false,
        );
    };
    let body = match body {
        _ if too_large => Body::TooLarge,
        Some(bytes) => Body::Bytes(bytes),
        None => Body::None,
    };
    let counter = Rc::new(Counter::default());
    let host = Edge(Rc::clone(&counter));
    let isolate = ISOLATE.with(Rc::clone);
    let future = Box::pin(async move {
        let request = Request { is_over, ..Request::parse(&head, &body) };
        gate::answer(&request, config, &host, &isolate).await
    });
    run(Exchange { future, counter, since: now }, now)
}

/// Goes on with request `number`, with the store's answer; status 0 when there is none, or after a pause. The answer
/// comes as the bytes it arrived in; what is not text is no answer that anybody understands.
#[wasm_bindgen]
pub fn resume(number: u32, now: f64, status: u16, sync_token: String, body: Vec<u8>) -> String {
    let exchange = WAITING.with_borrow_mut(|waiting| waiting.take(number));
    let Some(exchange) = exchange else { return String::new() };
    let body = String::from_utf8(body).unwrap_or_default();
    let answer = if status == 0 { Err(Unreachable) } else { Ok(Answer { status, body, sync_token }) };
    exchange.counter.incoming.replace(Some(answer));
    run(exchange, time(now))
}

/// What is to be done when the response is on its way, as one more step; empty when there is nothing.
#[wasm_bindgen]
pub fn begin_background(now: f64) -> String {
    let now = time(now);
    let Some(config) = CONFIG.get().and_then(Option::as_ref) else { return String::new() };
    let counter = Rc::new(Counter::default());
    let host = Edge(Rc::clone(&counter));
    let isolate = ISOLATE.with(Rc::clone);
    let future = Box::pin(async move {
        limit::tidy(&host, &isolate.limits, config.store_timeout).await;
        stats::flush(&host, &isolate, config.store_timeout, &config.session.key_prefix).await;
        Response::new(204)
    });
    run(Exchange { future, counter, since: now }, now)
}

/// Runs a request to its end or to its next call to the store.
fn run(mut exchange: Exchange, now: Time) -> String {
    exchange.counter.now.set(now.0);
    match exchange.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => {
            let is_due = ISOLATE.with(|isolate| isolate.has_background(now));
            write_response(response, is_due)
        }
        Poll::Pending => {
            let wish = exchange.counter.outgoing.take();
            exchange.since = now;
            let number = WAITING.with_borrow_mut(|waiting| waiting.add(exchange));
            wish.map_or_else(String::new, |wish| write_wish(number, &wish))
        }
    }
}

impl Waiting {
    fn add(&mut self, exchange: Exchange) -> u32 {
        self.exchanges.retain(|(_, waiting)| exchange.since - waiting.since < LONGEST_WAIT);
        self.last = self.last.wrapping_add(1);
        self.exchanges.push((self.last, exchange));
        self.last
    }

    fn take(&mut self, number: u32) -> Option<Exchange> {
        let index = self.exchanges.iter().position(|(known, _)| *known == number)?;
        Some(self.exchanges.remove(index).1)
    }
}

/// `S` for a call to the store: the number, how many milliseconds to wait for the answer, the path, the sync
/// token, an empty line, the body. `W` for a pause: the number, how many milliseconds it takes.
fn write_wish(number: u32, wish: &Wish) -> String {
    match wish {
        Wish::Call(Call { path, body, sync_token, timeout }) => {
            let (number, timeout) = (number.to_string(), milliseconds(*timeout).to_string());
            ["S\n", &number, "\n", &timeout, "\n", path, "\n", sync_token, "\n\n", body].concat()
        }
        Wish::Sleep(duration) => format!("W\n{number}\n{}\n\n", milliseconds(*duration)),
    }
}

/// `R`, or `B` when there is something to be done in the background; the status, the headers' names and values
/// in turn, an empty line, the body.
fn write_response(response: Response, has_background: bool) -> String {
    let mut text = String::with_capacity(response.body.len() + 512);
    text.extend([if has_background { "B\n" } else { "R\n" }, &response.status.to_string()]);
    for (name, value) in &response.headers {
        text.extend(["\n", name, "\n", value]);
    }
    text.extend(["\n\n", &response.body]);
    text
}

/// Milliseconds since 1970, out of JavaScript's number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is a date of today"
)]
fn time(now: f64) -> Time {
    Time(now as u64)
}
