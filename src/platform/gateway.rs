//! Passing a request on to an origin, and its answer back. Bodies are streams of the platform's, which never come into wasm.

use std::pin::pin;

use futures_util::future::{Either, select};
use js_sys::{Array, Function, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, ReadableStream, RequestCache, RequestInit, RequestRedirect, ResponseInit,
    TransformStream,
};
use worker::Delay;

use super::Platform;
use crate::{
    gateway::{Added, Changes, Gateway, Origin, Pass, is_of_connection, is_ours, is_session_header},
    http::Problem,
};

impl Platform {
    /// Whether a request becomes a WebSocket.
    pub fn is_upgrade(request: &web_sys::Request) -> bool {
        let upgrade = request.headers().get("upgrade").ok().flatten();
        upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
    }

    /// Asks the origin. Errors: it cannot be reached, or does not answer in time.
    pub async fn ask_origin(
        &self,
        request: &web_sys::Request,
        gateway: &Gateway,
        pass: &Pass,
    ) -> Result<OriginAnswer, Problem> {
        if let Some(refused) = unsendable(request) {
            return Err(refused);
        }
        let unreachable = |_| Problem::bad_gateway();
        let stop = AbortController::new().map_err(unreachable)?;
        let Sent { answer, upload } = self.ask(request, gateway, pass, &stop).map_err(unreachable)?;
        // The origin's time begins when it has got the whole of a large body, which may take the visitor as long as it takes. An
        // origin that wants none of it may have answered by then.
        let too_long = pin!(async {
            if let Some(upload) = upload {
                drop(upload.await);
            }
            Delay::from(gateway.timeout).await;
        });
        // The signal ends the wait for the answer, not the answer itself.
        let answer = match select(JsFuture::from(answer), too_long).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        };
        self.refresh_clock();
        let Some(answer) = answer else {
            stop.abort();
            return Err(Problem::gateway_timeout());
        };
        let answer: web_sys::Response = answer.map_err(unreachable)?.unchecked_into();
        // A WebSocket that nobody has asked for.
        if answer.status() == 101 && !Self::is_upgrade(request) {
            return Err(Problem::bad_gateway());
        }
        Ok(OriginAnswer(answer))
    }

    /// Drops an answer that the visitor does not get. Whether the rest could be cancelled makes no difference.
    pub async fn discard(&self, OriginAnswer(answer): OriginAnswer) {
        if let Some(body) = answer.body() {
            drop(self.wait_for(body.cancel()).await);
        }
    }

    fn ask(
        &self,
        request: &web_sys::Request,
        gateway: &Gateway,
        pass: &Pass,
        stop: &AbortController,
    ) -> Result<Sent, JsValue> {
        // 1. The visitor's headers, without those that only the Worker may say.
        let headers = web_sys::Headers::new_with_headers(&request.headers())?;
        let connection = headers.get("connection")?.unwrap_or_default().to_ascii_lowercase();
        let is_upgrade = Self::is_upgrade(request);
        // What makes a WebSocket of it passes, although it concerns this connection.
        let nominated = |name: &str| {
            connection.split(',').any(|other| other.trim() == name) && !(is_upgrade && name == "upgrade")
        };
        for name in headers.keys() {
            let Some(name) = name?.as_string() else { continue };
            if is_ours(&name) || nominated(&name) {
                headers.delete(&name)?;
            }
        }
        if !is_upgrade {
            headers.delete("upgrade")?;
        }
        for (name, value) in &pass.headers {
            match value {
                Some(value) => headers.set(name, value)?,
                None => headers.delete(name)?,
            }
        }
        // 2. The same request otherwise.
        let init = RequestInit::new();
        init.set_method(&request.method());
        init.set_headers_headers(&headers);
        init.set_redirect(RequestRedirect::Manual);
        init.set_signal(Some(&stop.signal()));
        if pass.vary.is_some() {
            // Cloudflare's cache knows nothing of who asks.
            init.set_cache(RequestCache::NoStore);
        }
        let mut upload = None;
        if let Some(body) = request.body().filter(|_| !is_bodiless(&request.method())) {
            let length = headers.get("content-length")?.and_then(|length| length.parse().ok());
            match length {
                Some(length) if length <= SMALL_BODY => init.set_body(&body),
                _ => {
                    let (body, sent) = self.watch(&body, length)?;
                    init.set_body(&body);
                    upload = Some(JsFuture::from(sent));
                }
            }
        }
        // 3. To the origin.
        let answer = match &gateway.origin {
            Origin::Url(origin) => {
                let url = request.url();
                let target = crate::http::target_of(&url);
                self.global.fetch_with_str_and_init(&[origin, target].concat(), &init)
            }
            Origin::Binding => {
                let binding = self.origin.as_ref().ok_or(JsValue::UNDEFINED)?;
                let fetch: Function = Reflect::get(binding, &"fetch".into())?.dyn_into()?;
                fetch.call2(binding, &request.url().into(), &init)?.dyn_into()?
            }
        };
        Ok(Sent { answer, upload })
    }

    /// The same body, and when all of it is sent. The platform still moves it by itself; the length is kept, so that the origin
    /// is told it.
    fn watch(
        &self,
        body: &ReadableStream,
        length: Option<f64>,
    ) -> Result<(ReadableStream, Promise), JsValue> {
        let (name, arguments) = match length {
            Some(length) => ("FixedLengthStream", Array::of1(&length.into())),
            None => ("IdentityTransformStream", Array::new()),
        };
        let class: Function = Reflect::get(&self.global, &name.into())?.dyn_into()?;
        let stream: TransformStream = Reflect::construct(&class, &arguments)?.unchecked_into();
        Ok((stream.readable(), body.pipe_to(&stream.writable())))
    }
}

