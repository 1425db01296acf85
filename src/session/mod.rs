//! The session: its identity, its record in the store, and what can be done to it.
//!
//! At the [`Desk`] the session behind a ticket is found (`load`), and every change is made by compare-and-set
//! (`commit`), so that none is lost and none brings an ended session back. The rest are plain values.

pub mod change;
mod commit;
mod lifetimes;
mod load;
mod record;

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

pub use self::{
    commit::Error,
    lifetimes::Lifetimes,
    record::{Entry, Moved, Record, Revisions, User},
};
use crate::{id::Id, store::Store, ticket::Ticket, time::Time};

/// The session rules of one deployment.
#[derive(Debug)]
pub struct Rules {
    /// How long sessions last.
    pub lifetimes: Lifetimes,
    /// How often a session gets a new id by itself.
    pub rotate_every: Option<Duration>,
    /// Whether an id that is used after its rotation's grace ends the session.
    pub end_on_reuse: bool,
    /// The largest `data`, in bytes of JSON.
    pub max_bytes: usize,
    /// What stands before every key.
    pub key_prefix: String,
}

/// Where sessions are read and changed during one request.
pub struct Desk<'a, H> {
    /// Time and randomness.
    pub host: &'a H,
    /// The store.
    pub store: &'a Store<'a, H>,
    /// The rules.
    pub rules: &'a Rules,
    /// When to give up applying a change again.
    pub deadline: Time,
}

/// Rotations that one request follows.
const MAX_HOPS: usize = 64;

impl<H> Desk<'_, H> {
    /// Where the store keeps a session.
    fn key(&self, ticket: &Ticket) -> String {
        format!("{}sess:{}", self.rules.key_prefix, ticket.id.handle())
    }
}

/// A session that lives, as last read from the store or written to it.
#[derive(Debug)]
pub struct Session {
    /// The ticket that leads to it; not always the one that came with the request.
    pub ticket: Ticket,
    /// What the store holds, taken apart.
    pub record: Record,
    /// The same to the letter: what compare-and-set compares with.
    pub stored: String,
}

impl Session {
    /// A session just begun or moved here: its time to live starts anew.
    fn begin(id: Id, record: Record, now: Time) -> Self {
        let (ends, remember) = (record.expires_at, record.remember);
        let ticket = Ticket { id, issued: now, ends, remember, user: record.user.as_ref().map(User::tag) };
        let stored = record.to_json();
        Self { ticket, record, stored }
    }

    /// Whether it is time for a new id.
    pub fn is_due(&self, rotate_every: Option<Duration>, now: Time) -> bool {
        rotate_every.is_some_and(|rotate_every| now - self.record.rotated_at >= rotate_every)
    }

    /// The strong entity tag. Covers user, data and time of login; every write of those makes a new one.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.record.revisions.newest)
    }

    /// The public form: `{"session": {…}}`.
    pub fn to_json(&self, lifetimes: &Lifetimes) -> String {
        let record = &self.record;
        to_json(&Body {
            session: Some(View {
                handle: self.ticket.id.handle().to_string(),
                user: record.user.as_ref(),
                data: &record.data,
                created_at: record.created_at,
                authenticated_at: record.authenticated_at,
                expires_at: record.expires_at,
                idle_expires_at: lifetimes.idle_end(&self.ticket),
                remember: record.remember,
            }),
        })
    }
}

/// The public form of no session: `{"session": null}`.
pub const NO_SESSION: &str = r#"{"session":null}"#;

#[derive(Serialize)]
struct Body<'a> {
    session: Option<View<'a>>,
}

#[derive(Serialize)]
struct View<'a> {
    handle: String,
    user: Option<&'a User>,
    data: &'a RawValue,
    #[serde(serialize_with = "Time::as_rfc3339")]
    created_at: Time,
    #[serde(serialize_with = "optional_rfc3339")]
    authenticated_at: Option<Time>,
    #[serde(serialize_with = "Time::as_rfc3339")]
    expires_at: Time,
    #[serde(serialize_with = "Time::as_rfc3339")]
    idle_expires_at: Time,
    remember: bool,
}

#[allow(clippy::ref_option, reason = "the signature serde asks for")]
fn optional_rfc3339<S: serde::Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => time.as_rfc3339(serializer),
        None => serializer.serialize_none(),
    }
}

/// Writing these types into memory cannot fail: every key is a string, every value has a JSON form.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
