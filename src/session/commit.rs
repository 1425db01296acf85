//! Every change to the store's side of a session. Each is a compare-and-set on what was read, so that
//! no acknowledged change is lost and nothing in flight brings an ended session back: the store refuses a
//! write whose key has changed or is gone, and the change is then applied to the newest state, or refused.
//!
//! When the answer to a write is lost, whether it was made is found out by reading, never guessed.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{
    Desk, Device, Moved, Newest, Record, Revisions, Session, Standing, User,
    change::{Change, Unfit, no_data},
};
use crate::{
    host::{self, Host},
    http::IfMatch,
    id::{Family, Id, Lineage, Nonce},
    limit::Refusal,
    store::{Batch, Failure, Store},
    ticket::Ticket,
    time::Time,
};

/// Why a change was not made.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed: whether the change was made is not known.
    Store(Failure),
    /// The session ended meanwhile.
    Ended,
    /// Others kept changing the same until the deadline.
    Conflict,
    /// The name is taken.
    Taken,
    /// There is no such user, or it is another password.
    Credentials,
    /// The password was given too long ago for this.
    Stale,
    /// The user does not hold the role.
    Forbidden,
    /// The user has no account here.
    NoAccount,
    /// `If-Match` names another state.
    Precondition,
    /// Over a limit.
    Limited(Refusal),
    /// The change does not fit the data.
    Unfit(Unfit),
    /// Nobody is logged in, and somebody has to be.
    NoUser,
    /// No session has this handle, or it is somebody else's.
    NotFound,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Limited(refusal)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

