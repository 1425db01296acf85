//! Every change to the store's side of a session. Each is a compare-and-set on what was read, so that
//! no acknowledged change is lost and nothing in flight brings an ended session back: the store refuses a
//! write whose key has changed or is gone, and the change is then applied to the newest state, or refused.

use super::{
    Desk, Moved, Record, Session,
    change::{Change, Unfit, no_data},
};
use crate::{
    host::{self, Host},
    http::IfMatch,
    id::{Id, Nonce},
    store::{Batch, Failure},
    ticket::Ticket,
};

/// Why a change was not made.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed: whether the change was made is not known.
    Store(Failure),
    /// The session ended meanwhile.
    Ended,
    /// The session kept changing until the deadline.
    Conflict,
    /// `If-Match` names another state.
    Precondition,
    /// The change does not fit the data.
    Unfit(Unfit),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

impl<H: Host> Desk<'_, H> {
    /// Begins an anonymous session with the change applied to empty data. One call.
    pub async fn create(&self, change: &Change, if_match: &IfMatch) -> Result<Session, Error> {
        if !if_match.holds(None) {
            return Err(Error::Precondition);
        }
        let data = change.apply(&no_data(), self.rules.max_bytes).map_err(Error::Unfit)?;
        let (now, lifetimes) = (self.host.now(), &self.rules.lifetimes);
        let record = Record {
            revision: self.nonce(),
            user: None,
            data,
            created_at: now,
            authenticated_at: None,
            expires_at: lifetimes.end(false, now),
            remember: false,
        };
        let session = Session::begin(Id::from_bytes(host::random(self.host)), record, now);
        let ttl_ms = lifetimes.ttl_ms(session.ticket.ends, false, now);
        let batch = Batch::default().create(&self.key(&session.ticket), &session.stored, ttl_ms);
        let [created] = self.store.run(batch).await?;
        // 32 random bytes are there already only when the source of randomness is broken.
        if created.is_done()? { Ok(session) } else { Err(Error::Conflict) }
    }

    /// Applies a change to the session's data. One call when nobody else changes it at the same time, none
    /// when the change changes nothing.
    pub async fn change(
        &self,
        mut session: Session,
        change: &Change,
        if_match: &IfMatch,
    ) -> Result<Session, Error> {
        loop {
            // 1. What the caller asked for, on the newest state known.
            if !if_match.holds(Some(&session.etag())) {
                return Err(Error::Precondition);
            }
            let data = change.apply(&session.record.data, self.rules.max_bytes).map_err(Error::Unfit)?;
            if data.get() == session.record.data.get() {
                return Ok(session);
            }
            // 2. Write it, if that is still the state.
            let record = Record { data, revision: self.nonce(), ..session.record.clone() };
            let stored = record.to_json();
            let batch = Batch::default().replace(&self.key(&session.ticket), &session.stored, &stored);
            let [replaced] = self.store.run(batch).await?;
            if replaced.is_done()? {
                return Ok(Session { record, stored, ..session });
            }
            // 3. Someone was faster: see what it is now.
            session = self.again(session.ticket).await?;
        }
    }

    /// Moves the session from the id that the caller carries to a new one; the old one leads there for a
    /// while. Two calls; none when another rotation did it already, whose successor is the caller's too.
    pub async fn rotate(&self, mut session: Session, carried: &Id) -> Result<Session, Error> {
        while session.ticket.id == *carried {
            // 1. The successor, which nobody can know before the move is made.
            let now = self.host.now();
            let moved = Moved::new(self.nonce(), now);
            let next = Session::begin(carried.successor(&moved.nonce), session.record.clone(), now);
            let (old_key, next_key) = (self.key(&session.ticket), self.key(&next.ticket));
            let ttl_ms = self.rules.lifetimes.ttl_ms(next.ticket.ends, next.ticket.remember, now);
            // 2. The copy first, and only when it is there the move, if the state is still what was copied.
            let [created] = self.store.run(Batch::default().create(&next_key, &next.stored, ttl_ms)).await?;
            if !created.is_done()? {
                return Err(Error::Conflict);
            }
            let moving =
                Batch::default().replace_for(&old_key, &session.stored, &moved.to_json(), Moved::GRACE_MS);
            let [replaced] = self.store.run(moving).await?;
            if replaced.is_done()? {
                return Ok(next);
            }
            // 3. Someone was faster: drop the copy, see what it is now.
            let [deleted] = self.store.run(Batch::default().delete(&next_key)).await?;
            deleted.count()?;
            session = self.again(session.ticket).await?;
        }
        Ok(session)
    }

    /// Ends the session, whatever is in flight. Two calls when nobody else changes it at the same time, one when
    /// it has ended already.
    pub async fn end(&self, mut ticket: Ticket) -> Result<(), Error> {
        // A blind delete could remove the way to a successor made just now, and leave that one alive.
        while let Some(session) = self.load(ticket).await? {
            let batch = Batch::default().delete_if(&self.key(&session.ticket), &session.stored);
            let [deleted] = self.store.run(batch).await?;
            if deleted.count()? > 0 {
                return Ok(());
            }
            self.check_deadline()?;
            ticket = session.ticket;
        }
        Ok(())
    }

    /// Reads the session again after a conflict, until the deadline.
    async fn again(&self, ticket: Ticket) -> Result<Session, Error> {
        self.check_deadline()?;
        self.load(ticket).await?.ok_or(Error::Ended)
    }

    fn check_deadline(&self) -> Result<(), Error> {
        if self.host.now() < self.deadline { Ok(()) } else { Err(Error::Conflict) }
    }

    fn nonce(&self) -> Nonce {
        Nonce::from_bytes(host::random(self.host))
    }
}
