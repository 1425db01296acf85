//! Rotation: a new id for the same session. The old id redirects to it until its grace is over.

use std::{cell::Cell, time::Duration};

use super::{Error, FamilyHead, Record, Redirect, Retry, Session, Sessions, Task};
use crate::{
    host::Host,
    id::{Id, next_generation},
    log::{self, Line},
    time::Time,
};

/// The most rotations of one session within a minute.
pub(super) const MAX_ROTATIONS: usize = 8;
pub(super) const MINUTE: Duration = Duration::from_secs(60);

impl Session {
    /// Whether it is time for a new id, and there may be one.
    pub fn is_rotation_due(&self, rotate_every: Option<Duration>, now: Time) -> bool {
        let is_due = rotate_every.is_some_and(|rotate_every| now - self.record.rotated_at >= rotate_every);
        is_due && self.rotation_allowed_in(now).is_zero()
    }

    /// How long until there may be another rotation.
    pub(super) fn rotation_allowed_in(&self, now: Time) -> Duration {
        let limiting = self.record.rotations.iter().rev().nth(MAX_ROTATIONS - 1);
        limiting.map_or(Duration::ZERO, |at| (*at + MINUTE) - now)
    }

    /// Its record under its next id.
    fn rotated(&self, now: Time) -> Record {
        let recent = self.record.rotations.iter().filter(|at| now < **at + MINUTE).copied();
        Record {
            rotated_at: now,
            rotations: recent.chain([now]).collect(),
            generation: next_generation(self.record.generation),
            ..(*self.record).clone()
        }
    }
}

impl<H: Host> Sessions<'_, H> {
    /// Moves the session from the id `carried` by the request to a new one. Three calls; none if another rotation has
    /// done so already: its successor is the caller's, too.
    pub async fn rotate(&self, mut session: Session, carried: &Id) -> Result<Session, Error> {
        if let Some((format, _)) = self.foreign(&session.ticket) {
            return self.rotate_foreign(format, session).await;
        }
        let (mut retry, mut conflicts) = (Retry::default(), 0);
        // Copies that may have become the successor: the answers were lost.
        let mut unsettled: Vec<(Session, Redirect)> = Vec::new();
        while session.ticket.id == *carried {
            // 1. The successor, which nobody can know before the redirect is written.
            let now = self.host.now();
            let wait = session.rotation_allowed_in(now);
            if !wait.is_zero() {
                return Err(Error::too_many_rotations(wait));
            }
            let redirect = Redirect::new(self.nonce(), &session.ticket, now);
            let next = self.begin(session.ticket.id.successor(&redirect.nonce), session.rotated(now), now);
            // 2. The copy first. Only when it is there the redirect, if the state is still what was copied.
            match self.write_successor(&next).await {
                Ok(true) => {}
                Ok(false) => return Err(Error::Conflict),
                Err(failure) => {
                    self.isolate.defer(Task::Delete(vec![self.key(&next.ticket.id.handle())]));
                    retry.after(failure, self.store).await?;
                    continue;
                }
            }
            let ttl =
                self.rules.lifetimes.ttl(next.ticket.ends, next.ticket.remember, now).max(Redirect::TTL);
            match self.compare_and_set(&session, &redirect.to_json(), Some(ttl)).await {
                Ok(true) => {
                    self.record_rotation(&session, &next, redirect).await;
                    return Ok(next);
                }
                // 3. Another request was faster, or the user's sessions were revoked: delete the copy.
                Ok(false) => self.delete_unissued(&next).await?,
                Err(Error::Ended) => {
                    self.delete_unissued(&next).await?;
                    return Err(Error::Ended);
                }
                // The redirect may have been written: the copy stays.
                Err(Error::Store(failure)) => {
                    retry.after(failure, self.store).await?;
                    unsettled.push((next, redirect));
                }
                Err(error) => return Err(error),
            }
            // 4. Read it again.
            let old = session.clone();
            session = self.reload(session.ticket, &mut conflicts).await?;
            if let Some((_, redirect)) =
                unsettled.iter().find(|(copy, _)| copy.ticket.id == session.ticket.id)
            {
                self.record_rotation(&old, &session, *redirect).await;
            }
        }
        // 5. Copies that nobody was led to are still as they were written.
        for (copy, _) in unsettled.iter().filter(|(copy, _)| copy.ticket.id != session.ticket.id) {
            let _is_gone = self.delete(copy).await;
        }
        Ok(session)
    }

    /// Writes the head of the family. If that fails, the redirect alone leads on from the old id.
    async fn record_rotation(&self, old: &Session, new: &Session, redirect: Redirect) {
        let (from, newest) = (old.ticket.id.handle(), &new.ticket);
        let is_overtaken = Cell::new(false);
        let change = |head: Option<&FamilyHead>| {
            is_overtaken.set(head.is_some_and(|head| head.generation > newest.generation));
            FamilyHead::rotated(head, from, redirect.nonce, newest)
        };
        match self.update_head(newest, Some(old.head.clone()), &change).await {
            // The new id was presented already, and rotated: the redirect to it is kept no longer than the grace.
            Ok(_) if is_overtaken.get() => {
                self.isolate.defer(Task::ShortenRedirect(self.key(&from)));
            }
            Ok(_) => {}
            Err(_) => {
                let handle = newest.id.handle();
                let message = format!("session {handle}: the head of its family could not be written");
                self.host.log(&Line::new(log::Event::FamilyNotWritten, message).about(handle));
            }
        }
    }
}
