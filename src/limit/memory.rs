//! What an isolate remembers of limits. All of it may be lost at any time, and is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use crate::{
    host::Host,
    store::{Batch, Store},
    time::Time,
};

/// So many callers over a limit, and so many windows, are remembered at a time: about 3 MB of each. A window that is
/// forgotten costs its next request a command more.
const MAX_REMEMBERED: usize = 20_000;

/// So many counters wait to be put right.
const MAX_CHORES: usize = 256;

/// How long after a failure they wait.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the store's clock is taken to go like this machine's.
const CLOCK_LASTS: Duration = Duration::from_secs(60);

/// A look at the store's clock that takes longer is only believed for want of a better one.
const SLOW: Duration = Duration::from_millis(250);

/// The memory of an isolate. (Every map here and in [`crate::isolate`] is of one type, and nothing is taken out of one: the
/// code for that is 3 KB of wasm.)
#[derive(Debug, Default)]
pub struct Memory {
    /// Callers over a limit, by the counter's key without its window: until when.
    blocked: RefCell<BTreeMap<String, u64>>,
    /// The counters that are there, with a time to live: until when they count.
    opened: RefCell<BTreeMap<String, u64>>,
    chores: RefCell<Vec<Chore>>,
    /// When the chores are tried again, after a failure.
    not_before: Cell<Time>,
    clock: Cell<Option<Clock>>,
}

/// Something to be done to a counter when there is time.
#[derive(Debug)]
struct Chore {
    key: String,
    /// How long the counter is kept.
    ttl: Duration,
    /// How many are to be taken off it; with none it is to get its time to live, if it has none.
    refund: u32,
}

/// How far the store's clock is ahead of this machine's, in milliseconds; and when that was seen.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ahead: i64,
    seen: Time,
}

impl Memory {
    /// Until when this caller is over this limit, as far as is known here.
    pub(super) fn blocked_until(&self, name: &str, now: Time) -> Option<Time> {
        self.blocked.borrow().get(name).copied().map(Time).filter(|until| now < *until)
    }

    /// Remembers that a caller is over a limit.
    pub(super) fn block(&self, name: &str, until: Time) {
        remember(&mut self.blocked.borrow_mut(), name, until);
    }

    /// Whether the counter is known to be there, with its time to live.
    pub(super) fn is_open(&self, key: &str) -> bool {
        self.opened.borrow().get(key).is_some_and(|until| *until > 0)
    }

    /// Remembers that it is there, and counts until then.
    pub(super) fn open(&self, key: &str, until: Time) {
        remember(&mut self.opened.borrow_mut(), key, until);
    }

    /// Remembers that one is to be taken off this counter again.
    pub(super) fn owe(&self, key: &str, ttl: Duration) {
        self.plan(Chore { key: key.to_owned(), ttl, refund: 1 });
    }

    /// Remembers that the store may have lost this counter, and it may have come back without its time to live.
    pub(super) fn mend(&self, key: &str, ttl: Duration) {
        if let Some(until) = self.opened.borrow_mut().get_mut(key) {
            *until = 0;
        }
        self.plan(Chore { key: key.to_owned(), ttl, refund: 0 });
    }

    fn plan(&self, chore: Chore) {
        let mut chores = self.chores.borrow_mut();
        let is_same = |other: &&mut Chore| other.key == chore.key && (other.refund > 0) == (chore.refund > 0);
        if let Some(other) = chores.iter_mut().find(is_same) {
            other.refund += chore.refund;
        } else if chores.len() < MAX_CHORES {
            chores.push(chore);
        }
    }

    /// Whether there is something to be done when there is time.
    pub fn has_chores(&self, now: Time) -> bool {
        !self.chores.borrow().is_empty() && now >= self.not_before.get()
    }

    /// The time by the store's clock, which all isolates share; by this machine's until that is known.
    pub(super) fn store_time(&self, now: Time) -> Time {
        Time(now.0.saturating_add_signed(self.clock.get().map_or(0, |clock| clock.ahead)))
    }

