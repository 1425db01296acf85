//! The store, as one request calls it: the first call also counts the request in its rate limits.
//!
//! Whatever the first call reads, the counters ride in it, so that counting costs no call of its own. A batch that
//! writes is not sent before the request is known to be within its limits.

use std::{cell::Cell, time::Duration};

use super::{
    RateLimiter, Refusal,
    rate_limiter::{Counts, WindowKeys},
};
use crate::{
    host::Host,
    isolate::Isolate,
    store::{Batch, Failure, Replies, Reply, Store},
    time::Time,
};

/// The store and the rate limits of one request.
pub struct CountingStore<'a, H> {
    pub(super) store: Store<'a, H>,
    /// The request's rate limits.
    pub limiter: RateLimiter<'a>,
    /// Whether requests pass uncounted when the store fails.
    pub(super) fails_open: bool,
    pub(super) uncounted: Cell<Option<Failure>>,
}

impl<'a, H: Host> CountingStore<'a, H> {
    /// The store, with the limits that [`CountingStore::limiter`] is given.
    pub fn new(store: Store<'a, H>, limiter: RateLimiter<'a>, fails_open: bool) -> Self {
        Self { store, limiter, fails_open, uncounted: Cell::new(None) }
    }

    /// The store for work outside of requests, which is not limited.
    pub fn without_limits(host: &'a H, isolate: &'a Isolate, timeout: Duration) -> Self {
        let limiter = RateLimiter::new(&isolate.limits, "");
        Self::new(Store::new(host, timeout, String::new()), limiter, false)
    }

    /// Sends a batch of `N` commands in one call. Errors: no answer, one of the replies is an error, or the request is
    /// over a limit ([`Failure::RateLimited`]).
    pub async fn run<const N: usize>(&self, batch: Batch<'_>) -> Result<[Reply; N], Failure> {
        self.run_all(batch).await?.try_into().map_err(|_| Failure::Garbled)
    }

    /// The same for any number of commands.
    pub async fn run_all(&self, batch: Batch<'_>) -> Result<Vec<Reply>, Failure> {
        if batch.writes() && self.limiter.is_due() {
            // Not in doubt, unlike a failure of the batch itself: it was not sent.
            self.count().await.map_err(|failure| match failure {
                Failure::RateLimited => failure,
                _ => Failure::NotCounted,
            })?;
        }
        self.send(batch).await?.into_iter().collect()
    }

    /// The same for a read that finds out whether a ticket is dead: the replies are given also if the request is over a
    /// limit, which [`Self::check`] tells.
    pub async fn read_all(&self, batch: Batch<'_>) -> Result<Vec<Reply>, Failure> {
        self.send_counted(batch).await?.into_iter().collect()
    }

    /// Counts the request in a call of its own, if no other call has counted it.
    pub async fn count(&self) -> Result<(), Failure> {
        if self.limiter.is_due() { self.send(Batch::default()).await.map(drop) } else { Ok(()) }
    }

    /// Whether the next call counts the request, and so is answered by the primary.
    pub fn counts_next(&self) -> bool {
        self.limiter.is_due()
    }

    /// The first limit that the request is over.
    pub fn check(&self) -> Result<(), Refusal> {
        self.limiter.check()
    }

    /// Why the request passed without being counted (`store.on_failure = "open"`).
    pub fn uncounted(&self) -> Option<Failure> {
        self.uncounted.get()
    }

    /// The token by which a later request reads what this one wrote; `None` if it wrote nothing, or if it was taken.
    pub fn take_sync_token(&self) -> Option<String> {
        self.store.take_sync_token()
    }

    /// The token by which a request reads what this one has read and written.
    pub fn sync_token(&self) -> String {
        self.store.sync_token()
    }

    /// What another request has written on this one's behalf, or a call of this one whose answer was lost, is read by this token.
    pub fn has_written(&self, sync_token: &str) {
        self.store.has_written(sync_token);
    }

    /// Waits a short random time, longer with every attempt.
    pub async fn backoff(&self, attempts: u32) {
        self.store.backoff(attempts).await;
    }

    /// The same, unless the request turns out to be over a limit: then the replies are withheld.
    async fn send(&self, batch: Batch<'_>) -> Result<Replies, Failure> {
        let is_due = self.limiter.is_due();
        let replies = self.send_counted(batch).await?;
        if is_due {
            self.check().map_err(|_| Failure::RateLimited)?;
        }
        Ok(replies)
    }

