//! Sessions in the format of another application, which reads and writes the same records: as [`Sessions`] loads, changes,
//! moves and ends them. The formats themselves are [`crate::foreign`]'s.
//!
//! What a record cannot hold stands in a key of ours beside it: since when the session is known, the login, and that an id
//! has ended. The application writes whole records, whatever is stored: one that it writes back under an id that has ended
//! brings no session back here.

mod beside;
mod change;
mod end;
mod load;
mod moves;
mod scripts;

use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use self::beside::{Beside, Companion, Ended, Login, MARGIN};
pub(super) use self::{
    beside::{UNDER_WAY, as_bytes},
    load::Touch,
};
use super::{Device, Error, Record, Session, Sessions, User};
use crate::{
    foreign::{Format, Sid},
    host::{Host, random},
    http::Problem,
    id::{Handle, Nonce},
    json::{self, Version},
    ticket::Ticket,
    time::Time,
};

/// What a session in another application's format has beside its [`Record`].
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    /// The record as it is stored; empty before it is written.
    stored: Vec<u8>,
    companion: Companion,
    /// How long the record lasts unused.
    lifetime: Duration,
}

impl<H> Sessions<'_, H> {
    /// The format and the id, if this is the ticket of a session in another application's format.
    pub(super) fn foreign<'t>(&self, ticket: &'t Ticket) -> Option<(&Format, &'t Sid)> {
        self.rules.formats.own().zip(ticket.foreign.as_ref())
    }

    /// The key of what stands beside a record.
    fn beside_key(&self, handle: &Handle) -> String {
        [&self.rules.key_prefix, "foreign:", &handle.to_string()].concat()
    }

    /// 422: another application's format has nothing that this could be done with. `what`: a sentence.
    pub(crate) fn check_native(&self, what: &'static str) -> Result<(), Error> {
        if self.rules.formats.own().is_none() {
            Ok(())
        } else {
            Err(Error::Refused(Problem::unprocessable(what)))
        }
    }
}

impl<H: Host> Sessions<'_, H> {
    /// 422 if a session cannot hold a user, because nothing says where.
    pub fn check_holds_users(&self) -> Result<(), Error> {
        self.rules.formats.own().map_or(Ok(()), |format| Ok(format.check_holds_users()?))
    }

    /// A session that begins now under a new id, not written yet.
    pub(super) fn new_foreign(
        &self,
        format: &Format,
        user: Option<User>,
        data: Box<RawValue>,
        remember: bool,
    ) -> Session {
        let (now, sid) = (self.host.now(), format.new_sid(&random(self.host)));
        let login = user.map(|user| Login { user, at: now });
        let companion = Companion {
            v: Version,
            sid: sid.as_str().to_owned(),
            created_at: now,
            login,
            rotations: Vec::new(),
        };
        let lifetime = format.new_lifetime(remember.then_some(self.rules.lifetimes.remember));
        let foreign = Foreign { stored: Vec::new(), companion, lifetime };
        self.foreign_session(format, format.ticket(sid, now), None, data, remember, foreign)
    }

    /// The session that a record and what stands beside it are.
    fn foreign_session(
        &self,
        format: &Format,
        ticket: Ticket,
        user: Option<User>,
        data: Box<RawValue>,
        is_persistent: bool,
        foreign: Foreign,
    ) -> Session {
        let now = self.host.now();
        // Who has logged in here has a name and roles, also where the record holds the id alone.
        let login = foreign.companion.login.as_ref();
        let login = login.filter(|login| {
            foreign.stored.is_empty() || user.as_ref().is_some_and(|user| user.id == login.user.id)
        });
        let user = match (login, user) {
            (Some(login), Some(_)) if format.holds_ids() => Some(login.user.clone()),
            (Some(login), None) => Some(login.user.clone()),
            (_, user) => user,
        };
        let authenticated_at = login.map(|login| login.at);
        let ticket = Ticket { issued: now, ends: now + foreign.lifetime, remember: is_persistent, ..ticket };
        let record = Record {
            v: Version,
            revision: revision(user.as_ref(), &data, authenticated_at),
            previous_revisions: Vec::new(),
            user,
            data,
            created_at: foreign.companion.created_at,
            authenticated_at,
            // Nothing rotates by itself.
            rotated_at: now,
            rotations: foreign.companion.rotations.clone(),
            expires_at: ticket.ends,
            remember: is_persistent,
            marks: Vec::new(),
            device: Device::default(),
            provider_session: None,
            family: ticket.family,
            generation: 0,
        };
        Session {
            ticket,
            record: Box::new(record),
            stored: String::new(),
            head: None,
            state: None,
            foreign: Some(Box::new(foreign)),
        }
    }
}

/// A name for this state: another one whenever user, data or login time change.
fn revision(user: Option<&User>, data: &RawValue, authenticated_at: Option<Time>) -> Nonce {
    let hash = Sha256::digest(json::to_string(&(user, data, authenticated_at)));
    Nonce(hash.first_chunk().copied().unwrap_or_default())
}
