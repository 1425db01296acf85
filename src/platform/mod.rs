//! [`Host`] on Cloudflare Workers: store calls, clock, randomness, log, request headers and bodies, through the platform's own
//! interfaces. It exports nothing, so a Worker that uses this crate as a library can have one too.

mod body;
mod gateway;
mod query;
mod signature;

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    ptr,
    time::Duration,
};

use futures_util::future::{Either, select};
use js_sys::{Date, JSON, JsString, Object, Promise, Reflect, RegExp};
use serde::{Serialize, Serializer};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, CryptoKey, RequestInit, RequestRedirect, ResponseInit, WorkerGlobalScope};
use worker::{Delay, Env, RateLimiter, console_error, console_log, console_warn};

use crate::{
    bindings,
    host::{Answer, Call, Document, Host, Post, Query, SigningKey, Unreachable, Unsigned, VerifyingKey},
    http::{Headers, Response},
    json,
    log::{self, Level, Line},
    time::{Time, milliseconds},
};

/// The name under which Cloudflare's own rate limit is bound.
const RATE_LIMITER: &str = "RATE_LIMITER";

/// One isolate of a Worker.
#[derive(Debug)]
pub struct Platform {
    global: WorkerGlobalScope,
    store: JsStore,
    rate_limiter: Option<RateLimiter>,
    /// The service binding `ORIGIN`.
    origin: Option<JsValue>,
    /// The keys that have signed, which are imported once.
    keys: RefCell<Vec<(String, CryptoKey)>>,
    now: Cell<Time>,
}

impl Platform {
    /// From the Worker's environment, of which a configuration has been read: [`environment_json`]. Errors: the store's
    /// token cannot be sent in a header.
    pub fn new(env: &Env) -> Result<Self, JsValue> {
        let secret = |name| binding(env, name).and_then(|value| value.as_string()).unwrap_or_default();
        let store_url = secret("UPSTASH_REDIS_REST_URL");
        Ok(Self {
            global: js_sys::global().unchecked_into(),
            store: JsStore::new(store_url.trim_end_matches('/'), &secret("UPSTASH_REDIS_REST_TOKEN"))?,
            rate_limiter: rate_limiter(env),
            origin: binding(env, "ORIGIN"),
            keys: RefCell::default(),
            now: Cell::new(read_clock()),
        })
    }

    /// Reads the clock again. Call it when a request arrives: [`Host::now`] answers from memory, as the clock of a
    /// Worker moves only while it waits.
    pub fn refresh_clock(&self) {
        self.now.set(read_clock());
    }

    async fn wait_for(&self, promise: Promise) -> Result<JsValue, JsValue> {
        let result = JsFuture::from(promise).await;
        self.refresh_clock();
        result
    }

    /// `Err` is whatever JavaScript has thrown. Its text could hold data, so it goes no further than [`Host::send`].
    async fn ask_store(
        &self,
        Call { path, body, is_base64, sync_token, timeout }: Call,
    ) -> Result<Answer, JsValue> {
        let timeout = u32::try_from(milliseconds(timeout)).unwrap_or(u32::MAX);
        let sync_token = Some(sync_token.as_str()).filter(|token| !token.is_empty());
        let asked = self.store.ask(&constant(path), &body, is_base64, sync_token, timeout)?;
        drop(body);
        let answer: StoreAnswer = self.wait_for(asked).await?.unchecked_into();
        Ok(Answer { status: answer.status(), body: answer.body(), sync_token: answer.sync_token() })
    }

    /// The status of the answer. The same holds for `Err`.
    async fn post_to_back_end(&self, Post { url, headers, body, timeout }: Post<'_>) -> Result<u16, JsValue> {
        let (init, fields, stop) = (RequestInit::new(), web_sys::Headers::new()?, AbortController::new()?);
        for (name, value) in headers {
            fields.set(name, value)?;
        }
        init.set_method("POST");
        init.set_redirect(RequestRedirect::Manual);
        init.set_headers_headers(&fields);
        init.set_body_opt_str(Some(body));
        init.set_signal(Some(&stop.signal()));
        let sent = self.global.fetch_with_str_and_init(url, &init);
        let outcome = select(JsFuture::from(sent), Delay::from(timeout)).await;
        // It ends what nobody waits for any more: the answer that has not come, or the body of the one that has.
        stop.abort();
        self.refresh_clock();
        match outcome {
            Either::Left((answer, _)) => Ok(answer?.unchecked_into::<web_sys::Response>().status()),
            Either::Right(_) => Err(JsValue::UNDEFINED),
        }
    }
}