    /// Sends the batch; if the request is not counted yet, with its counters.
    async fn send_counted(&self, batch: Batch<'_>) -> Result<Replies, Failure> {
        let (sent, deadline) = (self.store.now(), self.store.deadline());
        if !self.limiter.is_due() {
            return self.send_uncounted(batch, deadline).await;
        }
        // 1. Without a call, if this isolate knows the answer.
        self.limiter.check_blocked(sent).map_err(|_| Failure::RateLimited)?;
        if !self.limiter.is_due() {
            return self.send_rest(batch, deadline).await;
        }
        // 2. Counted.
        let memory = self.limiter.memory();
        let now = memory.store_time(sent);
        let mut keys = self.limiter.take_due(now);
        let mut outcome = self.send_counting(batch.clone(), &keys, deadline).await;
        // 3. Counted again, if the store's clock shows that it is another window.
        let corrected = memory.store_time(sent);
        if outcome.is_ok() && corrected != now {
            let right = self.limiter.keys_at(&keys, corrected);
            if keys.iter().zip(&right).any(|(keys, right)| keys.current != right.current) {
                for WindowKeys { current, window, cost, .. } in keys.iter().filter(|keys| keys.cost > 0) {
                    memory.refund(current, *cost, window.ttl());
                }
                outcome = self.send_counting(batch.clone(), &right, deadline).await;
                // What is about to be given back does not count against the request itself.
                for (counts, (right, wrong)) in
                    outcome.iter_mut().flat_map(|(_, counts)| counts).zip(right.iter().zip(&keys))
                {
                    let count = if right.previous == wrong.current {
                        &mut counts.previous
                    } else if right.current == wrong.current || right.next == wrong.current {
                        &mut counts.before
                    } else {
                        continue;
                    };
                    *count = count.saturating_sub(wrong.cost.into());
                }
                keys = right;
            }
        }
        let failure = match outcome {
            Ok((replies, counts)) => {
                self.limiter.record_outcome(&keys, &counts, memory.store_time(sent));
                return Ok(replies);
            }
            Err(failure) => failure,
        };
        // 4. Whether it was counted is not known: a counter may exist without its time to live.
        for WindowKeys { current, window, .. } in keys.iter().filter(|keys| keys.cost > 0) {
            memory.ensure_ttl(current, window.ttl());
        }
        self.limiter.abandon(&keys);
        if !self.fails_open {
            return Err(failure);
        }
        self.uncounted.set(Some(failure));
        self.send_rest(batch, deadline).await
    }

    /// Sends what there is to send beside the counters, if anything.
    async fn send_rest(&self, batch: Batch<'_>, deadline: Time) -> Result<Replies, Failure> {
        if batch.len() == 0 { Ok(Vec::new()) } else { self.send_uncounted(batch, deadline).await }
    }

    /// Sends the batch alone.
    async fn send_uncounted(&self, mut batch: Batch<'_>, deadline: Time) -> Result<Replies, Failure> {
        let has_more = batch.reach_primary();
        let mut replies = self.store.send(&batch, deadline).await?;
        if has_more {
            drop(replies.pop());
        }
        Ok(replies)
    }

    /// Sends the batch together with the counters; the replies are those of the batch alone. Never repeated: that would
    /// count twice.
    async fn send_counting(
        &self,
        mut batch: Batch<'_>,
        keys: &[WindowKeys],
        deadline: Time,
    ) -> Result<(Replies, Vec<Counts>), Failure> {
        let (sent, batch_len) = (self.store.now(), batch.len());
        // 1. The neighbouring windows, and the current one of a limit that is only looked at; in one transaction, so that
        // the primary reads them, where the counters are.
        let mut read = Vec::new();
        for WindowKeys { previous, next, current, cost, .. } in keys {
            read.extend([previous, next]);
            if *cost == 0 {
                read.push(current);
            }
        }
        let read_len = read.len();
        let is_joined = batch.get_also(read.into_iter().map(|key| key.clone().into()));
        batch = batch.atomic();
        // 2. The store's clock, now and then.
        let memory = self.limiter.memory();
        let is_clock_due = memory.is_clock_due(sent);
        if is_clock_due {
            batch = batch.time();
        }
        // 3. The counters. One that is not known to exist is created first, so that none lacks a time to live.
        for WindowKeys { current, window, is_open, cost, .. } in keys.iter().filter(|keys| keys.cost > 0) {
            if !is_open {
                batch = batch.create_counter(current.clone(), window.ttl());
            }
            batch = batch.increment(current.clone(), *cost);
        }
        let mut replies = self.store.send(&batch, deadline).await?;
        // 4. The replies, taken apart in the same order.
        let mut counted = replies.split_off(batch_len + usize::from(!is_joined)).into_iter();
        let mut next_reply = || counted.next().unwrap_or(Err(Failure::Garbled));
        let read = match replies.first_mut() {
            Some(Ok(Reply::List(values))) if values.len() >= read_len => {
                values.split_off(values.len() - read_len)
            }
            Some(Err(failure)) => return Err(*failure),
            _ => return Err(Failure::Garbled),
        };
        if !is_joined {
            drop(replies.remove(0));
        }
        if is_clock_due && let Ok(time) = next_reply().and_then(Reply::texts) {
            memory.set_clock(store_time(&time), sent, self.store.now());
        }
        let now = memory.store_time(sent);
        let mut read = read.into_iter().map(count);
        let mut next_read = || read.next().unwrap_or(0);
        let mut counts = Vec::with_capacity(keys.len());
        for WindowKeys { window, current, is_open, cost, .. } in keys {
            let (previous, next) = (next_read(), next_read());
            if window.is_settled(deadline - sent) {
                memory.set_previous(current, previous);
            }
            if *cost == 0 {
                counts.push(Counts { previous, before: next_read() + next });
                continue;
            }
            let was_created = !is_open && next_reply().and_then(|reply| reply.is_ok()).unwrap_or(false);
            let rank = next_reply()?.integer()?.unsigned_abs();
            let before = rank.saturating_sub(u64::from(*cost));
            if before == 0 && !was_created {
                memory.ensure_ttl(current, window.ttl());
            }
            memory.set_open(current, now + window.reset());
            counts.push(Counts { previous, before: before + next });
        }
        Ok((replies, counts))
    }
}

/// A counter's value; zero if it does not exist.
fn count(reply: Reply) -> u64 {
    if let Reply::Text(text) = reply { text.parse().unwrap_or(0) } else { 0 }
}

/// The reply to `TIME`: seconds and microseconds.
fn store_time(texts: &[String]) -> Time {
    let number = |index: usize| texts.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Time(number(0).saturating_mul(1000) + number(1) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_s_time_is_seconds_and_microseconds() {
        assert_eq!(store_time(&["1767225600".to_owned(), "123456".to_owned()]), Time(1_767_225_600_123));
    }
}
