//! What an isolate remembers of rate limits. All of it may be lost at any time, and is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use crate::{
    host::Host,
    log::{self, Line},
    store::{Batch, Failure, Replies, Store},
    time::Time,
};

/// How many blocked callers, how many windows, and how many of those before them, are remembered: about 3 MB of each. The next request in a forgotten
/// window costs one command more.
const MAX_REMEMBERED: usize = 20_000;

/// How many counters may wait for a correction, each about 150 bytes: as 7,000 refused logins need, all while
/// the store is away.
const MAX_CORRECTIONS: usize = 20_000;

/// How many corrections one call makes, of two commands each: some 100 KB.
const CORRECTIONS_PER_CALL: usize = 500;

/// How long corrections wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long the difference between the store's clock and this machine's is used.
const CLOCK_LIFETIME: Duration = Duration::from_secs(60);

/// A reading of the store's clock that takes longer is used only if there is no better one.
const SLOW: Duration = Duration::from_millis(250);

/// The memory of an isolate.
#[derive(Debug, Default)]
pub struct Memory {
    /// Callers over a limit, by the counter's key without its window: until when.
    blocked: RefCell<BTreeMap<String, Time>>,
    /// Counters that are known to exist, with a time to live: until when they count.
    open: RefCell<BTreeMap<String, Time>>,
    /// What was counted in the window before a counter's, once that does not change any more.
    previous: RefCell<BTreeMap<String, u64>>,
    corrections: RefCell<Corrections>,
    /// When corrections are tried again after a failure.
    not_before: Cell<Time>,
    clock: Cell<Option<Clock>>,
}

/// How far the store's clock is ahead of this machine's, in milliseconds; and when that was read.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ahead: i64,
    read_at: Time,
}

impl Memory {
    /// Until when this caller is over this limit, as far as this isolate knows.
    pub(super) fn blocked_until(&self, name: &str, now: Time) -> Option<Time> {
        self.blocked.borrow().get(name).copied().filter(|until| now < *until)
    }

    /// Remembers that a caller is over a limit.
    pub(super) fn block(&self, name: &str, until: Time) {
        remember(&mut self.blocked.borrow_mut(), name, until);
    }

    /// Forgets that a caller is over a limit.
    pub(super) fn unblock(&self, name: &str) {
        self.blocked.borrow_mut().remove(name);
    }

    /// Whether this counter is known to exist, with its time to live.
    pub(super) fn is_open(&self, key: &str) -> bool {
        self.open.borrow().contains_key(key)
    }

    /// Remembers that this counter exists, and counts until then.
    pub(super) fn set_open(&self, key: &str, until: Time) {
        remember(&mut self.open.borrow_mut(), key, until);
    }

    /// What was counted in the window before this counter's, if that does not change any more.
    pub(super) fn previous(&self, key: &str) -> Option<u64> {
        self.previous.borrow().get(key).copied()
    }

    /// Remembers what was counted in the window before this counter's.
    pub(super) fn set_previous(&self, key: &str, count: u64) {
        let mut previous = self.previous.borrow_mut();
        if previous.len() >= MAX_REMEMBERED && !previous.contains_key(key) {
            previous.clear();
        }
        previous.insert(key.to_owned(), count);
    }

    /// So much is to be taken off this counter again; one at least.
    pub(super) fn refund(&self, key: &str, count: u32, ttl: Duration) {
        self.corrections.borrow_mut().add(key.to_owned(), Correction { ttl, refund: count });
    }

    /// The store may have lost this counter and made it anew without its time to live.
    pub(super) fn ensure_ttl(&self, key: &str, ttl: Duration) {
        self.open.borrow_mut().remove(key);
        self.corrections.borrow_mut().add(key.to_owned(), Correction { ttl, refund: 0 });
    }

    /// Whether there are counters to correct.
    pub fn has_corrections(&self, now: Time) -> bool {
        !self.corrections.borrow().is_empty() && now >= self.not_before.get()
    }

    /// The time by the store's clock, which all isolates share; by this machine's as long as that is not known.
    pub(super) fn store_time(&self, now: Time) -> Time {
        Time(now.0.saturating_add_signed(self.clock.get().map_or(0, |clock| clock.ahead)))
    }

