//! The path of a request, from top to bottom. Pure: what it needs of the machine it asks of the [`Host`].

use crate::{
    account::name::Name,
    config::Config,
    context::{Context, CookieChange},
    host::Host,
    http::{Code, Problem, Request, Response, cors, cross_site},
    isolate::Isolate,
    limit::{self, Subject},
    routes, stats,
    ticket::sync,
};

/// A deployment in one isolate: its configuration, the machine, and what the isolate remembers.
pub struct App<H> {
    /// The configuration.
    pub config: Config,
    /// The machine.
    pub host: H,
    /// What this isolate remembers between requests.
    pub isolate: Isolate,
    /// The names that nobody can register, folded.
    reserved_names: Vec<String>,
}

impl<H: Host> App<H> {
    /// A new isolate.
    pub fn new(config: Config, host: H) -> Self {
        let reserved = config.reserved_names.iter().filter_map(|name| Name::parse(name, &host).ok());
        let reserved_names = reserved.map(|name| name.folded).collect();
        Self { config, host, isolate: Isolate::default(), reserved_names }
    }

    /// Why a new account cannot have this name. The text is for its owner.
    pub fn name_fault(&self, name: &Name) -> Option<&'static str> {
        let reserved = || {
            self.reserved_names.contains(&name.folded).then_some("this username is reserved; choose another")
        };
        name.fault(&self.host).or_else(reserved)
    }

    /// Answers a request.
    pub async fn respond(&self, request: &Request<'_>) -> Response {
        // The ticket is verified here, without the store.
        let mut cx = Context::new(self, request);
        let outcome = handle(&mut cx).await;
        finish(&cx, outcome).await
    }

    /// Whether there is work to do after the response.
    pub fn has_background_work(&self) -> bool {
        self.isolate.has_background_work(self.host.now())
    }

    /// Does the work that may wait until after the response.
    pub async fn run_background(&self) {
        let timeout = self.config.store_timeout;
        limit::apply_corrections(&self.host, &self.isolate.limits, timeout).await;
        stats::write(&self.host, &self.isolate, timeout, &self.config.session.key_prefix).await;
    }
}

/// The answer to every request if the configuration is wrong.
pub fn misconfigured() -> Response {
    Response::from(Problem::misconfigured()).uncacheable()
}

/// From the request to the handler of its route.
async fn handle<H: Host>(cx: &mut Context<'_, H>) -> Result<Response, Problem> {
    let (request, config) = (cx.request, &cx.app.config);
    // 1. The route. A preflight is answered by it alone.
    let route = routes::find(request.path, &config.base_path);
    if cors::is_preflight(request) {
        return Ok(cors::preflight(request, route?.allowed(), &config.origins));
    }
    // 2. Not from a page of another site: that counts for nobody's limit. (Nothing is added to the limiter yet.)
    cross_site::check(request, &config.origins)?;
    cx.remove_invalid_cookie();
    // 3. The limits, as far as they are known without the store. The first call to the store counts.
    if let Some(presented) = &cx.presented {
        stats::count_ticket(&cx.app.isolate, presented, cx.app.host.now());
    }
    if cx.app.host.has_platform_limit() {
        let subject = Subject::address(&request.client_address()).to_string();
        if cx.app.host.is_over_platform_limit(&subject).await {
            return Err(limit::over_platform_limit());
        }
    }
    let ticket = cx.presented.as_ref().map(|presented| &presented.ticket);
    config.limits.apply(&cx.store.limiter, request, ticket);
    cx.store.limiter.check_blocked(cx.app.host.now())?;
    // 4. What holds for every route: no body is too large, and the service API needs the admin token.
    let route = route?;
    request.body()?;
    if route.is_admin() {
        cx.require_admin()?;
    }
    // 5. The handler. It asks the context for what it needs: the session, a user, a recent login.
    let (handler, param) = route.handler(request.method)?;
    cx.param = param;
    handler(cx).await
}

/// From the handler's outcome to the response.
async fn finish<H: Host>(cx: &Context<'_, H>, mut outcome: Result<Response, Problem>) -> Response {
    let Context { app, request, store, .. } = cx;
    let now = app.host.now();
    // 1. Whatever was not counted yet is counted.
    if let Err(failure) = store.count().await {
        outcome = Err(Problem::store_unavailable(failure));
    }
    if let Err(refusal) = store.check() {
        outcome = Err(refusal.into());
    }
    if let Some(failure) = store.uncounted() {
        app.host.log(&format_args!("a request passed without being counted (store.on_failure): {failure}"));
        app.isolate.count("passed_uncounted", now);
    }
    // 2. What the operator learns of an error.
    if let Err(problem) = &outcome {
        if let Some(line) = &problem.log {
            app.host.log(line);
        }
        if problem.code == Code::RateLimited {
            app.isolate.count("rate_limited", now);
        }
    }
    // 3. The cookies, the rate-limit fields, CORS.
    let ended = matches!(&outcome, Err(problem) if problem.session_ended);
    let response = outcome.unwrap_or_else(Response::from);
    let response = store.limiter.write_fields(response);
    let response = set_cookies(cx, response, ended).header("Vary", "Cookie");
    cors::expose(response, request, &app.config.origins).uncacheable()
}

/// Sets or removes the ticket's cookie and, after a write, the one for read-your-writes. Never with a failure: then nothing
/// is known, and nobody may be logged out. Never with forward-auth: the visitor does not see that answer.
fn set_cookies<H: Host>(cx: &Context<'_, H>, mut response: Response, ended: bool) -> Response {
    let Context { app: App { config, host, .. }, request, store, .. } = cx;
    if response.status >= 500 || cx.is_forward_auth() {
        return response;
    }
    let (sync_cookie, sync_keyring) = &config.sync;
    let change = if ended && cx.presented.is_some() { CookieChange::Remove } else { cx.take_cookie_change() };
    let is_removed = matches!(change, CookieChange::Remove);
    match change {
        CookieChange::Unchanged => {}
        CookieChange::Set(ticket) => {
            response = response.header("Set-Cookie", config.set_ticket(&ticket, host.now()));
        }
        CookieChange::Remove => response = response.header("Set-Cookie", config.cookie.remove()),
    }
    if is_removed {
        let is_present = sync_cookie.values(request.cookie()).next().is_some();
        return if is_present { response.header("Set-Cookie", sync_cookie.remove()) } else { response };
    }
    match store.sync_token_after_write().and_then(|token| sync::sign(&token, sync_keyring, host.now())) {
        Some(token) => response.header("Set-Cookie", sync_cookie.set(&token, Some(sync::LIFETIME))),
        None => response,
    }
}
