//! The sliding-window counter: approximated by the counters of the current fixed window and of the previous one. Knows
//! neither clock nor store.
//!
//! The store gives each request its rank in the current window. What passed in the previous window counts by the part of
//! it that the sliding window still covers, as if it had been spread evenly.

use std::time::Duration;

use super::Quota;
use crate::time::Time;

/// By how much the clocks of isolates differ at most, with the store's clock read every minute.
const SETTLED: Duration = Duration::from_secs(1);

/// A quota's fixed window at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    quota: Quota,
    /// Its number since 1970.
    pub(super) index: u64,
    elapsed_ms: u64,
}

/// Whether a request passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It does.
    Passed {
        /// How many more would, right now.
        remaining: u32,
        /// When the current window ends.
        reset: Duration,
    },
    /// It does not.
    Refused {
        /// How long until one of this cost passes, if there are no others. The window, if none ever does.
        retry: Duration,
        /// What cheaper requests have left, as far as that is known.
        remaining: Option<u32>,
    },
}

impl Window {
    /// The window of this moment.
    pub(super) fn at(quota: Quota, now: Time) -> Self {
        let length = quota.window_ms();
        Self { quota, index: now.0 / length, elapsed_ms: now.0 % length }
    }

    /// How long its counter is kept: for this window and the next, and longer than any call can be under way.
    pub(super) fn ttl(&self) -> Duration {
        const MARGIN: Duration = Duration::from_secs(120);
        self.quota.window * 2 + MARGIN
    }

    /// What a script of the store needs to judge a request as [`Window::judge`] does: the limit, the window's length and what is
    /// left of it, in milliseconds.
    pub(super) fn terms(&self) -> [u64; 3] {
        let length = self.quota.window_ms();
        [self.quota.limit(), length, length - self.elapsed_ms]
    }

    /// The most requests that this window lets through, after so many in the previous one; if that is settled: nobody counts in
    /// the previous window any more, nor in the next one before a call that takes so long is over.
    pub(super) fn most(&self, previous: u64, call: Duration) -> Option<u64> {
        let is_before_next = self.reset() > call + SETTLED;
        is_before_next.then(|| self.free(previous))
    }

    /// Whether nobody counts in the previous window any more, if a call takes so long at most.
    pub(super) fn is_settled(&self, call: Duration) -> bool {
        Duration::from_millis(self.elapsed_ms) > call + SETTLED
    }

    /// How long until the next begins.
    pub(super) fn reset(&self) -> Duration {
        Duration::from_millis(self.quota.window_ms() - self.elapsed_ms)
    }

    /// Judges a request of this cost, one at least, that comes after `before` in this window and `previous` in the
    /// previous one.
    pub(super) fn judge(&self, previous: u64, before: u64, cost: u32) -> Verdict {
        let (limit, length, cost) = (self.quota.limit(), self.quota.window_ms(), u64::from(cost));
        let left_ms = length - self.elapsed_ms;
        let (previous, free) = (previous.min(limit), self.free(previous));
        let left = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        if before + cost <= free {
            let remaining = left(free - before - cost);
            return Verdict::Passed { remaining, reset: Duration::from_millis(left_ms) };
        }
        if cost > limit {
            return Verdict::Refused { retry: self.quota.window, remaining: None };
        }
        // More cannot have passed in this window: other requests with a lower rank are being refused, too.
        let passed = before.min(free);
        let wait_ms = match limit.checked_sub(passed + cost) {
            // When less of the previous window is covered …
            Some(room) => left_ms.saturating_sub(last_fit(room, previous, length)),
            // … or only in the next window.
            None => left_ms + length - last_fit(limit - cost, passed, length),
        };
        let retry = Duration::from_millis(wait_ms.max(1));
        Verdict::Refused { retry, remaining: Some(left(free - passed)) }
    }

    /// Judges a request that takes nothing: it passes, and is told what the next one of cost 1 would be.
    pub(super) fn look(&self, previous: u64, before: u64) -> Verdict {
        match self.judge(previous, before, 1) {
            Verdict::Passed { remaining, reset } => Verdict::Passed { remaining: remaining + 1, reset },
            Verdict::Refused { retry, .. } => Verdict::Passed { remaining: 0, reset: retry },
        }
    }

