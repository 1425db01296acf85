//! # Cloakroom: sessions at the edge
//!
//! A visitor hands over a coat and keeps a ticket. The **ticket** is a signed cookie; the **session** is the
//! coat, kept in Upstash Redis; this Worker is the person at the counter, and is everywhere at once.
//!
//! # The path of a request
//!
//! ```text
//! edge     a request arrives in workerd, and becomes plain values          edge.js, edge.rs
//! gate     preflight? → route → cross-site? → ticket → plan                http, routes, ticket
//!          → one batch to the store → the session → the plan is done       session, store
//!          → cookie, if it changed → common headers
//! edge     the answer becomes a response
//! ```
//!
//! Start reading at [`gate::answer`]. Everything but `edge` is pure: what it needs of the machine it runs on
//! (time, randomness, one call to the store) it asks of a [`host::Host`]. Dependencies point inwards:
//! `edge → gate → routes → {session, ticket, limit, config, http} → {store, host, time}`.

pub mod config;
#[cfg(target_arch = "wasm32")]
mod edge;
pub mod gate;
pub mod host;
pub mod http;
pub mod limit;
pub mod routes;
pub mod session;
pub mod store;
pub mod ticket;
pub mod time;
