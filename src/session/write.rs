//! Writes to the store. Each is a compare-and-set on what was read: the store refuses a write whose key has changed or is
//! gone, so that no acknowledged change is lost and nothing in flight brings an ended session back.
//!
//! If the answer to a write is lost, reading finds out whether it was made; that is never guessed.

use std::time::Duration;

use super::{
    Error, Redirect, Replaced, Retry, Session, Sessions, Task, UserState, provider_session::logged_out_since,
};
use crate::{
    host::{Host, random},
    id::Handle,
    store::{Batch, Failure},
    ticket::Ticket,
    time::Time,
};

/// What came of writing a new session.
struct WriteOutcome {
    /// Whether its key was free; otherwise it was not written.
    is_new: bool,
    /// Whether the session that it replaces has ended with this write.
    old_has_ended: bool,
    /// How many sessions the user's list holds, with those that have expired.
    listed: usize,
    /// What holds for all sessions of the user.
    state: UserState,
    /// When the session at the provider ended that it belongs to, if that has.
    logged_out: Option<Time>,
}

/// A session just written.
pub(super) struct Created {
    pub(super) session: Session,
    /// How many sessions the user's list holds, with those that have expired.
    pub(super) listed: usize,
    /// What held for all sessions of the user in that moment.
    pub(super) state: UserState,
    /// What had begun when the session at the provider that it belongs to ended, if that has: logins from before it do not count.
    pub(super) logged_out: Option<Time>,
}

/// A new session whose write was not answered.
struct Attempt {
    session: Session,
    /// The one it replaces, as it was known then.
    old: Option<Session>,
}

impl Attempt {
    /// The handle whose key shows whether it was written.
    fn place(&self) -> Handle {
        self.old.as_ref().unwrap_or(&self.session).ticket.id.handle()
    }

    /// What is stored there if it was.
    fn evidence(&self) -> String {
        match &self.old {
            None => self.session.stored.clone(),
            Some(_) => Replaced { by: self.session.ticket.id.handle() }.to_json(),
        }
    }
}