    /// Whether the store's clock is to be looked at.
    pub(super) fn is_clock_due(&self, now: Time) -> bool {
        self.clock.get().is_none_or(|clock| now < clock.seen || now - clock.seen >= CLOCK_LASTS)
    }

    /// Takes the store's time, which it told between two moments here.
    pub(super) fn set_clock(&self, store: Time, sent: Time, received: Time) {
        let is_slow = received - sent > SLOW;
        if is_slow && self.clock.get().is_some() {
            return;
        }
        let here = i64::try_from(sent.0 / 2 + received.0 / 2).unwrap_or_default();
        let ahead = i64::try_from(store.0).unwrap_or_default() - here;
        self.clock.set(Some(Clock { ahead, seen: if is_slow { Time::default() } else { received } }));
    }
}

/// With too many to remember, those that end sooner than the average are forgotten: what is lost with them is the
/// least. Many at a time, because finding them takes a look at all.
fn remember(names: &mut BTreeMap<String, u64>, name: &str, until: Time) {
    if names.len() >= MAX_REMEMBERED && !names.contains_key(name) {
        let sum: u128 = names.values().map(|until| u128::from(*until)).sum();
        let count = names.len() as u128;
        for (name, until) in std::mem::take(names) {
            if u128::from(until) * count > sum {
                names.insert(name, until);
            }
        }
    }
    names.insert(name.to_owned(), until.0);
}

/// Gives back what refused requests were counted, off any request's path. What cannot be given back makes those who
/// were refused wait longer than they were told, until their window is over; nobody gets more than the limit.
pub async fn tidy<H: Host>(host: &H, memory: &Memory, timeout: Duration) {
    let chores = memory.chores.take();
    if chores.is_empty() {
        return;
    }
    // As one: a counter that has gone meanwhile comes into being with a time to live, and never below nothing.
    let batch = chores.iter().fold(Batch::default().as_one(), |batch, Chore { key, ttl, refund }| {
        if *refund > 0 { batch.refund(key, *refund, *ttl) } else { batch.expire_endless(key, *ttl) }
    });
    if let Err(failure) = Store::new(host, timeout, String::new()).run_all(batch).await {
        host.log(&format_args!("counters could not be put right: {failure}"));
        memory.not_before.set(host.now() + PAUSE);
        // Whatever is in doubt is not taken off twice.
        let is_again = |chore: &Chore| chore.refund == 0 || !failure.is_in_doubt();
        memory.chores.borrow_mut().extend(chores.into_iter().filter(is_again).take(MAX_CHORES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_blocked_is_so_until_then_and_the_memory_is_bounded() {
        let memory = Memory::default();
        for index in 0..MAX_REMEMBERED as u64 {
            memory.block(&index.to_string(), Time(1000 + index));
        }
        assert_eq!(memory.blocked_until("0", Time(999)), Some(Time(1000)));
        assert_eq!(memory.blocked_until("0", Time(1000)), None);
        memory.block("0", Time(9_000_000));
        memory.block("one more", Time(9_000_000));
        assert_eq!(memory.blocked_until("1", Time(0)), None, "those that end soonest are forgotten");
        assert!(memory.blocked_until("0", Time(0)).is_some());
        assert!(memory.blocked_until(&(MAX_REMEMBERED - 1).to_string(), Time(0)).is_some());
        let left = memory.blocked.borrow().len();
        assert!((MAX_REMEMBERED / 4..MAX_REMEMBERED).contains(&left), "{left}");
        for index in 0..MAX_REMEMBERED * 3 {
            memory.open(&index.to_string(), Time(u64::MAX));
            assert!(memory.opened.borrow().len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn the_store_s_clock_is_looked_at_now_and_then() {
        let memory = Memory::default();
        let now = Time(1_767_225_600_000);
        assert!(memory.is_clock_due(now));
        assert_eq!(memory.store_time(now), now);
        memory.set_clock(Time(now.0 + 2010), now, Time(now.0 + 20));
        assert_eq!(memory.store_time(now), Time(now.0 + 2000));
        assert!(!memory.is_clock_due(now + CLOCK_LASTS) && memory.is_clock_due(now + CLOCK_LASTS * 2));
    }
}
