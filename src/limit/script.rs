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

impl<H: Host> CountingStore<'_, H> {
    /// Runs a script that begins with [`counted!`], in one call, which counts the request if it is not counted yet. `keys` and
    /// `arguments` are the script's own. Its reply is a list: a number that is not -1, `counts`, and what is returned here.
    ///
    /// `None`: nothing was done, and the request is not counted. It is over a limit, or the script cannot judge its limits.
    /// Errors: as with a batch that writes; if the failure leaves no doubt, the request is not counted.
    pub async fn run_script(
        &self,
        script: &Script,
        mut keys: Vec<String>,
        own_arguments: Vec<String>,
    ) -> Result<Option<Vec<Reply>>, Failure> {
        let (sent, deadline, memory) = (self.store.now(), self.store.deadline(), self.limiter.memory());
        // 1. Which limits there are to ask.
        self.limiter.check_blocked(sent).map_err(|_| Failure::RateLimited)?;
        let is_due = self.limiter.is_due();
        if is_due && (memory.is_clock_due(sent) || !self.limiter.can_be_scripted()) {
            return Ok(None);
        }
        let now = memory.store_time(sent);
        let windows = self.limiter.take_due(now);
        let mut arguments = vec![keys.len().to_string()];
        arguments.extend(own_arguments);
        for WindowKeys { previous, current, next, window, .. } in &windows {
            keys.extend([previous.clone(), current.clone(), next.clone()]);
            arguments.extend(window.terms().map(|term| term.to_string()));
            arguments.push(window.ttl().as_millis().to_string());
        }
        // 2. The call.
        let batch = Batch::default().kept_script(script, &keys, &arguments);
        let mut outcome = self.store.send(&batch, deadline).await;
        if is_unknown(&outcome) {
            let batch = Batch::default().unkept_script(script, &keys, &arguments);
            outcome = self.store.send(&batch, deadline).await;
        }
        let replies = outcome.and_then(|replies| match replies.into_iter().next() {
            Some(Ok(Reply::List(replies))) => Ok(replies),
            Some(Err(failure)) => Err(failure),
            _ => Err(Failure::Garbled),
        });
        let counted = replies.and_then(|replies| counts_of(replies, windows.len()));
        // 3. What it has counted.
        match counted {
            Ok(Some((counts, rest))) => {
                for WindowKeys { current, window, .. } in &windows {
                    memory.set_open(current, now + window.reset());
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

/// Reads the reply; `None` if the script has counted nothing.
fn counts_of(replies: Vec<Reply>, limits: usize) -> Result<Option<Counted>, Failure> {
    let mut replies = replies.into_iter();
    let first = replies.next().ok_or(Failure::Garbled)?;
    if first == Reply::Integer(-1) {
        return Ok(None);
    }
    let Some(Reply::List(counted)) = replies.next() else { return Err(Failure::Garbled) };
    let numbers: Vec<u64> = counted
        .iter()
        .map(|count| count.integer().map(|count| u64::try_from(count).unwrap_or(0)))
        .collect::<Result<_, _>>()?;
    if numbers.len() != limits * 2 {
        return Err(Failure::Garbled);
    }
    let counts = numbers.chunks_exact(2).filter_map(|pair| match pair {
        [previous, before] => Some(Counts { previous: *previous, before: *before }),
        _ => None,
    });
    Ok(Some((counts.collect(), std::iter::once(first).chain(replies).collect())))
}
