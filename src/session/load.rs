//! From a ticket to the session behind it, in one call to the store.

use super::{Desk, Entry, MAX_HOPS, Session};
use crate::{
    host::Host,
    store::{Batch, Failure},
    ticket::Ticket,
};

impl<H: Host> Desk<'_, H> {
    /// Reads the session; `None` when it has ended. A due touch rides in the same call, and shows in the
    /// session's ticket. A rotated id leads to its successor, for a call more, while the grace lasts; after
    /// that, its use is a sign of theft and ends the session (OWASP: session id renewal).
    pub async fn load(&self, mut ticket: Ticket) -> Result<Option<Session>, Failure> {
        let now = self.host.now();
        let mut reused = false;
        for _ in 0..MAX_HOPS {
            let (stored, mark) = self.read(&mut ticket).await?;
            let Some(stored) = stored else { return Ok(None) };
            match Entry::parse(&stored) {
                Some(Entry::Here(record)) if record.expires_at <= now => return Ok(None),
                Some(Entry::Here(record)) if !record.outlives(mark.as_deref()) => return Ok(None),
                Some(Entry::Here(record)) if !reused => {
                    return Ok(Some(Session { ticket, record, stored }));
                }
                Some(Entry::Here(_)) => {
                    if self.delete(&ticket, &stored).await? {
                        self.log(&ticket, "was ended: an id it had before was used after its time");
                        return Ok(None);
                    }
                }
                Some(Entry::Moved(moved)) => {
                    reused |= moved.until <= now;
                    if reused && !self.rules.end_on_reuse {
                        return Ok(None);
                    }
                    ticket = moved.successor(&ticket);
                }
                None => {
                    self.log(&ticket, "is not a record of this version; it is treated as absent");
                    return Ok(None);
                }
            }
        }
        self.log(&ticket, "is too many rotations away from the id that was used");
        Ok(None)
    }

    /// Deletes a session that is still as it was read.
    pub(super) async fn delete(&self, ticket: &Ticket, stored: &str) -> Result<bool, Failure> {
        let [deleted] = self.store.run(Batch::default().delete_if(&self.key(ticket), stored)).await?;
        Ok(deleted.count()? > 0)
    }

    /// One call: the stored text, the user's revocation mark and, when it is due, a new time to live.
    async fn read(&self, ticket: &mut Ticket) -> Result<(Option<String>, Option<String>), Failure> {
        let (now, lifetimes, handle) = (self.host.now(), &self.rules.lifetimes, ticket.id.handle());
        // A ticket that was renewed here for an earlier request may still be under way to its holder.
        ticket.issued = ticket.issued.max(self.isolate.last_touch(&handle).unwrap_or_default());
        let key = self.key_of(&handle);
        let mark_key = ticket.user.map(|user| self.mark_key(&user));
        let keys: Vec<&str> = std::iter::once(&key).chain(&mark_key).map(String::as_str).collect();
        let batch = Batch::default().get(&keys);
        let [values] = if lifetimes.touch_due(ticket, now) {
            let ttl = lifetimes.ttl(ticket.ends, ticket.remember, now);
            self.isolate.touch(handle.clone(), now);
            let outcome = self.store.run(batch.extend(&key, ttl)).await;
            let [values, _extended] = outcome.inspect_err(|_| self.isolate.forget(&handle))?;
            ticket.issued = now;
            [values]
        } else {
            self.store.run(batch).await?
        };
        let mut values = values.all_values(keys.len())?.into_iter();
        Ok((values.next().flatten(), values.next().flatten()))
    }

    fn log(&self, ticket: &Ticket, what: &str) {
        self.host.log(&format_args!("session {} {what}", ticket.id.handle()));
    }
}
