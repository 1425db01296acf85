//! The rate limits that apply to one request, and what became of them. Knows no store: [`super::CountingStore`] asks
//! for the windows' keys, counts in them, and hands the counts back.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    time::Duration,
};

use super::{
    LOGIN_LIMITS, Memory, OwnName, Policy, Quota, Subject,
    fields::{self, State},
    window::{Verdict, Window},
};
use crate::{
    http::{Problem, Response},
    time::Time,
};

/// How long an own limit is known to be exceeded if costly requests may be what fills it: refused, and not refunded yet.
const UNCERTAIN: Duration = Duration::from_secs(1);

/// The rate limits that apply to one request, and those of the application that it has asked.
#[derive(Debug)]
pub struct RateLimiter<'a> {
    memory: &'a Memory,
    key_prefix: &'a str,
    charges: RefCell<Vec<Charge>>,
    /// How many were added: their ids.
    added: Cell<usize>,
}

/// One asking of an application's own limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked(usize);

/// One limit that applies to the request.
#[derive(Debug)]
struct Charge {
    /// No other charge of the request has it.
    id: usize,
    name: Cow<'static, str>,
    quota: Quota,
    /// The counter's key without its window.
    counter: String,
    /// How much of the quota the request takes; nothing if it only looks.
    cost: u32,
    kind: Kind,
    /// Whether the request was not counted in it yet, and no call that does so is under way.
    is_due: bool,
    verdict: Option<Verdict>,
    /// The counter that holds it, and how long that counter is kept.
    counted: Option<(String, Duration)>,
}

/// Whose a limit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The request's.
    Request,
    /// The request's, as that of its ticket's session or user.
    Ticket,
    /// The application's, which asks it and decides for itself.
    Own,
}

/// A limit that the request is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    name: Cow<'static, str>,
    quota: Quota,
    cost: u32,
    is_own: bool,
    retry: Duration,
}

/// What became of asking an application's own limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnState {
    /// The limit.
    pub quota: Quota,
    /// How much is left. Zero also if that is not known.
    pub remaining: u32,
    /// How long until there is more or, if it was refused, until the same would pass.
    pub reset: Duration,
    /// Whether it was refused. Never if it was only looked at.
    pub is_refused: bool,
}

/// The counters of one charge at one moment.
#[derive(Debug)]
pub(super) struct WindowKeys {
    /// Whose they are.
    charge: usize,
    pub(super) window: Window,
    pub(super) previous: String,
    pub(super) current: String,
    /// Other isolates may count in the next window already: this one's clock is behind, or its call was slow.
    pub(super) next: String,
    /// Whether the current counter is known to exist, with its time to live.
    pub(super) is_open: bool,
    /// What is added to the current counter; if nothing, it is read.
    pub(super) cost: u32,
}

/// The counts of one charge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) previous: u64,
    /// Before this request, in the current window and the next.
    pub(super) before: u64,
}

impl<'a> RateLimiter<'a> {
    /// A limiter without limits yet.
    pub fn new(memory: &'a Memory, key_prefix: &'a str) -> Self {
        Self { memory, key_prefix, charges: RefCell::default(), added: Cell::default() }
    }

    /// Adds a limit, unless it is switched off. Of several that refuse, the one added first is named.
    pub fn add(&self, name: impl Into<Cow<'static, str>>, quota: Option<Quota>, subject: Subject) {
        let (Some(quota), name) = (quota, name.into()) else { return };
        let counter = [self.key_prefix, "limit:", &name, ":", &subject.to_string()].concat();
        let is_ticket = matches!(subject, Subject::Session(_) | Subject::User(_));
        let kind = if is_ticket { Kind::Ticket } else { Kind::Request };
        self.charges.borrow_mut().push(Charge::new(self.next_id(), name, quota, counter, 1, kind));
    }

