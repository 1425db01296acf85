//! Rotation: a new id for the same session. The old id redirects to it until its grace is over.

use super::{Error, FamilyHead, Record, Redirect, Retry, Session, Sessions};
use crate::{
    host::Host,
    id::{Id, next_generation},
    store::Batch,
    ticket::Ticket,
};

impl<H: Host> Sessions<'_, H> {
    /// Moves the session from the id `carried` by the request to a new one. Three calls; none if another rotation has
    /// done so already: its successor is the caller's, too.
    pub async fn rotate(&self, mut session: Session, carried: &Id) -> Result<Session, Error> {
        let (mut retry, mut conflicts) = (Retry::default(), 0);
        let mut is_ours = false;
        while session.ticket.id == *carried {
            // 1. The successor, which nobody can know before the redirect is written.
            let now = self.host.now();
            let redirect = Redirect::new(self.nonce(), carried, now);
            let generation = next_generation(session.record.generation);
            let record = Record { rotated_at: now, generation, ..(*session.record).clone() };
            let next = Session::begin(carried.successor(&redirect.nonce), record, now);
            // 2. The copy first. Only when it is there the redirect, if the state is still what was copied.
            match self.write_successor(&next).await {
                Ok(true) => {}
                Ok(false) => return Err(Error::Conflict),
                Err(failure) => {
                    retry.after(failure, self.store).await?;
                    continue;
                }
            }
            is_ours = true;
            match self.compare_and_set(&session, &redirect.to_json(), Some(Redirect::TTL)).await {
                Ok(true) => {
                    session = next;
                    break;
                }
                // 3. Another request was faster, or the user's sessions were revoked: delete the copy.
                Ok(false) => {
                    self.delete_unissued(&next).await?;
                    is_ours = false;
                }
                Err(Error::Ended) => {
                    self.delete_unissued(&next).await?;
                    return Err(Error::Ended);
                }
                // The redirect may have been written: the copy stays.
                Err(Error::Store(failure)) => retry.after(failure, self.store).await?,
                Err(error) => return Err(error),
            }
            // 4. Read it again.
            session = self.reload(session.ticket, &mut conflicts).await?;
        }
        // 5. The head of the family.
        if is_ours {
            self.write_family_head(&session.ticket).await;
        }
        Ok(session)
    }

    /// Writes the head of a family. If that fails, the old id is refused all the same, but its reuse is not detected.
    async fn write_family_head(&self, ticket: &Ticket) {
        let (key, head) = (self.family_key(ticket.family), FamilyHead::new(ticket).to_json());
        let mut retry = Retry::default();
        while let Err(failure) =
            self.store.run::<1>(Batch::default().set(&key, &head, ticket.ends - ticket.issued)).await
        {
            if retry.after(failure, self.store).await.is_err() {
                self.host.log(&format_args!(
                    "session {}: the head of its family could not be written",
                    ticket.id.handle()
                ));
                return;
            }
        }
    }
}
