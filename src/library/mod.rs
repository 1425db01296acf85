//! Sessions in a Rust Worker of one's own. What the service's routes and a handler's calls both do is the same code, in
//! [`crate::context`].

mod border;
mod data;
mod error;
mod limit;
mod members;
mod session;

use std::cell::OnceCell;

use worker::{Context, Env, web_sys};

pub use self::{
    border::{RequestHead, ResponseHead},
    error::Error,
    limit::{Allowance, Limit},
    session::{
        Session,
        provider::{FinishedLogin, LoginProvider, ProviderLogin},
    },
};
use crate::{
    app::App,
    cache::Cache,
    config::{Config, Faults},
    gateway::{Admission, Gateway},
    host::Host,
    http::{Body, Problem, Request, Response, cross_site, path_of},
    limit::CountingStore,
    log::{self, Line},
    platform::{Platform, RequestHeaders, environment_json, write_log, write_response},
    session::{ListedSession, User},
};

thread_local! {
    /// Lives as long as the isolate. It is leaked because work that goes on after a response needs it without borrowing it
    /// from a request.
    static APP: OnceCell<Result<&'static App<Platform>, Faults>> = const { OnceCell::new() };
}

/// The sessions of a deployment, in this isolate. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Sessions {
    pub(crate) app: &'static App<Platform>,
}

impl Sessions {
    /// From the Worker's environment: the bindings `SESSION_SECRET`, `UPSTASH_REDIS_REST_URL`, `UPSTASH_REDIS_REST_TOKEN`, and
    /// the settings in `CLOAKROOM` (docs/configuration.md). It is read once per isolate; after that this costs nothing.
    ///
    /// Errors: a faulty configuration. Displayed, the error lists every fault, which is also logged; its answer for the client
    /// is 500 `misconfigured` and says none.
    pub fn from_env(env: &Env) -> Result<Self, Error> {
        let app = APP.with(|app| app.get_or_init(|| start(env)).clone());
        app.map(|app| Self { app }).map_err(Error::misconfigured)
    }

    /// Loads the visitor's session, counts the request in its rate limits, and looks whether its user's sessions were ended:
    /// one call to the store; none without a ticket, unless `limits.ip` or a limit for the path is set. An id that is due for
    /// rotation gets a new one, for three calls more. There may be no session: it begins with the first change.
    ///
    /// Errors, whose answers carry the rate-limit fields:
    /// - 429 `rate_limited`: the request is over a limit.
    /// - 503 `store_unavailable`: the store does not answer as expected. Nobody is logged out.
    /// - 500 `internal`: what is stored cannot be read.
    ///
    /// It does not look at where the request comes from: see [`Sessions::check_origin`].
    pub async fn load(&self, request: &impl RequestHead) -> Result<Session, Error> {
        Session::load(self.app, request.head()).await
    }

    /// Loads the session, calls `handler` with it, and answers: what [`Sessions::from_env`], [`Sessions::load`] and
    /// [`Session::respond`] do, with every error of ours that leaves the handler by `?` answered as its problem, also through
    /// functions that return `worker::Result`. When the handler fails, changes that it has not saved are discarded.
    ///
    /// Errors: those of the handler that are not ours, as they are.
    pub async fn handle<R: ResponseHead>(
        request: &impl RequestHead,
        env: &Env,
        context: &Context,
        handler: impl AsyncFnOnce(&mut Session) -> Result<R, Error>,
    ) -> worker::Result<R> {
        let loaded = match Self::from_env(env) {
            Ok(sessions) => sessions.load(request).await,
            Err(error) => Err(error),
        };
        let mut session = match loaded {
            Ok(session) => session,
            Err(error) => return error.into_response(),
        };
        match handler(&mut session).await {
            Ok(response) => session.respond(response, context).await,
            Err(error) => session.refuse(error, context).await,
        }
    }

    /// Answers a request as the deployed service does: its routes below `base_path` (docs/api.md), problems and preflights. For a
    /// Worker that has both, these routes and handlers of its own. A call of it brings the accounts' code into the Worker.
    ///
    /// **These routes show the visitor all data of the session, and `PATCH …/session/data` changes all of it.** What handlers
    /// rely on (the `state` of a login, a price, who is being helped) is not safe there then: keep that path from this
    /// function, or those values elsewhere.
    ///
    /// ```no_run
    /// # use cloakroom::Sessions;
    /// # use worker::{Context, Env, Request, Response, Result};
    /// # async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    /// match request.path().as_str() {
    ///     "/auth/session/data" => Response::error("There is nothing here.", 404),
    ///     path if path.starts_with("/auth/") => match Sessions::from_env(&env) {
    ///         Ok(sessions) => Ok(sessions.serve(request.inner(), &context).await.into()),
    ///         Err(error) => error.into_response(),
    ///     },
    ///     _ => Sessions::handle(&request, &env, &context, async |_| Ok(Response::ok("mine")?)).await,
    /// }
    /// # }
    /// ```
    pub async fn serve(&self, request: &web_sys::Request, context: &Context) -> web_sys::Response {
        let app = self.app;
        app.host.refresh_clock();
        let url = request.url();
        if let Some(gateway) = app.gateway_for(path_of(&url)) {
            return Self::pass(app, gateway, request, context).await;
        }
        // The place belongs to the body, and is kept for as long.
        let (body, _place) = match app.needs_body(&url) {
            true => app.host.read_body(request, &app.isolate.large_bodies).await,
            false => (Body::None, None),
        };
        let request = Request::new(&request.method(), url, RequestHeaders::new(request), body);
        let response = app.respond(request).await;
        run_background(app, context);
        into_platform(&response)
    }

