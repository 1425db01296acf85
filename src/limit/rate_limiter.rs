//! The rate limits that apply to one request, and what became of them. Knows no store: [`super::CountingStore`] asks
//! for the windows' keys, counts in them, and hands the counts back.

use std::{borrow::Cow, cell::RefCell, time::Duration};

use super::{
    LOGIN_LIMITS, Memory, Policy, Quota, Subject,
    fields::{self, State},
    window::{Verdict, Window},
};
use crate::{
    http::{Problem, Response},
    time::Time,
};

/// The rate limits that apply to one request.
#[derive(Debug)]
pub struct RateLimiter<'a> {
    memory: &'a Memory,
    key_prefix: &'a str,
    charges: RefCell<Vec<Charge>>,
}

/// One limit that applies to the request.
#[derive(Debug)]
struct Charge {
    name: Cow<'static, str>,
    quota: Quota,
    /// The counter's key without its window.
    counter: String,
    /// Whether it is a limit of the ticket's session or user.
    belongs_to_ticket: bool,
    /// Whether the request was not counted in it yet.
    is_due: bool,
    verdict: Option<Verdict>,
    /// The counter that holds it, and how long that counter is kept.
    counted: Option<(String, Duration)>,
}

/// A limit that the request is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    name: Cow<'static, str>,
    quota: Quota,
    retry: Duration,
}

/// The counters of one charge at one moment.
#[derive(Debug)]
pub(super) struct WindowKeys {
    pub(super) window: Window,
    pub(super) previous: String,
    pub(super) current: String,
    /// Other isolates may count in the next window already: this one's clock is behind, or its call was slow.
    pub(super) next: String,
    /// Whether the current counter is known to exist, with its time to live.
    pub(super) is_open: bool,
}

/// The counts of one charge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) previous: u64,
    /// With this request.
    pub(super) current: u64,
    pub(super) next: u64,
}

impl<'a> RateLimiter<'a> {
    /// A limiter without limits yet.
    pub fn new(memory: &'a Memory, key_prefix: &'a str) -> Self {
        Self { memory, key_prefix, charges: RefCell::default() }
    }

    /// Adds a limit, unless it is switched off. Of several that refuse, the one added first is named.
    pub fn add(&self, name: impl Into<Cow<'static, str>>, quota: Option<Quota>, subject: Subject) {
        let (Some(quota), name) = (quota, name.into()) else { return };
        let counter = [self.key_prefix, "limit:", &name, ":", &subject.to_string()].concat();
        let belongs_to_ticket = matches!(subject, Subject::Session(_) | Subject::User(_));
        let charge =
            Charge { name, quota, counter, belongs_to_ticket, is_due: true, verdict: None, counted: None };
        self.charges.borrow_mut().push(charge);
    }

    /// Refuses a caller whom this isolate knows to be over a limit, without a call to the store.
    pub fn check_blocked(&self, now: Time) -> Result<(), Refusal> {
        let now = self.memory.store_time(now);
        for charge in self.charges.borrow_mut().iter_mut().filter(|charge| charge.is_due) {
            if let Some(until) = self.memory.blocked_until(&charge.counter, now) {
                charge.verdict = Some(Verdict::Refused { retry: until - now });
            }
        }
        self.check().inspect_err(|_| self.set_counted())
    }

