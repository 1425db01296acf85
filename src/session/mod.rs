//! The session: its identity, its record in the store, and what can be done to it.
//!
//! At the [`Desk`] the session behind a ticket is found (`load`), and every change is made by compare-and-set
//! (`commit`), so that none is lost and none brings an ended session back. The rest are plain values.

pub mod change;
mod commit;
mod device;
mod lifetimes;
mod load;
mod record;
mod standing;
mod users;
mod view;

use std::{cell::Cell, time::Duration};

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

pub use self::{
    commit::{Error, Lost},
    device::{Device, RecordIp},
    lifetimes::Lifetimes,
    record::{Entry, Moved, Newest, Record, Revisions, User},
    standing::Standing,
    users::Kept,
    view::NO_SESSION,
};
use crate::{
    id::{Family, Handle, Id},
    isolate::Isolate,
    store::Store,
    ticket::{Ticket, UserTag},
    time::Time,
};

/// The session rules of one deployment.
#[derive(Debug)]
pub struct Rules {
    /// How long sessions last.
    pub lifetimes: Lifetimes,
    /// How often a session gets a new id by itself.
    pub rotate_every: Option<Duration>,
    /// Whether an id that is used after its rotation's grace ends the session.
    pub end_on_reuse: bool,
    /// How recent a password must be for sensitive routes.
    pub fresh_for: Duration,
    /// How many sessions a user may have; the oldest goes when a login exceeds it.
    pub max_per_user: usize,
    /// How much of a client's address the device list keeps.
    pub record_ip: RecordIp,
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
    /// What was done before, here.
    pub isolate: &'a Isolate,
    /// The rules.
    pub rules: &'a Rules,
    /// When the request began.
    pub began: Time,
    /// When to give up applying a change again.
    pub deadline: Time,
    /// How often the request's change came too late.
    pub races_lost: Cell<u32>,
}

/// Rotations that one request follows: so many can be made within the grace, by one who means it.
const MAX_HOPS: usize = 64;

impl<H> Desk<'_, H> {
    /// Where the store keeps a session.
    fn key(&self, ticket: &Ticket) -> String {
        self.key_of(&ticket.id.handle())
    }

    fn key_of(&self, handle: &Handle) -> String {
        [&self.rules.key_prefix, "sess:", &handle.to_string()].concat()
    }

    /// Where it keeps what holds for all of a user's sessions.
    fn standing_key(&self, user: &UserTag) -> String {
        [&self.rules.key_prefix, "user:", &Base64UrlUnpadded::encode_string(user), ":standing"].concat()
    }

    /// Where it keeps the newest id of a family, once there was a rotation.
    fn family_key(&self, family: Family) -> String {
        [&self.rules.key_prefix, "family:", &family.to_string()].concat()
    }

    /// Where it lists a user's sessions: the family of each handle. For looking, never for deciding.
    fn index_key(&self, user: &UserTag) -> String {
        [&self.rules.key_prefix, "user:", &Base64UrlUnpadded::encode_string(user), ":sessions"].concat()
    }
}

/// A session that lives, as last read from the store or written to it.
#[derive(Clone, Debug)]
pub struct Session {
    /// The ticket that leads to it; not always the one that came with the request.
    pub ticket: Ticket,
    /// What the store holds, taken apart.
    pub record: Box<Record>,
    /// The same to the letter: what compare-and-set compares with.
    pub stored: String,
}

impl Session {
    /// A session just begun or moved here: its time to live starts anew.
    fn begin(id: Id, record: Record, now: Time) -> Self {
        let ticket = Ticket {
            id,
            issued: now,
            ends: record.expires_at,
            remember: record.remember,
            user: record.user.as_ref().map(User::tag),
            lineage: record.lineage,
        };
        let stored = record.to_json();
        Self { ticket, record: Box::new(record), stored }
    }

    /// The same session with another record.
    fn changed(self, change: impl FnOnce(Record) -> Record) -> Self {
        let record = change(*self.record);
        Self { stored: record.to_json(), record: Box::new(record), ..self }
    }

    /// Whether it is time for a new id.
    pub fn is_due(&self, rotate_every: Option<Duration>, now: Time) -> bool {
        rotate_every.is_some_and(|rotate_every| now - self.record.rotated_at >= rotate_every)
    }

    /// The strong entity tag. Covers user, data and time of login; every write of those makes a new one, and so does
    /// every change of the user's roles, which are not written here.
    pub fn etag(&self) -> String {
        let revision = self.record.revisions.newest;
        match &self.record.user {
            Some(user) if !user.roles.is_empty() => {
                let roles = Sha256::digest(user.to_json());
                format!(
                    "\"{revision}.{}\"",
                    Base64UrlUnpadded::encode_string(roles.get(..6).unwrap_or_default())
                )
            }
            _ => ["\"", &revision.to_string(), "\""].concat(),
        }
    }
}
