//! What one isolate remembers between requests. All of it may be lost at any time, and is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    account::password::Params,
    events::Outbox,
    id::Handle,
    limit, provider,
    session::{Known, Task, Writes},
    ticket::{Ticket, UserTag},
    time::Time,
};

/// How many touched sessions are remembered. With more in use at a time, some are touched once too often.
const MAX_TOUCHED: usize = 10_000;

/// How many dead ids are remembered, and how many whose first use was noted.
const MAX_HANDLES: usize = 10_000;

/// How much work may wait. What is left out is not missed much: see [`Task`].
const MAX_TASKS: usize = 1000;

/// How many distinct users are counted between two writes.
const MAX_USERS: usize = 1000;

/// How many refused origins are remembered. Strangers choose them; when there are so many, no further ones are logged.
const MAX_REFUSED_ORIGINS: usize = 20;

/// How often the operator is told of a cache that fails.
const TELL_OF_CACHE_EVERY: Duration = Duration::from_secs(60);

/// How long the store is not asked to run scripts after it has refused one.
const REFUSED_FOR: Duration = Duration::from_secs(60);

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
    /// Ids that the primary has confirmed to be dead, by their handles. They never come back.
    dead: RefCell<BTreeSet<Handle>>,
    /// What is to be done after the response.
    tasks: RefCell<Vec<Task>>,
    /// The ids whose first use was noted.
    noted: RefCell<BTreeSet<Handle>>,
    /// Whether the keys of `JWT_KEYS` are good, once that was looked at.
    pub(crate) are_keys_good: Cell<Option<bool>>,
    /// Whether the operator was told of a ticket under an unknown key.
    has_told_of_unknown_key: Cell<bool>,
    /// When the operator was last told of a cache that fails.
    told_of_cache: Cell<Option<Time>>,
    /// Whether the service that knows breached passwords failed when it was last asked.
    breach_check_fails: Cell<bool>,
    /// As hashes, since they may be long.
    refused_origins: RefCell<BTreeSet<[u8; 32]>>,
    /// The parameters of the costliest password hash that was verified: verifying any other takes as much work.
    pub costliest_hash: Cell<Option<Params>>,
    /// The sessions that were read or written last.
    pub(crate) known: RefCell<Known>,
    /// The changes of sessions that are being written.
    pub(crate) writes: Writes,
    /// Until when the store is not asked to run scripts that it can be asked without: it has refused one.
    scripts_refused_until: Cell<Time>,
    /// The events that the operator's back end is not told of yet.
    pub events: Outbox,
    /// What concerns rate limits.
    pub limits: limit::Memory,
    /// What providers say about themselves.
    pub(crate) providers: provider::Memory,
    /// The large request bodies that are held at this time.
    pub large_bodies: limit::LargeBodies,
}

impl Isolate {
    /// One that remembers nothing yet. `has_events`: whether a back end is told of events.
    pub fn new(has_events: bool) -> Self {
        Self { events: Outbox::new(has_events), ..Self::default() }
    }

    /// Whether there is work to do outside of requests.
    pub fn has_background_work(&self, now: Time) -> bool {
        self.are_counts_due(now) || self.limits.has_corrections(now) || !self.tasks.borrow().is_empty()
    }

    /// Remembers an id that the primary has confirmed to be dead.
    pub fn remember_dead(&self, handle: Handle) {
        remember(&mut self.dead.borrow_mut(), handle);
    }

    /// Whether an id is known to be dead.
    pub fn is_dead(&self, handle: &Handle) -> bool {
        self.dead.borrow().contains(handle)
    }

    /// Puts work off until after the response. False if too much waits already.
    pub fn defer(&self, task: Task) -> bool {
        let mut tasks = self.tasks.borrow_mut();
        let has_room = tasks.len() < MAX_TASKS;
        if has_room {
            tasks.push(task);
        }
        has_room
    }

    /// Notes the first use of an id after the response, if this isolate has not done so.
    pub fn note_presented(&self, ticket: &Ticket) {
        let handle = ticket.id.handle();
        let is_new = remember(&mut self.noted.borrow_mut(), handle);
        if is_new && !self.defer(Task::NotePresented(ticket.clone())) {
            self.forget_noted(&handle);
        }
    }

    /// The first use of an id could not be noted.
    pub fn forget_noted(&self, handle: &Handle) {
        self.noted.borrow_mut().remove(handle);
    }

    /// Takes the work that was put off.
    pub fn take_tasks(&self) -> Vec<Task> {
        self.tasks.take()
    }

    /// The store has refused a script.
    pub fn refuse_scripts(&self, now: Time) {
        self.scripts_refused_until.set(now + REFUSED_FOR);
    }

    /// Whether to ask the store to run a script that can be done without.
    pub fn may_run_scripts(&self, now: Time) -> bool {
        now >= self.scripts_refused_until.get()
    }

    /// Whether it is the first time that this is asked.
    pub fn is_first_unknown_key(&self) -> bool {
        !self.has_told_of_unknown_key.replace(true)
    }

    /// Whether the operator is to be told now of a cache that fails.
    pub fn is_cache_log_due(&self, now: Time) -> bool {
        let is_due = self.told_of_cache.get().is_none_or(|told| now - told >= TELL_OF_CACHE_EVERY);
        if is_due {
            self.told_of_cache.set(Some(now));
        }
        is_due
    }

    /// Notes whether the service that knows breached passwords has failed. True if it did and had not before: the operator is
    /// to be told.
    pub fn breach_check_fails(&self, fails: bool) -> bool {
        !self.breach_check_fails.replace(fails) && fails
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

    /// Whether this is the first preflight from an origin that is not allowed, as far as is remembered.
    pub fn is_new_refused_origin(&self, origin: &str) -> bool {
        let mut origins = self.refused_origins.borrow_mut();
        origins.len() < MAX_REFUSED_ORIGINS && origins.insert(Sha256::digest(origin).into())
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

/// Adds a handle, and says whether it was missing. When there are too many, all are forgotten: that costs a call each.
fn remember(handles: &mut BTreeSet<Handle>, handle: Handle) -> bool {
    if handles.len() >= MAX_HANDLES {
        handles.clear();
    }
    handles.insert(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Family, Id};

    #[test]
    fn refused_origins_are_new_once_and_only_so_many() {
        let isolate = Isolate::default();
        let new = (0..100).filter(|number| {
            let origin = format!("https://{number}.example");
            let is_new = isolate.is_new_refused_origin(&origin);
            assert!(!isolate.is_new_refused_origin(&origin));
            is_new
        });
        assert_eq!(new.count(), MAX_REFUSED_ORIGINS);
    }

    #[test]
    fn the_first_use_of_an_id_for_which_there_was_no_room_is_noted_at_its_next_use() {
        let (isolate, now) = (Isolate::default(), Time(1_767_225_600_000));
        let (id, family) = (Id::from_bytes([1; 32]), Family([7; 9]));
        let ticket = Ticket {
            id,
            issued: now,
            ends: now,
            remember: false,
            user: None,
            family,
            generation: 1,
            foreign: None,
        };
        for _ in 0..MAX_TASKS {
            assert!(isolate.defer(Task::Delete(Vec::new())));
        }
        isolate.note_presented(&ticket);
        assert_eq!(isolate.take_tasks().len(), MAX_TASKS);
        isolate.note_presented(&ticket);
        isolate.note_presented(&ticket);
        assert!(matches!(isolate.take_tasks()[..], [Task::NotePresented(_)]));
    }
}