    /// Whether more was counted than can have passed: refusals that are not refunded yet.
    pub(super) fn is_overcounted(&self, previous: u64, before: u64) -> bool {
        before > self.free(previous)
    }

    /// What this window has for all its requests together. Those refused in the previous window are refunded, or soon
    /// will be: they do not count.
    fn free(&self, previous: u64) -> u64 {
        let (limit, length) = (self.quota.limit(), self.quota.window_ms());
        limit - previous.min(limit) * (length - self.elapsed_ms) / length
    }
}

/// The most milliseconds of a window with `count` requests that may be covered so that at most `room` of them are.
fn last_fit(room: u64, count: u64, length: u64) -> u64 {
    if count <= room { length } else { ((room + 1) * length).div_ceil(count) - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(limit: u32, window: u64) -> Quota {
        Quota { count: limit.try_into().expect("not zero"), window: Duration::from_millis(window) }
    }

    /// The two counters, as a store keeps them, and what they let through.
    struct Flood {
        quota: Quota,
        counters: std::collections::BTreeMap<u64, u64>,
        passed: Vec<u64>,
    }

    impl Flood {
        fn new(quota: Quota) -> Self {
            Self { quota, counters: std::collections::BTreeMap::new(), passed: Vec::new() }
        }

        fn send(&mut self, now: u64) -> Verdict {
            self.send_costing(now, 1)
        }

        fn send_costing(&mut self, now: u64, cost: u32) -> Verdict {
            let window = Window::at(self.quota, Time(now));
            let (previous, before) = (self.count(window.index.wrapping_sub(1)), self.count(window.index));
            let verdict = window.judge(previous, before, cost);
            if let Verdict::Passed { .. } = verdict {
                self.counters.insert(window.index, before + u64::from(cost));
                self.passed.extend((0..cost).map(|_| now));
            }
            verdict
        }

        fn look(&self, now: u64) -> Verdict {
            let window = Window::at(self.quota, Time(now));
            window.look(self.count(window.index.wrapping_sub(1)), self.count(window.index))
        }

        fn count(&self, index: u64) -> u64 {
            self.counters.get(&index).copied().unwrap_or(0)
        }

        /// The most that passed in any span of the quota's length, by an exact log.
        fn most(&self) -> usize {
            let length = self.quota.window_ms();
            let within =
                |start: u64| self.passed.iter().filter(|at| (start..start + length).contains(at)).count();
            self.passed.iter().map(|start| within(*start)).max().unwrap_or(0)
        }
    }

    #[test]
    fn the_first_hundred_pass_and_are_told_how_many_more() {
        let mut flood = Flood::new(quota(100, 60_000));
        for rank in 1..=100 {
            let remaining = 100 - rank;
            assert_eq!(flood.send(0), Verdict::Passed { remaining, reset: Duration::from_secs(60) });
        }
        assert!(matches!(flood.send(0), Verdict::Refused { .. }));
    }

    #[test]
    fn a_request_of_several_passes_if_all_of_it_fits_and_leaves_the_rest_to_cheaper_ones() {
        let mut flood = Flood::new(quota(10, 60_000));
        let reset = Duration::from_secs(60);
        assert_eq!(flood.send_costing(0, 6), Verdict::Passed { remaining: 4, reset });
        let refused = flood.send_costing(0, 5);
        assert!(matches!(refused, Verdict::Refused { remaining: Some(4), .. }), "{refused:?}");
        assert_eq!(flood.send_costing(0, 4), Verdict::Passed { remaining: 0, reset });
        assert_eq!(flood.send_costing(60_000 * 9, 11), Verdict::Refused { retry: reset, remaining: None });
    }

    #[test]
    fn refusals_that_are_not_refunded_yet_show_as_more_than_can_have_passed() {
        let window = Window::at(quota(10, 60_000), Time(30_000));
        for (previous, before, is_over) in [(0, 10, false), (0, 11, true), (10, 5, false), (99, 6, true)] {
            assert_eq!(window.is_overcounted(previous, before), is_over, "{previous} {before}");
        }
    }

    #[test]
    fn a_limit_of_one_lets_one_through_in_each_window() {
        let mut flood = Flood::new(quota(1, 1000));
        for now in 0..10_000 {
            flood.send(now);
        }
        // Each comes when the one before is less than wholly covered: a millisecond into the next window.
        assert_eq!(flood.passed, [0, 1001, 2001, 3001, 4001, 5001, 6001, 7001, 8001, 9001]);
    }

    #[test]
    fn the_largest_quota_is_judged_without_overflow() {
        let (limit, length) = (u32::MAX, 31 * 86_400_000);
        for now in [0, 1, length / 2, length - 1].map(|elapsed| Time(length * 1000 + elapsed)) {
            let window = Window::at(quota(limit, length), now);
            for (previous, before) in
                [(0, 0), (u64::MAX, 0), (u64::MAX, u64::MAX / 4), (limit.into(), u64::from(limit) - 1)]
            {
                for verdict in [
                    window.judge(previous, before, 1),
                    window.judge(previous, before, u32::MAX),
                    window.look(previous, before),
                ] {
                    let (Verdict::Passed { reset: wait, .. } | Verdict::Refused { retry: wait, .. }) =
                        verdict;
                    assert!(wait <= Duration::from_millis(2 * length), "{verdict:?}");
                }
            }
        }
    }

    proptest! {
        /// Let L be the limit. In a span of the window's length that begins at the fraction a of one window, at most
        /// L pass of that window, and of the next, by its fraction a, at most L - floor(L (1 - a)): together at most
        /// L + ceil(a L), and never more than 2 L.
        #[test]
        fn a_flood_gets_at_most_the_limit_and_what_the_approximation_allows(
            limit in 1_u32..50, length in 1000_u64..5000, start in 0_u64..5000,
            requests in prop::collection::vec((0_u64..400, prop_oneof![Just(1_u32), 1_u32..60]), 1..400),
        ) {
            let mut flood = Flood::new(quota(limit, length));
            let mut now = start;
            for (gap, cost) in requests {
                now += gap;
                flood.send_costing(now, cost);
            }
            let passed = flood.passed.clone();
            for begin in &passed {
                let part = begin % length;
                let bound = u64::from(limit) + (part * u64::from(limit)).div_ceil(length);
                let count = passed.iter().filter(|at| (*begin..begin + length).contains(at)).count() as u64;
                prop_assert!(count <= bound, "{count} in a span that may have {bound}");
            }
            prop_assert!(flood.most() <= 2 * limit as usize);
        }

        /// Alone, in other words.
        #[test]
        fn who_waits_as_long_as_told_passes_and_not_a_millisecond_sooner(
            limit in 1_u32..40, length in 1000_u64..5000,
            requests in prop::collection::vec((0_u64..300, prop_oneof![Just(1_u32), 1_u32..40]), 1..200),
        ) {
            let mut flood = Flood::new(quota(limit, length));
            let mut now = 0;
            for (gap, cost) in requests {
                now += gap;
                let cost = cost.min(limit);
                let Verdict::Refused { retry, .. } = flood.send_costing(now, cost) else { continue };
                let wait = u64::try_from(retry.as_millis()).expect("short");
                let mut early = Flood { quota: flood.quota, counters: flood.counters.clone(), passed: Vec::new() };
                let is_refused = matches!(early.send_costing(now + wait - 1, cost), Verdict::Refused { .. });
                prop_assert!(is_refused, "{} ms would do", wait - 1);
                now += wait;
                let is_passed = matches!(flood.send_costing(now, cost), Verdict::Passed { .. });
                prop_assert!(is_passed, "after {} ms", wait);
            }
        }

        #[test]
        fn a_look_says_what_the_next_request_would_be_told_and_takes_nothing(
            limit in 1_u32..10, requests in prop::collection::vec((0_u64..300, 0_u32..5), 1..200),
        ) {
            let mut flood = Flood::new(quota(limit, 1000));
            let mut now = 0;
            for (gap, cost) in requests {
                now += gap;
                if cost > 0 {
                    flood.send_costing(now, cost);
                    continue;
                }
                let look = flood.look(now);
                prop_assert_eq!(look, flood.look(now));
                let mut next = Flood { quota: flood.quota, counters: flood.counters.clone(), passed: Vec::new() };
                let expected = match next.send(now) {
                    Verdict::Passed { remaining, reset } => Verdict::Passed { remaining: remaining + 1, reset },
                    Verdict::Refused { retry, .. } => Verdict::Passed { remaining: 0, reset: retry },
                };
                prop_assert_eq!(look, expected);
            }
        }
    }
}
