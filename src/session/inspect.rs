//! What a visitor's cookie is, for operators. Looking leaves no trace: nothing is touched, rotated, noted or ended.

use serde::Serialize;

use super::{
    Entry, Error, FamilyHead, OldCookie, Sessions,
    load::{Loaded, MAX_READS, Step},
};
use crate::{
    host::Host,
    id::Handle,
    session::User,
    ticket::{Keyring, Ticket, UserTag},
    time::Time,
};

/// Why a ticket leads to no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Reason {
    /// Logged out, replaced by a login, or unused for too long: its record is gone.
    Ended,
    /// Past its absolute end.
    Expired,
    /// An old id whose grace is over. Its use would end the session, unless `session.on_reuse` says otherwise.
    Rotated,
    /// All sessions of the user were ended after it was issued: by the user, by an operator, or with the account.
    Revoked,
    /// No secret of this deployment signed it, or it is no ticket.
    Forged,
    /// It names a key that is not known here.
    UnknownKey,
}

/// What became of a ticket.
#[derive(Debug, PartialEq, Eq)]
pub struct Fate {
    /// `None` if it is alive.
    pub reason: Option<Reason>,
    /// The session's handle, or the ticket's own.
    pub handle: Handle,
}

impl<H: Host> Sessions<'_, H> {
    /// Where a verified ticket leads. Calls as a read makes, to the primary. Error: its record cannot be read.
    pub async fn inspect(&self, ticket: &Ticket) -> Result<Fate, Error> {
        if ticket.ends <= self.host.now() {
            return Ok(Fate { reason: Some(Reason::Expired), handle: ticket.id.handle() });
        }
        if let Some((format, sid)) = self.foreign(ticket) {
            let reason = self.inspect_foreign(format, ticket, sid).await?;
            return Ok(Fate { reason, handle: ticket.id.handle() });
        }
        let now = self.host.now();
        let over = |reason| Ok(Fate { reason: Some(reason), handle: ticket.id.handle() });
        let (mut read, mut is_in_grace) = (ticket.clone(), false);
        for _ in 0..MAX_READS {
            let loaded = self.read_from_primary(&read).await?;
            is_in_grace |= read.id == ticket.id && loaded.is_new_redirect(now);
            // An old cookie that was taken over knows of no rotation.
            let is_over =
                |head: FamilyHead| ticket.foreign.is_none() && head.is_grace_over(ticket.generation, now);
            match loaded.step(&read, now)? {
                Step::Here if !is_in_grace && loaded.head().is_some_and(is_over) => {
                    return over(Reason::Rotated);
                }
                Step::Here => {
                    let reason = end_of(&loaded, ticket, now);
                    return match self.session_of(read, loaded) {
                        Some(session) => Ok(Fate { reason: None, handle: session.ticket.id.handle() }),
                        None => over(reason),
                    };
                }
                Step::To(newest) => read = newest,
                Step::Nowhere => return over(end_of(&loaded, ticket, now)),
                Step::GraceOver(_) => return over(Reason::Rotated),
            }
        }
        Err(Error::Conflict)
    }

    /// The same for a cookie of the application that is being replaced: of the session that was taken over or, if none was, of
    /// its record. One call, and more for a record that holds a user. `is_barred`: as in [`Self::take_over`].
    pub async fn inspect_old(
        &self,
        old: &OldCookie<'_>,
        keyring: &Keyring,
        is_barred: impl AsyncFn(&UserTag) -> Result<bool, Error>,
    ) -> Result<Fate, Error> {
        let handle = old.name.id.handle();
        let (taken, stored) = self.read_old(old).await?;
        let reason = match (taken, stored) {
            (Some(taken), _) => match self.ticket_of_taken(&taken, old, keyring) {
                // It began before every revocation that is known: after one nothing is taken over.
                Some(ticket) => return self.inspect(&Ticket { issued: Time(0), ..ticket }).await,
                None => Some(Reason::Ended),
            },
            (None, None) => Some(Reason::Ended),
            (None, Some(stored)) => {
                let record = self.read_record(old.format, &stored);
                let record = record.map_err(|why| Error::unreadable(handle, why))?;
                let is_revoked = match old.format.user_of(&record).map(|user| user.tag()) {
                    Some(user) => {
                        self.user_state(&user).await?.revocation_mark.is_some() || is_barred(&user).await?
                    }
                    None => false,
                };
                is_revoked.then_some(Reason::Revoked)
            }
        };
        Ok(Fate { reason, handle })
    }
}

/// Why there is no session behind a ticket, as far as the store still knows.
fn end_of(loaded: &Loaded, ticket: &Ticket, now: Time) -> Reason {
    match &loaded.entry {
        Some(Entry::Session(record)) if now >= record.expires_at => Reason::Expired,
        Some(Entry::Session(record)) if !record.survives(&loaded.state) => Reason::Revoked,
        Some(Entry::Session(record)) if record.user.as_ref().map(User::tag) != ticket.user => Reason::Forged,
        // A revocation deletes the records of the sessions that it ends.
        None if loaded.state.revocation_mark.is_some_and(|mark| ticket.issued <= mark.time()) => {
            Reason::Revoked
        }
        _ => Reason::Ended,
    }
}
