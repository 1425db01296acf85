//! Sessions of users: beginning one, proving again who one is, and how many there may be.

use serde_json::value::RawValue;

use super::{Device, Error, Record, Retry, Session, Sessions, User, UserState, write::Created};
use crate::{
    host::{Host, random},
    id::{Id, Nonce},
    store::Batch,
    ticket::{Ticket, UserTag},
    time::Time,
};

impl<H: Host> Sessions<'_, H> {
    /// Begins a session for a user who was authenticated elsewhere. `state`: what holds for all their sessions, as the
    /// primary had it (`user_state_with`). One call; more if the user has too many sessions: then the oldest ends.
    /// One that is overtaken by the end of all of them is dead. Error: Conflict if they were ended before, while the request
    /// was on its way.
    pub async fn create_for_user(
        &self,
        user: User,
        data: Box<RawValue>,
        remember: bool,
        device: Device,
        state: &UserState,
    ) -> Result<Session, Error> {
        if let Some(format) = self.rules.formats.own() {
            let make = || {
                let session = self.new_foreign(format, Some(user.clone()), data.clone(), remember);
                self.with_user(format, &session, None)
            };
            return self.insert_foreign(format, &[], &make).await;
        }
        // 1. The revocation mark under which this login begins.
        let (tag, mark) = (user.tag(), state.revocation_mark);
        if mark.is_some_and(|mark| self.began < mark.time()) {
            // All sessions were ended while this login was on its way: it counts as before that.
            return Err(Error::Conflict);
        }
        // 2. The session. It does not know a mark that is set in between, and so is revoked by it.
        let make = || {
            let marks = mark.into_iter().collect();
            self.new_session(Some(user.clone()), data.clone(), remember, device.clone(), marks)
        };
        let Created { session, listed, state, .. } = self.insert(&make).await?;
        if !session.record.survives(&state) {
            // It began, and has ended: nothing is left of it.
            drop(self.discard(&session, &tag).await);
            return Ok(session);
        }
        // 3. Room for it.
        self.enforce_max_per_user(&tag, listed).await?;
        Ok(session)
    }

    /// Begins a session for a user who has just proved who they are, in exchange for the one they had, whose id is dead at
    /// once. `make` makes the new one from the last state of the old one. `carried`: the tickets that came along, none of which
    /// counts any more. `begun`: when the visitor went to a provider. One call. False: all sessions of the user, or that at the
    /// provider, were ended after this login began, so that it does not count; see [`Self::renounce`] and [`Self::discard`].
    pub async fn log_in(
        &self,
        old: Option<Session>,
        carried: &[Ticket],
        begun: Option<Time>,
        make: &dyn Fn(Option<&Session>) -> Result<Session, Error>,
    ) -> Result<(Session, bool), Error> {
        if let Some(format) = self.rules.formats.own() {
            let session = self.log_in_foreign(format, old, carried, make).await?;
            self.isolate.count("sessions_created", self.host.now());
            return Ok((session, true));
        }
        let Created { session, listed, state, logged_out } = self.swap(old, make).await?;
        self.isolate.count("sessions_created", self.host.now());
        let Some(tag) = session.ticket.user else { return Ok((session, true)) };
        if logged_out.is_some_and(|ended| begun.is_none_or(|begun| begun < ended)) {
            return Ok((session, false));
        }
        let session = match state.revocation_mark {
            Some(mark) if !session.record.survives(&state) => {
                if self.began < mark.time() {
                    return Ok((session, false));
                }
                match self.add_mark(session.clone(), mark).await {
                    // Ended by another revocation, before anybody knew it.
                    Err(Error::Ended) => return Ok((session, false)),
                    outcome => outcome?,
                }
            }
            _ => session,
        };
        // The old one is gone: whatever fails now, the visitor gets the new one. The next login makes room.
        drop(self.enforce_max_per_user(&tag, listed).await);
        Ok((session, true))
    }

    /// Begins an anonymous session in the place of one whose login does not count, and which nobody knows yet: the data is
    /// of the anonymous session before it, which it has replaced.
    pub async fn renounce(&self, session: Session, user: &UserTag) -> Result<Session, Error> {
        let anonymous = self.create(session.record.data.clone()).await?;
        // It is dead; a revocation may have deleted it already.
        drop(self.discard(&session, user).await);
        Ok(anonymous)
    }

    /// Gives the session a new id, without a grace for the old one: its user has just given the password. One call.
    pub async fn reauthenticate(&self, session: Session) -> Result<Session, Error> {
        if let Some((format, _)) = self.foreign(&session.ticket) {
            return self.reauthenticate_foreign(format, session).await;
        }
        let make = |old: Option<&Session>| {
            let (now, old) = (self.host.now(), old.ok_or(Error::Ended)?);
            let record = Record {
                authenticated_at: Some(now),
                rotated_at: now,
                family: old.record.family.renewed(random(self.host)),
                generation: 0,
                ..(*old.record).clone()
            };
            let record = record.with_revision(self.nonce());
            Ok(self.begin(Id::from_bytes(random(self.host)), record, now))
        };
        let Created { session, state, logged_out, .. } = self.swap(Some(session), &make).await?;
        let is_over = logged_out.is_some_and(|ended| session.record.created_at < ended);
        if session.record.survives(&state) && !is_over {
            return Ok(session);
        }
        self.delete(&session).await?;
        Err(Error::Ended)
    }

    /// Deletes a session that nobody knows yet, and takes it off its user's list.
    pub async fn discard(&self, session: &Session, user: &UserTag) -> Result<(), Error> {
        let handle = session.ticket.id.handle();
        let list_key = self.list_key(user);
        let batch = Batch::default().delete([self.key(&handle)]).hash_delete(&list_key, [handle.to_string()]);
        self.store.run_all(batch).await?;
        Ok(())
    }

    /// Lets a session that nobody knows yet survive a mark that was set before it began.
    async fn add_mark(&self, session: Session, mark: Nonce) -> Result<Session, Error> {
        let marks = std::iter::once(mark).chain(session.record.marks.iter().copied()).collect();
        let record = Record { marks, ..(*session.record).clone() };
        let next = self.with_record(&session, record);
        let (key, mut retry) = (self.key(&next.ticket.id.handle()), Retry::default());
        loop {
            match self.store.run(Batch::default().overwrite(&key, &next.stored, None)).await {
                Ok([done]) => return if done.is_ok()? { Ok(next) } else { Err(Error::Ended) },
                Err(failure) => retry.after(failure, self.store).await?,
            }
        }
    }

    /// Ends the oldest sessions of a user who has too many.
    async fn enforce_max_per_user(&self, user: &UserTag, listed: usize) -> Result<(), Error> {
        if listed <= self.rules.max_per_user {
            return Ok(());
        }
        // The list also holds sessions that have expired; reading it takes those off.
        let alive = self.of_user(user, None).await?;
        let excess = alive.len().saturating_sub(self.rules.max_per_user);
        for listed in alive.iter().take(excess) {
            match self.find(&listed.handle).await {
                Ok(stored) => self.end_stored(user, stored).await?,
                // It has ended meanwhile.
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
