//! What an isolate remembers of rate limits. All of it may be lost at any time, and is bounded.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use crate::{
    host::Host,
    store::{Batch, Failure, Replies, Reply, Store},
    time::Time,
};

/// How many blocked callers, and how many windows, are remembered: about 3 MB of each. The next request in a forgotten
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

    /// Whether this counter is known to exist, with its time to live.
    pub(super) fn is_open(&self, key: &str) -> bool {
        self.open.borrow().contains_key(key)
    }

    /// Remembers that this counter exists, and counts until then.
    pub(super) fn set_open(&self, key: &str, until: Time) {
        remember(&mut self.open.borrow_mut(), key, until);
    }

    /// One is to be taken off this counter again.
    pub(super) fn refund(&self, key: &str, ttl: Duration) {
        self.corrections.borrow_mut().add_refund(key, Refund { count: 1, ttl });
    }

    /// The store may have lost this counter and made it anew without its time to live.
    pub(super) fn ensure_ttl(&self, key: &str, ttl: Duration) {
        self.open.borrow_mut().remove(key);
        self.corrections.borrow_mut().add_ttl(key, ttl);
    }

    /// Whether there are counters to correct.
    pub fn has_corrections(&self, now: Time) -> bool {
        self.corrections.borrow().len() > 0 && now >= self.not_before.get()
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
    refunds: BTreeMap<String, Refund>,
    /// Counters that get their time to live in case they have none.
    ttls: BTreeMap<String, Duration>,
    /// How many were dropped since the store last took some.
    dropped: u32,
}

/// What is taken off a counter again.
#[derive(Clone, Copy, Debug)]
struct Refund {
    count: u32,
    /// How long the counter is kept.
    ttl: Duration,
}

impl Corrections {
    fn add_refund(&mut self, key: &str, refund: Refund) {
        if let Some(known) = self.refunds.get_mut(key) {
            known.count += refund.count;
            return;
        }
        // A refund that is lost counts as a failed login: the others make room for it.
        if self.is_full() && self.ttls.pop_first().is_some() {
            self.dropped += 1;
        }
        if self.is_full() {
            self.dropped += 1;
        } else {
            self.refunds.insert(key.to_owned(), refund);
        }
    }

    fn add_ttl(&mut self, key: &str, ttl: Duration) {
        if self.ttls.contains_key(key) {
            return;
        }
        if self.is_full() {
            self.dropped += 1;
        } else {
            self.ttls.insert(key.to_owned(), ttl);
        }
    }

    fn len(&self) -> usize {
        self.refunds.len() + self.ttls.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= MAX_CORRECTIONS
    }

    /// Takes what one call can carry, refunds first.
    fn take_call(&mut self) -> Self {
        let refunds = take_first(&mut self.refunds, CORRECTIONS_PER_CALL);
        let ttls = take_first(&mut self.ttls, CORRECTIONS_PER_CALL - refunds.len());
        Self { refunds, ttls, dropped: 0 }
    }

    /// In one transaction: a counter that has expired meanwhile is created with a time to live and never falls below zero.
    fn batch(&self) -> Batch<'_> {
        let batch = Batch::default().atomic();
        let batch = self
            .refunds
            .iter()
            .fold(batch, |batch, (key, Refund { count, ttl })| batch.refund(key, *count, *ttl));
        self.ttls.iter().fold(batch, |batch, (key, ttl)| batch.ensure_ttl(key, *ttl))
    }

    /// Why some were not made, and which of them may be tried again: nothing is taken off twice.
    fn unmade(mut self, outcome: Result<Replies, Failure>) -> Option<(Failure, Self)> {
        let replies = match outcome {
            Ok(replies) => replies,
            Err(failure) => {
                if failure.is_in_doubt() {
                    self.refunds.clear();
                }
                return Some((failure, self));
            }
        };
        // An error is that command's alone, also in a transaction.
        let (mut replies, mut first_failure) = (replies.into_iter(), None);
        let mut has_failed = |reply: Option<Result<Reply, Failure>>| {
            let failure = reply.and_then(Result::err);
            first_failure = first_failure.or(failure);
            failure.is_some()
        };
        self.refunds.retain(|_, _| {
            drop(replies.next()); // the creation
            has_failed(replies.next())
        });
        self.ttls.retain(|_, _| has_failed(replies.next()));
        first_failure.map(|failure| (failure, self))
    }
}