    /// The first limit that the request is over, with the time until it is over none.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut refusal: Option<Refusal> = None;
        for charge in self.charges.borrow().iter() {
            let Some(Verdict::Refused { retry }) = charge.verdict else { continue };
            match &mut refusal {
                None => {
                    refusal = Some(Refusal { name: charge.name.clone(), quota: charge.quota, retry });
                }
                Some(first) => first.retry = first.retry.max(retry),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Gives back what the request was counted in these limits: they do not concern it after all.
    pub fn refund(&self, names: &[&str]) {
        self.refund_where(|charge| names.contains(&&*charge.name));
    }

    /// Takes the ticket's limits back, and what was counted in them: it turned out to be dead. If they have refused the
    /// request, its owner is not to be blocked by that, and the other limits count it again.
    pub fn withdraw_ticket(&self) {
        self.refund_where(|charge| charge.belongs_to_ticket);
        let mut was_refused = false;
        let mut charges = self.charges.borrow_mut();
        charges.retain(|charge| {
            if charge.belongs_to_ticket && matches!(charge.verdict, Some(Verdict::Refused { .. })) {
                was_refused = true;
                self.memory.unblock(&charge.counter);
            }
            !charge.belongs_to_ticket
        });
        let passed = |charge: &&mut Charge| matches!(charge.verdict, Some(Verdict::Passed { .. }));
        for charge in charges.iter_mut().filter(passed).filter(|_| was_refused) {
            (charge.verdict, charge.is_due) = (None, true);
        }
    }

    /// Removes a limit from the request, and gives back what it was counted.
    pub fn withdraw(&self, name: &str) {
        self.refund(&[name]);
        self.charges.borrow_mut().retain(|charge| charge.name != name);
    }

    /// The response with the fields that tell the state of each limit.
    pub fn write_fields(&self, response: Response) -> Response {
        let charges = self.charges.borrow();
        let states = charges.iter().filter_map(|charge| {
            let policy = Policy { name: &charge.name, quota: charge.quota };
            match charge.verdict? {
                Verdict::Passed { remaining, reset } => Some(State { policy, remaining, reset }),
                Verdict::Refused { retry } => Some(State { policy, remaining: 0, reset: retry }),
            }
        });
        fields::write(response, states)
    }

    /// Whether the request was not counted yet in one of its limits.
    pub(super) fn is_due(&self) -> bool {
        self.charges.borrow().iter().any(|charge| charge.is_due)
    }

    /// The counters of what is due, at this moment of the store's clock.
    pub(super) fn window_keys(&self, now: Time) -> Vec<WindowKeys> {
        let charges = self.charges.borrow();
        charges
            .iter()
            .filter(|charge| charge.is_due)
            .map(|charge| charge.window_keys(self.memory, now))
            .collect()
    }

    /// Judges the request by the counts of what is due.
    pub(super) fn judge(&self, keys: &[WindowKeys], counts: &[Counts]) {
        let mut charges = self.charges.borrow_mut();
        let due = charges.iter_mut().filter(|charge| charge.is_due);
        for ((charge, WindowKeys { window, .. }), counts) in due.zip(keys).zip(counts) {
            charge.verdict = Some(window.judge(counts.previous, counts.current + counts.next));
        }
    }

    /// Records that what was due is counted. A refused request counts for nothing: its counts are given back, and who is
    /// over a limit is remembered.
    pub(super) fn record_outcome(&self, keys: &[WindowKeys], now: Time) {
        let mut charges = self.charges.borrow_mut();
        for (charge, keys) in charges.iter_mut().filter(|charge| charge.is_due).zip(keys) {
            if let Some(Verdict::Refused { retry }) = charge.verdict {
                self.memory.block(&charge.counter, now + retry);
            }
            if charge.verdict.is_some() {
                charge.counted = Some((keys.current.clone(), keys.window.ttl()));
            }
        }
        drop(charges);
        if self.check().is_err() {
            self.refund_where(|_| true);
        }
        self.set_counted();
    }

    /// The request cannot be counted: nothing is due any more, and nothing is known of what was.
    pub(super) fn abandon(&self) {
        for charge in self.charges.borrow_mut().iter_mut().filter(|charge| charge.is_due) {
            charge.verdict = None;
            charge.is_due = false;
        }
    }

    /// Nothing is due any more.
    fn set_counted(&self) {
        for charge in self.charges.borrow_mut().iter_mut() {
            charge.is_due = false;
        }
    }

    pub(super) fn memory(&self) -> &'a Memory {
        self.memory
    }

    fn refund_where(&self, is_meant: impl Fn(&Charge) -> bool) {
        for charge in self.charges.borrow_mut().iter_mut().filter(|charge| is_meant(charge)) {
            if let Some((counter, ttl)) = charge.counted.take() {
                self.memory.refund(&counter, ttl);
            }
        }
    }
}

impl Charge {
    fn window_keys(&self, memory: &Memory, now: Time) -> WindowKeys {
        let window = Window::at(self.quota, now);
        let key = |index: u64| [&self.counter, ":", &index.to_string()].concat();
        let current = key(window.index);
        let is_open = memory.is_open(&current);
        let (previous, next) = (key(window.index.wrapping_sub(1)), key(window.index + 1));
        WindowKeys { window, previous, current, next, is_open }
    }
}

impl From<Refusal> for Problem {
    fn from(Refusal { name, quota, retry }: Refusal) -> Self {
        let (count, window, seconds) = (quota.count, fields::seconds(quota.window), fields::seconds(retry));
        let what = if LOGIN_LIMITS.contains(&&*name) { "failed logins" } else { "requests" };
        let detail = format!(
            "the limit \"{name}\" of {count} {what} in {window} s is reached; try again in {seconds} s"
        );
        Self::rate_limited(detail, seconds)
    }
}
