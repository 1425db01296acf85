//! A script of the store's that counts the request before it does what it is for: one call for what must not be done before the
//! request is known to be within its limits.

use super::{
    CountingStore,
    rate_limiter::{Counts, WindowKeys},
};
use crate::{
    host::Host,
    store::{Batch, Failure, Replies, Reply, Script},
};

/// How a script begins, in Lua. It reads all keys: `ARGV[1]` of its own, and three of each limit, the previous, the current and the
/// next window's. If a limit is reached, it counts nothing and replies -1. What follows finds the keys' values in `values` and
/// has `counts` for its reply.
///
/// The last arguments are four of each limit: [`super::window::Window::terms`], and how long the counter is kept.
macro_rules! counted {
    ($then:literal) => {
        concat!(
            "#!lua flags=allow-key-locking
local own = tonumber(ARGV[1])
local values, limits, counts = redis.call('MGET', unpack(KEYS)), (#KEYS - own) / 3, {}
for i = 1, limits do
  local key, term = own + 3 * i, #ARGV - 4 * (limits - i + 1)
  local function count(at) return tonumber(values[at] or 0) or 0 end
  local previous, before = count(key - 2), count(key - 1) + count(key)
  local limit, length, left = tonumber(ARGV[term + 1]), tonumber(ARGV[term + 2]), tonumber(ARGV[term + 3])
  local covered = math.min(previous, limit) * left
  if before + 1 > limit - (covered - covered % length) / length then return {-1} end
  counts[2 * i - 1], counts[2 * i] = previous, before
end
for i = 1, limits do
  local key = KEYS[own + 3 * i - 1]
  if redis.call('INCR', key) == 1 then redis.call('PEXPIRE', key, ARGV[#ARGV - 4 * (limits - i)]) end
end
",
            $then
        )
    };
}
pub(crate) use counted;

/// The same for a command less, where the isolate knows what the windows before are counted at: it reads no keys. There is one of
/// each limit, the current window's, and two arguments: how high it may be counted, and how long the counter is kept.
macro_rules! counted_by_rank {
    ($then:literal) => {
        concat!(
            "#!lua flags=allow-key-locking
local own, counts = tonumber(ARGV[1]), {}
for i = own + 1, #KEYS do
  local last = #ARGV - 2 * (#KEYS - i)
  local rank = redis.call('INCR', KEYS[i])
  if rank == 1 then redis.call('PEXPIRE', KEYS[i], ARGV[last]) end
  if rank > tonumber(ARGV[last - 1]) then
    for counted = own + 1, i do redis.call('DECR', KEYS[counted]) end
    return {-1}
  end
  counts[i - own] = rank - 1
end
",
            $then
        )
    };
}
pub(crate) use counted_by_rank;

/// How a script counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counting {
    /// By [`counted!`].
    Read,
    /// By [`counted_by_rank!`].
    ByRank,
}

impl<H: Host> CountingStore<'_, H> {
    /// How a script can count the request, if it can judge its limits at all.
    pub fn counting(&self) -> Option<Counting> {
        let (sent, memory) = (self.store.now(), self.limiter.memory());
        if !self.limiter.is_due() {
            return Some(Counting::ByRank);
        }
        if memory.is_clock_due(sent) || !self.limiter.can_be_scripted() {
            return None;
        }
        let windows = self.limiter.due_at(memory.store_time(sent));
        let is_known = windows.iter().all(|keys| self.most(keys).is_some());
        Some(if is_known { Counting::ByRank } else { Counting::Read })
    }

    /// How high a counter may be counted, and what the one before it is at.
    fn most(&self, keys: &WindowKeys) -> Option<(u64, u64)> {
        let previous = self.limiter.memory().previous(&keys.current)?;
        let call = self.store.deadline() - self.store.now();
        keys.window.most(previous, call).map(|most| (most, previous))
    }

    /// Runs a script that counts the request in this way if it is not counted yet, in one call. `keys` and `arguments` are the
    /// script's own. Its reply is a list: a number that is not -1, `counts`, and what is returned here.
    ///
    /// `None`: nothing was done, and the request is not counted: it is over a limit. Errors: as with a batch that writes; if the
    /// failure leaves no doubt, the request is not counted.
    pub async fn run_script(
        &self,
        script: &Script,
        counting: Counting,
        mut keys: Vec<String>,
        own_arguments: Vec<String>,
    ) -> Result<Option<Vec<Reply>>, Failure> {
        let (sent, deadline, memory) = (self.store.now(), self.store.deadline(), self.limiter.memory());
        // 1. The limits to ask.
        self.limiter.check_blocked(sent).map_err(|_| Failure::RateLimited)?;
        let now = memory.store_time(sent);
        let windows = self.limiter.take_due(now);
        let mut arguments = vec![keys.len().to_string()];
        arguments.extend(own_arguments);
        // What the windows before are counted at, as far as that is known already.
        let mut known = Vec::new();
        for window_keys in &windows {
            let WindowKeys { previous, current, next, window, .. } = window_keys;
            if counting == Counting::ByRank {
                let (most, previous) = self.most(window_keys).unwrap_or_default();
                keys.push(current.clone());
                arguments.push(most.to_string());
                known.push(previous);
            } else {
                keys.extend([previous.clone(), current.clone(), next.clone()]);
                arguments.extend(window.terms().map(|term| term.to_string()));
            }
            arguments.push(window.ttl().as_millis().to_string());
        }
        // 2. The call.
        let batch = Batch::default().kept_script(script, &keys, &arguments);
        let mut outcome = self.store.send(&batch, deadline).await;
        if is_unknown(&outcome) {
            let batch = Batch::default().unkept_script(script, &keys, &arguments);
            outcome = self.store.send(&batch, deadline).await;
        }
        let counted = outcome.and_then(|replies| counts_of(replies, windows.len(), known));
        // 3. What it has counted.
        match counted {
            Ok(Some((counts, rest))) => {
                for (WindowKeys { current, window, .. }, counts) in windows.iter().zip(&counts) {
                    memory.set_open(current, now + window.reset());
                    if window.is_settled(deadline - sent) {
                        memory.set_previous(current, counts.previous);
                    }
                }
                self.limiter.record_outcome(&windows, &counts, now);
                Ok(Some(rest))
            }
            Ok(None) => {
                self.limiter.put_back(&windows);
                Ok(None)
            }
            Err(failure) if failure.is_in_doubt() => {
                self.limiter.abandon(&windows);
                Err(failure)
            }
            Err(failure) => {
                self.limiter.put_back(&windows);
                Err(failure)
            }
        }
    }

    /// Whether a request may go on that a script was to count, and whose answer is lost. Error: it may not.
    pub fn pass_uncounted(&self, failure: Failure) -> Result<(), Failure> {
        if !self.fails_open {
            return Err(Failure::NotCounted);
        }
        self.uncounted.set(Some(failure));
        Ok(())
    }
}

/// Whether the store does not keep the script: it was started anew, for instance.
fn is_unknown(outcome: &Result<Replies, Failure>) -> bool {
    let first = outcome.as_ref().ok().and_then(|replies| replies.first());
    matches!(first, Some(Err(Failure::Refused(error))) if error.is_unknown_script())
}

/// What a script has counted, and the rest of its reply.
type Counted = (Vec<Counts>, Vec<Reply>);

/// Reads the reply; `None` if the script has counted nothing. `known`: what the windows before are counted at, if the script does
/// not say it.
fn counts_of(replies: Replies, limits: usize, known: Vec<u64>) -> Result<Option<Counted>, Failure> {
    let Reply::List(replies) = replies.into_iter().next().ok_or(Failure::Garbled)?? else {
        return Err(Failure::Garbled);
    };
    let mut replies = replies.into_iter();
    let first = replies.next().ok_or(Failure::Garbled)?;
    if first == Reply::Integer(-1) {
        return Ok(None);
    }
    let Some(Reply::List(counted)) = replies.next() else { return Err(Failure::Garbled) };
    let number = |count: &Reply| count.integer().map(|count| u64::try_from(count).unwrap_or(0));
    let numbers = counted.iter().map(number).collect::<Result<Vec<u64>, _>>()?;
    let counts: Vec<Counts> = if known.len() == limits {
        known.into_iter().zip(numbers).map(|(previous, before)| Counts { previous, before }).collect()
    } else {
        let pairs = numbers.chunks_exact(2);
        pairs
            .filter_map(<[u64]>::first_chunk)
            .map(|&[previous, before]| Counts { previous, before })
            .collect()
    };
    if counts.len() != limits {
        return Err(Failure::Garbled);
    }
    Ok(Some((counts, std::iter::once(first).chain(replies).collect())))
}
