//! What one isolate remembers between requests. All of it may be lost at any time, and is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use crate::{id::Handle, limit, time::Time};

/// So many sessions in use at a time are remembered; with more, some are touched once too often.
const MAX_TOUCHED: usize = 10_000;

/// So many users of a minute are counted in one isolate.
const MAX_USERS: usize = 1000;

/// How long what was counted waits to be written.
const TALLY_EVERY: Duration = Duration::from_secs(60);

/// The memory of an isolate.
#[derive(Debug, Default)]
pub struct Isolate {
    /// By handle, in milliseconds: one type of map for all that is remembered here.
    touched: RefCell<BTreeMap<String, u64>>,
    /// A handful of names: looked through from the first.
    tally: RefCell<Vec<(String, u32)>>,
    tally_since: Cell<Time>,
    users: RefCell<BTreeMap<String, u64>>,
    /// What concerns limits.
    pub limits: limit::Memory,
}

impl Isolate {
    /// Whether there is something to be done off the path of requests.
    pub fn has_background(&self, now: Time) -> bool {
        self.is_tally_due(now) || self.limits.has_chores(now)
    }

    /// Counts one of `what`.
    pub fn count(&self, what: &str, now: Time) {
        let mut tally = self.tally.borrow_mut();
        if tally.is_empty() {
            self.tally_since.set(now);
        }
        add(&mut tally, what, 1);
    }

    /// Remembers that this user was here, for counting how many different ones there are.
    pub fn see(&self, user: String) {
        let mut users = self.users.borrow_mut();
        if users.len() < MAX_USERS {
            users.insert(user, 0);
        }
    }

    /// Takes who was here away.
    pub fn take_users(&self) -> BTreeMap<String, u64> {
        self.users.take()
    }

    /// Whether it is time to write what was counted.
    pub fn is_tally_due(&self, now: Time) -> bool {
        !self.tally.borrow().is_empty() && now - self.tally_since.get() >= TALLY_EVERY
    }

    /// Takes what was counted away, when it is due.
    pub fn take_tally(&self, now: Time) -> Option<Vec<(String, u32)>> {
        self.is_tally_due(now).then(|| self.tally.take())
    }

    /// Puts back what could not be written, to be tried again as late as anything else.
    pub fn recount(&self, unwritten: Vec<(String, u32)>, now: Time) {
        let mut tally = self.tally.borrow_mut();
        for (what, count) in unwritten {
            add(&mut tally, &what, count);
        }
        self.tally_since.set(now);
    }

    /// When this isolate last renewed the session's time to live, as far as it remembers.
    pub fn last_touch(&self, handle: &Handle) -> Option<Time> {
        self.touched.borrow().get(&handle.to_string()).copied().map(Time)
    }

    /// Forgets a renewal that failed.
    pub fn forget(&self, handle: &Handle) {
        self.touched.borrow_mut().insert(handle.to_string(), 0);
    }

    /// Remembers that the session's time to live is renewed now: of many requests with one ticket, which all find
    /// it due, the first does it.
    pub fn touch(&self, handle: Handle, now: Time) {
        let mut touched = self.touched.borrow_mut();
        if touched.len() >= MAX_TOUCHED {
            touched.clear();
        }
        touched.insert(handle.to_string(), now.0);
    }
}

fn add(tally: &mut Vec<(String, u32)>, what: &str, count: u32) {
    match tally.iter_mut().find(|(known, _)| *known == what) {
        Some((_, sum)) => *sum += count,
        None => tally.push((what.to_owned(), count)),
    }
}
