//! What one isolate remembers between requests. All of it may be lost at any time, and is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{account::password::Params, id::Handle, limit, ticket::UserTag, time::Time};

/// How many touched sessions are remembered. With more in use at a time, some are touched once too often.
const MAX_TOUCHED: usize = 10_000;

/// How many distinct users are counted between two writes.
const MAX_USERS: usize = 1000;

/// How often the counts are written.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// What has been counted, by name.
pub type Counts = BTreeMap<String, u32>;

/// The memory of an isolate.
#[derive(Debug, Default)]
pub struct Isolate {
    touched: RefCell<BTreeMap<Handle, Time>>,
    counts: RefCell<Counts>,
    /// When the first of them was counted.
    counting_since: Cell<Time>,
    users: RefCell<BTreeSet<UserTag>>,
    /// The parameters of the costliest password hash that was verified: verifying any other takes as much work.
    pub costliest_hash: Cell<Option<Params>>,
    /// What concerns rate limits.
    pub limits: limit::Memory,
}

impl Isolate {
    /// Whether there is work to do outside of requests.
    pub fn has_background_work(&self, now: Time) -> bool {
        self.are_counts_due(now) || self.limits.has_corrections(now)
    }

    /// Counts one of `what`.
    pub fn count(&self, what: &str, now: Time) {
        self.add_counts([(what, 1)], now);
    }

    /// Counts this user among the distinct ones.
    pub fn count_user(&self, user: UserTag) {
        let mut users = self.users.borrow_mut();
        if users.len() < MAX_USERS {
            users.insert(user);
        }
    }

    /// Takes the distinct users, and forgets them.
    pub fn take_users(&self) -> BTreeSet<UserTag> {
        self.users.take()
    }

    /// Takes the counts and forgets them, if it is time to write them.
    pub fn take_due_counts(&self, now: Time) -> Option<Counts> {
        self.are_counts_due(now).then(|| self.counts.take())
    }

    /// Puts back counts that could not be written.
    pub fn restore_counts(&self, counts: &Counts, now: Time) {
        self.add_counts(counts.iter().map(|(what, count)| (what.as_str(), *count)), now);
        self.counting_since.set(now);
    }

    /// When this isolate last touched the session, as far as it remembers.
    pub fn last_touch(&self, handle: &Handle) -> Option<Time> {
        self.touched.borrow().get(handle).copied()
    }

    /// Forgets a touch that failed.
    pub fn forget_touch(&self, handle: &Handle) {
        self.touched.borrow_mut().remove(handle);
    }

    /// Remembers that the session is touched now: of many requests with one ticket, all of which find it due, one does it.
    pub fn touch(&self, handle: Handle, now: Time) {
        let mut touched = self.touched.borrow_mut();
        if touched.len() >= MAX_TOUCHED {
            touched.clear();
        }
        touched.insert(handle, now);
    }

    fn are_counts_due(&self, now: Time) -> bool {
        !self.counts.borrow().is_empty() && now - self.counting_since.get() >= WRITE_EVERY
    }

    fn add_counts<'a>(&self, added: impl IntoIterator<Item = (&'a str, u32)>, now: Time) {
        let mut counts = self.counts.borrow_mut();
        if counts.is_empty() {
            self.counting_since.set(now);
        }
        for (what, count) in added {
            match counts.get_mut(what) {
                Some(sum) => *sum += count,
                None => drop(counts.insert(what.to_owned(), count)),
            }
        }
    }
}
