//! # Cloakroom: sessions at the edge
//!
//! A visitor hands over a coat and keeps a ticket. The **ticket** is a signed cookie; the **session** is the
//! coat, kept in Upstash Redis; this Worker is the person at the counter, and is everywhere at once.
//!
//! # The path of a request
//!
//! ```text
//! edge     a request arrives in workerd, and becomes plain values          edge.js, edge.rs
//! gate     preflight? → cross-site? → ticket → over a limit? → plan        http, ticket, limit, routes
//!          → one batch to the store: session, standing, counters          session, limit, store
//!          → the session, under a new id if due
//!          → the plan is done                                             session, account
//!          → cookie, if it changed → common headers
//! edge     the answer becomes a response; counters, if due, after it      stats
//! ```
//!
//! Start reading at [`gate::answer`]. Everything but `edge` is pure: what it needs of the machine it runs on
//! (time, randomness, one call to the store) it asks of a [`host::Host`]. Dependencies point inwards:
//! `edge → gate → routes → account → {session, ticket, limit, config, http} → {store, host, isolate, id, time}`.
//!
//! # As a library
//!
//! The crate runs wherever a [`host::Host`] can be written. This one has no store at all:
//!
//! ```
//! use cloakroom::{config::Config, gate, host::{self, Host}, http::{Body, Request}, isolate::Isolate, time::Time};
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
//!     async fn sleep(&self, _: std::time::Duration) {}
//!     async fn send(&self, _: host::Call) -> Result<host::Answer, host::Unreachable> {
//!         Err(host::Unreachable)
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
//! let isolate = Isolate::default(); // lives as long as the process
//!
//! let look = Request::parse("GET\nhttps://example.com/auth/session", &Body::None);
//! let response = block_on(gate::answer(&look, &config, &Alone, &isolate));
//! assert_eq!(response.body, r#"{"session":null}"#); // no ticket: no call to the store
//!
//! let health = Request::parse("GET\nhttps://example.com/auth/health", &Body::None);
//! assert_eq!(block_on(gate::answer(&health, &config, &Alone, &isolate)).status, 503);
//! ```

pub mod account;
pub mod config;
#[cfg(target_arch = "wasm32")]
mod edge;
mod fields;
pub mod gate;
pub mod host;
pub mod http;
pub mod id;
pub mod isolate;
mod json;
pub mod limit;
mod number;
pub mod routes;
pub mod session;
pub mod stats;
pub mod store;
pub mod ticket;
pub mod time;