    /// Whether the store's clock must be read again.
    pub(super) fn is_clock_due(&self, now: Time) -> bool {
        self.clock.get().is_none_or(|clock| now < clock.read_at || now - clock.read_at >= CLOCK_LIFETIME)
    }

    /// Remembers the store's time, which was read between two moments of this machine's clock.
    pub(super) fn set_clock(&self, store: Time, sent: Time, received: Time) {
        let is_slow = received - sent > SLOW;
        if is_slow && self.clock.get().is_some() {
            return;
        }
        let here = i64::try_from(sent.0 / 2 + received.0 / 2).unwrap_or_default();
        let ahead = i64::try_from(store.0).unwrap_or_default() - here;
        self.clock.set(Some(Clock { ahead, read_at: if is_slow { Time::default() } else { received } }));
    }
}

/// Counters that must be corrected, outside of any request.
#[derive(Debug, Default)]
struct Corrections {
    /// What is taken off counters, by their keys.
    refunds: BTreeMap<String, Correction>,
    /// Counters that get their time to live in case they have none.
    ttls: BTreeMap<String, Correction>,
    /// How many were dropped since the store was last called.
    dropped: u32,
}

/// What is to be done to one counter.
#[derive(Clone, Copy, Debug)]
struct Correction {
    /// How long the counter is kept.
    ttl: Duration,
    /// How much is taken off it; if nothing, it gets its time to live in case it has none.
    refund: u32,
}

impl Corrections {
    fn add(&mut self, key: String, correction: Correction) {
        let same = if correction.refund > 0 { &mut self.refunds } else { &mut self.ttls };
        if let Some(known) = same.get_mut(&key) {
            known.refund = known.refund.saturating_add(correction.refund);
        } else if same.len() < MAX_CORRECTIONS {
            same.insert(key, correction);
        } else {
            self.dropped += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.refunds.is_empty() && self.ttls.is_empty()
    }

    /// In the order in which they are made. A refund that is lost counts as a failed login: refunds are first.
    fn into_ordered(self) -> Vec<(String, Correction)> {
        self.refunds.into_iter().chain(self.ttls).collect()
    }
}

/// In one transaction: a counter that has expired meanwhile is created with a time to live and never falls below zero.
fn batch(call: &[(String, Correction)]) -> Batch<'_> {
    call.iter().fold(Batch::default().atomic(), |batch, (key, Correction { ttl, refund })| {
        if *refund > 0 { batch.refund(key, *refund, *ttl) } else { batch.ensure_ttl(key, *ttl) }
    })
}

/// Why some corrections were not made, and which of them may be tried again: nothing is taken off twice.
fn unmade(
    call: &[(String, Correction)],
    outcome: Result<Replies, Failure>,
) -> Option<(Failure, Vec<&(String, Correction)>)> {
    let replies = match outcome {
        Ok(replies) => replies,
        Err(failure) => {
            let may_repeat =
                |(_, correction): &&(String, Correction)| correction.refund == 0 || !failure.is_in_doubt();
            return Some((failure, call.iter().filter(may_repeat).collect()));
        }
    };
    // An error is that command's alone, also in a transaction.
    let (mut replies, mut first) = (replies.into_iter(), None);
    let has_failed = |(_, correction): &&(String, Correction)| {
        // A refund creates the counter first.
        let failure = replies.nth(usize::from(correction.refund > 0)).and_then(Result::err);
        first = first.or(failure);
        failure.is_some()
    };
    let failed = call.iter().filter(has_failed).collect();
    first.map(|failure| (failure, failed))
}

/// When there are too many, those that end sooner than the average are forgotten: least is lost with them. Many at a
/// time, because finding them takes a look at all.
fn remember(names: &mut BTreeMap<String, Time>, name: &str, until: Time) {
    if let Some(known) = names.get_mut(name) {
        *known = until;
        return;
    }
    if names.len() >= MAX_REMEMBERED {
        let sum: u128 = names.values().map(|until| u128::from(until.0)).sum();
        let count = names.len() as u128;
        names.retain(|_, until| u128::from(until.0) * count > sum);
    }
    names.insert(name.to_owned(), until);
}

