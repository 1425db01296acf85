//! Counts one request by the limits that apply to it, in the store call that is made anyway.

use std::time::Duration;

use super::{
    Memory, Policy, Quota, Subject,
    fields::{self, Standing},
    window::{Verdict, Window},
};
use crate::{
    host::Host,
    http::{Code, Problem, Response},
    store::{Batch, Failure, Reply, Store},
    time::Time,
};

/// What one request counts for, and what came of it.
#[derive(Debug)]
pub struct Meter<'a> {
    memory: &'a Memory,
    key_prefix: &'a str,
    /// Whether requests pass uncounted when the store fails.
    fails_open: bool,
    charges: Vec<Charge<'a>>,
    /// Why the request could not be counted, and passed all the same.
    pub uncounted: Option<Failure>,
}

/// One limit that the request counts for.
#[derive(Debug)]
struct Charge<'a> {
    policy: Policy<'a>,
    /// The counter's key without its window.
    name: String,
    is_due: bool,
    verdict: Option<Verdict>,
    /// Where it was counted, and how long that counter is kept.
    counted: Option<(String, Duration)>,
}

/// A limit that the request breaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    name: String,
    quota: Quota,
    retry: Duration,
}

/// Where a charge is counted at some moment.
struct Aim {
    window: Window,
    present: String,
    before: String,
    /// Others may be in the next window already: this isolate's clock is behind theirs, or the call was slow.
    after: String,
    /// Whether the present counter is known to be there.
    is_open: bool,
}

impl<'a> Meter<'a> {
    /// A meter that counts nothing yet.
    pub fn new(memory: &'a Memory, key_prefix: &'a str, fails_open: bool) -> Self {
        Self { memory, key_prefix, fails_open, charges: Vec::new(), uncounted: None }
    }

    /// One limit more that the request counts for, unless it is switched off. Those added first are broken first.
    pub fn add(&mut self, name: &'a str, quota: Option<Quota>, subject: Subject) {
        let Some(quota) = quota else { return };
        let policy = Policy { name, quota };
        let name = [self.key_prefix, "limit:", name, ":", &subject.to_string()].concat();
        self.charges.push(Charge { policy, name, is_due: true, verdict: None, counted: None });
    }

    /// Refuses a caller who is known here to be over a limit; without a call to the store.
    pub fn recall(&mut self, now: Time) -> Result<(), Refusal> {
        let now = self.memory.store_time(now);
        for charge in self.charges.iter_mut().filter(|charge| charge.is_due) {
            if let Some(until) = self.memory.blocked_until(&charge.name, now) {
                charge.verdict = Some(Verdict::Refused { retry: until - now });
            }
        }
        self.check().inspect_err(|_| self.done())
    }