    /// Answers a request that is the gateway's: passes it on, or refuses it.
    async fn pass(
        app: &'static App<Platform>,
        gateway: &'static Gateway,
        request: &web_sys::Request,
        context: &Context,
    ) -> web_sys::Response {
        // 1. Whether it may pass.
        let head = Request::new(&request.method(), request.url(), RequestHeaders::new(request), Body::None);
        let admission = app.admit(gateway, head, Platform::is_upgrade(request)).await;
        run_background(app, context);
        let (pass, visitor) = match admission {
            Admission::Pass(pass, visitor) => (pass, visitor),
            Admission::Answer(response) => return into_platform(&response),
        };
        // 2. The origin's answer.
        let refuse = |problem: Problem| into_platform(&Response::from(problem).uncacheable());
        let answer = match app.host.ask_origin(request, gateway, &pass).await {
            Ok(answer) => answer,
            Err(problem) => return refuse(problem),
        };
        // 3. What it says about the session is done before any of it is passed on.
        let carried_out =
            app.carry_out(visitor, answer.changes(app.config.foreign_cookie()), answer.is_web_socket()).await;
        run_background(app, context);
        match carried_out {
            Ok(added) => {
                let is_own_cookie = |name: &str| app.config.is_own_cookie(name);
                let passed = answer.pass_on(pass.vary, &added, &is_own_cookie);
                passed.unwrap_or_else(|_| refuse(Problem::bad_gateway()))
            }
            Err(response) => {
                app.host.discard(answer).await;
                into_platform(&response)
            }
        }
    }

    /// Refuses a request that another site's page makes the visitor's browser send: 403 `cross_site`, unless its method is
    /// safe or its origin is in `cors.origins`. By `Sec-Fetch-Site` or, from older browsers, `Origin`; a request with neither
    /// is no browser's. (The algorithm of Go's `http.CrossOriginProtection`; no token is needed.)
    ///
    /// Call it in every handler that changes something, unless other sites are to send such requests: the callback of an
    /// identity provider with `response_mode=form_post`, or a webhook. `SameSite=Lax` alone does not protect from pages of
    /// other hosts of the same site. No call to the store.
    pub fn check_origin(&self, request: &impl RequestHead) -> Result<(), Error> {
        Ok(cross_site::check(&request.head(), &self.app.config.cors)?)
    }

    /// A cache in the same store, which all isolates share.
    pub fn cache(&self) -> Cache<'static, Platform> {
        let App { config, host, isolate, .. } = self.app;
        host.refresh_clock();
        Cache::new(host, isolate, config.store_timeout, &config.session.key_prefix)
            .encryption(&config.session.encryption)
    }

    /// The sessions of any user, the oldest first: for an operator's page. Two calls, more for many or large sessions.
    pub async fn list_of(&self, user_id: &str) -> Result<Vec<ListedSession>, Error> {
        Ok(self
            .background_sessions(async |sessions| sessions.list(&User::tag_of(user_id), None).await)
            .await?)
    }

    /// Ends all sessions of any user, as after a disabled account or another password, and returns how many. Nothing in flight
    /// brings one back. Three calls.
    pub async fn end_all_of(&self, user_id: &str) -> Result<usize, Error> {
        Ok(self
            .background_sessions(async |sessions| sessions.end_all_counted(&User::tag_of(user_id)).await)
            .await?)
    }

    /// Does something outside of any visitor's session.
    async fn background_sessions<T>(
        &self,
        work: impl AsyncFnOnce(crate::session::Sessions<'_, Platform>) -> Result<T, crate::session::Error>,
    ) -> Result<T, crate::session::Error> {
        let App { config, host, isolate, .. } = self.app;
        host.refresh_clock();
        let store = CountingStore::without_limits(host, isolate, config.store_timeout);
        work(self.app.sessions(&store, host.now())).await
    }
}

/// Runs once per isolate, and again in the instance that replaces one after a trap.
fn start(env: &Env) -> Result<&'static App<Platform>, Faults> {
    let app = Config::from_json(&environment_json(env)).and_then(|config| {
        let platform = Platform::new(env);
        let platform = platform.map_err(|_| vec!["UPSTASH_REDIS_REST_TOKEN cannot be sent".to_owned()])?;
        Ok(App::new(config, platform))
    });
    match app {
        Ok(app) => Ok(Box::leak(Box::new(app))),
        Err(faults) => {
            for fault in &faults {
                write_log(&Line::new(log::Event::Misconfigured, fault));
            }
            Err(faults)
        }
    }
}

/// What may wait is done after the response.
fn run_background(app: &'static App<Platform>, context: &Context) {
    for event in app.take_events() {
        context.wait_until(app.deliver(event));
    }
    if app.has_background_work() {
        context.wait_until(app.run_background());
    }
}

#[allow(clippy::expect_used, reason = "an empty response with a valid status is accepted")]
pub(crate) fn into_platform(response: &Response) -> web_sys::Response {
    write_response(response).unwrap_or_else(|_| {
        // A header that the platform refuses is a mistake of ours. Its text is not for the log.
        write_log(&Line::new(log::Event::ResponseRefused, "the response was refused by the platform"));
        let detail = "something went wrong here; the request may or may not have been carried out";
        let internal = Response::from(Problem::internal(detail)).uncacheable();
        write_response(&internal).expect("a response of constants")
    })
}
