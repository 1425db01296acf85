//! Feature `tower-sessions`: the sessions of [tower-sessions](https://docs.rs/tower-sessions), kept in the same store.
//! For axum on Workers, where `SessionManagerLayer::new(store)` takes a [`Store`]:
//!
//! ```ignore
//! let sessions = SessionManagerLayer::new(Store::from_env(&env)?);
//! Ok(Router::new().route("/", get(count)).layer(sessions).call(request).await?)
//! ```
//!
//! It is a store for that project's sessions and cookies: none of these has a user, a list of devices, a rate limit or an
//! end on reuse, and a session of this crate's own is another one. What to know before choosing it:
//!
//! - **The last writer wins.** tower-sessions reads a whole record, and writes a whole record after the response was made.
//!   Of two requests at a time, the second undoes the changes of the first, also to other keys. A change that must not be
//!   lost (a cart, a balance) belongs into a session of this crate's own, whose changes are applied again on conflict.
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
#[cfg(target_arch = "wasm32")]
mod store;

#[cfg(target_arch = "wasm32")]
pub use self::store::Store;
