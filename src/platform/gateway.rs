//! Passing a request on to an origin, and its answer back. Bodies are streams of the platform's, which never come into wasm.

use futures_util::future::{Either, select};
use js_sys::{Array, Function, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, RequestCache, RequestInit, RequestRedirect, ResponseInit};
use worker::Delay;

use super::{Platform, write_response};
use crate::{
    gateway::{Gateway, Origin, Pass, is_ours},
    http::{Problem, Response},
};

impl Platform {
    /// Whether a request becomes a WebSocket.
    pub fn is_upgrade(request: &web_sys::Request) -> bool {
        let upgrade = request.headers().get("upgrade").ok().flatten();
        upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
    }

    /// Asks the origin. `is_own_cookie`: whether a cookie of this name is ours, so that no origin may set it.
    pub async fn pass(
        &self,
        request: &web_sys::Request,
        gateway: &Gateway,
        pass: Pass,
        is_own_cookie: &dyn Fn(&str) -> bool,
    ) -> Result<web_sys::Response, JsValue> {
        let problem = |problem: Problem| write_response(&Response::from(problem).uncacheable());
        if let Some(refused) = unsendable(request) {
            return problem(refused);
        }
        let stop = AbortController::new()?;
        let Ok(sent) = self.ask(request, gateway, &pass, &stop) else {
            return problem(Problem::bad_gateway());
        };
        // The signal ends the wait for the answer, not the answer itself.
        let answer = match select(JsFuture::from(sent), Delay::from(gateway.timeout)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => {
                stop.abort();
                self.refresh_clock();
                return problem(Problem::gateway_timeout());
            }
        };
        self.refresh_clock();
        let Ok(answer) = answer else { return problem(Problem::bad_gateway()) };
        let answer: web_sys::Response = answer.unchecked_into();
        if answer.status() == 101 && !Self::is_upgrade(request) {
            return problem(Problem::bad_gateway());
        }
        self.returned(answer, pass, is_own_cookie)
    }

    fn ask(
        &self,
        request: &web_sys::Request,
        gateway: &Gateway,
        pass: &Pass,
        stop: &AbortController,
    ) -> Result<Promise, JsValue> {
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
        if pass.is_personal {
            // Cloudflare's cache knows nothing of who asks.
            init.set_cache(RequestCache::NoStore);
        }
        if let Some(body) = request.body().filter(|_| !is_bodiless(&request.method())) {
            init.set_body(&body);
        }
        // 3. To the origin.
        match &gateway.origin {
            Origin::Url(origin) => {
                let url = request.url();
                let target = crate::http::target_of(&url);
                Ok(self.global.fetch_with_str_and_init(&[origin, target].concat(), &init))
            }
            Origin::Binding => {
                let binding = self.origin.as_ref().ok_or(JsValue::UNDEFINED)?;
                let fetch: Function = Reflect::get(binding, &"fetch".into())?.dyn_into()?;
                fetch.call2(binding, &request.url().into(), &init)?.dyn_into()
            }
        }
    }

    /// The origin's answer, with what it has to do with the session.
    fn returned(
        &self,
        answer: web_sys::Response,
        pass: Pass,
        is_own_cookie: &dyn Fn(&str) -> bool,
    ) -> Result<web_sys::Response, JsValue> {
        // A WebSocket is handed over as it is.
        if answer.status() == 101 {
            return Ok(answer);
        }
        let answer = web_sys::Response::new_with_opt_readable_stream_and_init(
            answer.body().as_ref(),
            answer.unchecked_ref::<ResponseInit>(),
        )?;
        let headers = answer.headers();
        let cookies: Function = Reflect::get(&headers, &"getSetCookie".into())?.dyn_into()?;
        let cookies: Array = cookies.call0(&headers)?.dyn_into()?;
        let cookies: Vec<String> = cookies.iter().filter_map(|line| line.as_string()).collect();
        // A browser stores `=sid=x` as a cookie without a name, and sends it as `sid=x`.
        let is_own = |line: &String| {
            let pair = line.trim_start_matches(|char: char| char == '=' || char.is_whitespace());
            is_own_cookie(pair.split('=').next().unwrap_or_default().trim())
        };
        if cookies.iter().any(is_own) {
            headers.delete("set-cookie")?;
            for line in cookies.iter().filter(|line| !is_own(line)) {
                headers.append("set-cookie", line)?;
            }
        }
        for (name, value) in &pass.fields {
            headers.append(name, value)?;
        }
        // A ticket is one visitor's, whatever the origin says of its page.
        let has_ticket = pass.fields.iter().any(|(name, _)| *name != "Vary");
        let cache_control = headers.get("cache-control")?.map(|value| value.to_ascii_lowercase());
        let is_shared = |value: &String| !value.contains("private") && !value.contains("no-store");
        if cache_control
            .as_ref()
            .map_or(pass.is_personal || has_ticket, |value| has_ticket && is_shared(value))
        {
            headers.set("cache-control", "private")?;
        }
        Ok(answer)
    }
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
