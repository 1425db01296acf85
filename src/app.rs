//! The path of a request, from top to bottom. Pure: what it needs of the machine it asks of the [`Host`].

use crate::{
    account::{name::Name, new_password, password::Password},
    config::Config,
    context::Context,
    events::Message,
    host::Host,
    http::{Method, Problem, Request, Response, cors, cross_site, path_of},
    isolate::Isolate,
    limit::{self, CountingStore},
    log::{self, Line},
    routes::{self, Found},
    session::Sessions,
    stats,
    time::Time,
};

/// How many times `store.timeout` a change is re-applied while others change the same session.
const DEADLINE_IN_TIMEOUTS: u32 = 5;

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
    /// The words that no new password may hold, folded.
    forbidden_words: Vec<String>,
}

impl<H: Host> App<H> {
    /// A new isolate. Writes to the log what the operator may not have meant: [`Config::notices`].
    pub fn new(config: Config, host: H) -> Self {
        for notice in &config.notices {
            host.log(&Line::new(log::Event::SettingNoticed, notice));
        }
        let reserved = config.accounts.reserved_names.iter().filter_map(|name| Name::parse(name, &host).ok());
        let reserved_names = reserved.map(|name| name.folded).collect();
        let forbidden = config.accounts.forbidden_words.iter();
        let forbidden_words = forbidden.map(|word| new_password::fold(word.trim(), &host)).collect();
        let isolate = Isolate::new(config.events.is_some());
        Self { config, host, isolate, reserved_names, forbidden_words }
    }

    /// Why a new account cannot have this name. The text is for its owner.
    pub fn name_fault(&self, name: &Name) -> Option<&'static str> {
        let reserved = || {
            self.reserved_names.contains(&name.folded).then_some("this username is reserved; choose another")
        };
        name.fault(&self.host).or_else(reserved)
    }

    /// Why the account of this name cannot have this password. The text is for its owner.
    pub fn password_fault(&self, password: &Password, name: &Name) -> Option<&'static str> {
        new_password::fault(&password.0, &name.folded, &self.forbidden_words, &self.host)
    }

    /// Answers a request.
    pub async fn respond(&self, request: Request<'_>) -> Response {
        // 1. The tickets are verified here, without the store.
        let is_foreign_read = !routes::is_verify(request.path(), &self.config.base_path)
            && cross_site::is_foreign_read(&request, &self.config.cors);
        let mut cx = if routes::is_back_channel(request.path(), &self.config.base_path) {
            // A server asks, for no visitor.
            request.ignore_cookie();
            Context::without_tickets(self, request)
        } else {
            Context::new(self, request, is_foreign_read)
        };
        // 2. The handler of its route, and its counters if no call has counted them.
        let outcome = handle(&mut cx).await;
        let outcome = match cx.settle(outcome).await {
            Ok(response) if response.is_cacheable() => return self.config.cors.expose(response, &cx.request),
            outcome => outcome,
        };
        // 3. The cookies, the rate-limit fields, CORS.
        let response = cx.answer(outcome, false);
        let response =
            if cx.is_forward_auth() { response } else { self.config.cors.expose(response, &cx.request) };
        response.uncacheable()
    }

    /// Whether the body of a request to this URL matters. What a proxy passes on of its visitor's does not, however large.
    pub fn needs_body(&self, url: &str) -> bool {
        !routes::is_verify(path_of(url), &self.config.base_path)
    }

    /// Whether there is work to do after the response.
    pub fn has_background_work(&self) -> bool {
        self.isolate.has_background_work(self.host.now())
    }

    /// Does the work that may wait until after the response.
    pub async fn run_background(&self) {
        let Self { config, host, isolate, .. } = self;
        let timeout = config.store_timeout;
        let store = CountingStore::without_limits(host, isolate, timeout);
        self.sessions(&store, host.now()).run_background().await;
        limit::apply_corrections(host, &isolate.limits, timeout).await;
        stats::write(host, isolate, timeout, &config.session.key_prefix).await;
    }

    /// Takes the events that the operator's back end is to be told of after the response, each by a [`Self::deliver`] of its
    /// own beside [`Self::run_background`]: a receiver that hangs delays nothing else.
    pub fn take_events(&self) -> Vec<Message> {
        self.isolate.events.take(self.host.now())
    }

    /// Delivers an event.
    pub async fn deliver(&self, event: Message) {
        if let Some(receiver) = &self.config.events {
            receiver.deliver(&self.host, &self.isolate, event).await;
        }
    }

    /// The sessions, as an operation that begins at this time reads and changes them through this store.
    pub(crate) fn sessions<'a>(&'a self, store: &'a CountingStore<'a, H>, began: Time) -> Sessions<'a, H> {
        let Self { config, host, isolate, .. } = self;
        let deadline = began + config.store_timeout * DEADLINE_IN_TIMEOUTS;
        Sessions { host, store, isolate, rules: &config.session, began, deadline }
    }
}

