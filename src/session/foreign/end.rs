//! Ends records: logout, and by their handles.

use std::time::Duration;

use super::{
    Ended, MARGIN, Sessions,
    beside::{self, UNDER_WAY},
    scripts,
};
use crate::{
    foreign::{Format, Sid},
    host::Host,
    session::{Error, Retry},
    store::{Batch, Failure, Reply},
    ticket::Ticket,
    time::milliseconds,
};

/// A logout that was under way while the session was rotated still ends it, for so long after the rotation.
const GRACE: Duration = Duration::from_secs(30);

/// How many rotations a logout follows.
const MAX_ROTATIONS: usize = 8;

impl<H: Host> Sessions<'_, H> {
    /// Ends the session of a ticket, whatever is stored there and whatever is in flight: a record that the application writes
    /// back is none here. False if there was no session. One call.
    pub(in super::super) async fn end_foreign(
        &self,
        format: &Format,
        ticket: &Ticket,
        sid: &Sid,
    ) -> Result<bool, Error> {
        let (mut ticket, mut sid) = (ticket.clone(), sid.clone());
        for _ in 0..MAX_ROTATIONS {
            let Some(next) = self.end_record(format, &ticket, &sid).await? else { return Ok(false) };
            let next = match next {
                End::Made => return Ok(true),
                End::MovedTo(ended) if self.host.now() - ended.ended_at < GRACE => ended.next,
                End::MovedTo(_) => None,
            };
            let Some(next) = next.as_deref().and_then(Sid::parse) else { return Ok(false) };
            (ticket, sid) = (format.ticket(next.clone(), self.host.now()), next);
        }
        Err(Error::Conflict)
    }

    async fn end_record(&self, format: &Format, ticket: &Ticket, sid: &Sid) -> Result<Option<End>, Error> {
        let record_key = format.record_key(&self.rules.key_prefix, sid);
        let keys = [record_key, self.beside_key(&ticket.id.handle())];
        // As long as a record that is written back may last.
        let ttl = ticket.ends - self.host.now() + MARGIN;
        let ended = Ended::now(self.host.now(), None, None);
        let arguments = [ended, milliseconds(ttl).to_string(), milliseconds(UNDER_WAY).to_string()];
        let mut retry = Retry::default();
        let mut is_in_doubt = false;
        loop {
            let script = Batch::default().script(scripts::END, keys.clone(), arguments.clone());
            let failure = match self.store.run(beside::as_bytes(format, script)).await {
                Ok([Reply::Integer(deleted)]) => {
                    // What was lost may have been the answer that said so.
                    return Ok((deleted > 0 || is_in_doubt).then_some(End::Made));
                }
                Ok([Reply::Text(text)]) => {
                    return Ok(serde_json::from_str(&text).ok().map(End::MovedTo));
                }
                Ok(_) => Failure::Garbled,
                Err(failure) => failure,
            };
            is_in_doubt = true;
            retry.after(failure, self.store).await?;
        }
    }
}

enum End {
    Made,
    /// It has another id since.
    MovedTo(Ended),
}