/// Makes the corrections that are due, outside of any request. A refund that fails in doubt is dropped: those who were
/// refused then wait longer than they were told, until their window is over, and nobody gets more than the limit.
pub async fn apply_corrections<H: Host>(host: &H, memory: &Memory, timeout: Duration) {
    if !memory.has_corrections(host.now()) {
        return;
    }
    let store = Store::new(host, timeout, String::new());
    let corrections = memory.corrections.take();
    if corrections.dropped > 0 {
        let message = format!(
            "{} corrections of rate-limit counters were dropped: more than {MAX_CORRECTIONS} waited for the store",
            corrections.dropped
        );
        host.log(&Line::new(log::Event::LimitCorrectionsDropped, message));
    }
    let corrections = corrections.into_ordered();
    let mut calls = corrections.chunks(CORRECTIONS_PER_CALL);
    while let Some(call) = calls.next() {
        let outcome = store.send(&batch(call), store.deadline()).await;
        let Some((failure, left)) = unmade(call, outcome) else { continue };
        let message = format!("rate-limit counters could not be corrected: {failure}");
        host.log(&Line::new(log::Event::LimitCorrectionFailed, message));
        memory.not_before.set(host.now() + RETRY_AFTER);
        let mut waiting = memory.corrections.borrow_mut();
        left.into_iter()
            .chain(calls.flatten())
            .for_each(|(key, correction)| waiting.add(key.clone(), *correction));
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{KnownError, Reply};

    #[test]
    fn a_caller_is_blocked_until_then_and_the_memory_is_bounded() {
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
            memory.set_open(&index.to_string(), Time(u64::MAX));
            assert!(memory.open.borrow().len() <= MAX_REMEMBERED);
        }
    }

    /// Refunds if more than nothing.
    fn correction(refund: u32) -> Correction {
        Correction { ttl: Duration::from_secs(60), refund }
    }

    #[test]
    fn refunds_go_first_and_are_dropped_only_for_want_of_memory() {
        let mut corrections = Corrections::default();
        for index in (0..MAX_CORRECTIONS).chain(0..1) {
            corrections.add(index.to_string(), correction(0));
        }
        for index in (0..MAX_CORRECTIONS).chain(0..1) {
            corrections.add(index.to_string(), correction(1));
        }
        assert_eq!(corrections.dropped, 0);
        corrections.add("one more".to_owned(), correction(1));
        corrections.add("one more".to_owned(), correction(0));
        assert_eq!(corrections.dropped, 2);
        let refunds: Vec<_> = corrections.into_ordered().iter().map(|(_, one)| one.refund).collect();
        assert_eq!(refunds.len(), MAX_CORRECTIONS * 2);
        assert_eq!(refunds.iter().sum::<u32>() as usize, MAX_CORRECTIONS + 1);
        assert!(refunds.is_sorted_by(|one, next| one.min(&1) >= next.min(&1)));
    }

    #[test]
    fn nothing_is_taken_off_twice() {
        let refused = || Err(Failure::Refused(KnownError::parse("OOM")));
        let number = || Ok(Reply::Integer(1));
        let cases = [
            (Err(Failure::Unreachable), "cd"),
            (Err(Failure::Status(429, None)), "abcd"),
            (Ok(vec![refused(), number(), number(), refused(), number(), refused()]), "bd"),
            (Ok(vec![number(), refused(), number(), number(), number(), number()]), "a"),
        ];
        for (outcome, left) in cases {
            let refunds = [("a", 1), ("b", 2), ("c", 0), ("d", 0)];
            let call = refunds.map(|(key, refund)| (key.to_owned(), correction(refund)));
            let (_, found) = unmade(&call, outcome).expect("a failure");
            assert_eq!(found.into_iter().map(|(key, _)| key.as_str()).collect::<String>(), left);
        }
        assert!(unmade(&[("a".to_owned(), correction(1))], Ok(vec![number(), number()])).is_none());
    }

    #[test]
    fn the_store_s_clock_is_read_again_after_a_while() {
        let memory = Memory::default();
        let now = Time(1_767_225_600_000);
        assert!(memory.is_clock_due(now));
        assert_eq!(memory.store_time(now), now);
        memory.set_clock(Time(now.0 + 2010), now, Time(now.0 + 20));
        assert_eq!(memory.store_time(now), Time(now.0 + 2000));
        assert!(!memory.is_clock_due(now + CLOCK_LIFETIME) && memory.is_clock_due(now + CLOCK_LIFETIME * 2));
    }
}