impl<H: Host> Desk<'_, H> {
    /// What an anonymous session begins with: the change applied to empty data.
    pub fn draft(&self, change: &Change, if_match: &IfMatch) -> Result<Box<RawValue>, Error> {
        if !if_match.holds(None) {
            return Err(Error::Precondition);
        }
        change.apply(&no_data(), self.rules.max_bytes).map_err(Error::Unfit)
    }

    /// Begins an anonymous session. One call.
    pub async fn create(&self, data: Box<RawValue>) -> Result<Session, Error> {
        let (session, _) = self.begin(&|| self.fresh(None, data.clone(), false)).await?;
        Ok(session)
    }

    /// A session that begins now, not yet written.
    pub(super) fn fresh(&self, user: Option<User>, data: Box<RawValue>, remember: bool) -> Session {
        let now = self.host.now();
        let record = Record {
            revisions: Revisions::first(self.nonce()),
            authenticated_at: user.is_some().then_some(now),
            user,
            data,
            created_at: now,
            rotated_at: now,
            expires_at: self.rules.lifetimes.end(remember, now),
            remember,
            marks: Vec::new(),
            device: Device::default(),
            lineage: Lineage { family: Family(host::random(self.host)), generation: 0 },
        };
        Session::begin(Id::from_bytes(host::random(self.host)), record, now)
    }

    /// Writes the session that `make` makes; also says how many its user's list holds now. When the answer is
    /// lost and it is not there, it may still be on its way: another is made, under another id. The late one is
    /// nobody's then, and cannot bring back what was ended meanwhile.
    pub(super) async fn begin(&self, make: &dyn Fn() -> Session) -> Result<(Session, usize), Error> {
        let (session, listed, _) = self.supersede(None, &|_| Some(make())).await?;
        self.isolate.count("sessions_created", self.host.now());
        Ok((session, listed))
    }

    /// The same in the place of another session, which ends in the same moment: what `make` makes of its last state is
    /// all that is left of it. That may be nothing when it has ended. Also tells the user's standing in that moment.
    pub(super) async fn supersede(
        &self,
        mut old: Option<Session>,
        make: &dyn Fn(Option<&Session>) -> Option<Session>,
    ) -> Result<(Session, usize, Standing), Error> {
        let mut lost = Lost::default();
        loop {
            let session = make(old.as_ref()).ok_or(Error::Ended)?;
            match self.write_new(&session, old.as_ref()).await {
                // 32 random bytes are there already only when the source of randomness is broken.
                Ok(Written { is_new: false, .. }) => return Err(Error::Conflict),
                Ok(Written { has_ended: true, listed, standing, .. }) => {
                    return Ok((session, listed, standing));
                }
                // The other one has changed meanwhile, or ended.
                Ok(_) => {
                    self.drop_copy(&session).await?;
                    self.check_deadline()?;
                }
                Err(failure) => {
                    lost.bear(failure, self.store).await?;
                    let (found, _) = self.read_from_primary(&session.ticket).await?;
                    if found.stored.as_ref() == Some(&session.stored) {
                        return Ok((session, 0, found.standing));
                    }
                }
            }
            old = match old {
                None => None,
                Some(old) => self.load_from_primary(old.ticket).await?,
            };
        }
    }

    /// Applies a change to the session's data. One call when nobody else changes it at the same time, none
    /// when the change changes nothing.
    pub async fn change(
        &self,
        mut session: Session,
        change: &Change,
        if_match: &IfMatch,
    ) -> Result<Session, Error> {
        let mut lost = Lost::default();
        // The writes whose answers were lost: the revision they replace and their own.
        let mut unsettled: Vec<(Nonce, Nonce)> = Vec::new();
        loop {
            // 1. Was it made already?
            for (base, revision) in &unsettled {
                if session.record.revisions.contains(revision) {
                    return Ok(session);
                }
                if !session.record.revisions.contains(base) {
                    // Changed so often since that nobody can tell.
                    return Err(Error::Store(Failure::Unreachable));
                }
            }
            // 2. What the caller asked for, on the newest state known.
            if !if_match.holds(Some(&session.etag())) {
                return Err(Error::Precondition);
            }
            let data = change.apply(&session.record.data, self.rules.max_bytes).map_err(Error::Unfit)?;
            if data.get() == session.record.data.get() {
                return Ok(session);
            }
            // 3. Write it, if that is still the state.
            let revision = self.nonce();
            let revisions = session.record.revisions.followed_by(revision);
            let record = Record { data, revisions, ..(*session.record).clone() };
            let stored = record.to_json();
            match self.replace(&session, &stored, None).await {
                Ok(true) => return Ok(Session { record: Box::new(record), stored, ..session }),
                Ok(false) => {}
                Err(Error::Store(failure)) => {
                    lost.bear(failure, self.store).await?;
                    unsettled.push((session.record.revisions.newest, revision));
                }
                Err(error) => return Err(error),
            }
            // 4. Someone was faster, or the answer was lost: see what it is now.
            session = self.again(session.ticket).await?;
        }
    }

    /// Moves the session from the id that the caller carries to a new one; the old one leads there for a
    /// while. Three calls; none when another rotation did it already, whose successor is the caller's too.
    pub async fn rotate(&self, mut session: Session, carried: &Id) -> Result<Session, Error> {
        let mut lost = Lost::default();
        let mut is_mine = false;
        while session.ticket.id == *carried {
            // 1. The successor, which nobody can know before the move is made.
            let now = self.host.now();
            let moved = Moved::new(self.nonce(), carried, now);
            let lineage = session.record.lineage.next();
            let record = Record { rotated_at: now, lineage, ..(*session.record).clone() };
            let next = Session::begin(carried.successor(&moved.nonce), record, now);
            // 2. The copy first, and only when it is there the move, if the state is still what was copied.
            match self.write_new(&next, None).await {
                Ok(Written { is_new: true, .. }) => {}
                Ok(_) => return Err(Error::Conflict),
                Err(failure) => {
                    lost.bear(failure, self.store).await?;
                    continue;
                }
            }
            is_mine = true;
            match self.replace(&session, &moved.to_json(), Some(Moved::KEPT)).await {
                Ok(true) => {
                    session = next;
                    break;
                }
                // 3. Someone was faster, or the user's sessions were ended: drop the copy.
                Ok(false) => {
                    self.drop_copy(&next).await?;
                    is_mine = false;
                }
                Err(Error::Ended) => {
                    self.drop_copy(&next).await?;
                    return Err(Error::Ended);
                }
                // The move may have been made: the copy stays.
                Err(Error::Store(failure)) => lost.bear(failure, self.store).await?,
                Err(error) => return Err(error),
            }
            // 4. See what it is now.
            session = self.again(session.ticket).await?;
        }
        // 5. Where the family is now.
        if is_mine {
            self.note_newest(&session.ticket).await;
        }
        Ok(session)
    }

    /// Notes the newest id of a family. When that fails the old id is refused all the same, and its use is not
    /// noticed as theft.
    async fn note_newest(&self, ticket: &Ticket) {
        let (key, newest) = (self.family_key(ticket.lineage.family), Newest::new(ticket).to_json());
        let mut lost = Lost::default();
        while let Err(failure) =
            self.store.run::<1>(Batch::default().put(&key, &newest, ticket.ends - ticket.issued)).await
        {
            if lost.bear(failure, self.store).await.is_err() {
                self.host
                    .log(&format_args!("session {}: its rotation could not be noted", ticket.id.handle()));
                return;
            }
        }
    }

    async fn drop_copy(&self, copy: &Session) -> Result<(), Error> {
        let [deleted] = self.store.run(Batch::default().delete(&[&self.key(&copy.ticket)])).await?;
        deleted.count()?;
        Ok(())
    }

    /// Gives the session a new id, without a grace for the old one: somebody has just proved who they are. One call.
    pub async fn renew(&self, session: Session) -> Result<Session, Error> {
        let make = |old: Option<&Session>| {
            let now = self.host.now();
            let old = old?;
            let lineage = Lineage { family: Family(host::random(self.host)), generation: 0 };
            let record = Record {
                authenticated_at: Some(now),
                revisions: old.record.revisions.followed_by(self.nonce()),
                rotated_at: now,
                lineage,
                ..(*old.record).clone()
            };
            Some(Session::begin(Id::from_bytes(host::random(self.host)), record, now))
        };
        let (next, _, standing) = self.supersede(Some(session), &make).await?;
        if next.record.outlives(&standing) {
            return Ok(next);
        }
        self.delete(&next).await?;
        Err(Error::Ended)
    }

    /// Refuses what needs a password given not long ago.
    pub fn check_fresh(&self, session: &Session) -> Result<(), Error> {
        let is_fresh = |at: Time| self.host.now() - at <= self.rules.fresh_for;
        if session.record.authenticated_at.is_some_and(is_fresh) { Ok(()) } else { Err(Error::Stale) }
    }

    /// A session of somebody who logs in now, not yet written.
    pub fn logged_in(&self, user: User, data: Box<RawValue>, remember: bool, device: Device) -> Session {
        Session::changed(self.fresh(Some(user), data, remember), |record| Record { device, ..record })
    }

    /// Ends the session, whatever is in flight. One call when nobody else changes it at the same time.
    pub async fn end(&self, mut session: Session) -> Result<(), Error> {
        let mut lost = Lost::default();
        loop {
            // A blind delete could remove the way to a successor made just now, and leave that one alive.
            match self.delete(&session).await {
                Ok(true) => return Ok(()),
                Ok(false) => self.check_deadline()?,
                Err(failure) => lost.bear(failure, self.store).await?,
            }
            match self.load_from_primary(session.ticket).await? {
                Some(changed) => session = changed,
                None => return Ok(()),
            }
        }
    }

    /// Writes a session under an id of its own, and into its user's list; in the same moment ends `old`, if that is
    /// still as it was read.
    async fn write_new(&self, session: &Session, old: Option<&Session>) -> Result<Written, Failure> {
        let Session { ticket, record, stored } = session;
        let ttl = self.rules.lifetimes.ttl(ticket.ends, ticket.remember, ticket.issued);
        let mut batch = Batch::default().create(&self.key(ticket), stored, ttl);
        if let Some(user) = &ticket.user {
            let (handle, longest) = (ticket.id.handle().to_string(), self.rules.lifetimes.longest());
            let (index_key, family) = (self.index_key(user), record.lineage.family.to_string());
            batch = batch
                .get_from_primary(&self.standing_key(user))
                .list(&index_key, &handle, &family, longest)
                .count(&index_key)
                .as_one();
        }
        if let Some(old) = old {
            batch = batch.delete_if(&self.key(&old.ticket), &old.stored).as_one();
            if old.ticket.lineage.generation > 0 {
                batch = batch.delete(&[&self.family_key(old.ticket.lineage.family)]);
            }
        }
        let mut replies = self.store.run_all(batch).await?.into_iter();
        let mut next = || replies.next().ok_or(Failure::Garbled);
        let mut written =
            Written { is_new: next()?.is_done()?, has_ended: true, listed: 0, standing: Standing::default() };
        if ticket.user.is_some() {
            written.standing = Standing::parse(next()?.optional_text()?.as_deref());
            let (_added, _expires) = (next()?, next()?);
            written.listed = usize::try_from(next()?.count()?).map_err(|_| Failure::Garbled)?;
        }
        if old.is_some() {
            written.has_ended = next()?.count()? > 0;
        }
        Ok(written)
    }

    /// Replaces what is stored, with a new time to live if one is given; false when it is not what was read. A
    /// user's sessions may have been revoked since: then there is nothing to replace any more.
    pub(super) async fn replace(
        &self,
        read: &Session,
        new: &str,
        ttl: Option<Duration>,
    ) -> Result<bool, Error> {
        let key = self.key(&read.ticket);
        let batch = match ttl {
            None => Batch::default().replace(&key, &read.stored, new),
            Some(ttl) => Batch::default().replace_for(&key, &read.stored, new, ttl),
        };
        let Some(user) = read.ticket.user else {
            let [replaced] = self.store.run(batch).await?;
            return Ok(replaced.is_done()?);
        };
        let [replaced, standing] = self.store.run(batch.get_from_primary(&self.standing_key(&user))).await?;
        let standing = Standing::parse(standing.optional_text()?.as_deref());
        let replaced = replaced.is_done()?;
        if replaced && !read.record.outlives(&standing) { Err(Error::Ended) } else { Ok(replaced) }
    }

    /// Reads the session again, until the deadline. Who has lost more than one race gives way to others, for up to half
    /// the time that was spent so far, however far away the store is: of a hundred changes at once each would be tried
    /// 25 times else, and is tried six times. What ends sessions gives way to nothing, and does not come here.
    pub(super) async fn again(&self, ticket: Ticket) -> Result<Session, Error> {
        let lost = self.races_lost.replace(self.races_lost.get() + 1);
        if lost > 0 {
            let (now, [jitter]) = (self.host.now(), host::random(self.host));
            let pause = (now - self.began) * u32::from(jitter) / 512;
            self.host.sleep(pause.min(self.deadline - now)).await;
        }
        self.check_deadline()?;
        self.load_from_primary(ticket).await?.ok_or(Error::Ended)
    }

    pub(crate) fn check_deadline(&self) -> Result<(), Error> {
        if self.host.now() < self.deadline { Ok(()) } else { Err(Error::Conflict) }
    }

    pub(crate) fn nonce(&self) -> Nonce {
        Nonce(host::random(self.host))
    }
}

/// What became of a new session.
struct Written {
    /// Whether the id was free; else it was not written.
    is_new: bool,
    /// Whether the one in whose place it comes has ended with this.
    has_ended: bool,
    /// How many sessions its user's list holds, also of those that have ended by themselves.
    listed: usize,
    /// What holds for all of the user's sessions.
    standing: Standing,
}

/// The answers that were lost on the way to one change.
#[derive(Default)]
pub struct Lost(u32);

impl Lost {
    /// Bears a lost answer, twice, and pauses. A failure that leaves no doubt is passed on at once.
    pub(crate) async fn bear<H: Host>(
        &mut self,
        failure: Failure,
        store: &Store<'_, H>,
    ) -> Result<(), Error> {
        self.0 += 1;
        if !failure.is_in_doubt() || self.0 > 2 {
            return Err(failure.into());
        }
        store.pause(self.0).await;
        Ok(())
    }
}
