//! # Cloakroom: sessions at the edge
//!
//! Server-side sessions, login and rate limits in a Cloudflare Worker, on Upstash Redis. A visitor keeps a **ticket**, a
//! signed cookie; the **session** is kept in the store.
//!
//! # The path of a request
//!
//! ```text
//! service   a request arrives; the configuration is read once per isolate   service, platform
//! app       ticket verified (no I/O) → route → preflight? → cross-site?     app, context, http, ticket
//!           → over a limit that is known here? → handler
//! handler   asks for what it needs: the session, a user, a recent login     routes
//!           → the first call to the store counts the request, too           limit, store
//!           → reads and changes sessions and accounts by compare-and-set    session, account
//! app       what was not counted yet is counted → cookie, if it changed     app
//!           → rate-limit fields, CORS, problem+json
//! service   the response; then, in the background, what may wait            session, limit, stats
//! ```
//!
//! Start reading at [`app::App::respond`]. Everything but `service` and `platform` is pure: what it needs of the machine (time,
//! randomness, one call to the store) it asks of a [`host::Host`]. Dependencies point inwards: `service → app → routes →
//! context → account → session → limit → {store, ticket, http} → {host, id, time}`. [`config`] and [`isolate`] hold values of
//! any of them: what was set, and what is remembered.
//!
//! # As a library
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
//!     fn has_platform_limit(&self) -> bool {
//!         false
//!     }
//!     async fn is_over_platform_limit(&self, _: &str) -> bool {
//!         false
//!     }
//!     fn log(&self, line: &dyn std::fmt::Display) {
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
pub mod config;
pub mod context;
mod document;
mod fields;
pub mod host;
pub mod http;
pub mod id;
pub mod isolate;
mod json;
mod library;
pub mod limit;
pub mod platform;
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
    library::{Error, RequestHead, ResponseHead, Session, Sessions},
    session::{ListedSession, User},
    time::Time,
};
