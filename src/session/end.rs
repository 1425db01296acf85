//! Ending a session: logout, and by its handle.

use super::{Entry, Error, FamilyHead, Record, Retry, Session, Sessions, User, UserState, load::MAX_READS};
use crate::{
    encryption::Unopened,
    foreign::Sid,
    host::Host,
    id::{Family, Handle, next_generation},
    store::Batch,
    ticket::{Ticket, UserTag},
};

/// A session found by its handle, with what the store says of its key.
#[derive(Debug)]
pub struct StoredSession {
    /// Its current handle.
    pub handle: Handle,
    /// What the store holds.
    pub record: Box<Record>,
    /// The same to the letter.
    pub stored: String,
    /// How many bytes that is.
    pub stored_bytes: usize,
    /// Milliseconds until it expires.
    pub ttl_ms: u64,
    /// The id that another application has given it.
    pub(super) foreign: Option<Sid>,
}

impl<H: Host> Sessions<'_, H> {
    /// Ends the session, whatever is in flight. One call if nobody else changes it at the same time and it was never rotated.
    pub async fn end(&self, mut session: Session) -> Result<(), Error> {
        if let Some((format, sid)) = self.foreign(&session.ticket) {
            return self.end_foreign(format, &session.ticket, sid).await.map(drop);
        }
        let mut retry = Retry::default();
        loop {
            // A blind delete could remove a redirect written just now, and leave the successor alive.
            match self.delete(&session).await {
                Ok(true) => {
                    // What is left of it leads nowhere.
                    if session.record.generation > 0 {
                        drop(self.delete_family(session.record.family).await);
                    }
                    return Ok(());
                }
                Ok(false) => self.check_deadline()?,
                Err(failure) => retry.after(failure, self.store).await?,
            }
            match self.load_from_primary(session.ticket).await? {
                Some(changed) => session = changed,
                None => return Ok(()),
            }
        }
    }

    /// Ends the session of a ticket in another application's format, without reading it. False if there was none. One call.
    pub async fn end_ticket(&self, ticket: &Ticket) -> Result<bool, Error> {
        match self.foreign(ticket) {
            Some((format, sid)) => self.end_foreign(format, ticket, sid).await,
            None => Ok(false),
        }
    }

    /// Deletes what stands beside a session that was rotated and has ended: the head of its family, and the last redirect.
    pub(super) async fn delete_family(&self, family: Family) -> Result<(), Error> {
        let key = self.family_key(family);
        let [head] = self.store.run(Batch::default().get_from_primary(&key)).await?;
        let from = head.value()?.as_deref().and_then(FamilyHead::parse).and_then(|head| head.from);
        let redirect = from.map(|from| self.key(&from));
        self.store.run_all(Batch::default().delete(std::iter::once(key).chain(redirect))).await?;
        Ok(())
    }

    /// Deletes what is stored under a session's key and cannot be read. One call.
    pub async fn delete_unreadable(&self, handle: &Handle) -> Result<(), Error> {
        self.store.run_all(Batch::default().delete([self.key(handle)])).await?;
        Ok(())
    }

    /// Finds a session by its handle, or by an old one whose grace is not over.
    pub async fn find(&self, handle: &Handle) -> Result<StoredSession, Error> {
        if let Some(format) = self.rules.formats.own() {
            return self.find_foreign(format, handle).await;
        }
        let (mut handle, mut family) = (*handle, None);
        for _ in 0..MAX_READS {
            let (key, family_key) = (self.key(&handle), family.map(|(family, _)| self.family_key(family)));
            let keys = std::iter::once(&key).chain(&family_key).map(String::as_str);
            let batch = Batch::default().get(keys).ttl(&key).at_primary(&key);
            let [values, ttl] = self.store.run(batch).await?;
            let ttl_ms = u64::try_from(ttl.integer()?).unwrap_or(0);
            let mut values = values.values(1 + usize::from(family_key.is_some()))?.into_iter();
            let (stored, head) = (values.next().flatten(), values.next().flatten());
            if let (Some((_, generation)), Some(head)) = (family, head.as_deref().and_then(FamilyHead::parse))
            {
                if head.is_grace_over(generation, self.host.now()) {
                    break;
                }
                if head.generation > next_generation(generation) && head.to != handle {
                    (handle, family) = (head.to, None);
                    continue;
                }
            }
            let Some(stored) = stored else { break };
            match self.open(&key, &stored) {
                Ok(Entry::Redirect(redirect)) => (handle, family) = (redirect.to, family.or(redirect.from)),
                Ok(Entry::Replaced(_)) => break,
                Ok(Entry::Session(record)) => {
                    let state = match &record.user {
                        None => UserState::default(),
                        Some(user) => self.user_state(&user.tag()).await?,
                    };
                    if self.host.now() < record.expires_at && record.survives(&state) {
                        let stored_bytes = stored.len();
                        return Ok(StoredSession {
                            handle,
                            record,
                            stored,
                            stored_bytes,
                            ttl_ms,
                            foreign: None,
                        });
                    }
                    break;
                }
                Err(Unopened(why)) => return Err(Error::unreadable(handle, why)),
            }
        }
        Err(Error::NotFound)
    }

    /// Whether this is a handle that the session with the `current` one had before a rotation, and its grace is not over.
    pub async fn leads_to(&self, handle: &Handle, current: &Handle) -> Result<bool, Error> {
        match self.find(handle).await {
            Ok(stored) => Ok(stored.handle == *current),
            Err(Error::NotFound | Error::Unreadable(..)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends the session with this handle, if it is this user's; with `None`, whoever's it is. Returns its newest handle.
    pub async fn end_by_handle(&self, handle: &Handle, user: Option<&UserTag>) -> Result<Handle, Error> {
        if let Some(format) = self.rules.formats.own().filter(|_| user.is_none()) {
            // Whatever is stored there, also what cannot be read.
            let sid = self.sid_of(format, handle).await?;
            let has_ended = self.end_ticket(&format.ticket(sid, self.host.now())).await?;
            return if has_ended { Ok(*handle) } else { Err(Error::NotFound) };
        }
        let stored = self.find(handle).await?;
        let owner = stored.record.user.as_ref().map(User::tag);
        if user.is_some() && owner.as_ref() != user {
            return Err(Error::NotFound);
        }
        let newest = stored.handle;
        self.end_found(stored).await?;
        Ok(newest)
    }

    /// Ends a session that was found, for somebody else than its holder.
    pub(super) async fn end_found(&self, stored: StoredSession) -> Result<(), Error> {
        self.isolate.count("revocations", self.host.now());
        let owner = stored.record.user.as_ref().map(User::tag);
        self.end_stored(&owner.unwrap_or_default(), stored).await
    }

    /// Ends a session that was found, whatever is in flight.
    pub(super) async fn end_stored(&self, user: &UserTag, stored: StoredSession) -> Result<(), Error> {
        if let Some((format, sid)) = self.rules.formats.own().zip(stored.foreign.as_ref()) {
            return self
                .end_foreign(format, &format.ticket(sid.clone(), self.host.now()), sid)
                .await
                .map(drop);
        }
        let mut retry = Retry::default();
        let mut next = Ok(stored);
        while let Ok(StoredSession { handle, stored, record, .. }) = next {
            let key = self.key(&handle);
            match self.store.run(Batch::default().delete_if(&key, &stored)).await {
                Ok([deleted]) if deleted.integer()? > 0 => {
                    // It has ended. What is left of it does no harm.
                    let list_key = self.list_key(user);
                    let batch = Batch::default().hash_delete(&list_key, [handle.to_string()]);
                    drop(self.store.run_all(batch).await);
                    if record.generation > 0 {
                        drop(self.delete_family(record.family).await);
                    }
                    return Ok(());
                }
                Ok(_) => self.check_deadline()?,
                Err(failure) => retry.after(failure, self.store).await?,
            }
            next = self.find(&handle).await;
        }
        match next {
            Err(Error::NotFound) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
