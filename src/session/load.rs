//! From a ticket to the session behind it, in one call to the store.

use super::{Desk, Entry, MAX_HOPS, Session};
use crate::{
    host::Host,
    store::{Batch, Failure},
    ticket::Ticket,
};

impl<H: Host> Desk<'_, H> {
    /// Reads the session; `None` when it has ended. A due touch rides in the same call, and shows in the
    /// session's ticket. A rotated id leads to its successor, for a call more, while the grace lasts.
    pub async fn load(&self, mut ticket: Ticket) -> Result<Option<Session>, Failure> {
        let now = self.host.now();
        for _ in 0..MAX_HOPS {
            let Some(stored) = self.read(&mut ticket).await? else { return Ok(None) };
            match Entry::parse(&stored) {
                Some(Entry::Here(record)) if now < record.expires_at => {
                    return Ok(Some(Session { ticket, record, stored }));
                }
                Some(Entry::Moved(moved)) if now < moved.until => ticket = moved.successor(&ticket),
                Some(_) => return Ok(None),
                None => {
                    let handle = ticket.id.handle();
                    self.host.log(&format_args!(
                        "session {handle} is not a record of this version; treated as absent"
                    ));
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// One call: the stored text and, when it is due, a new time to live.
    async fn read(&self, ticket: &mut Ticket) -> Result<Option<String>, Failure> {
        let (key, now, lifetimes) = (self.key(ticket), self.host.now(), &self.rules.lifetimes);
        let batch = Batch::default().get(&[&key]);
        let [values] = if lifetimes.touch_due(ticket, now) {
            let ttl_ms = lifetimes.ttl_ms(ticket.ends, ticket.remember, now);
            let [values, touched] = self.store.run(batch.expire(&key, ttl_ms)).await?;
            touched.count()?;
            ticket.issued = now;
            [values]
        } else {
            self.store.run(batch).await?
        };
        let [stored] = values.values()?;
        Ok(stored)
    }
}
