//! From a ticket to the session behind it, in one call to the store.

use super::{Entry, Error, FamilyHead, MAX_REDIRECTS, Session, Sessions, User, UserState};
use crate::{
    host::Host,
    store::{Batch, Failure},
    ticket::Ticket,
    time::Time,
};

/// What the store holds behind a ticket.
pub(super) struct Loaded {
    /// The stored text.
    pub(super) stored: Option<String>,
    /// The same, parsed; `None` also if it cannot be read.
    entry: Option<Entry>,
    /// What holds for all sessions of the user.
    pub(super) state: UserState,
}

impl Loaded {
    fn new(stored: Option<String>, state: Option<String>) -> Self {
        let entry = stored.as_deref().and_then(Entry::parse);
        Self { entry, stored, state: UserState::parse(state.as_deref()) }
    }

    /// Whether there is nothing, or only a redirect whose grace is over.
    fn is_gone(&self, now: Time) -> bool {
        match &self.entry {
            Some(Entry::Redirect(redirect)) => redirect.until <= now,
            Some(Entry::Session(_)) => false,
            None => self.stored.is_none(),
        }
    }
}

impl<H: Host> Sessions<'_, H> {
    /// Reads the session; `None` if it has ended. A touch that is due is made in the same call, and shows in the session's
    /// ticket. An id that was rotated leads to its successor, for one call more, until its grace is over; after that its
    /// use is a sign of theft and ends the session (OWASP Session Management, session ID renewal).
    pub async fn load(&self, mut ticket: Ticket) -> Result<Option<Session>, Error> {
        let (loaded, _) = self.read(&mut ticket, None).await?;
        self.follow(ticket, loaded).await
    }

    /// The same for a request that gets another session in any case, if there is a ticket; and in the same call the value
    /// of another key. A session that cannot be read is none here.
    pub async fn load_with(
        &self,
        ticket: Option<Ticket>,
        key: &str,
    ) -> Result<(Option<Session>, Option<String>), Error> {
        let Some(mut ticket) = ticket else {
            let [values] = self.store.run(Batch::default().get([key])).await?;
            return Ok((None, values.values(1)?.pop().flatten()));
        };
        let (loaded, value) = self.read(&mut ticket, Some(key)).await?;
        let session = match self.follow(ticket, loaded).await {
            Err(Error::Unreadable(handle)) => {
                self.host.log(&format_args!("session {handle} cannot be read; it is left as it is"));
                None
            }
            outcome => outcome?,
        };
        Ok((session, value))
    }

    /// The same as the primary has it: after a write was refused, a replica may not know why yet.
    pub(super) async fn load_from_primary(&self, ticket: Ticket) -> Result<Option<Session>, Error> {
        let (loaded, _) = self.read_from_primary(&ticket).await?;
        self.follow(ticket, loaded).await
    }

    /// Follows redirects to the session.
    async fn follow(&self, mut ticket: Ticket, mut loaded: Loaded) -> Result<Option<Session>, Error> {
        let now = self.host.now();
        for _ in 0..MAX_REDIRECTS {
            if loaded.is_gone(now) {
                // It has ended, or this replica does not know it yet. The primary knows.
                let head;
                (loaded, head) = self.read_from_primary(&ticket).await?;
                if loaded.is_gone(now) {
                    self.detect_reuse(&ticket, head).await?;
                    return Ok(None);
                }
            }
            match (loaded.entry, loaded.stored) {
                (Some(Entry::Session(mut record)), Some(stored)) => {
                    // The state is that of the ticket's user, who must be the record's.
                    let is_theirs = record.user.as_ref().map(User::tag) == ticket.user;
                    let is_alive = is_theirs && now < record.expires_at && record.survives(&loaded.state);
                    if let (Some(user), Some(roles)) = (&mut record.user, loaded.state.roles) {
                        user.roles = roles;
                    }
                    return Ok(is_alive.then_some(Session { ticket, record, stored }));
                }
                (Some(Entry::Redirect(redirect)), _) => {
                    ticket = redirect.successor(&ticket);
                    (loaded, _) = self.read(&mut ticket, None).await?;
                }
                _ => return Err(Error::Unreadable(ticket.id.handle())),
            }
        }
        self.host.log(&format_args!(
            "session {} was rotated more than {MAX_REDIRECTS} times within a grace; its old id is refused",
            ticket.id.handle()
        ));
        Ok(None)
    }

    /// One call: the stored text, the user's state, another key's value and, if it is due, a new time to live.
    async fn read(
        &self,
        ticket: &mut Ticket,
        other_key: Option<&str>,
    ) -> Result<(Loaded, Option<String>), Failure> {
        let (now, lifetimes, handle) = (self.host.now(), &self.rules.lifetimes, ticket.id.handle());
        // An earlier request may have touched the session here, and its ticket may not have reached its holder.
        ticket.issued = ticket.issued.max(self.isolate.last_touch(&handle).unwrap_or_default());
        let key = self.key(&handle);
        let state_key = ticket.user.map(|user| self.state_key(&user));
        let keys: Vec<&str> =
            std::iter::once(&key).chain(&state_key).map(String::as_str).chain(other_key).collect();
        let count = keys.len();
        let mut batch = Batch::default().get(keys);
        let is_touch_due = lifetimes.touch_due(ticket, now);
        if is_touch_due {
            batch = batch.extend_ttl(&key, lifetimes.ttl(ticket.ends, ticket.remember, now));
            self.isolate.touch(handle, now);
        }
        let outcome = self.store.run_all(batch).await;
        if is_touch_due {
            match outcome {
                Ok(_) => ticket.issued = now,
                // Over a limit: the replies are withheld, the touch was made.
                Err(Failure::RateLimited) => {}
                Err(_) => self.isolate.forget_touch(&handle),
            }
        }
        let replies = outcome?;
        let values = replies.into_iter().next().ok_or(Failure::Garbled)?.values(count)?;
        let mut values = values.into_iter();
        let stored = values.next().flatten();
        let state = if state_key.is_some() { values.next().flatten() } else { None };
        Ok((Loaded::new(stored, state), values.next().flatten()))
    }

    /// The same as the primary has it, and the head of the ticket's family.
    pub(super) async fn read_from_primary(
        &self,
        ticket: &Ticket,
    ) -> Result<(Loaded, Option<FamilyHead>), Failure> {
        let (key, family_key) = (self.key(&ticket.id.handle()), self.family_key(ticket.family));
        let state_key = ticket.user.map(|user| self.state_key(&user));
        let keys: Vec<&str> = [&key, &family_key].into_iter().chain(&state_key).map(String::as_str).collect();
        let count = keys.len();
        let [_, values] = self.store.run(Batch::default().at_primary(&key).get(keys)).await?;
        let mut values = values.values(count)?.into_iter();
        let (stored, head, state) =
            (values.next().flatten(), values.next().flatten(), values.next().flatten());
        Ok((Loaded::new(stored, state), head.as_deref().and_then(FamilyHead::parse)))
    }

    /// Ends the session if its family has moved on from this ticket's id: somebody kept a copy of an old cookie.
    async fn detect_reuse(&self, ticket: &Ticket, head: Option<FamilyHead>) -> Result<(), Error> {
        let Some(head) = head.filter(|head| ticket.generation < head.generation) else { return Ok(()) };
        if !self.rules.end_on_reuse {
            return Ok(());
        }
        match self.end_by_handle(&head.to, None).await {
            Ok(()) => {
                self.host.log(&format_args!(
                    "session {} was ended: an old id of it was used after its grace (reuse detected)",
                    head.to
                ));
                Ok(())
            }
            // It has ended already.
            Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
