//! Changes of one session that meet in one isolate are written together. While one write is under way, whoever comes applies
//! their change to what it writes, and to each other's changes; all of these are written next, at once. A hundred changes at once
//! so take a few writes, and not each many tries.
//!
//! workerd does not let one request go on from within another: who waits looks again every few milliseconds.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use serde_json::value::RawValue;

use super::{Error, Record, Session, record::revision};
use crate::{
    id::{Handle, Nonce},
    store::Failure,
    time::Time,
};

/// How often who waits looks again.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(5);

/// The writes of an isolate that are under way, and those that come next, by the handles of their sessions.
#[derive(Debug, Default)]
pub(crate) struct Writes(RefCell<BTreeMap<Handle, Queue>>);

/// The writes of one session.
#[derive(Debug, Default)]
struct Queue {
    under_way: Option<Rc<Write>>,
    next: Option<Rc<Write>>,
}

/// One write, of one change or several.
#[derive(Debug)]
pub(super) struct Write {
    handle: Handle,
    /// The state that it replaces.
    pub(super) base: Rc<Session>,
    /// The state with the changes so far; no stored text belongs to it yet.
    newest: RefCell<Rc<Session>>,
    /// The same as it is written, once that is under way.
    written: RefCell<Option<Rc<Session>>>,
    outcome: RefCell<Option<Outcome>>,
    /// By which a later request reads what it has written.
    pub(super) sync_token: RefCell<String>,
    /// When whoever writes it must have given up.
    until: Time,
}

/// What came of a write.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is made.
    Made,
    /// There was nothing to write.
    Empty,
    /// It is not made: the session has changed, and is now this.
    Changed(Rc<Session>),
    /// It is not made, and the session must be read again.
    NotMade,
    /// The session has ended, or ended in the same moment.
    Ended,
    /// It may have been made.
    Lost(Failure),
    /// The store refused it.
    Refused(Failure),
}

/// A change's place in a write.
pub(super) enum Place<'a> {
    /// The first one, which carries the write out, once the one before it is made.
    First(Turn<'a>, Option<Rc<Write>>),
    /// A further one.
    Joined(Rc<Write>),
}

/// The right and the duty to carry out a write. Dropped without an outcome, it is lost.
pub(super) struct Turn<'a> {
    writes: &'a Writes,
    pub(super) write: Rc<Write>,
}

impl Outcome {
    /// Not made, as the session was found to be this.
    pub(super) fn found(session: Result<Option<Session>, Error>) -> Self {
        match session {
            Ok(Some(session)) => Self::Changed(Rc::new(session)),
            Ok(None) => Self::Ended,
            Err(_) => Self::NotMade,
        }
    }
}

impl Place<'_> {
    pub(super) fn write(&self) -> &Rc<Write> {
        match self {
            Self::First(turn, _) => &turn.write,
            Self::Joined(write) => write,
        }
    }
}

impl Writes {
    /// A place in the next write of this session, behind the one that is under way, if one is. `until`: when the caller will have
    /// given up.
    pub(super) fn join(&self, session: &Rc<Session>, now: Time, until: Time) -> Place<'_> {
        let handle = session.ticket.id.handle();
        let mut queues = self.0.borrow_mut();
        let queue = queues.entry(handle).or_default();
        // A request may have vanished.
        for write in [&mut queue.under_way, &mut queue.next] {
            *write = write.take().filter(|write| now <= write.until);
        }
        if let Some(next) = &queue.next {
            return Place::Joined(Rc::clone(next));
        }
        let before = queue.under_way.clone();
        let written = before.as_ref().and_then(|before| before.written.borrow().clone());
        let base = written.unwrap_or_else(|| Rc::clone(session));
        let write = Rc::new(Write {
            handle,
            newest: RefCell::new(Rc::clone(&base)),
            base,
            written: RefCell::default(),
            outcome: RefCell::default(),
            sync_token: RefCell::default(),
            until,
        });
        queue.next = Some(Rc::clone(&write));
        Place::First(Turn { writes: self, write }, before)
    }

    /// A write of this session, if no other is under way or waits.
    pub(super) fn begin(&self, session: &Rc<Session>, now: Time, until: Time) -> Option<Turn<'_>> {
        if self.0.borrow().contains_key(&session.ticket.id.handle()) {
            return None;
        }
        match self.join(session, now, until) {
            Place::First(turn, None) => Some(turn),
            _ => None,
        }
    }
}

impl Write {
    /// The state with the changes so far, for whoever holds `own`: what holds for the user was read with that.
    pub(super) fn newest(&self, own: &Session) -> Rc<Session> {
        let newest = Rc::clone(&self.newest.borrow());
        if newest.record.user == own.record.user {
            return newest;
        }
        let mut newest = (*newest).clone();
        newest.record.user.clone_from(&own.record.user);
        Rc::new(newest)
    }

    /// Adds a change: the next state, of this name and with this data.
    pub(super) fn add(&self, newest: &Session, data: Box<RawValue>, name: Nonce) -> Rc<Session> {
        let base = &self.base.record;
        let previous_revisions = revision::history(base.revision, &base.previous_revisions);
        let record = Record { data, revision: name, previous_revisions, ..(*newest.record).clone() };
        let changed = Rc::new(newest.with(record, String::new()));
        self.newest.replace(Rc::clone(&changed));
        changed
    }

    /// What came of it, if that is known.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// A state with some of the changes, after the write: as it is stored, if it is the last one.
    pub(super) fn as_written(&self, own: Rc<Session>) -> Rc<Session> {
        let written = self.written.borrow().clone();
        written.filter(|written| written.record.revision == own.record.revision).unwrap_or(own)
    }

    /// The names of the state that it replaces, and of the one that it writes.
    pub(super) fn names(&self) -> (Nonce, Nonce) {
        (self.base.record.revision, self.newest.borrow().record.revision)
    }
}

impl Turn<'_> {
    /// From now on this write is under way, and takes no further changes. `seal` makes the stored text of what it writes. `None` if
    /// there is nothing to write.
    pub(super) fn start(&self, seal: impl FnOnce(&Session) -> Session) -> Option<Rc<Session>> {
        let mut queues = self.writes.0.borrow_mut();
        let queue = queues.entry(self.write.handle).or_default();
        queue.next = queue.next.take().filter(|next| !Rc::ptr_eq(next, &self.write));
        let newest = Rc::clone(&self.write.newest.borrow());
        if newest.record.revision == self.write.base.record.revision {
            return None;
        }
        queue.under_way = Some(Rc::clone(&self.write));
        let written = Rc::new(seal(&newest));
        self.write.written.replace(Some(Rc::clone(&written)));
        Some(written)
    }

    /// What came of it. Whoever waits is told.
    pub(super) fn finish(self, outcome: Outcome) -> Outcome {
        self.write.outcome.replace(Some(outcome.clone()));
        outcome
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.write.outcome.borrow_mut().get_or_insert(Outcome::Lost(Failure::Unreachable));
        let mut queues = self.writes.0.borrow_mut();
        let Some(queue) = queues.get_mut(&self.write.handle) else { return };
        for write in [&mut queue.under_way, &mut queue.next] {
            *write = write.take().filter(|write| !Rc::ptr_eq(write, &self.write));
        }
        if queue.under_way.is_none() && queue.next.is_none() {
            queues.remove(&self.write.handle);
        }
    }
}
