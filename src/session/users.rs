//! A user's sessions: beginning one, listing them, ending one or all.
//!
//! Ending all is the mark's work: a session whose login began under another mark is dead at its next use,
//! listed or not. The list only shows, and says which records can be deleted at once.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use serde_json::value::RawValue;

use super::{Desk, Device, Entry, Error, MAX_HOPS, Record, Session, Standing, User, commit::Lost};
use crate::{
    host::{self, Host},
    id::{Family, Handle, Nonce},
    json::{self, Object},
    store::{Batch, Failure},
    ticket::UserTag,
};

/// A session found by its handle, with what the store says of its key.
#[derive(Debug)]
pub struct Kept {
    /// Its present handle.
    pub handle: Handle,
    /// What is stored.
    pub record: Box<Record>,
    /// The same to the letter.
    pub stored: String,
    /// Milliseconds until it ends by itself.
    pub ttl_ms: u64,
}

/// By age. (A heap sorts with a third of the code that a slice takes.)
impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |kept: &Self| (kept.record.created_at, kept.handle);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kept {}

impl<H: Host> Desk<'_, H> {
    /// Begins a session for a user whose identity was checked elsewhere. Two calls; more when the user has too
    /// many sessions: then the oldest ends.
    pub async fn admit(
        &self,
        user: User,
        data: Box<RawValue>,
        remember: bool,
        device: Device,
    ) -> Result<Session, Error> {
        // 1. The mark under which this login begins. A replica could still have the one before.
        let tag = user.tag();
        let mark = self.standing_of(&tag).await?.mark;
        if mark.is_some_and(|mark| self.began < mark.time()) {
            // All sessions were ended while this login was on its way to the store: it counts as before that.
            return Err(Error::Conflict);
        }
        // 2. The session. Whatever mark comes between is not known to it: it is dead then.
        let make = || {
            let session = self.fresh(Some(user.clone()), data.clone(), remember);
            let marks = mark.into_iter().collect();
            Session::changed(session, |record| Record { marks, device: device.clone(), ..record })
        };
        let (session, listed) = self.begin(&make).await?;
        // 3. Room for it.
        self.make_room(&tag, listed).await?;
        Ok(session)
    }

    /// Begins a session for a user who has just proved who they are, in the place of the one they had, which is dead at
    /// once. `make` makes it of that one as it was last. One call.
    pub async fn log_in(
        &self,
        old: Option<Session>,
        make: &dyn Fn(Option<&Session>) -> Session,
    ) -> Result<Session, Error> {
        let (session, listed, standing) = self.supersede(old, &|old| Some(make(old))).await?;
        self.isolate.count("sessions_created", self.host.now());
        let Some(tag) = session.ticket.user else { return Ok(session) };
        let session = match standing.mark {
            Some(mark) if !session.record.outlives(&standing) => {
                if self.began < mark.time() {
                    self.take_back(&session, &tag).await?;
                    return Err(Error::Conflict);
                }
                self.learn(session, mark).await?
            }
            _ => session,
        };
        // The old one is gone: whatever fails now, the visitor is to have the new one. The next login makes room.
        drop(self.make_room(&tag, listed).await);
        Ok(session)
    }

    /// Ends a session that nobody knows yet, and leaves nothing of it.
    pub async fn take_back(&self, session: &Session, user: &UserTag) -> Result<(), Error> {
        let (key, handle) = (self.key(&session.ticket), session.ticket.id.handle().to_string());
        let batch = Batch::default().delete(&[&key]).unlist(&self.index_key(user), &[&handle]);
        self.store.run_all(batch).await?;
        Ok(())
    }

    /// Lets a session that nobody knows yet know a mark that was set before it was begun.
    async fn learn(&self, session: Session, mark: Nonce) -> Result<Session, Error> {
        let marks = std::iter::once(mark).chain(session.record.marks.iter().copied()).collect();
        let next = Session::changed(session, |record| Record { marks, ..record });
        let (key, mut lost) = (self.key(&next.ticket), Lost::default());
        loop {
            match self.store.run(Batch::default().overwrite(&key, &next.stored)).await {
                Ok([done]) => return if done.is_done()? { Ok(next) } else { Err(Error::Ended) },
                Err(failure) => lost.bear(failure, self.store).await?,
            }
        }
    }

    /// Ends the oldest sessions of a user who has too many.
    async fn make_room(&self, user: &UserTag, listed: usize) -> Result<(), Error> {
        if listed <= self.rules.max_per_user {
            return Ok(());
        }
        // The list also holds what has ended by itself: that goes first.
        let alive = self.of_user(user, None).await?;
        let excess = alive.len().saturating_sub(self.rules.max_per_user);
        for kept in alive.into_iter().take(excess) {
            self.end_kept(user, kept).await?;
        }
        Ok(())
    }

    /// A user's sessions as JSON, `{"sessions": […]}`, the oldest first. Two calls, and one to tidy the list up when some have ended.
    pub async fn list(&self, user: &UserTag, current: Option<&Handle>) -> Result<String, Error> {
        let lifetimes = &self.rules.lifetimes;
        let now = self.host.now();
        let listed = |kept: Kept| {
            let full = lifetimes.ttl(kept.record.expires_at, kept.record.remember, now);
            let unused_for = full.saturating_sub(Duration::from_millis(kept.ttl_ms));
            let quoted = |text: &Option<String>| text.as_deref().map_or("null".to_owned(), json::quoted);
            Object::default()
                .text("handle", &kept.handle.to_string())
                .print("current", current == Some(&kept.handle))
                .text("created_at", &kept.record.created_at.rfc3339())
                // Use renews the time to live; what is missing of it is how long ago that was.
                .text("last_seen_at", &(now - unused_for).rfc3339())
                .print("remember", kept.record.remember)
                .json("user_agent", &quoted(&kept.record.device.user_agent))
                .json("ip", &quoted(&kept.record.device.ip))
                .end()
        };
        let sessions = self.of_user(user, current).await?;
        Ok(Object::default().json("sessions", &json::list(sessions.into_iter().map(listed))).end())
    }

    /// The sessions in a user's list that live, the oldest first; and `current`, if the list has lost it.
    async fn of_user(&self, user: &UserTag, current: Option<&Handle>) -> Result<Vec<Kept>, Error> {
        // 1. The handles, as the primary has them: what is not seen here is shown as ended.
        let index_key = self.index_key(user);
        let [_, listed] = self.store.run(Batch::default().at_primary(&index_key).hash(&index_key)).await?;
        let listed = listed.pairs()?;
        let mut handles: Vec<Handle> = listed.iter().filter_map(|(name, _)| Handle::parse(name)).collect();
        handles.extend(current.filter(|current| !handles.contains(current)).copied());
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        // 2. What they lead to.
        let keys: Vec<String> = handles.iter().map(|handle| self.key_of(handle)).collect();
        let standing_key = self.standing_key(user);
        let all: Vec<&str> = keys.iter().chain([&standing_key]).map(String::as_str).collect();
        let batch = Batch::default().at_primary(&index_key).get(&all);
        let batch = keys.iter().fold(batch, |batch, key| batch.time_to_live(key));
        let mut replies = self.store.run_all(batch).await?.into_iter().skip(1);
        let mut values = replies.next().ok_or(Failure::Garbled)?.all_values(all.len())?;
        let standing = Standing::parse(values.pop().flatten().as_deref());
        if replies.len() != handles.len() {
            return Err(Failure::Garbled.into());
        }
        let (mut alive, mut gone, mut ended) = (BinaryHeap::new(), Vec::new(), Vec::new());
        for ((handle, value), ttl) in handles.into_iter().zip(values).zip(replies) {
            let ttl_ms = u64::try_from(ttl.count()?).unwrap_or(0);
            match value.as_deref().and_then(Entry::parse) {
                Some(Entry::Here(record)) if self.is_alive(&record, user, &standing) => {
                    alive.push(Kept { handle, record, stored: value.unwrap_or_default(), ttl_ms });
                }
                // It stays listed while it is there: it is to go with all others.
                Some(Entry::Moved(_)) => {}
                _ => {
                    let name = handle.to_string();
                    let family = listed.iter().find(|(listed, _)| *listed == name);
                    ended.extend(family.and_then(|(_, family)| Family::parse(family)));
                    gone.push(name);
                }
            }
        }
        // 3. The list without those that have ended or moved on, and the store without what was noted of the former.
        if !gone.is_empty() {
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            ended.retain(|family| !alive.iter().any(|kept: &Kept| kept.record.lineage.family == *family));
            let keys: Vec<String> = ended.into_iter().map(|family| self.family_key(family)).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let batch = Batch::default().unlist(&index_key, &gone);
            self.store.run_all(if keys.is_empty() { batch } else { batch.delete(&keys) }).await?;
        }
        Ok(alive.into_sorted_vec())
    }

    /// A user's standing, as the primary has it.
    pub(crate) async fn standing_of(&self, user: &UserTag) -> Result<Standing, Failure> {
        let batch = Batch::default().get_from_primary(&self.standing_key(user));
        let [standing] = self.store.run(batch).await?;
        Ok(Standing::parse(standing.optional_text()?.as_deref()))
    }

    /// Changes what holds for all of a user's sessions, by compare-and-set: one that arrives late must not undo a later
    /// one. Tells who was listed in that moment, handles and families; `None` when there was nothing to change.
    pub(crate) async fn set_standing(
        &self,
        user: &UserTag,
        change: &dyn Fn(Standing) -> Result<Option<Standing>, Error>,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        let (key, index_key) = (self.standing_key(user), self.index_key(user));
        // As long as a session from before it can last.
        let longest = self.rules.lifetimes.longest();
        let mut lost = Lost::default();
        loop {
            let [stored] = self.store.run(Batch::default().get_from_primary(&key)).await?;
            let stored = stored.optional_text()?;
            let Some(next) = change(Standing::parse(stored.as_deref()))? else { return Ok(None) };
            let next = next.to_json();
            let batch = match stored {
                Some(stored) => Batch::default().replace_for(&key, &stored, &next, longest),
                None => Batch::default().create(&key, &next, longest),
            };
            match self.store.run(batch.hash(&index_key).as_one()).await {
                Ok([set, listed]) if set.is_done()? => return Ok(Some(listed.pairs()?)),
                Ok(_) => self.check_deadline()?,
                Err(failure) => lost.bear(failure, self.store).await?,
            }
        }
    }

    fn is_alive(&self, record: &Record, user: &UserTag, standing: &Standing) -> bool {
        let is_theirs = record.user.as_ref().is_some_and(|owner| owner.tag() == *user);
        is_theirs && self.host.now() < record.expires_at && record.outlives(standing)
    }

    /// Finds a session by its handle, or by the one it had before a rotation just made.
    pub async fn find(&self, handle: &Handle) -> Result<Kept, Error> {
        let mut handle = *handle;
        for _ in 0..MAX_HOPS {
            let key = self.key_of(&handle);
            let batch = Batch::default().at_primary(&key).get(&[&key]).time_to_live(&key);
            let [_, values, ttl] = self.store.run(batch).await?;
            let ttl_ms = u64::try_from(ttl.count()?).unwrap_or(0);
            let [stored] = values.values()?;
            let Some(stored) = stored else { break };
            match Entry::parse(&stored) {
                Some(Entry::Moved(moved)) if self.host.now() < moved.until => handle = moved.to,
                Some(Entry::Here(record)) => {
                    let user = record.user.as_ref().map(User::tag);
                    let standing = match &user {
                        None => Standing::default(),
                        Some(user) => self.standing_of(user).await?,
                    };
                    let is_alive = self.host.now() < record.expires_at && record.outlives(&standing);
                    if is_alive {
                        return Ok(Kept { handle, record, stored, ttl_ms });
                    }
                    break;
                }
                _ => break,
            }
        }
        Err(Error::NotFound)
    }

    /// Ends the session with this handle, if it is this user's; `None`: whosever it is.
    pub async fn end_by_handle(&self, handle: &Handle, user: Option<&UserTag>) -> Result<(), Error> {
        let kept = self.find(handle).await?;
        let owner = kept.record.user.as_ref().map(User::tag);
        if user.is_some() && owner.as_ref() != user {
            return Err(Error::NotFound);
        }
        self.isolate.count("revocations", self.host.now());
        self.end_kept(&owner.unwrap_or_default(), kept).await
    }

    /// Ends a session that was found, whatever is in flight.
    async fn end_kept(&self, user: &UserTag, kept: Kept) -> Result<(), Error> {
        let mut lost = Lost::default();
        let mut next = Ok(kept);
        while let Ok(Kept { handle, stored, record, .. }) = next {
            let (key, name) = (self.key_of(&handle), handle.to_string());
            match self.store.run(Batch::default().delete_if(&key, &stored)).await {
                Ok([deleted]) if deleted.count()? > 0 => {
                    // It has ended; what is left of it does no harm.
                    let family_key = self.family_key(record.lineage.family);
                    let batch =
                        Batch::default().delete(&[&family_key]).unlist(&self.index_key(user), &[&name]);
                    drop(self.store.run_all(batch).await);
                    return Ok(());
                }
                Ok(_) => self.check_deadline()?,
                Err(failure) => lost.bear(failure, self.store).await?,
            }
            next = self.find(&handle).await;
        }
        match next {
            Err(Error::NotFound) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends all sessions of a user but the caller's, which the mark itself then leaves alone.
    pub async fn end_others(&self, user: &UserTag, session: Session) -> Result<Session, Error> {
        let mark = self.new_mark();
        // What is kept knows the mark before it is there: no request in between finds it dead.
        let session = self.keep_through(session, &mark).await?;
        self.revoke(user, &mark, Some(&session.record), Some(session.record.lineage.family)).await?;
        Ok(session)
    }

    /// Ends all sessions of a user: those that are listed, those that are not, and those whose
    /// login has begun but is not done. `caller`: the session that asks for it, if one does.
    pub async fn end_all(&self, user: &UserTag, caller: Option<&Record>) -> Result<(), Error> {
        self.revoke(user, &self.new_mark(), caller, None).await
    }

    fn new_mark(&self) -> Nonce {
        Nonce::at(self.host.now(), host::random(self.host))
    }

    async fn revoke(
        &self,
        user: &UserTag,
        mark: &Nonce,
        caller: Option<&Record>,
        kept: Option<Family>,
    ) -> Result<(), Error> {
        // 1. The mark, and in the same moment who was there.
        let change = |current: Standing| {
            if current.mark == Some(*mark) {
                // Set already, by an attempt whose answer was lost. Who is listed now may have come after it.
                return Ok(None);
            }
            // A replica may not know yet that the caller's own session was ended: it has no say any more.
            if caller.is_some_and(|caller| !caller.outlives(&current)) {
                return Err(Error::Ended);
            }
            Ok(Some(Standing { mark: Some(*mark), ..current }))
        };
        let Some(listed) = self.set_standing(user, &change).await? else { return Ok(()) };
        self.isolate.count("revocations", self.host.now());
        // 2. Their records need not wait for their end. They are dead already, so that a failure here is none.
        let kept = kept.map(|family| family.to_string());
        let gone = || listed.iter().filter(|(_, family)| Some(family) != kept.as_ref());
        if gone().next().is_some() {
            let names: Vec<&str> = gone().map(|(name, _)| name.as_str()).collect();
            let records =
                names.iter().filter_map(|name| Handle::parse(name)).map(|handle| self.key_of(&handle));
            let families = gone().filter_map(|(_, family)| Family::parse(family));
            let keys: Vec<String> = records.chain(families.map(|family| self.family_key(family))).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let batch = Batch::default().delete(&keys).unlist(&self.index_key(user), &names);
            drop(self.store.run_all(batch).await);
        }
        Ok(())
    }

    /// Lets a session outlive a mark that is to come.
    async fn keep_through(&self, mut session: Session, mark: &Nonce) -> Result<Session, Error> {
        let mut lost = Lost::default();
        // Marks that came, and marks that were meant to come and did not: no more of them matter.
        const KEPT: usize = 8;
        while !session.record.marks.contains(mark) {
            let marks = std::iter::once(mark).chain(&session.record.marks).take(KEPT).copied().collect();
            let record = Record { marks, ..(*session.record).clone() };
            let stored = record.to_json();
            match self.replace(&session, &stored, None).await {
                Ok(true) => return Ok(Session { record: Box::new(record), stored, ..session }),
                Ok(false) => {}
                Err(Error::Store(failure)) => lost.bear(failure, self.store).await?,
                Err(error) => return Err(error),
            }
            session = self.again(session.ticket).await?;
        }
        Ok(session)
    }
}
