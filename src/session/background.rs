//! What may wait until after the response. None of it decides anything: if it is lost, a key is kept until it expires, or
//! the first use of an id is noted at its next use.

use super::{Entry, Error, FamilyHead, Redirect, Retry, Sessions, family::Rotation, foreign::Touch};
use crate::{
    host::Host,
    id::Family,
    store::{Batch, Failure},
    ticket::{Ticket, UserTag},
};

/// Work for after the response.
#[derive(Clone, Debug)]
pub enum Task {
    /// Deletes keys that lead nowhere any more.
    Delete(Vec<String>),
    /// Deletes what stands beside a session that was rotated and has ended.
    DeleteFamily(Family),
    /// Takes handles of sessions that have ended off a user's list.
    TidyList(UserTag),
    /// Lets a redirect end soon: its grace runs, and it would be kept for as long as a session.
    ShortenRedirect(String),
    /// Notes that a ticket with the newest id of its family was presented.
    NotePresented(Ticket),
    /// Notes what only redirects knew: how older ids lead to the newest, which this ticket has.
    NoteRotations(Ticket, Vec<Rotation>),
    /// Seals an account as everything is sealed today: it has no end at which an older key could be dropped.
    Reseal(String),
    /// Extends the time to live of a record in another application's format, and of what stands beside it.
    TouchForeign(Box<Touch>),
}

impl<H: Host> Sessions<'_, H> {
    /// Does the work that the isolate has put off.
    pub async fn run_background(&self) {
        let (mut keys, mut redirects, mut presented, mut touches) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for task in self.isolate.take_tasks() {
            match task {
                Task::Delete(more) => keys.extend(more),
                Task::DeleteFamily(family) => drop(self.delete_family(family).await),
                Task::TidyList(user) => drop(self.of_user(&user, None).await),
                Task::ShortenRedirect(key) => redirects.push(key),
                Task::NotePresented(ticket) => presented.push(ticket),
                Task::TouchForeign(touch) => touches.push(*touch),
                Task::Reseal(key) => drop(self.reseal(&key).await),
                Task::NoteRotations(newest, rotations) => {
                    let change = |head: Option<&FamilyHead>| {
                        FamilyHead::with_rotations(head, &newest, &rotations, self.host.now())
                    };
                    drop(self.update_head(&newest, None, &change).await);
                }
            }
        }
        if !keys.is_empty() {
            drop(self.store.run_all(Batch::default().delete(keys)).await);
        }
        if !redirects.is_empty() {
            let batch =
                redirects.iter().fold(Batch::default(), |batch, key| batch.expire(key, Redirect::TTL));
            drop(self.store.run_all(batch).await);
        }
        self.run_touches(touches).await;
        for ticket in presented {
            if self.write_presented(&ticket).await.is_err() {
                self.isolate.forget_noted(&ticket.id.handle());
            }
        }
    }

    /// If it has changed meanwhile, it was sealed with that.
    async fn reseal(&self, key: &str) -> Result<(), Failure> {
        let keys = &self.rules.encryption;
        let [stored] = self.store.run(Batch::default().get_from_primary(key)).await?;
        let Some(stored) = stored.value()?.filter(|stored| !keys.is_current(stored)) else { return Ok(()) };
        let Ok(text) = keys.open(key, &stored) else { return Ok(()) };
        let sealed = keys.seal(key, text.into_owned(), self.host);
        let [replaced] = self.store.run(Batch::default().replace(key, &stored, &sealed, None)).await?;
        replaced.is_ok().map(drop)
    }

    /// From now on the grace of the id before this one runs out.
    async fn write_presented(&self, ticket: &Ticket) -> Result<(), Error> {
        let change = |head: Option<&FamilyHead>| match head {
            Some(head) if head.generation > ticket.generation => None,
            Some(head) if head.generation == ticket.generation => {
                (!head.is_seen()).then(|| head.seen(self.host.now()))
            }
            older => Some(FamilyHead::presented(older, ticket, self.host.now())),
        };
        self.update_head(ticket, None, &change).await.map(drop)
    }

    /// Changes the head of a ticket's family, by compare-and-set: a change that arrives late must not undo a later one.
    /// `stored`: what it probably is. `change` returns `None` if there is nothing to do; then this returns false.
    pub(super) async fn update_head(
        &self,
        newest: &Ticket,
        mut stored: Option<Option<String>>,
        change: &dyn Fn(Option<&FamilyHead>) -> Option<FamilyHead>,
    ) -> Result<bool, Error> {
        let (key, session_key) = (self.family_key(newest.family), self.key(&newest.id.handle()));
        let mut retry = Retry::default();
        loop {
            // 1. The head as it is.
            let current = match stored.take() {
                Some(current) => current,
                None => {
                    let [current] = self.store.run(Batch::default().get_from_primary(&key)).await?;
                    current.value()?
                }
            };
            let head = current.as_deref().and_then(FamilyHead::parse);
            let Some(next) = change(head.as_ref()) else { return Ok(false) };
            // 2. The next one, if it is still the same; whether the session has ended meanwhile; and the end of the redirect
            // whose grace runs out.
            let (json, ttl) = (next.to_json(), newest.ends - self.host.now());
            let batch = match &current {
                None => Batch::default().create(&key, &json, ttl),
                Some(current) => Batch::default().replace(&key, current, &json, Some(ttl)),
            };
            let before = if next.is_seen() { next.from } else { head.and_then(|head| head.from) };
            let redirect_key = before.map(|handle| self.key(&handle));
            let mut batch = batch.get_from_primary(&session_key).atomic();
            if let Some(redirect_key) = &redirect_key {
                batch = batch.expire(redirect_key, Redirect::TTL);
            }
            match self.store.run_all(batch).await {
                Ok(replies) => {
                    let mut replies = replies.into_iter();
                    let is_written = replies.next().ok_or(Failure::Garbled)?.is_ok()?;
                    let session = replies.next().ok_or(Failure::Garbled)?.value()?;
                    let has_ended = session
                        .is_none_or(|stored| matches!(Entry::parse(&stored), Some(Entry::Replaced(_))));
                    if !is_written {
                        self.check_deadline()?;
                        continue;
                    }
                    if has_ended {
                        let redirect = next.from.map(|from| self.key(&from));
                        let batch = Batch::default().delete(redirect.into_iter().chain([key]));
                        self.store.run_all(batch).await?;
                    }
                    return Ok(true);
                }
                Err(failure) => retry.after(failure, self.store).await?,
            }
        }
    }
}