impl Host for Platform {
    fn now(&self) -> Time {
        self.now.get()
    }

    #[allow(clippy::expect_used, reason = "without randomness there are no session ids, and no way to go on")]
    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the platform provides randomness");
    }

    fn nfkc(&self, text: &str) -> String {
        if text.is_ascii() {
            return text.to_owned();
        }
        // A Rust string comes back as one: it has no lone surrogates.
        JsString::from(text).normalize("NFKC").into()
    }

    fn lower_case(&self, text: &str) -> String {
        if text.is_ascii() {
            return text.to_ascii_lowercase();
        }
        JsString::from(text).to_lower_case().into()
    }

    fn is_mark(&self, character: char) -> bool {
        !character.is_ascii() && RegExp::new(r"\p{M}", "u").test(character.encode_utf8(&mut [0; 4]))
    }

    async fn sleep(&self, duration: Duration) {
        Delay::from(duration).await;
        self.refresh_clock();
    }

    async fn send(&self, call: Call) -> Result<Answer, Unreachable> {
        self.ask_store(call).await.map_err(|_| Unreachable)
    }

    async fn post(&self, post: Post<'_>) -> Result<u16, Unreachable> {
        self.post_to_back_end(post).await.map_err(|_| Unreachable)
    }

    async fn ask(&self, query: Query) -> Result<Document, Unreachable> {
        self.fetch_document(query).await
    }

    fn has_platform_limit(&self) -> bool {
        self.rate_limiter.is_some()
    }

    async fn is_over_platform_limit(&self, key: &str) -> bool {
        let Some(rate_limiter) = &self.rate_limiter else { return false };
        let outcome = rate_limiter.limit(key.to_owned()).await;
        self.refresh_clock();
        match outcome {
            Ok(outcome) => !outcome.success,
            Err(error) => {
                let message = format!("{RATE_LIMITER} failed ({})", name(&error));
                self.log(&Line::new(log::Event::PlatformLimitFailed, message));
                false
            }
        }
    }

    async fn sign(&self, key: &SigningKey, message: &str) -> Result<Vec<u8>, Unsigned> {
        self.signature(key, message).await.map_err(|_| Unsigned)
    }

    async fn verify(&self, key: &VerifyingKey, message: &str, signature: &[u8]) -> bool {
        self.has_signed(key, message, signature).await.unwrap_or(false)
    }

    fn log(&self, line: &Line) {
        write_log(line);
    }
}

/// Writes a line into the Worker's log, at its level. For what is said where there is no [`Platform`].
pub fn write_log(line: &Line) {
    match line.level {
        Level::Error => console_error!("{line}"),
        Level::Warn => console_warn!("{line}"),
        Level::Info => console_log!("{line}"),
    }
}

/// The headers of a request, read when they are asked for.
#[derive(Debug)]
pub struct RequestHeaders(web_sys::Headers);

impl RequestHeaders {
    /// Of this request.
    pub fn new(request: &web_sys::Request) -> Self {
        Self(request.headers())
    }
}

impl Headers for RequestHeaders {
    fn get(&self, name: &'static str) -> Option<String> {
        self.0.unchecked_ref::<NamedHeaders>().get(&constant(name)).ok().flatten()
    }
}

