//! Ending a session: logout, and by its handle.

use super::{Entry, Error, MAX_REDIRECTS, Record, Retry, Session, Sessions, User, UserState};
use crate::{host::Host, id::Handle, store::Batch, ticket::UserTag};

/// A session found by its handle, with what the store says of its key.
#[derive(Debug)]
pub struct StoredSession {
    /// Its current handle.
    pub handle: Handle,
    /// What the store holds.
    pub record: Box<Record>,
    /// The same to the letter.
    pub stored: String,
    /// Milliseconds until it expires.
    pub ttl_ms: u64,
}

impl<H: Host> Sessions<'_, H> {
    /// Ends the session, whatever is in flight. One call if nobody else changes it at the same time.
    pub async fn end(&self, mut session: Session) -> Result<(), Error> {
        let mut retry = Retry::default();
        loop {
            // A blind delete could remove a redirect written just now, and leave the successor alive.
            match self.delete(&session).await {
                Ok(true) => return Ok(()),
                Ok(false) => self.check_deadline()?,
                Err(failure) => retry.after(failure, self.store).await?,
            }
            match self.load_from_primary(session.ticket).await? {
                Some(changed) => session = changed,
                None => return Ok(()),
            }
        }
    }

    /// Deletes what is stored under a session's key and cannot be read. One call.
    pub async fn delete_unreadable(&self, handle: &Handle) -> Result<(), Error> {
        self.store.run_all(Batch::default().delete([self.key(handle)])).await?;
        Ok(())
    }

    /// Finds a session by its handle, or by one that it had before a rotation just made.
    pub async fn find(&self, handle: &Handle) -> Result<StoredSession, Error> {
        let mut handle = *handle;
        for _ in 0..MAX_REDIRECTS {
            let key = self.key(&handle);
            let batch = Batch::default().at_primary(&key).get([&*key]).ttl(&key);
            let [_, values, ttl] = self.store.run(batch).await?;
            let ttl_ms = u64::try_from(ttl.integer()?).unwrap_or(0);
            let Some(stored) = values.values(1)?.pop().flatten() else { break };
            match Entry::parse(&stored) {
                Some(Entry::Redirect(redirect)) if self.host.now() < redirect.until => handle = redirect.to,
                Some(Entry::Redirect(_)) => break,
                Some(Entry::Session(record)) => {
                    let state = match &record.user {
                        None => UserState::default(),
                        Some(user) => self.user_state(&user.tag()).await?,
                    };
                    if self.host.now() < record.expires_at && record.survives(&state) {
                        return Ok(StoredSession { handle, record, stored, ttl_ms });
                    }
                    break;
                }
                None => return Err(Error::Unreadable(handle)),
            }
        }
        Err(Error::NotFound)
    }

    /// Ends the session with this handle, if it is this user's; with `None`, whoever's it is.
    pub async fn end_by_handle(&self, handle: &Handle, user: Option<&UserTag>) -> Result<(), Error> {
        let stored = self.find(handle).await?;
        let owner = stored.record.user.as_ref().map(User::tag);
        if user.is_some() && owner.as_ref() != user {
            return Err(Error::NotFound);
        }
        self.isolate.count("revocations", self.host.now());
        self.end_stored(&owner.unwrap_or_default(), stored).await
    }

    /// Ends a session that was found, whatever is in flight.
    pub(super) async fn end_stored(&self, user: &UserTag, stored: StoredSession) -> Result<(), Error> {
        let mut retry = Retry::default();
        let mut next = Ok(stored);
        while let Ok(StoredSession { handle, stored, record, .. }) = next {
            let key = self.key(&handle);
            match self.store.run(Batch::default().delete_if(&key, &stored)).await {
                Ok([deleted]) if deleted.integer()? > 0 => {
                    // It has ended. What is left of it does no harm.
                    let list_key = self.list_key(user);
                    let batch = Batch::default()
                        .delete([self.family_key(record.family)])
                        .hash_delete(&list_key, [handle.to_string()]);
                    drop(self.store.run_all(batch).await);
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
