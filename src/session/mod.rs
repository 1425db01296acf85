//! The session: its identity, its record in the store, and what can be done to it.
//!
//! [`Sessions`] finds the session behind a ticket (`load`) and changes it (`update`, `rotate`, `login`, `end`, `revoke`).
//! Every change is a compare-and-set (`write`), so that none is lost and none brings an ended session back. What may wait
//! until after the response is a [`Task`] (`background`). The rest are plain values.

mod background;
pub mod change;
mod data;
mod device;
mod end;
mod error;
mod exchange;
mod family;
mod foreign;
mod inspect;
mod known;
mod lifetimes;
mod list;
mod load;
mod login;
mod merge;
mod provider_session;
mod record;
mod revoke;
mod rotate;
mod take_over;
mod update;
pub mod user;
mod user_state;
mod view;
mod write;

use std::time::Duration;

use sha2::{Digest, Sha256};

#[cfg(test)]
pub(crate) use self::view::Body;
pub use self::{
    background::Task,
    device::{Device, RecordIp},
    end::StoredSession,
    error::{Error, Retry},
    family::{FamilyHead, Position},
    inspect::{Fate, Reason},
    lifetimes::Lifetimes,
    list::ListedSession,
    load::Source,
    record::{Entry, Record, Redirect, Replaced},
    take_over::OldCookie,
    user::User,
    user_state::UserState,
    view::no_session,
};
pub(crate) use self::{
    data::{Apply, Early},
    error::UNREADABLE,
    known::Known,
    load::Loaded,
    merge::Writes,
    provider_session::{LogoutOutcome, ProviderLogout},
    record::revision,
    update::{Versioned, update},
};
use crate::{
    base64url,
    encryption::{EncryptionKeys, Unopened},
    foreign::Formats,
    host::{Host, random},
    id::{Family, Handle, Id, Nonce},
    isolate::Isolate,
    json,
    limit::CountingStore,
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
    /// Whether the use of an old id after its grace ends the session.
    pub end_on_reuse: bool,
    /// How recent a login must be for sensitive routes.
    pub fresh_for: Duration,
    /// How many sessions a user may have; the oldest ends when a login exceeds it.
    pub max_per_user: usize,
    /// How much of a client's address the device list keeps.
    pub record_ip: RecordIp,
    /// The largest `data`, in bytes of JSON.
    pub max_bytes: usize,
    /// Prepended to every key.
    pub key_prefix: String,
    /// The keys that records are sealed with, and opened.
    pub encryption: EncryptionKeys,
    /// The formats of other applications that are in use.
    pub formats: Formats,
}

/// The sessions of a deployment, as one request reads and changes them.
pub struct Sessions<'a, H> {
    /// Time and randomness.
    pub host: &'a H,
    /// The store.
    pub store: &'a CountingStore<'a, H>,
    /// What this isolate remembers.
    pub isolate: &'a Isolate,
    /// The rules.
    pub rules: &'a Rules,
    /// When the request began.
    pub began: Time,
    /// When to give up re-applying a change.
    pub deadline: Time,
}

impl<H> Sessions<'_, H> {
    /// The key of a session.
    fn key(&self, handle: &Handle) -> String {
        [&self.rules.key_prefix, "sess:", &handle.to_string()].concat()
    }

    /// The key of a user's [`UserState`].
    fn state_key(&self, user: &UserTag) -> String {
        [&self.rules.key_prefix, "user:", &base64url::encode(user), ":standing"].concat()
    }

    /// The key of those who began a session with one at a provider, by its name.
    fn provider_session_key(&self, name: &str) -> String {
        [&self.rules.key_prefix, "provider-session:", name].concat()
    }

    /// The key that is there while a logout token is good that was used.
    fn logout_token_key(&self, name: &str) -> String {
        [&self.rules.key_prefix, "logout-token:", name].concat()
    }

    /// The key of a family's [`FamilyHead`], which exists once there was a rotation.
    fn family_key(&self, family: Family) -> String {
        [&self.rules.key_prefix, "family:", &family.to_string()].concat()
    }

    /// The key of a user's list of sessions: the family of each handle. For showing, never for deciding.
    fn list_key(&self, user: &UserTag) -> String {
        [&self.rules.key_prefix, "user:", &base64url::encode(user), ":sessions"].concat()
    }
}