impl<H: Host> Sessions<'_, H> {
    /// Writes the session that `make` makes. If the answer is lost and the session is not there, it may still be on its
    /// way: another one is made, under another id. A late one belongs to nobody, and cannot bring back what was ended.
    pub(super) async fn insert(&self, make: &dyn Fn() -> Session) -> Result<Created, Error> {
        let created = self.swap(None, &|_| Ok(make())).await?;
        self.isolate.count("sessions_created", self.host.now());
        Ok(created)
    }

    /// The same in exchange for another session, which ends in the same moment: `make` makes the new one from its last
    /// state. Once this has returned, the old id is dead. Errors: also those of `make`.
    pub(super) async fn swap(
        &self,
        mut old: Option<Session>,
        make: &dyn Fn(Option<&Session>) -> Result<Session, Error>,
    ) -> Result<Created, Error> {
        let (mut retry, mut unsettled) = (Retry::default(), Vec::new());
        let (created, old) = loop {
            // 1. The new one, from what is known of the old one.
            let session = make(old.as_ref())?;
            match self.write_new(&session, old.as_ref()).await {
                // 32 random bytes exist already only if the source of randomness is broken.
                Ok(WriteOutcome { is_new: false, .. }) => return Err(Error::Conflict),
                Ok(WriteOutcome { old_has_ended: true, listed, state, logged_out, .. }) => {
                    break (Created { session, listed, state, logged_out }, old);
                }
                // The old one has changed or ended meanwhile.
                Ok(_) => {
                    self.delete_unissued(&session).await?;
                    self.check_deadline()?;
                }
                Err(failure) => {
                    retry.after(failure, self.store).await?;
                    unsettled.push(Attempt { session, old: old.clone() });
                }
            }
            // 2. Was it written, or one before it?
            if let Some(settled) = self.settle(&mut unsettled).await? {
                break settled;
            }
            // 3. The old one as it is now.
            old = match old {
                None => None,
                Some(old) => self.load_from_primary(old.ticket).await?,
            };
        };
        // What is left of the old one, and of attempts that came too late.
        let gone = unsettled.iter().map(|attempt| &attempt.session).chain(&old);
        let gone: Vec<String> = gone.map(|session| self.key(&session.ticket.id.handle())).collect();
        if !gone.is_empty() {
            self.isolate.defer(Task::Delete(gone));
        }
        if let Some(old) = old.filter(|old| old.record.generation > 0) {
            self.isolate.defer(Task::DeleteFamily(old.record.family));
        }
        Ok(created)
    }

    /// Which of the attempts whose answers were lost was made, if one was. What stands in the place of the old session
    /// tells; without one, the new session itself.
    async fn settle(
        &self,
        unsettled: &mut Vec<Attempt>,
    ) -> Result<Option<(Created, Option<Session>)>, Error> {
        let Some(last) = unsettled.last() else { return Ok(None) };
        let places: Vec<String> = unsettled.iter().map(|attempt| self.key(&attempt.place())).collect();
        let state_key = last.session.ticket.user.map(|user| self.state_key(&user));
        let keys = places.iter().chain(&state_key).map(String::as_str);
        let first = places.first().map(String::as_str).unwrap_or_default();
        let [values] = self.store.run(Batch::default().get(keys).at_primary(first)).await?;
        let mut values = values.values(places.len() + usize::from(state_key.is_some()))?;
        let state = if state_key.is_some() { values.pop().flatten() } else { None };
        let is_made =
            |(attempt, value): (&Attempt, &Option<String>)| value.as_ref() == Some(&attempt.evidence());
        let Some(index) = unsettled.iter().zip(&values).position(is_made) else { return Ok(None) };
        let Attempt { session, old } = unsettled.swap_remove(index);
        let state = UserState::parse(state.as_deref());
        let logged_out = self.logged_out(&session).await?;
        Ok(Some((Created { session, listed: 0, state, logged_out }, old)))
    }

    /// Whether a new session could be written under its id. Not for one that replaces another: see [`Self::swap`].
    pub(super) async fn write_successor(&self, session: &Session) -> Result<bool, Failure> {
        /// The user's list keeps old handles until it is read.
        const TIDY_EVERY: usize = 32;
        let outcome = self.write_new(session, None).await?;
        if let Some(user) =
            session.ticket.user.filter(|_| outcome.listed > 0 && outcome.listed % TIDY_EVERY == 0)
        {
            self.isolate.defer(Task::TidyList(user));
        }
        Ok(outcome.is_new)
    }

    /// Deletes a session that nobody knows yet, and takes it off its user's list.
    pub(super) async fn delete_unissued(&self, copy: &Session) -> Result<(), Error> {
        if let Some(user) = &copy.ticket.user {
            return self.discard(copy, user).await;
        }
        let [deleted] = self.store.run(Batch::default().delete([self.key(&copy.ticket.id.handle())])).await?;
        deleted.integer()?;
        Ok(())
    }

    /// Deletes a session that is still as it was read. False if it has changed or ended.
    pub(super) async fn delete(&self, session: &Session) -> Result<bool, Failure> {
        let key = self.key(&session.ticket.id.handle());
        let [deleted] = self.store.run(Batch::default().delete_if(&key, &session.stored)).await?;
        Ok(deleted.integer()? > 0)
    }

    /// Replaces what is stored, with a new time to live if one is given; false if it is not what was read. Ended: the
    /// user's sessions were revoked meanwhile.
    pub(super) async fn compare_and_set(
        &self,
        read: &Session,
        new: &str,
        ttl: Option<Duration>,
    ) -> Result<bool, Error> {
        let key = self.key(&read.ticket.id.handle());
        let batch = Batch::default().replace(&key, &read.stored, new, ttl);
        let Some(user) = read.ticket.user else {
            let [replaced] = self.store.run(batch).await?;
            return Ok(replaced.is_ok()?);
        };
        let state_key = self.state_key(&user);
        let [replaced, state] = self.store.run(batch.get_from_primary(&state_key)).await?;
        let state = UserState::parse(state.value()?.as_deref());
        let replaced = replaced.is_ok()?;
        if replaced && !read.record.survives(&state) { Err(Error::Ended) } else { Ok(replaced) }
    }

    /// Reads the session again after a conflict, until the deadline. From the second conflict on it waits up to half of
    /// the time that was spent so far: of a hundred changes at once each is tried about six times then, instead of 25.
    /// Operations that end sessions do not wait.
    pub(super) async fn reload(&self, ticket: Ticket, conflicts: &mut u32) -> Result<Session, Error> {
        *conflicts += 1;
        if *conflicts > 1 {
            let (now, [jitter]) = (self.host.now(), random(self.host));
            let pause = (now - self.began) * u32::from(jitter) / 512;
            self.host.sleep(pause.min(self.deadline - now)).await;
        }
        self.check_deadline()?;
        self.load_from_primary(ticket).await?.ok_or(Error::Ended)
    }

    /// Writes a session under its id, and into its user's list; in the same transaction ends `old`, if that is still as
    /// it was read: what says so stands in its place for a moment, so that a lost answer leaves no doubt.
    async fn write_new(&self, session: &Session, old: Option<&Session>) -> Result<WriteOutcome, Failure> {
        let Session { ticket, record, stored, .. } = session;
        let ttl = self.rules.lifetimes.ttl(ticket.ends, ticket.remember, ticket.issued);
        let (handle, family) = (ticket.id.handle().to_string(), record.family.to_string());
        let key = self.key(&ticket.id.handle());
        let user_keys = ticket.user.map(|user| (self.state_key(&user), self.list_key(&user)));
        let old_key = old.map(|old| self.key(&old.ticket.id.handle())).unwrap_or_default();
        let replaced = Replaced { by: ticket.id.handle() }.to_json();
        // A session that was rotated is found by what led to it.
        let provider_session = self.provider_session_of(session).filter(|_| record.generation == 0);
        if user_keys.is_none()
            && old.is_none()
            && let Some(is_new) = self.create_counted(session).await?
        {
            let state = UserState::default();
            return Ok(WriteOutcome { is_new, old_has_ended: true, listed: 0, state, logged_out: None });
        }
        let mut batch = Batch::default().create(&key, stored, ttl);
        if let Some((state_key, list_key)) = &user_keys {
            batch = batch
                .get_from_primary(state_key)
                .hash_set(list_key, &handle, &family, self.rules.lifetimes.longest())
                .hash_length(list_key)
                .atomic();
        }
        if let Some((key, tag)) = &provider_session {
            batch = batch.hash_set(key, tag, "", self.rules.lifetimes.longest()).hash(&**key);
        }
        if let Some(old) = old {
            batch = batch.replace(&old_key, &old.stored, &replaced, Some(Redirect::TTL)).atomic();
        }
        let mut replies = self.store.run_all(batch).await?.into_iter();
        let mut next = || replies.next().ok_or(Failure::Garbled);
        let is_new = next()?.is_ok()?;
        let (mut state, mut listed, mut old_has_ended) = (UserState::default(), 0, true);
        let mut logged_out = None;
        if user_keys.is_some() {
            state = UserState::parse(next()?.value()?.as_deref());
            let (_added, _expiry) = (next()?, next()?);
            listed = usize::try_from(next()?.integer()?).map_err(|_| Failure::Garbled)?;
        }
        if let Some((_, tag)) = &provider_session {
            let (_added, _expiry) = (next()?, next()?);
            logged_out = logged_out_since(&next()?.pairs()?, tag);
        }
        if old.is_some() {
            old_has_ended = next()?.is_ok()?;
        }
        Ok(WriteOutcome { is_new, old_has_ended, listed, state, logged_out })
    }
}