    /// The first limit that is broken; and how long until none is.
    pub fn check(&self) -> Result<(), Refusal> {
        let mut refusal: Option<Refusal> = None;
        for charge in &self.charges {
            let Some(Verdict::Refused { retry }) = charge.verdict else { continue };
            match &mut refusal {
                None => {
                    let Policy { name, quota } = charge.policy;
                    refusal = Some(Refusal { name: name.to_owned(), quota, retry });
                }
                Some(first) => first.retry = first.retry.max(retry),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Takes back what was counted by these limits: it turned out not to be what they are for.
    pub fn give_back(&mut self, names: &[&str]) {
        let named = |charge: &&mut Charge<'_>| names.contains(&charge.policy.name);
        for charge in self.charges.iter_mut().filter(named) {
            if let Some((counter, ttl)) = charge.counted.take() {
                self.memory.owe(&counter, ttl);
            }
        }
    }

    /// Counts what is not counted yet, in a call of its own.
    pub async fn count<H: Host>(&mut self, store: &Store<'_, H>) -> Result<(), Failure> {
        if self.due().next().is_none() {
            return Ok(());
        }
        self.read(store, &[], None).await.map(drop)
    }

    /// Reads these keys and counts the request, in one call; `touch` is a key and its new time to live. A call that
    /// counts is not repeated, which would count twice.
    pub async fn read<H: Host>(
        &mut self,
        store: &Store<'_, H>,
        keys: &[&str],
        touch: Option<(&str, Duration)>,
    ) -> Result<Vec<Option<String>>, Failure> {
        let (sent, deadline) = (store.now(), store.deadline());
        let now = self.memory.store_time(sent);
        let mut aims = self.aim(now);
        let mut outcome = self.read_counting(store, keys, touch, &aims, deadline).await;
        // A look at the store's clock may show that it is another window.
        let corrected = self.memory.store_time(sent);
        if outcome.is_ok() && corrected != now {
            let again = self.aim(corrected);
            if aims.iter().zip(&again).any(|(aim, other)| aim.present != other.present) {
                for aim in &aims {
                    self.memory.owe(&aim.present, aim.window.kept());
                }
                aims = again;
                outcome = self.read_counting(store, keys, None, &aims, deadline).await;
            }
        }
        if let Err(failure) = outcome {
            // What the call did is not known: a counter may have come back without its time to live.
            for aim in &aims {
                self.memory.mend(&aim.present, aim.window.kept());
            }
            self.done();
            if !self.fails_open || aims.is_empty() {
                return Err(failure);
            }
            self.uncounted = Some(failure);
            return if keys.is_empty() {
                Ok(Vec::new())
            } else {
                self.read_counting(store, keys, touch, &[], deadline).await
            };
        }
        self.settle(&aims, self.memory.store_time(sent));
        outcome
    }

    /// What a response says of the limits that the request was counted for.
    pub fn write_fields(&self, response: Response) -> Response {
        let standings = self.charges.iter().filter_map(|&Charge { policy, verdict, .. }| match verdict {
            Some(Verdict::Passed { remaining, reset }) => Some(Standing { policy, remaining, reset }),
            Some(Verdict::Refused { retry }) => Some(Standing { policy, remaining: 0, reset: retry }),
            None => None,
        });
        fields::write(response, standings)
    }

    /// Where what is due is counted at this moment, by the store's clock.
    fn aim(&self, now: Time) -> Vec<Aim> {
        self.due().map(|charge| charge.aim(self.memory, now)).collect()
    }

    fn due(&self) -> impl Iterator<Item = &Charge<'a>> {
        self.charges.iter().filter(|charge| charge.is_due)
    }

    /// The values of the keys, and this request's rank in each window.
    async fn read_counting<H: Host>(
        &mut self,
        store: &Store<'_, H>,
        keys: &[&str],
        touch: Option<(&str, Duration)>,
        aims: &[Aim],
        deadline: Time,
    ) -> Result<Vec<Option<String>>, Failure> {
        let sent = store.now();
        let all: Vec<&str> =
            keys.iter().copied().chain(aims.iter().flat_map(|aim| [&*aim.before, &*aim.after])).collect();
        let mut batch = Batch::default().get(&all).extend_some(touch);
        let is_clock_due = !aims.is_empty() && self.memory.is_clock_due(sent);
        if is_clock_due {
            batch = batch.time();
        }
        for Aim { present, window, is_open, .. } in aims {
            // First of all a counter that cannot be without a time to live, unless it is known to be there.
            if !is_open {
                batch = batch.create_counter(present, window.kept());
            }
            // As one: the windows before are then the primary's too, where the counters are.
            batch = batch.increment(present).as_one();
        }
        let mut replies = store.run_each(batch, deadline).await?.into_iter();
        let mut next = || replies.next().unwrap_or(Err(Failure::Garbled));
        let mut values = next()?.all_values(all.len())?;
        if touch.is_some() {
            next()?.count()?;
        }
        if is_clock_due && let Ok(time) = next().and_then(Reply::texts) {
            self.memory.set_clock(store_time(&time), sent, store.now());
        }
        let now = self.memory.store_time(sent);
        let mut around = values.split_off(keys.len()).into_iter();
        let mut count = || number(around.next().flatten().as_deref());
        let charges = self.charges.iter_mut().filter(|charge| charge.is_due);
        for (charge, Aim { window, present, is_open, .. }) in charges.zip(aims) {
            let is_made = !is_open && next().and_then(|reply| reply.is_done()).unwrap_or(false);
            let rank = next()?.count()?;
            if rank == 1 && !is_made {
                self.memory.mend(present, window.kept());
            }
            self.memory.open(present, now + window.reset());
            charge.verdict = Some(window.judge(count(), rank.unsigned_abs() + count()));
        }
        Ok(values)
    }

    /// A refused request counts for nothing: what it was counted is given back, and who is over a limit is remembered.
    fn settle(&mut self, aims: &[Aim], now: Time) {
        for (charge, aim) in self.charges.iter_mut().filter(|charge| charge.is_due).zip(aims) {
            if let Some(Verdict::Refused { retry }) = charge.verdict {
                self.memory.block(&charge.name, now + retry);
            }
            if charge.verdict.is_some() {
                charge.counted = Some((aim.present.clone(), aim.window.kept()));
            }
        }
        if self.check().is_err() {
            for charge in &mut self.charges {
                if let Some((counter, ttl)) = charge.counted.take() {
                    self.memory.owe(&counter, ttl);
                }
            }
        }
        self.done();
    }

    /// Nothing is due any more: what is not counted now is not to be.
    fn done(&mut self) {
        for charge in &mut self.charges {
            charge.is_due = false;
        }
    }
}

impl Charge<'_> {
    fn aim(&self, memory: &Memory, now: Time) -> Aim {
        let window = Window::at(self.policy.quota, now);
        let key = |index: u64| [&self.name, ":", &index.to_string()].concat();
        let present = key(window.index);
        let is_open = memory.is_open(&present);
        Aim {
            present,
            before: key(window.index.wrapping_sub(1)),
            after: key(window.index + 1),
            is_open,
            window,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(Refusal { name, quota, retry }: Refusal) -> Self {
        let (count, window) = (quota.count, fields::seconds(quota.window));
        let seconds = fields::seconds(retry);
        let detail =
            format!("the limit \"{name}\" of {count} in {window} s is used up; try again in {seconds} s");
        Self::new(Code::RateLimited, detail).with_header("Retry-After", seconds.to_string())
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `TIME`: seconds and microseconds.
fn store_time(texts: &[String]) -> Time {
    let [seconds, microseconds] = [0, 1].map(|index| number(texts.get(index).map(String::as_str)));
    Time(seconds * 1000 + microseconds / 1000)
}
