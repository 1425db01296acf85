//! From a ticket to the session behind it, in one call to the store.

use super::{
    Entry, Error, FamilyHead, Position, Session, Sessions, Task, User, UserState, error::UnreadableSession,
};
use crate::{
    encryption::Unopened,
    events::{self, Event},
    host::Host,
    log::{self, Line},
    store::{Batch, Failure},
    ticket::Ticket,
    time::Time,
};

/// How many ids are read on the way from one to the session: itself, the newest of its family, and more only if others rotate
/// meanwhile.
pub(super) const MAX_READS: usize = 8;

/// Which copy of the database may answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Any: a replica may be a little behind.
    Any,
    /// The primary: it decides what a request may do.
    Primary,
}

/// What the store holds behind a ticket.
pub(crate) struct Loaded {
    /// The stored text.
    stored: Option<String>,
    /// The same, opened and parsed; `None` also if it cannot be read.
    pub(super) entry: Option<Entry>,
    /// Why it cannot be read, if it cannot.
    fault: Option<Unopened>,
    /// What holds for all sessions of the user.
    pub(super) state: UserState,
    /// The same as stored.
    stored_state: Option<String>,
    /// The head of the ticket's family, as stored.
    head: Option<String>,
    /// Whether it is certain that the primary has answered.
    is_primary: bool,
    /// Whether its time to live was extended.
    is_touched: bool,
}

/// Where a ticket leads.
pub(super) enum Step {
    /// To this session, which may have ended.
    Here,
    /// To another id of the same session.
    To(Ticket),
    /// Nowhere: there is nothing, or another session has replaced it.
    Nowhere,
    /// Nowhere any more: the id is old, and its successor was presented long ago.
    GraceOver(FamilyHead),
}

impl Loaded {
    pub(super) fn head(&self) -> Option<FamilyHead> {
        self.head.as_deref().and_then(FamilyHead::parse)
    }

    /// Whether there is no session, by what the primary says, and no way to another.
    fn is_dead(&self) -> bool {
        match &self.entry {
            Some(Entry::Session(record)) => !record.survives(&self.state),
            Some(Entry::Redirect(_)) => false,
            Some(Entry::Replaced(_)) => true,
            None => self.stored.is_none() && self.head.is_none(),
        }
    }

    /// Whether it is a redirect that was written less than the grace ago. Then its id may be used, even if the head does not
    /// know of the rotation: those of 0.1 know of none.
    pub(super) fn is_new_redirect(&self, now: Time) -> bool {
        matches!(&self.entry, Some(Entry::Redirect(redirect)) if now < redirect.until)
    }

    /// Where `ticket` leads, whose key this was read from.
    pub(super) fn step(&self, ticket: &Ticket, now: Time) -> Result<Step, Error> {
        let redirect = match &self.entry {
            Some(Entry::Session(_)) => return Ok(Step::Here),
            Some(Entry::Redirect(redirect)) => Some(redirect),
            Some(Entry::Replaced(_)) => None,
            None => match self.fault {
                Some(Unopened(why)) => return Err(Error::unreadable(ticket.id.handle(), why)),
                None => None,
            },
        };
        let head = self.head();
        match head.as_ref().map_or(Position::Newest, |head| head.position(ticket, now)) {
            Position::Old(newest) => return Ok(Step::To(newest)),
            Position::GraceOver if !self.is_new_redirect(now) => {
                return Ok(head.map_or(Step::Nowhere, Step::GraceOver));
            }
            Position::Newest | Position::OldUnknown | Position::GraceOver => {}
        }
        Ok(redirect.map_or(Step::Nowhere, |redirect| Step::To(redirect.successor(ticket))))
    }
}