    /// Adds a limit of the application's own, to be counted by the next call to the store
    /// ([`super::CountingStore::count`] makes one). It refuses no request: [`Self::check_asked`] and [`Self::state`] tell
    /// what became of it, also while others are asked at the same time. `cost`: how much of the quota this takes, all or nothing; 0 only looks. A cost over the quota's
    /// count is always refused, without a call. Asked twice, it counts twice.
    ///
    /// Its counter shares its name with none of ours. Limits of one name and subject share it also if their quotas
    /// differ, in a window of the same length.
    pub fn add_own(&self, name: OwnName, quota: Quota, subject: Subject, cost: u32) -> Asked {
        let name = String::from(name);
        let counter = [self.key_prefix, "limit:own:", &name, ":", &subject.to_string()].concat();
        let id = self.next_id();
        let mut charge = Charge::new(id, name.into(), quota, counter, cost, Kind::Own);
        if cost > quota.count.get() {
            charge.refuse(quota.window);
        }
        self.charges.borrow_mut().push(charge);
        Asked(id)
    }

    fn next_id(&self) -> usize {
        self.added.replace(self.added.get() + 1)
    }

    /// Refuses a caller whom this isolate knows to be over a limit, without a call to the store. Own limits that are
    /// known to be exceeded need no call, either.
    pub fn check_blocked(&self, now: Time) -> Result<(), Refusal> {
        let now = self.memory.store_time(now);
        for charge in self.charges.borrow_mut().iter_mut().filter(|charge| charge.is_due) {
            charge.check_blocked(self.memory, now);
        }
        self.check().inspect_err(|_| self.set_counted())
    }

