//! Ending all sessions of a user.
//!
//! The revocation mark does it: a session whose login began under another mark is dead at its next use, whether the list
//! holds it or not. The list only says which records can be deleted at once.

use std::cell::RefCell;

use super::{Entry, Error, Record, Retry, Session, Sessions, UserState};
use crate::{
    host::{Host, random},
    id::{Family, Handle, Nonce},
    store::{Batch, Failure},
    ticket::UserTag,
};

/// Why sessions in another application's format cannot be ended all at once.
const NOT_ALL_KNOWN: &str =
    "not all sessions of a user can be ended: the application's are not known here (cookie.format)";

/// Handles and their families, as a user's list holds them.
type Listed = Vec<(String, String)>;

/// What a revocation found.
struct Revoked {
    /// The user's list in that moment; `None` if it was lost with the answer.
    listed: Option<Listed>,
    /// What held for all sessions of the user before.
    before: UserState,
}

impl<H: Host> Sessions<'_, H> {
    /// 422 if not all sessions of a user can be ended, as those in another application's format.
    pub fn check_can_end_all(&self) -> Result<(), Error> {
        self.check_native(NOT_ALL_KNOWN)
    }

    /// Ends all sessions of a user but the caller's, which survives the mark.
    pub async fn end_others(&self, user: &UserTag, mut session: Session) -> Result<Session, Error> {
        self.check_can_end_all()?;
        loop {
            let mark = self.new_mark();
            // The session knows the mark before the mark is set: no request in between finds it dead.
            session = self.survive_mark(session, &mark).await?;
            match self.revoke(user, &mark, Some(&session.record), Some(session.record.family)).await {
                // It has ended; or another request of the same session has set a mark meanwhile, which it knows by now.
                Err(Error::Ended) => {
                    self.check_deadline()?;
                    session = self.load_from_primary(session.ticket).await?.ok_or(Error::Ended)?;
                }
                outcome => return outcome.map(|()| session),
            }
        }
    }

    /// Ends all sessions of a user: those in the list, others, and those whose login is under way. `caller`: the session
    /// that asks for it, if one does.
    pub async fn end_all(&self, user: &UserTag, mut caller: Option<Session>) -> Result<(), Error> {
        self.check_can_end_all()?;
        loop {
            let record = caller.as_ref().map(|caller| &*caller.record);
            match (self.revoke(user, &self.new_mark(), record, None).await, caller) {
                // As above.
                (Err(Error::Ended), Some(session)) => {
                    self.check_deadline()?;
                    caller = Some(self.load_from_primary(session.ticket).await?.ok_or(Error::Ended)?);
                }
                (outcome, _) => return outcome,
            }
        }
    }

    /// Ends all sessions of a user, as long as `is_allowed` does not fail. It is asked again whenever what holds for all of
    /// them has changed: of two that are allowed to until one of them has done it, the other ends no session that begins then.
    pub async fn end_all_while(
        &self,
        user: &UserTag,
        is_allowed: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check_can_end_all()?;
        let revoked = self.set_mark(user, &self.new_mark(), None, is_allowed).await?;
        if let Some(listed) = revoked.listed {
            self.delete_records(user, listed, &[]).await;
        }
        Ok(())
    }

    /// The same for an operator. Returns how many sessions it has ended: those in the list that lived until then. One call
    /// more. Error: also if all are ended and could not be counted.
    pub async fn end_all_counted(&self, user: &UserTag) -> Result<usize, Error> {
        self.check_can_end_all()?;
        let mark = self.new_mark();
        let Revoked { listed, before } = self.set_mark(user, &mark, None, async || Ok(())).await?;
        let Some(listed) = listed else {
            let batch = Batch::default().hash(self.list_key(user)).at_primary(self.state_key(user));
            let [listed] = self.store.run(batch).await?;
            return self.count_ended(user, &listed.pairs()?, &before, mark).await;
        };
        let ended = self.count_ended(user, &listed, &before, mark).await?;
        self.delete_records(user, listed, &[]).await;
        Ok(ended)
    }

    /// What holds for all sessions of a user, as the primary has it.
    pub(crate) async fn user_state(&self, user: &UserTag) -> Result<UserState, Failure> {
        let key = self.state_key(user);
        let [state] = self.store.run(Batch::default().get_from_primary(&key)).await?;
        Ok(UserState::parse(state.value()?.as_deref()))
    }

    /// The same, with the value of another key, in one call.
    pub(crate) async fn user_state_with(
        &self,
        user: &UserTag,
        key: &str,
    ) -> Result<(UserState, Option<String>), Failure> {
        let state_key = self.state_key(user);
        let batch = Batch::default().get_from_primary(&state_key).get_from_primary(key);
        let [state, value] = self.store.run(batch).await?;
        Ok((UserState::parse(state.value()?.as_deref()), value.value()?))
    }

    /// Changes what holds for all sessions of a user, by compare-and-set: a change that arrives late must not undo a
    /// later one. Returns the user's list in that moment; `None` if there was nothing to change.
    pub(crate) async fn update_user_state(
        &self,
        user: &UserTag,
        change: &dyn Fn(UserState) -> Result<Option<UserState>, Error>,
    ) -> Result<Option<Listed>, Error> {
        self.update_user_state_while(user, async || Ok(()), change).await
    }

    /// The same, as long as `is_allowed` does not fail, which is asked after the state was read: who makes it fail and then
    /// changes the state is not overtaken.
    async fn update_user_state_while(
        &self,
        user: &UserTag,
        is_allowed: impl AsyncFn() -> Result<(), Error>,
        change: &dyn Fn(UserState) -> Result<Option<UserState>, Error>,
    ) -> Result<Option<Listed>, Error> {
        let (key, list_key) = (self.state_key(user), self.list_key(user));
        // As long as a session from before it can last.
        let ttl = self.rules.lifetimes.longest();
        let mut retry = Retry::default();
        loop {
            let [stored] = self.store.run(Batch::default().get_from_primary(&key)).await?;
            let stored = stored.value()?;
            is_allowed().await?;
            let Some(next) = change(UserState::parse(stored.as_deref()))? else { return Ok(None) };
            let next = next.to_json();
            let batch = match &stored {
                Some(stored) => Batch::default().replace(&key, stored, &next, Some(ttl)),
                None => Batch::default().create(&key, &next, ttl),
            };
            match self.store.run(batch.hash(&*list_key).atomic()).await {
                Ok([written, listed]) if written.is_ok()? => return Ok(Some(listed.pairs()?)),
                Ok(_) => self.check_deadline()?,
                Err(failure) => retry.after(failure, self.store).await?,
            }
        }
    }

    pub(super) fn new_mark(&self) -> Nonce {
        Nonce::at(self.host.now(), random(self.host))
    }

    async fn revoke(
        &self,
        user: &UserTag,
        mark: &Nonce,
        caller: Option<&Record>,
        kept: Option<Family>,
    ) -> Result<(), Error> {
        if let Some(listed) = self.set_mark(user, mark, caller, async || Ok(())).await?.listed {
            self.delete_records(user, listed, kept.as_slice()).await;
        }
        Ok(())
    }

    /// Sets the mark, and reads the list in the same transaction.
    async fn set_mark(
        &self,
        user: &UserTag,
        mark: &Nonce,
        caller: Option<&Record>,
        is_allowed: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<Revoked, Error> {
        let before = RefCell::new(UserState::default());
        let change = |current: UserState| {
            if current.revocation_mark == Some(*mark) {
                // An attempt whose answer was lost has set it. Sessions in the list now may be newer.
                return Ok(None);
            }
            // A replica may not know yet that the caller's own session was ended: then it may not do this.
            if caller.is_some_and(|caller| !caller.survives(&current)) {
                return Err(Error::Ended);
            }
            before.replace(current.clone());
            Ok(Some(UserState { revocation_mark: Some(*mark), ..current }))
        };
        let listed = self.update_user_state_while(user, is_allowed, &change).await?;
        self.isolate.count("revocations", self.host.now());
        Ok(Revoked { listed, before: before.take() })
    }

    /// How many of the listed sessions lived under the user's state before the mark, and do not survive it. A call of its
    /// own, which is repeated if it fails.
    async fn count_ended(
        &self,
        user: &UserTag,
        listed: &Listed,
        before: &UserState,
        mark: Nonce,
    ) -> Result<usize, Error> {
        let handles = listed.iter().filter_map(|(handle, _)| Handle::parse(handle));
        let keys: Vec<String> = handles.map(|handle| self.key(&handle)).collect();
        if keys.is_empty() {
            return Ok(0);
        }
        let [values] = self.store.run(Batch::default().get(&keys).at_primary(self.state_key(user))).await?;
        let after = UserState { revocation_mark: Some(mark), ..UserState::default() };
        // By families: a rotation under way has written its session twice.
        let mut ended: Vec<Family> = Vec::new();
        for (key, value) in keys.iter().zip(values.values(keys.len())?) {
            if let Some(Ok(Entry::Session(record))) = value.map(|stored| self.open(key, &stored))
                && self.is_alive(&record, user, before)
                && !record.survives(&after)
                && !ended.contains(&record.family)
            {
                ended.push(record.family);
            }
        }
        Ok(ended.len())
    }

    /// Deletes what the store keeps of revoked sessions. They are dead already, so that a failure here does no harm.
    pub(super) async fn delete_records(&self, user: &UserTag, listed: Listed, kept: &[Family]) {
        let kept: Vec<String> = kept.iter().map(Family::to_string).collect();
        let ended: Listed = listed.into_iter().filter(|(_, family)| !kept.contains(family)).collect();
        if ended.is_empty() {
            return;
        }
        let records =
            ended.iter().filter_map(|(handle, _)| Handle::parse(handle)).map(|handle| self.key(&handle));
        let heads = ended
            .iter()
            .filter_map(|(_, family)| Family::parse(family))
            .map(|family| self.family_key(family));
        let list_key = self.list_key(user);
        let batch = Batch::default()
            .delete(records.chain(heads))
            .hash_delete(&list_key, ended.iter().map(|(handle, _)| handle.as_str()));
        drop(self.store.run_all(batch).await);
    }

    /// Lets a session survive a mark that will be set.
    async fn survive_mark(&self, mut session: Session, mark: &Nonce) -> Result<Session, Error> {
        let (mut retry, mut conflicts) = (Retry::default(), 0);
        while !session.record.marks.contains(mark) {
            let record = session.record.surviving(mark);
            let stored = self.seal(&session.ticket.id.handle(), &record);
            match self.compare_and_set(&session, &stored, None).await {
                Ok(true) => return Ok(Session { record: Box::new(record), stored, ..session }),
                Ok(false) => {}
                Err(Error::Store(failure)) => retry.after(failure, self.store).await?,
                Err(error) => return Err(error),
            }
            session = self.reload(session.ticket, &mut conflicts).await?;
        }
        Ok(session)
    }
}
