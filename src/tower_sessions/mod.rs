//! Feature `tower-sessions`: the sessions of [tower-sessions](https://docs.rs/tower-sessions), kept in the same store. For axum on
//! Workers, where its `SessionManagerLayer` takes a [`Store`]:
//!
//! ```no_run
//! use cloakroom::{Sessions, tower_sessions::Store};
//! # use tower_sessions_core::SessionStore;
//!
//! fn store(env: &worker::Env) -> worker::Result<impl SessionStore + Clone> {
//!     Ok(Store::new(Sessions::from_env(env)?)) // then: Router::new().layer(SessionManagerLayer::new(store))
//! }
//! ```
//!
//! `examples/axum` is a whole Worker. Its sessions and cookies are that project's: none has a user, a list of devices, a rate
//! limit or an end on reuse, and none is a [`Session`](crate::Session) of this crate's own. With the feature `http`, those can
//! be had in axum, too. What to know before choosing:
//!
//! - **The last writer wins.** tower-sessions reads a whole record, and writes a whole record after the response was made.
//!   Of two requests at a time, the second undoes the changes of the first, also to other keys. A change that must not be
//!   lost (a cart, a balance) belongs into a [`Session`](crate::Session), whose changes are applied again on conflict.
//! - **Every cookie is looked up.** Its value is the id alone: a forged one costs a call to the store, where a ticket's
//!   signature is checked without one. The feature `signed` of `tower-sessions` signs it; in a Worker it needs
//!   `getrandom = { version = "0.2", features = ["js"] }` among the dependencies.
//! - **`cycle_id` has no grace.** The old id is dead before the response has arrived: a request on its way with it, or a
//!   lost answer, is logged out.
//! - **A cookie named `__Host-…` cannot be removed.** What removes it lacks `Secure`, for which browsers ignore it. The
//!   session itself has ended all the same.
//!
//! What the store does for it: an id is never given twice (`create` overwrites nothing), a deleted session never comes back
//! (`save` creates nothing), reads are the primary's, so that no replica's delay shows; and the store holds no ids, only
//! hashes of them, so that nobody who reads it can use a session. Keys: `tower:<hash>` behind `key_prefix`, JSON, with the
//! record's time to live.

mod records;
mod store;

pub use self::store::Store;
