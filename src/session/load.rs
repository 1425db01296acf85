//! From a ticket to the session behind it, in one call to the store.

use super::{Desk, Entry, Error, MAX_HOPS, Newest, Session, Standing, User};
use crate::{
    host::Host,
    limit::Meter,
    store::{Batch, Failure},
    ticket::Ticket,
    time::Time,
};

/// What the store holds behind a ticket.
pub(super) struct Found {
    /// The stored text.
    pub(super) stored: Option<String>,
    /// The same taken apart; `None` also when it is not ours.
    entry: Option<Entry>,
    /// What holds for all of the user's sessions.
    pub(super) standing: Standing,
}

impl Found {
    fn new(stored: Option<String>, standing: Option<String>) -> Self {
        let entry = stored.as_deref().and_then(Entry::parse);
        Self { entry, stored, standing: Standing::parse(standing.as_deref()) }
    }

    /// Whether nothing is there, or only a way that is not open any more.
    fn is_gone(&self, now: Time) -> bool {
        match &self.entry {
            Some(Entry::Moved(moved)) => moved.until <= now,
            Some(Entry::Here(_)) => false,
            None => self.stored.is_none(),
        }
    }
}

impl<H: Host> Desk<'_, H> {
    /// Reads the session; `None` when it has ended. The request is counted in the same call; a due touch rides along,
    /// and shows in the session's ticket. A rotated id leads to its successor, for a call more, while the grace lasts; after
    /// that, its use is a sign of theft and ends the session (OWASP: session id renewal).
    pub async fn load(&self, mut ticket: Ticket, meter: &mut Meter<'_>) -> Result<Option<Session>, Failure> {
        let (found, _) = self.read(&mut ticket, meter, None).await?;
        self.follow(ticket, found).await
    }

    /// The same, if there is a ticket, and in the same call the value of another key.
    pub async fn load_beside(
        &self,
        ticket: Option<Ticket>,
        meter: &mut Meter<'_>,
        key: &str,
    ) -> Result<(Option<Session>, Option<String>), Failure> {
        let Some(mut ticket) = ticket else {
            let values = meter.read(self.store, &[key], None).await?;
            return Ok((None, values.into_iter().next().flatten()));
        };
        let (found, value) = self.read(&mut ticket, meter, Some(key)).await?;
        Ok((self.follow(ticket, found).await?, value))
    }

    /// The same as the primary has it now: after a write was refused, a replica may not know why yet.
    pub(super) async fn load_from_primary(&self, ticket: Ticket) -> Result<Option<Session>, Failure> {
        let (found, _) = self.read_from_primary(&ticket).await?;
        self.follow(ticket, found).await
    }

    /// Counts the request in a call of its own, if nothing else has counted it; refuses who is over a limit.
    pub async fn count(&self, meter: &mut Meter<'_>) -> Result<(), Error> {
        let counted = meter.count(self.store).await;
        meter.check()?;
        Ok(counted?)
    }

    async fn follow(&self, mut ticket: Ticket, mut found: Found) -> Result<Option<Session>, Failure> {
        let now = self.host.now();
        for _ in 0..MAX_HOPS {
            if found.is_gone(now) {
                // It has ended, or came after what this replica knows. The primary knows.
                let newest;
                (found, newest) = self.read_from_primary(&ticket).await?;
                if found.is_gone(now) {
                    self.notice_reuse(&ticket, newest).await?;
                    return Ok(None);
                }
            }
            match (found.entry, found.stored) {
                (Some(Entry::Here(mut record)), Some(stored)) => {
                    // The standing is that of the user on the ticket, which has to be the record's.
                    let is_theirs = record.user.as_ref().map(User::tag) == ticket.user;
                    let is_alive = is_theirs && now < record.expires_at && record.outlives(&found.standing);
                    if let (Some(user), Some(roles)) = (&mut record.user, found.standing.roles) {
                        user.roles = roles;
                    }
                    return Ok(is_alive.then_some(Session { ticket, record, stored }));
                }
                (Some(Entry::Moved(moved)), _) => {
                    ticket = moved.successor(&ticket);
                    (found, _) = self.read(&mut ticket, &mut self.no_meter(), None).await?;
                }
                _ => {
                    self.log(&ticket, "is not a record of this version; it is treated as absent");
                    return Ok(None);
                }
            }
        }
        self.log(&ticket, "was rotated too often to be followed");
        Ok(None)
    }

    /// Deletes a session that is still as it was read, and what is noted of its family.
    pub(super) async fn delete(&self, session: &Session) -> Result<bool, Failure> {
        let batch = Batch::default().delete_if(&self.key(&session.ticket), &session.stored);
        let batch = match session.ticket.lineage.generation {
            0 => batch,
            _ => batch.delete(&[&self.family_key(session.ticket.lineage.family)]),
        };
        let replies = self.store.run_all(batch).await?;
        Ok(replies.first().ok_or(Failure::Garbled)?.count()? > 0)
    }

    /// One call: the stored text, the user's standing, the counters and, when it is due, a new time to live.
    async fn read(
        &self,
        ticket: &mut Ticket,
        meter: &mut Meter<'_>,
        beside: Option<&str>,
    ) -> Result<(Found, Option<String>), Failure> {
        let (now, lifetimes, handle) = (self.host.now(), &self.rules.lifetimes, ticket.id.handle());
        // A ticket that was renewed here for an earlier request may still be under way to its holder.
        ticket.issued = ticket.issued.max(self.isolate.last_touch(&handle).unwrap_or_default());
        let key = self.key_of(&handle);
        let standing_key = ticket.user.map(|user| self.standing_key(&user));
        let keys: Vec<&str> =
            std::iter::once(&key).chain(&standing_key).map(String::as_str).chain(beside).collect();
        let touch =
            lifetimes.touch_due(ticket, now).then(|| lifetimes.ttl(ticket.ends, ticket.remember, now));
        if touch.is_some() {
            self.isolate.touch(handle, now);
        }
        let outcome = meter.read(self.store, &keys, touch.map(|ttl| (key.as_str(), ttl))).await;
        if touch.is_some() {
            match outcome {
                Ok(_) => ticket.issued = now,
                Err(_) => self.isolate.forget(&handle),
            }
        }
        let mut values = outcome?.into_iter();
        let stored = values.next().flatten();
        let standing = if standing_key.is_some() { values.next().flatten() } else { None };
        Ok((Found::new(stored, standing), values.next().flatten()))
    }

    /// The same as the primary has it, and the newest id of the ticket's family.
    pub(super) async fn read_from_primary(
        &self,
        ticket: &Ticket,
    ) -> Result<(Found, Option<Newest>), Failure> {
        let (key, family_key) = (self.key(ticket), self.family_key(ticket.lineage.family));
        let standing_key = ticket.user.map(|user| self.standing_key(&user));
        let keys: Vec<&str> =
            [&key, &family_key].into_iter().chain(&standing_key).map(String::as_str).collect();
        let [_, values] = self.store.run(Batch::default().at_primary(&key).get(&keys)).await?;
        let mut values = values.all_values(keys.len())?.into_iter();
        let (stored, newest, standing) =
            (values.next().flatten(), values.next().flatten(), values.next().flatten());
        Ok((Found::new(stored, standing), newest.as_deref().and_then(Newest::parse)))
    }

    /// Ends the session whose family has moved on from this ticket's id: somebody kept a copy of an old cookie.
    async fn notice_reuse(&self, ticket: &Ticket, newest: Option<Newest>) -> Result<(), Failure> {
        let is_older = |newest: &Newest| ticket.lineage.generation < newest.generation;
        let Some(newest) = newest.filter(is_older) else { return Ok(()) };
        if !self.rules.end_on_reuse {
            return Ok(());
        }
        match self.end_by_handle(&newest.to, None).await {
            Ok(()) => {
                let name = &newest.to;
                self.host.log(&format_args!(
                    "session {name} was ended: an id it had before was used after its time"
                ));
                Ok(())
            }
            Err(Error::Store(failure)) => Err(failure),
            // It has ended already.
            Err(_) => Ok(()),
        }
    }

    /// For what is not the visitor's own doing.
    pub(super) fn no_meter(&self) -> Meter<'_> {
        Meter::new(&self.isolate.limits, "", false)
    }

    fn log(&self, ticket: &Ticket, what: &str) {
        self.host.log(&format_args!("session {} {what}", ticket.id.handle()));
    }
}
