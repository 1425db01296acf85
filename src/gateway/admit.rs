//! Whether a request may pass.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    Entry, Gateway, Kind, Pass, Require, Rule, Visitor,
    changes::{Known, Read},
    path,
};
use crate::{
    app::App,
    config::Config,
    context::{Context, no_user},
    host::Host,
    http::{Code, Method, Problem, Request, Response, cors, cross_site},
    id::Handle,
    limit::By,
    log::{self, Line},
    provider::{Provider, check_return_to},
};

/// Why nothing is changed about the session.
const IS_PUBLIC: &str = "the path is public";

/// What becomes of a request.
pub enum Admission<'a, H> {
    /// It is passed on. What the origin answers may change the visitor's session.
    Pass(Pass, Visitor<'a, H>),
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
    pub async fn admit<'a>(
        &'a self,
        gateway: &Gateway,
        request: Request<'a>,
        is_upgrade: bool,
    ) -> Admission<'a, H> {
        let limits = &self.config.limits;
        let pass = Pass::new(&request, &self.config);
        // 1. One reading of the path, for the rules here and for the origin.
        let another = || {
            let is_same = path::is_plain(request.path())
                || (gateway.is_same_entry(request.path()) && limits.is_same_route(&request, path::plain));
            (!is_same).then_some("a form in which it may be read as one with another rule or limit")
        };
        if let Some(what) = path::ambiguity(request.path()).or_else(another) {
            let detail = format!("the path has {what}: send it in the form in which it is meant");
            let problem = Problem::bad_request(detail);
            self.log_refusal(request.method, None, &problem, Refused::default());
            return Admission::Answer(Response::from(problem).uncacheable());
        }
        // 2. What holds for it.
        let entry = gateway.entry(request.path());
        let counts_by = limits.route_by(&request);
        let is_public = entry.is_some_and(|entry| matches!(entry.kind, Kind::Public));
        if is_public && counts_by.is_none() {
            return Admission::Pass(pass, Visitor::Other(IS_PUBLIC));
        }
        // Browsers send preflights without a cookie, and how they are answered is the origin's business.
        let is_preflight = cors::is_preflight(&request);
        let rule = entry.and_then(Entry::rule).filter(|_| !is_preflight);
        let demands = rule.is_some_and(|rule| rule.require != Require::Nothing);
        let is_personal = !is_public && !is_preflight && (demands || gateway.has_identity());
        let has_tickets = is_personal || counts_by.is_some_and(|by| by != By::Ip);
        // 3. Another site's page asks for nobody, and uses up nobody's limit.
        let is_foreign = cross_site::is_foreign(&request, &self.config.cors, is_upgrade);
        let cx = match is_foreign || has_tickets {
            true => Context::new(self, request, is_foreign),
            false => Context::without_tickets(self, request),
        };
        // 4. Limits, session, rule.
        let read = match count(&cx, is_public).await {
            Ok(()) if is_personal || limits.needs_user(&cx.request, cx.counted_ticket()) => {
                read(&cx, demands, is_upgrade).await
            }
            counted => counted.map(|()| Read::Not),
        };
        let (read, outcome) = match read {
            Ok(read) => {
                let outcome = check(&cx, rule, &read);
                (read, outcome)
            }
            Err(problem) => (Read::Not, Err(problem)),
        };
        let outcome = cx.settle(outcome.map(|()| Response::new(200))).await;
        // 5. Who asks, for the origin.
        let identity = match read.session().filter(|_| !is_public) {
            Some(session) if outcome.is_ok() => self.identity(gateway, &cx.request, session).await,
            _ => Ok(Vec::new()),
        };
        match outcome.and(identity) {
            Ok(identity) => {
                let visitor = if is_public || is_foreign {
                    cx.report_uncounted();
                    Visitor::Other(if is_public { IS_PUBLIC } else { "a page of another site has asked" })
                } else {
                    Visitor::Known(Box::new(Known::new(cx, has_tickets, read)))
                };
                let vary = if self.config.has_bearer { "Cookie, Authorization" } else { "Cookie" };
                let vary = is_personal.then_some(vary);
                Admission::Pass(Pass { vary, ..pass.with_identity(identity) }, visitor)
            }
            Err(problem) => {
                let page = rule.and_then(|rule| login_page(rule, &problem, &cx.request, &self.config));
                let (redirect, problem) = match page {
                    Some(Ok(location)) => (Some(location), problem),
                    Some(Err(why)) => (None, problem.with_detail(why)),
                    None => (None, problem),
                };
                let refused = Refused { limit: limit(&cx, &problem), handle: read.handle() };
                self.log_refusal(cx.request.method, entry, &problem, refused);
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

    /// One line for each refusal: the path's rule, the limit, the session's public name; never an id or what was sent.
    fn log_refusal(&self, method: Method, entry: Option<&Entry>, problem: &Problem, refused: Refused) {
        self.isolate.count("gateway_refused", self.host.now());
        let (status, _) = problem.code.status();
        let require = entry.and_then(Entry::rule).map(|rule| match &rule.require {
            Require::Nothing => "none".to_owned(),
            Require::User => "user".to_owned(),
            Require::Fresh => "fresh".to_owned(),
            Require::Role(role) => format!("role:{role}"),
        });
        self.host.log(&Line {
            status: Some(status),
            code: Some(problem.code),
            rule: entry.map(|entry| entry.pattern.name().to_owned()),
            require,
            limit: refused.limit,
            handle: refused.handle.map(|handle| handle.to_string()),
            method: Some(if method == Method::Other { "other" } else { method.name() }),
            ..Line::new(log::Event::GatewayRefused, "a request was answered here and not passed on")
        });
    }
}

/// What is known of a refused request.
#[derive(Default)]
struct Refused {
    limit: Option<String>,
    handle: Option<Handle>,
}

/// Adds the limits of a request that is passed on: on a public path that of the path alone.
async fn count<H: Host>(cx: &Context<'_, H>, is_public: bool) -> Result<(), Problem> {
    if is_public || cx.is_foreign_read {
        cx.apply_route_limit()?;
    }
    if is_public { Ok(()) } else { cx.apply_limits().await }
}

/// Reads the session. Errors: over a limit, or the store fails where it is needed: for a rule, or for a limit that fails closed.
async fn read<H: Host>(cx: &Context<'_, H>, demands: bool, is_upgrade: bool) -> Result<Read, Problem> {
    let is_limited = cx.store.counts_next() && !cx.app.config.limits.fails_open;
    let loaded = if is_upgrade { cx.load().await.map_err(Problem::from) } else { cx.session().await };
    match loaded {
        Err(problem)
            if problem.code == Code::StoreUnavailable
                && !demands
                && !is_limited
                && cx.store.check().is_ok() =>
        {
            Ok(Read::Not)
        }
        outcome => outcome.map(Read::As),
    }
}

/// Whether a rule lets the visitor pass.
fn check<H: Host>(cx: &Context<'_, H>, rule: Option<&Rule>, read: &Read) -> Result<(), Problem> {
    let require = rule.map_or(&Require::Nothing, |rule| &rule.require);
    if *require == Require::Nothing {
        return Ok(());
    }
    let session = read.session().ok_or_else(Problem::no_session)?;
    let user = session.record.user.as_ref().ok_or_else(no_user)?;
    match require {
        Require::Role(role) if !user.has_role(role) => Err(Problem::forbidden()),
        Require::Fresh => Ok(cx.sessions().check_fresh(session)?),
        _ => Ok(()),
    }
}

/// The limit that has refused a request: its name, or that of Cloudflare's own.
fn limit<H: Host>(cx: &Context<'_, H>, problem: &Problem) -> Option<String> {
    let is_limit = problem.code == Code::RateLimited;
    is_limit.then(|| {
        cx.store.check().err().map_or("RATE_LIMITER".to_owned(), |refusal| refusal.name().to_owned())
    })
}

/// Where a navigation is sent that has to log in: with the way back, which is a path of this site by its making. `Err`: why it is
/// not sent there once more.
fn login_page(
    rule: &Rule,
    problem: &Problem,
    request: &Request<'_>,
    config: &Config,
) -> Option<Result<String, &'static str>> {
    const FAILED: &str = "this login has failed, and login_error in the address says why: open the page without it to try again";
    let must_log_in = matches!(problem.code, Code::Unauthenticated | Code::Reauthenticate);
    let redirect = rule.redirect.as_ref().filter(|_| must_log_in && is_navigation(request))?;
    let (path, query) = (request.path(), request.query());
    let mut target = if query.is_empty() { path.to_owned() } else { [path, "?", query].concat() };
    let mut more = "";
    // Straight to a provider, with no page between.
    if let Some(id) = rule.provider(&config.base_path) {
        // 1. A login that fails leads back here: sent there again at once, the visitor would go round in circles.
        if query.split('&').any(|pair| pair.starts_with("login_error=")) {
            return Some(Err(FAILED));
        }
        // 2. What it does not take as a way back, in a cookie.
        if check_return_to(&target).is_err() {
            target = if check_return_to(path).is_ok() { path } else { "/" }.to_owned();
        }
        // 3. The session at the provider may be as old as the one here: it has to ask again.
        let provider = config.accounts.providers.iter().find(|provider| provider.id == id);
        let is_stale = problem.code == Code::Reauthenticate && !redirect.contains("fresh=1");
        if is_stale && provider.is_some_and(Provider::can_renew) {
            more = "fresh=1&";
        }
    }
    let separator = if redirect.contains('?') { '&' } else { '?' };
    let target = utf8_percent_encode(&target, NON_ALPHANUMERIC);
    Some(Ok(format!("{redirect}{separator}{more}return_to={target}")))
}

/// Whether a browser shows the answer as a page.
fn is_navigation(request: &Request<'_>) -> bool {
    let mode = request.header("sec-fetch-mode");
    matches!(request.method, Method::Get | Method::Head)
        && (mode == "navigate" || (mode.is_empty() && request.header("accept").contains("text/html")))
}