impl<H: Host> Sessions<'_, H> {
    /// Reads the session; `None` if it has ended. A touch that is due is made in the same call. An old id leads to the
    /// newest of its family, for one call more, until its grace is over; after that its use ends the session.
    pub async fn load(&self, ticket: &Ticket, source: Source) -> Result<Option<Session>, Error> {
        if let Some((format, sid)) = self.foreign(ticket) {
            return self.load_foreign(format, ticket, sid, None).await?.0;
        }
        let mut read = ticket.clone();
        let (loaded, _) = self.read(&mut read, None, source).await?;
        self.load_read(ticket, read, loaded).await
    }

    /// The ticket with the last touch, of which its holder is not told.
    pub(crate) fn as_touched(&self, ticket: &Ticket) -> Ticket {
        let touched = self.isolate.last_touch(&ticket.id.handle()).unwrap_or_default();
        Ticket { issued: ticket.issued.max(touched), ..ticket.clone() }
    }

    /// The same, once it is read what stands behind the ticket; `read`: the ticket after a touch.
    pub(crate) async fn load_read(
        &self,
        ticket: &Ticket,
        read: Ticket,
        loaded: Loaded,
    ) -> Result<Option<Session>, Error> {
        let session = self.follow(read, loaded).await?;
        Ok(session.inspect(|session| self.note_presented(session, ticket)))
    }

    /// The same for a request that gets another session in any case, if there is a ticket; and in the same call the value
    /// of another key, both as the primary has them. A session that cannot be read is none here.
    pub async fn load_with(
        &self,
        ticket: Option<&Ticket>,
        key: &str,
    ) -> Result<(Option<Session>, Option<String>), Error> {
        let Some(ticket) = ticket else {
            let [values] = self.store.run(Batch::default().get([key]).at_primary(key)).await?;
            return Ok((None, values.values(1)?.pop().flatten()));
        };
        if let Some((format, sid)) = self.foreign(ticket) {
            let (session, value) = self.load_foreign(format, ticket, sid, Some(key)).await?;
            return Ok((self.or_none_if_unreadable(session)?, value));
        }
        let mut read = ticket.clone();
        let (loaded, value) = self.read(&mut read, Some(key), Source::Primary).await?;
        let session = self.or_none_if_unreadable(self.follow(read, loaded).await)?;
        Ok((session.inspect(|session| self.note_presented(session, ticket)), value))
    }

    /// For a request that gets another session in any case.
    fn or_none_if_unreadable(
        &self,
        session: Result<Option<Session>, Error>,
    ) -> Result<Option<Session>, Error> {
        match session {
            Err(Error::Unreadable(session)) => {
                let UnreadableSession { handle, why } = *session;
                let message = format!("session {handle} cannot be read: {why}; it is left as it is");
                self.host.log(&Line::new(log::Event::RecordUnreadable, message).about(handle));
                Ok(None)
            }
            outcome => outcome,
        }
    }

    /// If a request came with the newest id of the family, and that is the first time, this is noted after the response.
    pub(super) fn note_presented(&self, session: &Session, carried: &Ticket) {
        if session.ticket.id != carried.id || carried.generation == 0 {
            return;
        }
        let head = session.head.as_deref().and_then(FamilyHead::parse);
        let is_noted = |head: FamilyHead| head.generation >= carried.generation && head.is_seen();
        if !head.is_some_and(is_noted) {
            self.isolate.note_presented(carried);
        }
    }

    /// The same as the primary has it now: after a write was refused, or its answer was lost.
    pub(super) async fn load_from_primary(&self, ticket: Ticket) -> Result<Option<Session>, Error> {
        if let Some((format, sid)) = self.foreign(&ticket) {
            return self.reload_foreign(format, &ticket, sid).await;
        }
        let loaded = self.read_from_primary(&ticket).await?;
        self.follow(ticket, loaded).await
    }

    /// The same for a session that was loaded. Error: it has ended.
    pub async fn reload_from_primary(&self, session: Session) -> Result<Session, Error> {
        self.load_from_primary(session.ticket).await?.ok_or(Error::Ended)
    }

    /// Follows an old id to the session.
    pub(super) async fn follow(
        &self,
        mut ticket: Ticket,
        mut loaded: Loaded,
    ) -> Result<Option<Session>, Error> {
        let (now, carried) = (self.host.now(), ticket.clone());
        // How redirects have led on, where the head of the family did not know it.
        let mut rotations = Vec::new();
        let mut is_in_grace = false;
        for _ in 0..MAX_READS {
            is_in_grace |= ticket.id == carried.id && loaded.is_new_redirect(now);
            match loaded.step(&ticket, now)? {
                Step::Here => {
                    let is_primary = loaded.is_primary;
                    // The head read here may be newer than the one that led here.
                    let is_over = |head: &FamilyHead| head.is_grace_over(carried.generation, now);
                    let is_ticket = carried.foreign.is_none();
                    let stolen = loaded.head().filter(|head| is_ticket && !is_in_grace && is_over(head));
                    let session = match stolen {
                        Some(head) => self.end_stolen(&head).await?,
                        None => self.session_of(ticket, loaded),
                    };
                    match &session {
                        None if is_primary => self.isolate.remember_dead(carried.id.handle()),
                        Some(session) if rotations.len() > 1 => {
                            self.isolate.defer(Task::NoteRotations(session.ticket.clone(), rotations));
                        }
                        _ => {}
                    }
                    return Ok(session);
                }
                Step::To(newest) => {
                    let is_running = |head: FamilyHead| head.is_grace_running(ticket.generation);
                    if loaded.is_touched && loaded.head().is_some_and(is_running) {
                        self.isolate.defer(Task::ShortenRedirect(self.key(&ticket.id.handle())));
                    }
                    if let Some(Entry::Redirect(redirect)) = &loaded.entry
                        && newest.generation == ticket.generation + 1
                    {
                        rotations.push((newest.generation, redirect.nonce, newest.issued));
                    }
                    ticket = newest;
                    (loaded, _) = self.read(&mut ticket, None, Source::Primary).await?;
                }
                // It has ended, or this replica does not know it yet. The primary knows.
                Step::Nowhere | Step::GraceOver(_) if !loaded.is_primary => {
                    loaded = self.read_from_primary(&ticket).await?;
                }
                Step::Nowhere => {
                    self.isolate.remember_dead(carried.id.handle());
                    return Ok(None);
                }
                // An old cookie that was taken over knows of no rotation.
                Step::GraceOver(_) if carried.foreign.is_some() => return Ok(None),
                Step::GraceOver(head) => {
                    self.isolate.defer(Task::Delete(vec![self.key(&ticket.id.handle())]));
                    self.end_stolen(&head).await?;
                    self.isolate.remember_dead(carried.id.handle());
                    return Ok(None);
                }
            }
        }
        Err(Error::Conflict)
    }

    /// The session that was read, if it lives.
    pub(super) fn session_of(&self, ticket: Ticket, loaded: Loaded) -> Option<Session> {
        let (Some(Entry::Session(mut record)), Some(stored)) = (loaded.entry, loaded.stored) else {
            return None;
        };
        // The state is that of the ticket's user, who must be the record's.
        let is_theirs = record.user.as_ref().map(User::tag) == ticket.user;
        if !is_theirs || self.host.now() >= record.expires_at || !record.survives(&loaded.state) {
            return None;
        }
        if let (Some(user), Some(roles)) = (&mut record.user, loaded.state.roles) {
            user.roles = roles;
        }
        let Loaded { head, stored_state, .. } = loaded;
        let state = stored_state.map(String::into_boxed_str);
        Some(Session { ticket, record, stored, head, state, foreign: None })
    }

    /// One call: the stored text, the user's state, the head of the family, another key's value and, if it is due, a new
    /// time to live.
    async fn read(
        &self,
        ticket: &mut Ticket,
        other_key: Option<&str>,
        source: Source,
    ) -> Result<(Loaded, Option<String>), Failure> {
        let (now, lifetimes, handle) = (self.host.now(), &self.rules.lifetimes, ticket.id.handle());
        *ticket = self.as_touched(ticket);
        let keys = self.keys_behind(ticket);
        let key = keys.first().map(String::as_str).unwrap_or_default();
        let mut batch = Batch::default().get(keys.iter().map(String::as_str).chain(other_key));
        let is_touch_due = lifetimes.touch_due(ticket, now);
        if is_touch_due {
            batch = batch.extend_ttl(key, lifetimes.ttl(ticket.ends, ticket.remember, now));
            self.isolate.touch(handle, now);
        }
        if source == Source::Primary {
            batch = batch.at_primary(key);
        }
        let is_counting = self.store.counts_next();
        let outcome = self.store.read_all(batch).await;
        if is_touch_due {
            match outcome {
                Ok(_) => ticket.issued = now,
                Err(_) => self.isolate.forget_touch(&handle),
            }
        }
        let replies = outcome?;
        // What counts is answered by the primary.
        let is_primary = source == Source::Primary || (is_counting && self.store.uncounted().is_none());
        let values = replies.into_iter().next().ok_or(Failure::Garbled)?;
        let mut values = values.values(keys.len() + usize::from(other_key.is_some()))?.into_iter();
        let loaded = Loaded { is_touched: is_touch_due, ..self.loaded(key, &mut values, ticket, is_primary) };
        if self.store.check().is_err() {
            // A dead ticket is over nobody's limit.
            if loaded.is_dead() {
                self.store.limiter.withdraw_ticket();
            }
            self.store.check().map_err(|_| Failure::RateLimited)?;
        }
        Ok((loaded, values.next().flatten()))
    }

    /// The same as the primary has it.
    pub(super) async fn read_from_primary(&self, ticket: &Ticket) -> Result<Loaded, Failure> {
        let keys = self.keys_behind(ticket);
        let key = keys.first().map(String::as_str).unwrap_or_default();
        let [values] = self.store.run(Batch::default().get(&keys).at_primary(key)).await?;
        Ok(self.loaded(key, &mut values.values(keys.len())?.into_iter(), ticket, true))
    }

    /// What was read of [`Self::keys_behind`]. `key`: the session's.
    pub(super) fn loaded(
        &self,
        key: &str,
        values: &mut impl Iterator<Item = Option<String>>,
        ticket: &Ticket,
        is_primary: bool,
    ) -> Loaded {
        let (stored, head) = (values.next().flatten(), values.next().flatten());
        let stored_state = ticket.user.and_then(|_| values.next().flatten());
        let state = UserState::parse(stored_state.as_deref());
        let opened = stored.as_deref().map(|stored| self.open(key, stored)).transpose();
        let (entry, fault) = opened.map_or_else(|fault| (None, Some(fault)), |entry| (entry, None));
        Loaded { stored, entry, fault, state, stored_state, head, is_primary, is_touched: false }
    }

    /// The keys that a ticket is read with: the session's, its family's, its user's.
    pub(super) fn keys_behind(&self, ticket: &Ticket) -> Vec<String> {
        let keys = [self.key(&ticket.id.handle()), self.family_key(ticket.family)];
        keys.into_iter().chain(ticket.user.map(|user| self.state_key(&user))).collect()
    }

    /// Ends a session of which somebody has presented an id whose grace is over: there is a copy of a cookie.
    async fn end_stolen(&self, head: &FamilyHead) -> Result<Option<Session>, Error> {
        if !self.rules.end_on_reuse {
            return Ok(None);
        }
        let stored = match self.find(&head.to).await {
            // It has ended already.
            Err(Error::NotFound) => return Ok(None),
            found => found?,
        };
        let (handle, user) = (stored.handle, stored.record.user.clone());
        self.end_found(stored).await?;
        let message =
            format!("session {handle} was ended: an old id of it was used after its grace (reuse detected)");
        self.host.log(&Line::new(log::Event::ReuseDetected, message).about(handle));
        events::tell(self.host, self.isolate, user.as_ref(), &Event::ReuseDetected { handle });
        Ok(None)
    }
}
