//! # Cloakroom: sessions at the edge
//!
//! Server-side sessions, login and rate limits in a Cloudflare Worker, on Upstash Redis. A visitor keeps a **ticket**, a
//! signed cookie; the **session** is kept in the store. Deployed as it is, it is a service with routes of its own (README.md);
//! as this crate, it gives sessions to a Rust Worker:
//!
//! ```no_run
//! use cloakroom::Sessions;
//! use worker::{Context, Env, Request, Response, Result, event};
//!
//! #[event(fetch)]
//! async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
//!     Sessions::handle(&request, &env, &context, async |session| {
//!         let views: u64 = session.increment("views", 1)?;
//!         Ok(Response::ok(format!("Views: {views}"))?)
//!     })
//!     .await
//! }
//! # fn main() {}
//! ```
//!
//! The Worker needs three secrets: `SESSION_SECRET` (`openssl rand -base64 32`), `UPSTASH_REDIS_REST_URL` and
//! `UPSTASH_REDIS_REST_TOKEN`; its settings, which all have defaults, are `[vars.CLOAKROOM]` of wrangler.toml
//! (docs/configuration.md). `examples/worker` is a whole one.
//!
//! [`Sessions::handle`] loads the session, calls the handler and answers. An error of ours that leaves the handler by `?` (a
//! store that is away, a limit, nobody logged in) is answered as its problem: 503, 429, 401, as JSON by RFC 9457. Step by step,
//! it is this:
//!
//! ```no_run
//! # use cloakroom::Sessions;
//! # use worker::{Context, Env, Request, Response, Result, event};
//! #[event(fetch)]
//! async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
//!     let sessions = Sessions::from_env(&env)?; // configuration once per isolate
//!     let mut session = match sessions.load(&request).await { // 0 or 1 store call: session, revocation, limits
//!         Ok(session) => session,
//!         Err(error) => return error.into_response(),
//!     };
//!     let views: u64 = session.increment("views", 1)?;
//!     session.respond(Response::ok(format!("Views: {views}"))?, &context).await // writes, cookies, fields
//! }
//! # fn main() {}
//! ```
//!
//! # What handlers do
//!
//! | | calls | store calls |
//! |---|---|---|
//! | read | [`get`](Session::get), [`data`](Session::data), [`user`](Session::user), [`is_fresh`](Session::is_fresh) | 0 |
//! | demand | [`require_user`](Session::require_user), [`require_role`](Session::require_role), [`require_fresh`](Session::require_fresh) | 0 |
//! | change | [`insert`](Session::insert), [`remove`](Session::remove), [`increment`](Session::increment), [`patch`](Session::patch) | 0, and 1 for all of them in [`respond`](Session::respond) |
//! | compute from what is there | [`update`](Session::update), [`update_key`](Session::update_key) | 1 |
//! | log in with a provider | [`log_in_with`](Session::log_in_with), [`finish_login`](Session::finish_login) | 0, and 3 or more |
//! | log in and out | [`log_in`](Session::log_in), [`log_out`](Session::log_out), [`cycle_id`](Session::cycle_id), [`flush`](Session::flush) | 1, 2, 3, 2 |
//! | the user's sessions | [`list`](Session::list), [`end`](Session::end), [`end_others`](Session::end_others), [`end_all`](Session::end_all) | 2 or more |
//! | limit | [`limit`](Session::limit) | 1 |
//! | cache | [`Sessions::cache`] | 1, and 2 more to compute |
//!
//! Changes are operations: when another request was faster, they are made again, to the newest data, so that none is lost.
//! `session.insert("views", views + 1)` would lose one of two visits at once; `session.increment("views", 1)` loses none. What
//! must be computed from what is there is a closure, which runs again:
//!
//! ```no_run
//! # use cloakroom::{Error, Session};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Default, Serialize, Deserialize)]
//! struct Cart {
//!     items: std::collections::BTreeMap<String, u32>,
//! }
//!
//! async fn add_to_cart(session: &mut Session, item: &str) -> Result<u32, Error> {
//!     session.update_key("cart", |cart: &mut Cart| {
//!         let count = cart.items.entry(item.to_owned()).or_default();
//!         *count += 1;
//!         *count
//!     })
//!     .await
//! }
//! ```
//!
//! # Logging in
//!
//! Who has authenticated a visitor (an identity provider's callback, a password of its own) logs them in. The session gets a new
//! id, the old one is dead at once, and what the anonymous session held stays:
//!
//! ```no_run
//! # use cloakroom::{Error, Session, User};
//! async fn callback(session: &mut Session, subject: String, name: String) -> Result<(), Error> {
//!     session.log_in(User { id: subject, name, roles: vec!["editor".to_owned()] }, false).await
//! }
//!
//! fn dashboard(session: &Session) -> Result<String, Error> {
//!     let user = session.require_user()?; // 401 without one
//!     Ok(format!("Hello, {}", user.name))
//! }
//! ```
//!
//! Google, GitHub and any other OpenID or OAuth 2.0 provider of the settings (docs/login.md) take two handlers:
//!
//! ```no_run
//! # use cloakroom::{Session, User};
//! # use worker::{Request, Response, Result};
//! /// `GET /auth/login/google`
//! async fn log_in(request: &Request, session: &mut Session) -> Result<Response> {
//!     let location = session.log_in_with("google").return_to("/account").remember(true).await?;
//!     Response::redirect_with_status(request.url()?.join(&location)?, 303)
//! }
//!
//! /// `GET /auth/callback/google`
//! async fn come_back(request: &Request, session: &mut Session) -> Result<Response> {
//!     let login = session.finish_login(async |user| Ok(User { roles: vec!["editor".to_owned()], ..user })).await?;
//!     // "/account", or "/account?login_error=access_denied"
//!     Response::redirect_with_status(request.url()?.join(&login.location())?, 303)
//! }
//! ```
//!
//! # Pages of other sites
//!
//! A handler answers whoever asks. One that changes something should begin with [`Sessions::check_origin`], which refuses what
//! another site's page makes the visitor's browser send. It lets safe methods pass, and so an identity provider's redirect; only
//! a callback that is posted (`response_mode=form_post`), or a webhook, does without.
//!
//! # The body of a request
//!
//! `worker` reads a body through `&mut Request`, which the session does not hold on to, but the call of [`Sessions::handle`] does:
//! `request.clone_mut()?.json().await?` reads it in the handler.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | none (default) | `worker`'s and the platform's own requests and responses |
//! | `http` | also those of the crate `http`, for axum on Workers |
//! | `tower-sessions` | [`tower_sessions`](https://docs.rs/tower-sessions) sessions in our store |
//! | `service` | the deployed Worker's own entry; not for libraries |
//!
//! It needs Rust 1.91, and exports nothing: entry, allocator and panic hook are the Worker's.
//!
//! # The path of a request
//!
//! The service and the handlers of others run through the same code.
//!
//! ```text
//! service   a request arrives; the configuration is read once per isolate   service, library, platform
//! app       ticket verified (no I/O) → route → preflight? → cross-site?     app, context, http, ticket
//!           → over a limit that is known here? → handler
//! handler   asks for what it needs: the session, a user, a recent login     routes
//!           → the first call to the store counts the request, too           limit, store
//!           → reads and changes sessions and accounts by compare-and-set    session, account
//! app       what was not counted yet is counted → cookie, if it changed     app, context
//!           → rate-limit fields, CORS, problem+json
//! gateway   outside of base_path: one reading of the path → rule, limits,   gateway, context
//!           session → passed on to the origin, or refused                   platform
//! service   the response; then, in the background, what may wait            session, limit, stats, events
//! ```
//!
//! Start reading at [`app::App::respond`]. Everything but `service`, `library`, `tower_sessions` and `platform` is pure: what
//! it needs of the machine (time, randomness, one call to the store) it asks of a [`host::Host`]. Sessions in the format of
//! Express or Flask are [`foreign`]'s codecs below the same operations. Dependencies point inwards: `service → app → routes →
//! context → account → session → limit → {store, ticket, http} → {host, id, time}`. [`config`] and [`isolate`] hold values of
//! any of them: what was set, and what is remembered.
//!
//! # Without the platform
//!
//! The core runs wherever a [`host::Host`] can be written. This one has no store at all:
//!
//! ```
//! use cloakroom::{app::App, config::Config, host::{self, Host}, http::{Body, Request}, time::Time};
//!
//! struct Alone;
//!
//! impl Host for Alone {
//!     fn now(&self) -> Time {
//!         Time(1_767_225_600_000)
//!     }
//!     fn fill_random(&self, bytes: &mut [u8]) {
//!         bytes.fill(4); // a real host asks its system
//!     }
//!     fn nfkc(&self, text: &str) -> String {
//!         text.to_owned() // a real host normalises
//!     }
//!     fn lower_case(&self, text: &str) -> String {
//!         text.to_lowercase()
//!     }
//!     fn is_mark(&self, _: char) -> bool {
//!         false // a real host asks Unicode's tables
//!     }
//!     async fn sleep(&self, _: std::time::Duration) {}
//!     async fn send(&self, _: host::Call) -> Result<host::Answer, host::Unreachable> {
//!         Err(host::Unreachable)
//!     }
//!     async fn post(&self, _: host::Post<'_>) -> Result<u16, host::Unreachable> {
//!         Err(host::Unreachable)
//!     }
//!     fn has_platform_limit(&self) -> bool {
//!         false
//!     }
//!     async fn is_over_platform_limit(&self, _: &str) -> bool {
//!         false
//!     }
//!     async fn sign(&self, _: &host::SigningKey, _: &str) -> Result<Vec<u8>, host::Unsigned> {
//!         Err(host::Unsigned) // a real host asks its cryptography
//!     }
//!     fn log(&self, line: &cloakroom::log::Line) {
//!         eprintln!("{line}");
//!     }
//! }
//!
//! # fn block_on<F: Future>(future: F) -> F::Output {
//! #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
//! #     match std::pin::pin!(future).poll(&mut context) {
//! #         std::task::Poll::Ready(output) => output,
//! #         std::task::Poll::Pending => unreachable!("this host never waits"),
//! #     }
//! # }
//! let config = Config::from_json(r#"{
//!     "SESSION_SECRET": "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e",
//!     "UPSTASH_REDIS_REST_URL": "https://name.upstash.io",
//!     "UPSTASH_REDIS_REST_TOKEN": "token"
//! }"#).expect("a valid configuration");
//!
//! let app = App::new(config, Alone); // lives as long as the isolate
//!
//! let headers = [("accept", "application/json")];
//! let look = Request::new("GET", "https://example.com/auth/session", headers, Body::None);
//! let response = block_on(app.respond(look));
//! assert_eq!(response.body, r#"{"session":null}"#); // no ticket: no call to the store
//!
//! let health = Request::new("GET", "https://example.com/auth/health", headers, Body::None);
//! assert_eq!(block_on(app.respond(health)).status, 503);
//! ```

pub mod account;
pub mod app;
mod base64url;
mod bindings;
pub mod cache;
pub mod config;
pub mod context;
mod document;
pub mod encryption;
pub mod events;
mod fields;
pub mod foreign;
pub mod gateway;
pub mod host;
pub mod http;
pub mod id;
pub mod isolate;
mod json;
mod library;
pub mod limit;
pub mod log;
pub mod platform;
mod provider;
mod routes;
#[cfg(all(target_arch = "wasm32", feature = "service"))]
mod service;
pub mod session;
mod spelling;
pub mod stats;
pub mod store;
pub mod ticket;
pub mod time;
#[cfg(feature = "tower-sessions")]
pub mod tower_sessions;

pub use crate::{
    http::Code,
    id::Handle,
    library::{
        Allowance, Error, FinishedLogin, Limit, LoginProvider, ProviderLogin, RequestHead, ResponseHead,
        Session, Sessions,
    },
    session::{ListedSession, User},
    time::Time,
};