thread_local! {
    /// Texts that JavaScript is often asked with, as its own strings: one is made once, and not for every request.
    static CONSTANTS: RefCell<Vec<(&'static str, JsString)>> = const { RefCell::new(Vec::new()) };
}

fn constant(text: &'static str) -> JsString {
    CONSTANTS.with_borrow_mut(|constants| {
        let known = constants.iter().find(|(known, _)| ptr::eq(*known, text));
        known.map(|(_, made)| made.clone()).unwrap_or_else(|| {
            let made = JsString::from(text);
            constants.push((text, made.clone()));
            made
        })
    })
}

#[wasm_bindgen(module = "/src/platform/store.js")]
extern "C" {
    #[derive(Debug)]
    #[wasm_bindgen(js_name = Store)]
    type JsStore;
    #[wasm_bindgen(constructor, js_class = "Store", catch)]
    fn new(url: &str, token: &str) -> Result<JsStore, JsValue>;
    #[wasm_bindgen(method, js_class = "Store", catch)]
    fn ask(
        this: &JsStore,
        path: &JsString,
        body: &str,
        is_base64: bool,
        sync_token: Option<&str>,
        timeout: u32,
    ) -> Result<Promise, JsValue>;

    type StoreAnswer;
    #[wasm_bindgen(method, getter, structural)]
    fn status(this: &StoreAnswer) -> u16;
    #[wasm_bindgen(method, getter, structural)]
    fn body(this: &StoreAnswer) -> String;
    #[wasm_bindgen(method, getter, structural, js_name = syncToken)]
    fn sync_token(this: &StoreAnswer) -> String;
}

#[wasm_bindgen]
extern "C" {
    /// `Headers`, asked with a string of JavaScript.
    type NamedHeaders;
    #[wasm_bindgen(method, catch, structural)]
    fn get(this: &NamedHeaders, name: &JsString) -> Result<Option<String>, JsValue>;
}

/// The environment as [`crate::config::Config::from_json`] takes it: the settings, and of all other bindings, which may be
/// of any kind, the name; of a table also the names of its fields.
pub fn environment_json(env: &Env) -> String {
    let environment = Object::new();
    for name in Object::keys(env.unchecked_ref::<Object>()).iter() {
        let Ok(value) = Reflect::get(env, &name) else { continue };
        let is_setting = name.as_string().is_some_and(|name| bindings::is_setting(&name));
        let value = if is_setting { value } else { outline(&value) };
        // A new object refuses no property.
        drop(Reflect::set(&environment, &name, &value));
    }
    JSON::stringify(&environment).ok().and_then(|json| json.as_string()).unwrap_or_default()
}

/// Of a table the names of its fields, of anything else null.
fn outline(value: &JsValue) -> JsValue {
    let prototype = |object: &JsValue| Object::get_prototype_of(object);
    if !value.is_object() || prototype(value) != prototype(&Object::new()) {
        return JsValue::NULL;
    }
    let names = Object::new();
    for name in Object::keys(value.unchecked_ref::<Object>()).iter() {
        drop(Reflect::set(&names, &name, &JsValue::NULL));
    }
    names.into()
}

/// What a response is made with.
#[derive(Serialize)]
struct Init<'r> {
    status: u16,
    headers: Fields<'r>,
}

/// The headers of a response: an object, which the platform takes apart faster than pairs, unless a name occurs twice.
struct Fields<'r>(&'r [(&'static str, Cow<'static, str>)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(fields) = self;
        let is_new =
            |(at, (name, _)): (usize, &(&str, _))| fields.iter().take(at).all(|(other, _)| other != name);
        if fields.iter().enumerate().all(is_new) {
            return serializer.collect_map(fields.iter().map(|(name, value)| (name, value)));
        }
        fields.serialize(serializer)
    }
}

/// The response as the platform takes it. Errors: a status or a header that the platform refuses.
pub fn write_response(response: &Response) -> Result<web_sys::Response, JsValue> {
    // In one piece: a `Headers` that is filled one by one takes a call with two strings for each.
    let init = json::to_string(&Init { status: response.status, headers: Fields(&response.headers) });
    let init: ResponseInit = JSON::parse(&init)?.unchecked_into();
    // 204 and 304 are refused with a body, however empty.
    let body = (!response.body.is_empty()).then_some(response.body.as_str());
    web_sys::Response::new_with_opt_str_and_init(body, &init)
}

fn rate_limiter(env: &Env) -> Option<RateLimiter> {
    binding(env, RATE_LIMITER)?;
    let rate_limiter = env.rate_limiter(RATE_LIMITER);
    if rate_limiter.is_err() {
        let message = format!("{RATE_LIMITER} is ignored: it is no rate limit binding");
        write_log(&Line::new(log::Event::PlatformLimitIgnored, message));
    }
    rate_limiter.ok()
}

fn binding(env: &Env, name: &str) -> Option<JsValue> {
    Reflect::get(env, &name.into()).ok().filter(|value| !value.is_undefined())
}

/// An error's name. Its text could hold data.
fn name(error: &worker::Error) -> &str {
    match error {
        worker::Error::UnknownJsError { name: Some(name), .. } => name,
        _ => "Error",
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes an integer by saturating, and this one is a date"
)]
fn read_clock() -> Time {
    Time(Date::now() as u64)
}