    /// The first of the request's limits that it is over, with the time until it is over none. Not one of the
    /// application's own.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut refusal: Option<Refusal> = None;
        for charge in self.charges.borrow().iter().filter(|charge| charge.kind != Kind::Own) {
            let Some(new) = charge.refusal() else { continue };
            match &mut refusal {
                None => refusal = Some(new),
                Some(first) => first.retry = first.retry.max(new.retry),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Whether the application's own limit has refused the request. Passes also if it could not be counted.
    pub fn check_asked(&self, asked: Asked) -> Result<(), Refusal> {
        self.read_asked(asked, Charge::refusal).map_or(Ok(()), Err)
    }

    /// What became of asking the application's own limit. `None` if it was not counted, or could not be
    /// (`store.on_failure = "open"`).
    pub fn state(&self, asked: Asked) -> Option<OwnState> {
        self.read_asked(asked, |charge| {
            let quota = charge.quota;
            let state = match charge.verdict? {
                Verdict::Passed { remaining, reset } => {
                    OwnState { quota, remaining, reset, is_refused: false }
                }
                Verdict::Refused { retry, remaining } => {
                    OwnState { quota, remaining: remaining.unwrap_or(0), reset: retry, is_refused: true }
                }
            };
            Some(state)
        })
    }

    fn read_asked<T>(&self, Asked(id): Asked, read: impl Fn(&Charge) -> Option<T>) -> Option<T> {
        self.charges.borrow().iter().find(|charge| charge.id == id).and_then(read)
    }

    /// Gives back what the request was counted in these limits: they do not concern it after all.
    pub fn refund(&self, names: &[&str]) {
        self.refund_where(|charge| charge.kind != Kind::Own && names.contains(&&*charge.name));
    }

    /// Takes the ticket's limits back, and what was counted in them: it turned out to be dead. If they have refused the
    /// request, its owner is not to be blocked by that, and the other limits count it again.
    pub fn withdraw_ticket(&self) {
        self.refund_where(|charge| charge.kind == Kind::Ticket);
        let mut was_refused = false;
        let mut charges = self.charges.borrow_mut();
        charges.retain(|charge| {
            let is_ticket = charge.kind == Kind::Ticket;
            if is_ticket && matches!(charge.verdict, Some(Verdict::Refused { .. })) {
                was_refused = true;
                self.memory.unblock(&charge.counter);
            }
            !is_ticket
        });
        let passed = |charge: &&mut Charge| {
            charge.counted.is_none()
                && charge.cost > 0
                && matches!(charge.verdict, Some(Verdict::Passed { .. }))
        };
        for charge in charges.iter_mut().filter(passed).filter(|_| was_refused) {
            (charge.verdict, charge.is_due) = (None, true);
        }
    }

    /// Removes a limit from the request, and gives back what it was counted.
    pub fn withdraw(&self, name: &str) {
        self.refund(&[name]);
        self.charges.borrow_mut().retain(|charge| charge.kind == Kind::Own || charge.name != name);
    }

    /// The response with the fields that tell the state of each limit.
    pub fn write_fields(&self, response: Response) -> Response {
        let charges = self.charges.borrow();
        let states = charges.iter().rev().filter_map(|charge| {
            let (remaining, reset) = charge.shown()?;
            Some(State { policy: Policy { name: &charge.name, quota: charge.quota }, remaining, reset })
        });
        fields::write(response, states)
    }

    /// Whether the request was not counted yet in one of its limits.
    pub(super) fn is_due(&self) -> bool {
        self.charges.borrow().iter().any(|charge| charge.is_due)
    }

    /// The counters of what is due, at this moment of the store's clock. A call with them is on its way: it is due for no other
    /// call, and [`Self::record_outcome`] or [`Self::abandon`] takes them.
    pub(super) fn take_due(&self, now: Time) -> Vec<WindowKeys> {
        let mut charges = self.charges.borrow_mut();
        let due = charges.iter_mut().filter(|charge| charge.is_due);
        due.map(|charge| {
            charge.is_due = false;
            charge.window_keys(self.memory, now)
        })
        .collect()
    }

    /// The same, and they stay due: to look which they are.
    pub(super) fn due_at(&self, now: Time) -> Vec<WindowKeys> {
        let charges = self.charges.borrow();
        let due = charges.iter().filter(|charge| charge.is_due);
        due.map(|charge| charge.window_keys(self.memory, now)).collect()
    }

    /// No call was made with these after all: they are due again.
    pub(super) fn put_back(&self, keys: &[WindowKeys]) {
        for charge in self.charges.borrow_mut().iter_mut() {
            charge.is_due |= keys.iter().any(|keys| keys.charge == charge.id);
        }
    }

    /// Whether a script of the store can judge what is due as exactly as [`Window`] does: its numbers are doubles.
    pub(super) fn can_be_scripted(&self) -> bool {
        const EXACT: u64 = 1 << 53;
        let is_exact = |quota: Quota| quota.limit().saturating_mul(quota.window_ms()) < EXACT;
        let charges = self.charges.borrow();
        let mut due = charges.iter().filter(|charge| charge.is_due);
        due.all(|charge| charge.kind != Kind::Own && charge.cost == 1 && is_exact(charge.quota))
    }

    /// The counters of the same limits at another moment.
    pub(super) fn keys_at(&self, keys: &[WindowKeys], now: Time) -> Vec<WindowKeys> {
        let charges = self.charges.borrow();
        let is_meant = |charge: &&Charge| keys.iter().any(|keys| keys.charge == charge.id);
        charges.iter().filter(is_meant).map(|charge| charge.window_keys(self.memory, now)).collect()
    }

    /// Judges the request by these counts. A refused request counts for nothing: its counts are given back, and who is over a
    /// limit is remembered. An own limit that refuses gives back its own counts alone, and keeps those that let the application
    /// go on.
    pub(super) fn record_outcome(&self, keys: &[WindowKeys], counts: &[Counts], now: Time) {
        let mut charges = self.charges.borrow_mut();
        for (keys, counts) in keys.iter().zip(counts) {
            let Some(charge) = charges.iter_mut().find(|charge| charge.id == keys.charge) else { continue };
            charge.judge(&keys.window, *counts, self.memory, now);
            charge.counted = (charge.cost > 0).then(|| (keys.current.clone(), keys.window.ttl()));
        }
        drop(charges);
        let is_refused = self.check().is_err();
        self.refund_where(|charge| match charge.kind {
            Kind::Own => {
                let is_new = keys.iter().any(|keys| keys.charge == charge.id);
                is_new && (is_refused || charge.refusal().is_some())
            }
            _ => is_refused,
        });
    }

    /// The request cannot be counted: nothing is known of what was sent.
    pub(super) fn abandon(&self, keys: &[WindowKeys]) {
        for charge in self.charges.borrow_mut().iter_mut() {
            if keys.iter().any(|keys| keys.charge == charge.id) {
                charge.verdict = None;
            }
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
                self.memory.refund(&counter, charge.cost, ttl);
            }
        }
    }
}

impl Charge {
    fn new(id: usize, name: Cow<'static, str>, quota: Quota, counter: String, cost: u32, kind: Kind) -> Self {
        Self { id, name, quota, counter, cost, kind, is_due: true, verdict: None, counted: None }
    }

