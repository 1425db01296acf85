//! Whether a request may pass.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Gateway, Kind, Pass, Require, Rule, path};
use crate::{
    app::App,
    context::Context,
    host::Host,
    http::{Code, Method, Problem, Request, Response, cross_site},
    session::Session,
};

/// What becomes of a request.
#[derive(Debug)]
pub enum Admission {
    /// It is passed on.
    Pass(Pass),
    /// It is answered here.
    Answer(Response),
}

impl<H: Host> App<H> {
    /// The gateway, if a request to this path is its business.
    pub fn gateway_for(&self, path: &str) -> Option<&Gateway> {
        let rest = path.strip_prefix(&*self.config.base_path);
        let is_own = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.config.gateway.as_ref().filter(|_| !is_own)
    }

    /// Whether a request may pass the gateway. `is_upgrade`: it becomes a WebSocket, whose answer sets no cookie.
    pub async fn admit(&self, gateway: &Gateway, request: Request<'_>, is_upgrade: bool) -> Admission {
        let pass = Pass::new(&request, &self.config);
        // 1. One reading of the path, for the rules here and for the origin.
        let another = || {
            let is_same = path::is_plain(request.path())
                || (gateway.is_same_entry(request.path())
                    && self.config.limits.is_same_route(&request, path::plain));
            (!is_same).then_some("a form in which it may be read as one with another rule or limit")
        };
        if let Some(what) = path::ambiguity(request.path()).or_else(another) {
            let detail = format!("the path has {what}: send it in the form in which it is meant");
            return Admission::Answer(Response::from(Problem::bad_request(detail)).uncacheable());
        }
        // 2. What holds for it.
        let rule = match gateway.entry(request.path()).map(|entry| &entry.kind) {
            Some(Kind::Public) => return Admission::Pass(pass),
            Some(Kind::Rule(rule)) => Some(rule),
            None => None,
        };
        let demands = rule.is_some_and(|rule| rule.require != Require::Nothing);
        let needs_session = demands || gateway.has_identity() || self.config.limits.has_route(&request);
        // 3. Another site's page asks for nobody, and counts for nobody.
        let is_foreign = cross_site::is_foreign(&request, &self.config.cors, is_upgrade);
        let mut cx = Context::new(self, request, is_foreign || !needs_session);
        // 4. Limits, session, rule.
        let (session, outcome) = match self.look(&mut cx, gateway, rule, is_upgrade).await {
            Ok(session) => (session, Ok(Response::new(200))),
            Err(problem) => (None, Err(problem)),
        };
        let outcome = cx.settle(outcome).await;
        // 5. Who asks, for the origin.
        let identity = match &session {
            Some(session) if outcome.is_ok() => self.identity(gateway, &cx.request, session).await,
            _ => Ok(Vec::new()),
        };
        match outcome.and_then(|response| Ok((response, identity?))) {
            Ok((response, identity)) => {
                let pass = pass.with_identity(identity);
                let is_personal = demands || gateway.has_identity();
                let is_told = |name: &str| {
                    matches!(name, "Set-Cookie" | "Session-Token") || (is_personal && name == "Vary")
                };
                let answer = cx.answer(Ok(response), false);
                let fields = answer.headers.into_iter().filter(|(name, _)| is_told(name));
                let fields = fields.map(|(name, value)| (name, value.into_owned())).collect();
                Admission::Pass(Pass { fields, is_personal, ..pass })
            }
            Err(problem) => {
                let redirect = rule.and_then(|rule| login_page(rule, &problem, &cx.request));
                self.log_refusal(&cx.request, rule, &problem);
                let answer = cx.answer(Err(problem), false);
                let answer = match redirect {
                    Some(location) => Response { status: 303, body: String::new(), ..answer }
                        .without("Content-Type")
                        .header("Location", location),
                    None => answer,
                };
                Admission::Answer(answer.uncacheable())
            }
        }
    }

    /// The session, for whoever needs it. Errors: over a limit, not allowed, or the store fails where it is needed.
    async fn look(
        &self,
        cx: &mut Context<'_, H>,
        gateway: &Gateway,
        rule: Option<&Rule>,
        is_upgrade: bool,
    ) -> Result<Option<Session>, Problem> {
        cx.apply_limits().await?;
        let require = rule.map_or(&Require::Nothing, |rule| &rule.require);
        if *require == Require::Nothing && !gateway.has_identity() {
            return Ok(None);
        }
        let is_limited = cx.store.counts_next() && !self.config.limits.fails_open;
        let loaded = if is_upgrade { cx.load().await.map_err(Problem::from) } else { cx.session().await };
        let session = match loaded {
            // A dead store concerns only whoever needs it.
            Err(problem)
                if problem.code == Code::StoreUnavailable
                    && *require == Require::Nothing
                    && !is_limited
                    && cx.store.check().is_ok() =>
            {
                return Ok(None);
            }
            outcome => outcome?,
        };
        if *require == Require::Nothing {
            return Ok(session);
        }
        let session = session.ok_or_else(Problem::no_session)?;
        let user = session.record.user.as_ref().ok_or_else(crate::context::no_user)?;
        match require {
            Require::Role(role) if !user.has_role(role) => return Err(Problem::forbidden()),
            Require::Fresh => cx.sessions().check_fresh(&session)?,
            _ => {}
        }
        Ok(Some(session))
    }

    /// One line for each refusal: the path's rule or limit, never what was sent.
    fn log_refusal(&self, request: &Request<'_>, rule: Option<&Rule>, problem: &Problem) {
        self.isolate.count("gateway_refused", self.host.now());
        let (status, _) = problem.code.status();
        let require = rule.map(|rule| match &rule.require {
            Require::Nothing => "none".to_owned(),
            Require::User => "user".to_owned(),
            Require::Fresh => "fresh".to_owned(),
            Require::Role(role) => format!("role:{role}"),
        });
        let line = serde_json::json!({
            "event": "gateway_refused",
            "status": status,
            "code": problem.code,
            "require": require,
            "method": request.method.name(),
        });
        self.host.log(&line);
    }
}

/// Where a navigation is sent that has to log in: with the way back, which is a path of this site by its making.
fn login_page(rule: &Rule, problem: &Problem, request: &Request<'_>) -> Option<String> {
    let must_log_in = matches!(problem.code, Code::Unauthenticated | Code::Reauthenticate);
    let redirect = rule.redirect.as_ref().filter(|_| must_log_in && is_navigation(request))?;
    let target = match request.query() {
        "" => request.path().to_owned(),
        query => [request.path(), "?", query].concat(),
    };
    let separator = if redirect.contains('?') { '&' } else { '?' };
    let target = utf8_percent_encode(&target, NON_ALPHANUMERIC);
    Some(format!("{redirect}{separator}return_to={target}"))
}

/// Whether a browser shows the answer as a page.
fn is_navigation(request: &Request<'_>) -> bool {
    let mode = request.header("sec-fetch-mode");
    matches!(request.method, Method::Get | Method::Head)
        && (mode == "navigate" || (mode.is_empty() && request.header("accept").contains("text/html")))
}