/// The answer to every request if the configuration is wrong.
pub fn misconfigured() -> Response {
    Response::from(Problem::misconfigured()).uncacheable()
}

/// From the request to the handler of its route.
async fn handle<H: Host>(cx: &mut Context<'_, H>) -> Result<Response, Problem> {
    let (request, config) = (&cx.request, &cx.app.config);
    // 1. The route. OPTIONS is answered by it alone, unless a proxy asks about its visitor's. Neither that nor what is the same
    // for everybody is counted.
    let route = routes::find(request.path(), &config.base_path, config.switches());
    cx.route.set(route.as_ref().ok().map(Found::pattern));
    let is_forward_auth = cx.is_forward_auth();
    if request.method == Method::Options && !is_forward_auth {
        return Ok(options(cx, &route?));
    }
    if let Ok(route) = &route
        && route.is_public(request.method)
    {
        let (handler, param) = route.handler(request.method)?;
        cx.param = param.to_owned();
        return handler(cx).await;
    }
    // 2. Not from a page of another site: that counts for nobody's limit. (Nothing is added to the limiter yet.) What a
    // proxy passes on of its visitor's browser says nothing of the proxy. A back end that passes on its visitor's browser
    // headers is checked like the browser. A provider proves what it says.
    if !is_forward_auth && !cx.is_back_channel() {
        cross_site::check(request, &config.cors)?;
    }
    cx.check_transport()?;
    cx.read_client_address()?;
    cx.remove_useless_cookie();
    // 3. The limits, as far as they are known without the store. The first call to the store counts.
    cx.apply_limits().await?;
    // 4. What holds for every route: its body can be read, and the service API needs the admin token.
    let route = route?;
    if !is_forward_auth {
        request.check_body()?;
    }
    if route.is_admin() {
        cx.require_admin()?;
    }
    // 5. The handler. It asks the context for what it needs: the session, a user, a recent login.
    let (handler, param) = route.handler(request.method)?;
    cx.param = param.to_owned();
    handler(cx).await
}

/// The answer to `OPTIONS`: to a preflight, or the methods of the path. The operator learns which origin would have to be
/// allowed.
#[inline(never)] // inlined, it and its caller are larger by some KB
fn options<H: Host>(cx: &Context<'_, H>, route: &Found<'_, H>) -> Response {
    let Context { app, request, .. } = cx;
    if !cors::is_preflight(request) {
        return route.options();
    }
    let origin = request.from_origin();
    if !app.config.cors.allows(request) && app.isolate.is_new_refused_origin(origin) {
        let shown = cors::printable(origin);
        let message = format!(
            "a page of {shown} was not allowed to call: if it is yours, add its origin to cors.origins"
        );
        app.host.log(&Line::new(log::Event::OriginRefused, message));
    }
    app.config.cors.preflight(request, route.allowed())
}
