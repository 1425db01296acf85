//! From a handler's outcome to the answer: what the operator learns, rate-limit fields, cookies.

use super::{Context, CookieChange};
use crate::{
    app::App,
    host::Host,
    http::{Code, Problem, Response},
    log::{self, Line},
};

/// The header that holds the ticket of a client without a cookie jar; empty when it has none any more.
pub(crate) const TOKEN: &str = "Session-Token";

impl<H: Host> Context<'_, H> {
    /// Whatever was not counted yet is counted; the outcome is a refusal if the request is over a limit.
    pub(crate) async fn settle(&self, mut outcome: Result<Response, Problem>) -> Result<Response, Problem> {
        if let Err(failure) = self.store.count().await {
            outcome = Err(Problem::store_unavailable(failure));
        }
        if let Err(refusal) = self.store.check() {
            outcome = Err(refusal.into());
        }
        outcome
    }

    /// The answer, with the fields of its limits and with what becomes of the visitor's cookies. `needs_cookie`: the ticket that
    /// the visitor has is dead, so that the new one is told even with a failure.
    pub(crate) fn answer(&self, outcome: Result<Response, Problem>, needs_cookie: bool) -> Response {
        let App { host, isolate, .. } = self.app;
        let now = host.now();
        // 1. What the operator learns.
        self.report_uncounted();
        if let Err(problem) = &outcome {
            if let Some(line) = &problem.log {
                let code = problem.code;
                host.log(&Line {
                    status: Some(code.status().0),
                    code: Some(code),
                    ..self.with_route(Line::clone(line))
                });
            }
            if problem.code == Code::RateLimited {
                isolate.count("rate_limited", now);
            }
        }
        // 2. With a failure little is known, and nobody may be logged out.
        let has_failed = matches!(&outcome, Err(problem) if problem.code.is_failure());
        let has_ended = matches!(&outcome, Err(problem) if problem.session_ended);
        let response = outcome.unwrap_or_else(Response::from);
        // 3. The fields and the cookies.
        let response = self.store.limiter.write_fields(response);
        let response =
            if has_failed && !needs_cookie { response } else { self.set_cookies(response, has_ended) };
        response.header("Vary", if self.is_bearer { "Cookie, Authorization" } else { "Cookie" })
    }

    /// Tells the operator if the request has passed without being counted.
    pub(crate) fn report_uncounted(&self) {
        let App { host, isolate, .. } = self.app;
        if let Some(failure) = self.store.uncounted() {
            let message = format!("a request passed without being counted (store.on_failure): {failure}");
            host.log(&self.with_route(Line::new(log::Event::RequestUncounted, message)));
            isolate.count("passed_uncounted", host.now());
        }
    }

    /// The line with the request's method and the pattern of its route; the path is the visitor's.
    fn with_route(&self, line: Line) -> Line {
        Line { method: Some(self.request.method.name()), route: self.route.get(), ..line }
    }

    /// Sets or removes the ticket's cookie and, after a write, the one for read-your-writes. Never with forward-auth: the
    /// visitor does not see that answer, and none to a provider.
    fn set_cookies(&self, mut response: Response, has_ended: bool) -> Response {
        let App { config, host, .. } = self.app;
        if self.is_forward_auth() || self.is_back_channel() {
            return response;
        }
        if self.has_logged_out.get() {
            let removed = config.session.formats.accepted().iter().map(|accepted| &accepted.cookie);
            let removed = removed.filter(|cookie| cookie.values(self.request.cookie()).next().is_some());
            response =
                removed.fold(response, |response, cookie| response.header("Set-Cookie", cookie.remove()));
        }
        let (sync_cookie, _) = &config.sync;
        let change = if has_ended { CookieChange::Remove } else { self.take_cookie_change() };
        let is_removed = matches!(change, CookieChange::Remove);
        if is_removed && !self.may_remove_cookie() {
            return response;
        }
        if self.is_bearer {
            // No other cookie of ours concerns a client without a cookie jar.
            return match change {
                CookieChange::Unchanged => response,
                CookieChange::Set(ticket) => response.header(TOKEN, ticket.seal(&config.keyring)),
                CookieChange::Remove => response.header(TOKEN, ""),
            };
        }
        match change {
            CookieChange::Unchanged => {}
            CookieChange::Set(ticket) => {
                response = response.header("Set-Cookie", config.set_ticket(&ticket, host.now()));
            }
            CookieChange::Remove => response = response.header("Set-Cookie", config.cookie.remove()),
        }
        if is_removed {
            let is_present = sync_cookie.values(self.request.cookie()).next().is_some();
            return if is_present { response.header("Set-Cookie", sync_cookie.remove()) } else { response };
        }
        match self.take_sync_cookie() {
            Some(line) => response.header("Set-Cookie", line),
            None => response,
        }
    }
}
