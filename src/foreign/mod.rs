//! Sessions in the formats of other applications: Express with express-session and connect-redis, Flask with Flask-Session.
//! The application and the Worker use the same sessions at the same time.
//!
//! Pure codecs: from a cookie to the session's id and back ([`Format::open`], [`Format::seal`]), from what the application
//! stores to the session's data and back ([`Format::read`], [`Format::write`]). What is done with them at the store is
//! [`crate::session`]'s.

mod cookie;
mod express;
mod flask;
mod json;
mod merge;
mod settings;
mod user;

use std::{fmt, rc::Rc, time::Duration};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

pub(crate) use self::settings::{Environment, application, notices, settings};
pub use self::{settings::Accepted, user::Pointer};
use crate::{
    base64url,
    id::{Family, Id},
    session::{User, change::ApplyError},
    ticket::{Ticket, cookie::SameSite},
    time::Time,
};

/// The longest id of a session that is looked up, in bytes. `genid` of express-session may make long ones.
const MAX_SID: usize = 1024;

/// The id of a session, as its application has it: part of the key in the store, and in the cookie. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Sid(Rc<str>);

impl Sid {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id as it is kept in the store. `None` if no application's could be that.
    pub fn parse(text: &str) -> Option<Self> {
        (1..=MAX_SID).contains(&text.len()).then(|| Self(text.into()))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid(…)")
    }
}

/// Whose format it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Application {
    /// express-session with connect-redis.
    Express,
    /// Flask-Session with Redis.
    Flask,
}

/// How Flask-Session writes records (`SESSION_SERIALIZATION_FORMAT`). It reads both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serializer {
    /// MessagePack.
    MessagePack,
    /// JSON.
    Json,
}

/// The sessions of one application, as they are configured there.
pub struct Format {
    /// Whose format it is.
    pub application: Application,
    /// What stands between `key_prefix` and the id in the key of a record.
    record_prefix: String,
    /// How long a record lasts unused if it does not say that itself.
    record_ttl: Duration,
    /// The application's secrets: the first signs, all verify. Empty if its cookies are not signed.
    secrets: Vec<Vec<u8>>,
    serializer: Serializer,
    /// Where a record holds its user.
    user_pointer: Option<Pointer>,
    /// What alone visitors may change, if that is restricted.
    writable: Option<Vec<Pointer>>,
    /// Whether reading a session here extends its time to live.
    pub touches: bool,
    /// The attributes that express-session keeps in a record, from those of our cookie.
    attributes: Attributes,
}

/// The attributes of the cookie as a record of express-session holds them.
#[derive(Clone, Debug)]
struct Attributes {
    secure: bool,
    domain: String,
    path: String,
    same_site: SameSite,
    partitioned: bool,
}

/// Does not show the secrets.
impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Format({:?}, {} secrets)", self.application, self.secrets.len())
    }
}

/// The formats of a deployment.
#[derive(Debug, Default)]
pub struct Formats {
    own: Option<Format>,
    accepted: Vec<Accepted>,
}

impl Formats {
    /// The format of the deployment's own cookie and sessions, if that is another application's.
    pub fn own(&self) -> Option<&Format> {
        self.own.as_ref()
    }

    /// The formats of other applications whose cookies begin a session of ours.
    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// Those of which they do at this time.
    pub fn accepted_at(&self, now: Time) -> impl Iterator<Item = &Accepted> {
        self.accepted.iter().filter(move |accepted| accepted.until.is_none_or(|until| now < until))
    }
}

/// What a record says.
#[derive(Debug)]
pub struct Record {
    /// Its fields, without those that are the format's own.
    pub data: Box<RawValue>,
    /// How long it lasts unused.
    pub lifetime: Duration,
    /// Whether the cookie outlives the browser's session.
    pub is_persistent: bool,
    /// Whether what may be its user is something that JSON holds.
    has_user: bool,
}

/// Why a record cannot be read, and what to do: for the operator's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable(pub &'static str);

impl Format {
    /// The key of a record.
    pub fn record_key(&self, key_prefix: &str, sid: &Sid) -> String {
        [key_prefix, &self.record_prefix, sid.as_str()].concat()
    }

    /// The ticket behind a cookie's value; without a call to the store. `None`: no secret of ours has signed it. It may be one
    /// that is not known here yet.
    pub fn open(&self, value: &str, now: Time) -> Option<Ticket> {
        Some(self.ticket(cookie::open(self, value)?, now))
    }

    /// The value of the cookie.
    pub fn seal(&self, sid: &Sid) -> String {
        cookie::seal(self, sid)
    }

    /// A new id, from random bytes, of the form that the application itself makes.
    pub fn new_sid(&self, random: &[u8; 32]) -> Sid {
        let length = match self.application {
            Application::Express => 24,
            Application::Flask => 32,
        };
        Sid(base64url::encode(random.get(..length).unwrap_or(random)).into())
    }

    /// The ticket of the session with this id, of which nothing more is known. Its handle and what its limits count by are
    /// one-way hashes of the id.
    pub fn ticket(&self, sid: Sid, now: Time) -> Ticket {
        // The same id may be one of another application's: what leads to its record is part of the name.
        let name = [self.application.name(), &self.record_prefix, sid.as_str()];
        let mut hash = Sha256::new().chain_update(b"cloakroom foreign id v1");
        for part in name {
            hash.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let family = Sha256::new().chain_update(hash).chain_update(b"family").finalize();
        Ticket {
            id: Id::from_bytes(hash),
            issued: now,
            ends: now + self.record_ttl,
            remember: false,
            user: None,
            family: Family(family.first_chunk().copied().unwrap_or_default()),
            generation: 0,
            foreign: Some(sid),
        }
    }

    /// Reads what the application has stored.
    pub fn read(&self, stored: &[u8]) -> Result<Record, Unreadable> {
        match self.application {
            Application::Express => express::read(stored, self.record_ttl),
            Application::Flask => flask::read(stored, self.record_ttl, self.user_pointer.as_ref()),
        }
    }

    /// What to store for this data. `before`: what is stored now, of which everything is kept that is not the data's.
    /// `remember`: how long the session is to last, and its cookie with it.
    ///
    /// 422: the data has a member that is the format's own, or changes a value that JSON cannot hold.
    pub fn write(
        &self,
        before: Option<&[u8]>,
        data: &RawValue,
        remember: Option<Duration>,
        now: Time,
    ) -> Result<Vec<u8>, ApplyError> {
        match self.application {
            Application::Express => express::write(before, data, &self.attributes, remember, now),
            Application::Flask => flask::write(before, data, self.serializer, remember.is_some()),
        }
    }

    /// How long a new record lasts.
    pub fn new_lifetime(&self, remember: Option<Duration>) -> Duration {
        match self.application {
            Application::Express => remember.unwrap_or(self.record_ttl),
            Application::Flask => self.record_ttl,
        }
    }

    /// Whether records are bytes, not text.
    pub fn is_binary(&self) -> bool {
        self.application == Application::Flask
    }

    /// The user whom a record names, if it names one.
    pub fn user_of(&self, record: &Record) -> Option<User> {
        self.user(&record.data).filter(|_| record.has_user)
    }

    /// Whether it is configured where records hold their user.
    pub fn has_user_pointer(&self) -> bool {
        self.user_pointer.is_some()
    }

    /// Whether records hold the user's id alone.
    pub fn holds_ids(&self) -> bool {
        self.user_pointer.as_ref().is_some_and(Pointer::is_of_id)
    }
}

#[cfg(test)]
mod tests;
