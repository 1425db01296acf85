//! A user's sessions: beginning one, listing them, ending one or all.
//!
//! Ending all is the mark's work: a session whose login began under another mark is dead at its next use,
//! listed or not. The list only shows, and says which records can be deleted at once.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Desk, Device, Entry, Error, MAX_HOPS, Record, Session, User, commit::Lost, to_json};
use crate::{
    host::Host,
    id::{Handle, Nonce},
    store::{Batch, Failure},
    ticket::UserTag,
    time::Time,
};

/// `{"sessions": […]}`.
#[derive(Serialize)]
struct List {
    sessions: Vec<Listed>,
}

/// A session as its user's device list shows it.
#[derive(Serialize, Debug)]
struct Listed {
    handle: Handle,
    current: bool,
    #[serde(serialize_with = "Time::as_rfc3339")]
    created_at: Time,
    #[serde(serialize_with = "Time::as_rfc3339")]
    last_seen_at: Time,
    remember: bool,
    user_agent: Option<String>,
    ip: Option<String>,
}

/// A session found by its handle, with what the store says of its key.
#[derive(Debug)]
pub struct Kept {
    /// Its present handle.
    pub handle: Handle,
    /// What is stored.
    pub record: Record,
    /// The same to the letter.
    pub stored: String,
    /// Milliseconds until it ends by itself.
    pub ttl_ms: u64,
}

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
        let batch = Batch::default().get_from_primary(&self.mark_key(&tag));
        let [mark] = self.store.run(batch).await?;
        let marks =
            mark.optional_text()?.and_then(|mark| Nonce::parse(&mark)).into_iter().collect::<Vec<_>>();
        // 2. The session.
        let make = || {
            let session = self.fresh(Some(user.clone()), data.clone(), remember);
            let record = Record { marks: marks.clone(), device: device.clone(), ..session.record };
            Session { stored: record.to_json(), record, ..session }
        };
        let (session, listed) = self.begin(make).await?;
        // 3. Room for it.
        if listed > self.rules.max_per_user {
            self.make_room(&tag).await?;
        }
        Ok(session)
    }

    /// Ends the oldest sessions of a user who has too many.
    async fn make_room(&self, user: &UserTag) -> Result<(), Error> {
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
            Listed {
                current: current == Some(&kept.handle),
                handle: kept.handle,
                created_at: kept.record.created_at,
                // Use renews the time to live; what is missing of it is how long ago that was.
                last_seen_at: now - unused_for,
                remember: kept.record.remember,
                user_agent: kept.record.device.user_agent,
                ip: kept.record.device.ip,
            }
        };
        let sessions = self.of_user(user, current).await?.into_iter().map(listed).collect();
        Ok(to_json(&List { sessions }))
    }

    /// The sessions in a user's list that live, the oldest first; and `current`, if the list has lost it.
    async fn of_user(&self, user: &UserTag, current: Option<&Handle>) -> Result<Vec<Kept>, Error> {
        // 1. The handles.
        let index_key = self.index_key(user);
        let [members] = self.store.run(Batch::default().members(&index_key)).await?;
        let mut names = members.texts()?;
        names.extend(current.map(Handle::to_string).filter(|name| !names.contains(name)));
        let handles: Vec<Handle> = names.iter().filter_map(|name| Handle::parse(name)).collect();
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        // 2. What they lead to.
        let keys: Vec<String> = handles.iter().map(|handle| self.key_of(handle)).collect();
        let mark_key = self.mark_key(user);
        let all: Vec<&str> = keys.iter().chain([&mark_key]).map(String::as_str).collect();
        let batch = keys.iter().fold(Batch::default().get(&all), |batch, key| batch.time_to_live(key));
        let mut replies = self.store.run_all(batch).await?.into_iter();
        let mut values = replies.next().ok_or(Failure::Garbled)?.all_values(all.len())?;
        let mark = values.pop().flatten();
        if replies.len() != handles.len() {
            return Err(Failure::Garbled.into());
        }
        let (mut alive, mut gone) = (Vec::new(), Vec::new());
        for ((handle, value), ttl) in handles.into_iter().zip(values).zip(replies) {
            let ttl_ms = u64::try_from(ttl.count()?).unwrap_or(0);
            match value.as_deref().and_then(Entry::parse) {
                Some(Entry::Here(record)) if self.is_alive(&record, user, mark.as_deref()) => {
                    alive.push(Kept { handle, record, stored: value.unwrap_or_default(), ttl_ms });
                }
                _ => gone.push(handle.to_string()),
            }
        }
        // 3. The list without those that have ended or moved on.
        if !gone.is_empty() {
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            let [unlisted] = self.store.run(Batch::default().unlist(&index_key, &gone)).await?;
            unlisted.count()?;
        }
        alive.sort_by_key(|kept| kept.record.created_at);
        Ok(alive)
    }

    fn is_alive(&self, record: &Record, user: &UserTag, mark: Option<&str>) -> bool {
        let is_theirs = record.user.as_ref().is_some_and(|owner| owner.tag() == *user);
        is_theirs && self.host.now() < record.expires_at && record.outlives(mark)
    }

    /// Finds a session by its handle, or by the one it had before a rotation just made.
    pub async fn find(&self, handle: &Handle) -> Result<Kept, Error> {
        let mut handle = handle.clone();
        for _ in 0..MAX_HOPS {
            let key = self.key_of(&handle);
            let batch = Batch::default().get(&[&key]).time_to_live(&key);
            let [values, ttl] = self.store.run(batch).await?;
            let ttl_ms = u64::try_from(ttl.count()?).unwrap_or(0);
            let [stored] = values.values()?;
            let Some(stored) = stored else { break };
            match Entry::parse(&stored) {
                Some(Entry::Moved(moved)) if self.host.now() < moved.until => handle = moved.to,
                Some(Entry::Here(record)) => {
                    let user = record.user.as_ref().map(User::tag);
                    let mark = match &user {
                        None => None,
                        Some(user) => {
                            let batch = Batch::default().get_from_primary(&self.mark_key(user));
                            let [mark] = self.store.run(batch).await?;
                            mark.optional_text()?
                        }
                    };
                    let is_alive = self.host.now() < record.expires_at && record.outlives(mark.as_deref());
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
        self.end_kept(&owner.unwrap_or_default(), kept).await
    }

    /// Ends a session that was found, whatever is in flight.
    async fn end_kept(&self, user: &UserTag, kept: Kept) -> Result<(), Error> {
        let mut lost = Lost::default();
        let mut next = Ok(kept);
        while let Ok(Kept { handle, stored, .. }) = next {
            let (key, name) = (self.key_of(&handle), handle.to_string());
            let batch = Batch::default().delete_if(&key, &stored).unlist(&self.index_key(user), &[&name]);
            match self.store.run(batch).await {
                Ok([deleted, _unlisted]) if deleted.count()? > 0 => return Ok(()),
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

    /// Ends all sessions of a user, `keep` excepted: those that are listed, those that are not, and those whose
    /// login has begun but is not done.
    pub async fn end_all(&self, user: &UserTag, keep: Option<Session>) -> Result<Option<Session>, Error> {
        // 1. What is kept knows the mark before it is there: no request in between finds it dead.
        let mark = self.nonce();
        let keep = match keep {
            None => None,
            Some(session) => Some(self.keep_through(session, &mark).await?),
        };
        // 2. The mark, and in the same moment who was there. Compare-and-set: one that arrives late must not undo
        //    a later revocation.
        let (mark_key, index_key) = (self.mark_key(user), self.index_key(user));
        let longest = self.rules.lifetimes.longest();
        let mut lost = Lost::default();
        let members = loop {
            let [current] = self.store.run(Batch::default().get_from_primary(&mark_key)).await?;
            let current = current.optional_text()?;
            let batch = Batch::default();
            let batch = match &current {
                // Set already, by an attempt whose answer was lost.
                Some(current) if current == mark.as_str() => {
                    let [members] = self.store.run(batch.members(&index_key)).await?;
                    break members.texts()?;
                }
                Some(current) => batch.replace_for(&mark_key, current, mark.as_str(), longest),
                None => batch.create(&mark_key, mark.as_str(), longest),
            };
            match self.store.run(batch.members(&index_key).as_one()).await {
                Ok([set, members]) if set.is_done()? => break members.texts()?,
                Ok(_) => self.check_deadline()?,
                Err(failure) => lost.bear(failure, self.store).await?,
            }
        };
        // 3. Their records need not wait for their end. They are dead already, so that a failure here is none.
        let kept = keep.as_ref().map(|session| session.ticket.id.handle().to_string());
        let gone: Vec<&String> = members.iter().filter(|name| Some(*name) != kept.as_ref()).collect();
        if !gone.is_empty() {
            let keys: Vec<String> = gone
                .iter()
                .filter_map(|name| Handle::parse(name))
                .map(|handle| self.key_of(&handle))
                .collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let names: Vec<&str> = gone.iter().map(|name| name.as_str()).collect();
            drop(self.store.run_all(Batch::default().delete(&keys).unlist(&index_key, &names)).await);
        }
        Ok(keep)
    }

    /// Lets a session outlive a mark that is to come.
    async fn keep_through(&self, mut session: Session, mark: &Nonce) -> Result<Session, Error> {
        let mut lost = Lost::default();
        // Marks that came, and marks that were meant to come and did not: no more of them matter.
        const KEPT: usize = 8;
        while !session.record.marks.contains(mark) {
            let marks = std::iter::once(mark).chain(&session.record.marks).take(KEPT).cloned().collect();
            let record = Record { marks, ..session.record.clone() };
            let stored = record.to_json();
            match self.replace(&session, &stored, None).await {
                Ok(true) => return Ok(Session { record, stored, ..session }),
                Ok(false) => {}
                Err(Error::Store(failure)) => lost.bear(failure, self.store).await?,
                Err(error) => return Err(error),
            }
            session = self.again(session.ticket).await?;
        }
        Ok(session)
    }
}