impl<H: Host> Sessions<'_, H> {
    /// Refuses what needs a recent login.
    pub fn check_fresh(&self, session: &Session) -> Result<(), Error> {
        let is_fresh = |at: Time| self.host.now() - at <= self.rules.fresh_for;
        if session.record.authenticated_at.is_some_and(is_fresh) { Ok(()) } else { Err(Error::NotFresh) }
    }

    pub(crate) fn check_deadline(&self) -> Result<(), Error> {
        if self.host.now() < self.deadline { Ok(()) } else { Err(Error::Conflict) }
    }

    pub(crate) fn nonce(&self) -> Nonce {
        Nonce(random(self.host))
    }
}

/// A session that lives, as last read from the store or written to it.
#[derive(Clone, Debug)]
pub struct Session {
    /// The ticket that leads to it; not always the one that came with the request.
    pub ticket: Ticket,
    /// What the store holds.
    pub record: Box<Record>,
    /// The same to the letter: what compare-and-set compares with.
    pub stored: String,
    /// The head of its family as stored, if there was one when it was read.
    head: Option<String>,
    /// The state of its user as stored, if there was one when it was read.
    state: Option<Box<str>>,
    /// What it has beside that in another application's format.
    foreign: Option<Box<foreign::Foreign>>,
}

impl<H: Host> Sessions<'_, H> {
    /// A session under a new id: its time to live begins anew.
    fn begin(&self, id: Id, record: Record, now: Time) -> Session {
        let ticket = Ticket {
            id,
            issued: now,
            ends: record.expires_at,
            remember: record.remember,
            user: record.user.as_ref().map(User::tag),
            family: record.family,
            generation: record.generation,
            foreign: None,
        };
        let stored = self.seal(&ticket.id.handle(), &record);
        Session { ticket, record: Box::new(record), stored, head: None, state: None, foreign: None }
    }

    /// The same session, not written yet, whose user has proved who they are at this time, and to this provider, where that began
    /// a session of this name. One of another application's format has no place for any of these.
    pub(crate) fn proved(
        &self,
        session: Session,
        at: Option<Time>,
        provider: &str,
        provider_session: Option<&str>,
    ) -> Session {
        if session.ticket.foreign.is_some() {
            return session;
        }
        let mut record = (*session.record).clone();
        record.authenticated_at = at.or(record.authenticated_at);
        record.device.provider = Some(provider.to_owned());
        record.provider_session = provider_session.map(str::to_owned);
        self.with_record(&session, record)
    }

    /// The same session with another record.
    fn with_record(&self, session: &Session, record: Record) -> Session {
        let stored = self.seal(&session.ticket.id.handle(), &record);
        session.with(record, stored)
    }

    /// The stored form of a record: sealed, if there are keys for it. No two are the same.
    fn seal(&self, handle: &Handle, record: &Record) -> String {
        self.rules.encryption.seal(&self.key(handle), record.to_json(), self.host)
    }

    /// What is stored under a session's key. Error: it cannot be read.
    fn open(&self, key: &str, stored: &str) -> Result<Entry, Unopened> {
        let json = self.rules.encryption.open(key, stored)?;
        Entry::parse(&json).ok_or(Unopened(UNREADABLE))
    }
}

impl Session {
    /// The same session with another record, and the text that is stored for it.
    fn with(&self, record: Record, stored: String) -> Self {
        let Self { ticket, head, state, foreign, .. } = self;
        Self {
            ticket: ticket.clone(),
            record: Box::new(record),
            stored,
            head: head.clone(),
            state: state.clone(),
            foreign: foreign.clone(),
        }
    }

    /// The strong entity tag: another one whenever user, data or login time change. Roles are part of it although a
    /// change of them is not written here.
    pub fn etag(&self) -> String {
        let revision = self.record.revision;
        match &self.record.user {
            Some(user) if !user.roles.is_empty() => {
                let roles = Sha256::digest(json::to_string(user));
                format!("\"{revision}.{}\"", base64url::encode(roles.get(..6).unwrap_or_default()))
            }
            _ => ["\"", &revision.to_string(), "\""].concat(),
        }
    }
}