/// The longest body, in bytes, whose sending takes none of the time that an origin has.
const SMALL_BODY: f64 = 65_536.0;

/// A request that is on its way to the origin.
struct Sent {
    answer: Promise,
    /// When a large body is sent, or will not be.
    upload: Option<JsFuture>,
}

/// What the origin has answered; the visitor has got none of it yet.
#[derive(Debug)]
pub struct OriginAnswer(web_sys::Response);

impl OriginAnswer {
    /// What it says about the session. `foreign_cookie`: the name of the session's cookie, if the origin may set it.
    pub fn changes(&self, foreign_cookie: Option<&str>) -> Changes {
        let headers = self.0.headers();
        let header = |name: &str| headers.get(name).ok().flatten();
        let patch = header("x-session-patch");
        let own_cookie = foreign_cookie.filter(|_| patch.is_some()).and_then(|name| {
            let lines = set_cookies(&headers).unwrap_or_default();
            let value = |line: &String| {
                let (own, value) = line.split(';').next()?.split_once('=')?;
                (own.trim() == name).then(|| value.trim().to_owned())
            };
            lines.iter().rev().find_map(value)
        });
        Changes { patch, set_cookie: header("x-session-set-cookie"), own_cookie }
    }

    /// Whether the connection becomes a WebSocket.
    pub fn is_web_socket(&self) -> bool {
        self.0.status() == 101
    }

    /// The answer for the visitor, with these headers of ours. `vary`: [`Pass::vary`]. `is_own_cookie`:
    /// whether a cookie of this name is ours, so that no origin may set it.
    pub fn pass_on(
        self,
        vary: Option<&'static str>,
        added: &Added,
        is_own_cookie: &dyn Fn(&str) -> bool,
    ) -> Result<web_sys::Response, JsValue> {
        // 1. A copy, whose headers can be changed. It takes over the WebSocket, if there is one.
        let Self(answer) = self;
        let init: &ResponseInit = answer.unchecked_ref();
        let answer = web_sys::Response::new_with_opt_readable_stream_and_init(answer.body().as_ref(), init)?;
        let headers = answer.headers();
        // 2. Without what is ours to say, or was said to us.
        for name in headers.keys() {
            let Some(name) = name?.as_string() else { continue };
            if is_session_header(&name) || is_of_connection(&name) {
                headers.delete(&name)?;
            }
        }
        let cookies = set_cookies(&headers)?;
        // Browsers send a cookie without a name, `=a=b`, as `a=b`.
        let is_own = |line: &String| {
            let named = line.trim_start_matches([' ', '\t', '=']);
            is_own_cookie(named.split(['=', ';']).next().unwrap_or_default().trim_end())
        };
        if cookies.iter().any(is_own) {
            headers.delete("set-cookie")?;
            for line in cookies.iter().filter(|line| !is_own(line)) {
                headers.append("set-cookie", line)?;
            }
        }
        // 3. What caches must know.
        if let Some(vary) = vary {
            headers.append("vary", vary)?;
            if headers.get("cache-control")?.is_none() {
                headers.set("cache-control", "private")?;
            }
        }
        // 4. A ticket is one visitor's: no cache may give it to another, whatever the origin says.
        for (name, value) in added {
            headers.append(name, value)?;
        }
        if !added.is_empty() {
            let cache_control = headers.get("cache-control")?.unwrap_or_default().to_ascii_lowercase();
            if !cache_control.contains("private") && !cache_control.contains("no-store") {
                headers.set("cache-control", "private")?;
            }
            for name in CACHE_CONTROLS {
                headers.delete(name)?;
            }
        }
        Ok(answer)
    }
}

/// Headers that some caches obey in place of `Cache-Control` (RFC 9213).
const CACHE_CONTROLS: [&str; 3] = ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control"];

/// The lines of `Set-Cookie`.
fn set_cookies(headers: &web_sys::Headers) -> Result<Vec<String>, JsValue> {
    let lines: Function = Reflect::get(headers, &"getSetCookie".into())?.dyn_into()?;
    let lines: Array = lines.call0(headers)?.dyn_into()?;
    Ok(lines.iter().filter_map(|line| line.as_string()).collect())
}

/// Whether no `fetch` sends a body with this method.
fn is_bodiless(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

/// Whether a body is announced that has nothing in it.
fn is_empty(request: &web_sys::Request) -> bool {
    request.headers().get("content-length").ok().flatten().is_some_and(|length| length == "0")
}

/// Why a request is not passed on: what no `fetch` sends, and what would read the origin's headers out to the visitor.
fn unsendable(request: &web_sys::Request) -> Option<Problem> {
    let method = request.method();
    match method.as_str() {
        "TRACE" => {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned();
            Some(Problem::method_not_allowed(&method, allowed, None))
        }
        method if is_bodiless(method) && request.body().is_some() && !is_empty(request) => {
            let detail = format!("{method} with a body is not passed on: send none, or use another method");
            Some(Problem::bad_request(detail))
        }
        _ => None,
    }
}