/// Takes the first entries off a map, `count` at most.
fn take_first<V>(map: &mut BTreeMap<String, V>, count: usize) -> BTreeMap<String, V> {
    let Some(key) = map.keys().nth(count).cloned() else { return std::mem::take(map) };
    let rest = map.split_off(&key);
    std::mem::replace(map, rest)
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
    let store = Store::new(host, timeout, String::new());
    // Those that are added meanwhile are for the request that adds them.
    let calls = memory.corrections.borrow().len().div_ceil(CORRECTIONS_PER_CALL);
    for _ in 0..calls {
        if !memory.has_corrections(host.now()) {
            return;
        }
        let call = memory.corrections.borrow_mut().take_call();
        let outcome = store.send(&call.batch(), store.deadline()).await;
        let Some((failure, left)) = call.unmade(outcome) else { continue };
        host.log(&format_args!("rate-limit counters could not be corrected: {failure}"));
        memory.not_before.set(host.now() + RETRY_AFTER);
        let mut corrections = memory.corrections.borrow_mut();
        left.refunds.iter().for_each(|(key, refund)| corrections.add_refund(key, *refund));
        left.ttls.iter().for_each(|(key, ttl)| corrections.add_ttl(key, *ttl));
        return;
    }
    // The store is back. As long as it was away, a line for each failure said so.
    let dropped = std::mem::take(&mut memory.corrections.borrow_mut().dropped);
    if dropped > 0 {
        host.log(&format_args!(
            "{dropped} corrections of rate-limit counters were dropped: more than {MAX_CORRECTIONS} waited for the store"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn refunds_go_first_and_are_the_last_to_be_dropped() {
        let ttl = Duration::from_secs(60);
        let mut corrections = Corrections::default();
        for index in 0..CORRECTIONS_PER_CALL + 1 {
            corrections.add_ttl(&format!("ttl {index}"), ttl);
        }
        for index in 0..CORRECTIONS_PER_CALL + 1 {
            corrections.add_refund(&format!("refund {index:09}"), Refund { count: 1, ttl });
        }
        corrections.add_refund("refund 000000000", Refund { count: 2, ttl });
        let sizes = std::iter::repeat_with(|| corrections.take_call())
            .take_while(|call| call.len() > 0)
            .map(|call| (call.refunds.values().map(|refund| refund.count).sum::<u32>(), call.ttls.len()));
        assert_eq!(sizes.collect::<Vec<_>>(), [(502, 0), (1, 499), (0, 2)]);
        for index in 0..MAX_CORRECTIONS {
            corrections.add_ttl(&index.to_string(), ttl);
        }
        for index in 0..MAX_CORRECTIONS {
            corrections.add_refund(&index.to_string(), Refund { count: 1, ttl });
        }
        assert_eq!((corrections.refunds.len(), corrections.ttls.len()), (MAX_CORRECTIONS, 0));
        corrections.add_refund("one more", Refund { count: 1, ttl });
        corrections.add_refund("1", Refund { count: 1, ttl });
        corrections.add_ttl("one more", ttl);
        assert_eq!(corrections.len(), MAX_CORRECTIONS);
        assert_eq!(corrections.dropped as usize, MAX_CORRECTIONS + 2);
    }

    #[test]
    fn nothing_is_taken_off_twice() {
        let call = || Corrections {
            refunds: ["a", "b"].map(|key| (key.to_owned(), Refund { count: 1, ttl: Duration::ZERO })).into(),
            ttls: ["a", "c"].map(|key| (key.to_owned(), Duration::ZERO)).into(),
            dropped: 0,
        };
        let refused = || Err(Failure::Refused("OOM"));
        let number = || Ok(Reply::Integer(1));
        let cases = [
            (Err(Failure::Unreachable), "- ac"),
            (Err(Failure::Status(429)), "ab ac"),
            (Ok(vec![refused(), number(), number(), refused(), number(), refused()]), "b c"),
            (Ok(vec![number(), refused(), number(), number(), number(), number()]), "a -"),
        ];
        for (outcome, left) in cases {
            let (_, Corrections { refunds, ttls, .. }) = call().unmade(outcome).expect("a failure");
            let [refunds, ttls] = [refunds.into_keys().collect(), ttls.into_keys().collect::<String>()];
            let shown = |keys: String| if keys.is_empty() { "-".to_owned() } else { keys };
            assert_eq!(format!("{} {}", shown(refunds), shown(ttls)), left);
        }
        assert!(call().unmade(Ok((0..6).map(|_| number()).collect())).is_none());
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