    /// Refuses without a call to the store.
    fn refuse(&mut self, retry: Duration) {
        let remaining = if self.cost > 1 { None } else { Some(0) };
        (self.verdict, self.is_due) = (Some(Verdict::Refused { retry, remaining }), false);
    }

    fn refusal(&self) -> Option<Refusal> {
        let Some(Verdict::Refused { retry, .. }) = self.verdict else { return None };
        let Self { quota, cost, .. } = *self;
        Some(Refusal { name: self.name.clone(), quota, cost, is_own: self.kind == Kind::Own, retry })
    }

    /// What remains, and how long until there is more, as far as that is known.
    fn shown(&self) -> Option<(u32, Duration)> {
        match self.verdict? {
            Verdict::Passed { remaining, reset } => Some((remaining, reset)),
            Verdict::Refused { remaining, retry } => remaining.map(|remaining| (remaining, retry)),
        }
    }

    fn check_blocked(&mut self, memory: &Memory, now: Time) {
        let until = |cost| memory.blocked_until(&self.block_name(cost), now);
        let mut known = until(1);
        if self.cost > 1 {
            known = known.max(until(self.cost));
        }
        let Some(until) = known else { return };
        if self.cost == 0 {
            (self.verdict, self.is_due) = (Some(Verdict::Passed { remaining: 0, reset: until - now }), false);
            return;
        }
        self.refuse(until - now);
    }

    /// Under which name it is remembered that this limit refuses this cost. An application may ask an own limit with
    /// several quotas.
    fn block_name(&self, cost: u32) -> Cow<'_, str> {
        if self.kind != Kind::Own {
            return Cow::Borrowed(&self.counter);
        }
        let [count, window, cost] =
            [self.quota.limit(), self.quota.window_ms(), cost.into()].map(|n| n.to_string());
        [&*self.counter, &count, &window, &cost].join(" ").into()
    }

    fn judge(&mut self, window: &Window, Counts { previous, before }: Counts, memory: &Memory, now: Time) {
        if self.cost == 0 {
            self.verdict = Some(window.look(previous, before));
            return;
        }
        // A high cost that does not fit is no reason to refuse a lower one.
        for cost in [1, self.cost] {
            let verdict = window.judge(previous, before, cost);
            if let Verdict::Refused { mut retry, .. } = verdict {
                if self.kind == Kind::Own && window.is_overcounted(previous, before) {
                    retry = retry.min(UNCERTAIN);
                }
                memory.block(&self.block_name(cost), now + retry);
            }
            self.verdict = Some(verdict);
        }
    }

    fn window_keys(&self, memory: &Memory, now: Time) -> WindowKeys {
        let window = Window::at(self.quota, now);
        let key = |index: u64| [&self.counter, ":", &index.to_string()].concat();
        let current = key(window.index);
        let is_open = memory.is_open(&current);
        let (previous, next) = (key(window.index.wrapping_sub(1)), key(window.index + 1));
        WindowKeys { charge: self.id, window, previous, current, next, is_open, cost: self.cost }
    }
}

impl Refusal {
    /// The limit's name, as in [`super::Policy`].
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<Refusal> for Problem {
    fn from(Refusal { name, quota, cost, is_own, retry }: Refusal) -> Self {
        let (count, window, seconds) = (quota.count, fields::seconds(quota.window), fields::seconds(retry));
        let what = match &*name {
            _ if is_own => "",
            name if LOGIN_LIMITS.contains(&name) => " failed logins",
            _ => " requests",
        };
        let is_reached = match cost {
            1 => "is reached".to_owned(),
            _ if cost > count.get() => {
                format!("is lower than the cost of this request, {cost}: ask for less")
            }
            _ => format!("has no room for a cost of {cost}"),
        };
        // What never passes is not worth trying again.
        let advice = if cost > count.get() { String::new() } else { format!("; try again in {seconds} s") };
        let detail = format!("the limit \"{name}\" of {count}{what} in {window} s {is_reached}{advice}");
        Self::rate_limited(detail, seconds)
    }
}
