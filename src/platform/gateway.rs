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
        self.returned(answer.unchecked_into(), pass, is_own_cookie)
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
        if let Some(body) = request.body() {
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
        let is_own = |line: &String| is_own_cookie(line.split('=').next().unwrap_or_default().trim());
        if cookies.iter().any(is_own) {
            headers.delete("set-cookie")?;
            for line in cookies.iter().filter(|line| !is_own(line)) {
                headers.append("set-cookie", line)?;
            }
        }
        for line in &pass.set_cookies {
            headers.append("set-cookie", line)?;
        }
        if pass.is_personal {
            headers.append("vary", "Cookie")?;
            if headers.get("cache-control")?.is_none() {
                headers.set("cache-control", "private")?;
            }
        }
        Ok(answer)
    }
}
