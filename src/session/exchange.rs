//! Compare-and-set that reads as well: one script reads what a load reads and, if that is what this isolate knows, writes the
//! session's next state; if it is not, it tells what there is. What a load makes of a session depends on nothing else in the
//! store, so that a session which is still what was read last need not be loaded to be changed.
//!
//! The old state is not sent, but its SHA-1: another text of the same hash would have to be found for a text that holds two random
//! names. Of the next state only what differs is sent, unless it is sealed.

use std::sync::LazyLock;

use super::{Session, Sessions, load::Loaded};
use crate::{
    host::Host,
    limit::{Counting, counted, counted_by_rank},
    log::{self, Line},
    store::{Batch, Failure, Reply, Script, sha1},
};

/// Its own keys: the session, the head of its family, its user's state, if it has one. Arguments: what is known of the head and the
/// state, empty for nothing; the SHA-1 of the session's text; the next text, in five parts: how it begins, the first and the last
/// byte of a part that is kept, what comes in the middle, the first byte of the part that is kept at the end. Replies 1, or 0 and
/// the values of its keys.
static EXCHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(counted!(
        "local stored = values[1]
local is_known = stored and redis.sha1hex(stored) == ARGV[4]
for i = 2, own do is_known = is_known and (values[i] or '') == ARGV[i] end
if not is_known then
  local found = {}
  for i = 1, own do found[i] = values[i] end
  return {0, counts, found}
end
local kept, rest = string.sub(stored, tonumber(ARGV[6]), tonumber(ARGV[7])), string.sub(stored, tonumber(ARGV[9]))
redis.call('SET', KEYS[1], ARGV[5] .. kept .. ARGV[8] .. rest, 'KEEPTTL')
return {1, counts}"
    ))
});

/// The same for a small session, which the store compares itself: two commands less where nothing else is to be read. The text is
/// sent as a whole, the old one and the new one.
static EXCHANGE_SMALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(counted_by_rank!(
        "local is_known = own < 3 or (redis.call('GET', KEYS[3]) or '') == ARGV[2]
if is_known and redis.call('SET', KEYS[1], ARGV[4], 'IFEQ', ARGV[3], 'KEEPTTL') then return {1, counts} end
local keys = {}
for i = 1, own do keys[i] = KEYS[i] end
return {0, counts, redis.call('MGET', unpack(keys))}"
    ))
});

/// In Lua: creates a key with its time to live, for a session that nobody is logged in to. Replies 1, or 0 if there is such a key.
macro_rules! create {
    ($counted:ident) => {
        $counted!(
            "if redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then return {1, counts} end
return {0, counts}"
        )
    };
}
static CREATE: LazyLock<Script> = LazyLock::new(|| Script::new(create!(counted)));
static CREATE_BY_RANK: LazyLock<Script> = LazyLock::new(|| Script::new(create!(counted_by_rank)));

/// Up to how many bytes a session is small: a command less is worth the old text, at Upstash's prices and in time.
const SMALL: usize = 4096;

/// What came of it.
pub(super) enum Exchange {
    /// The next state is written.
    Made,
    /// Nothing is written: this is what there is.
    Found(Box<Loaded>),
}

impl<H: Host> Sessions<'_, H> {
    /// Replaces a session that is still as it is known by its next state, in one call, which counts the request if it is not
    /// counted yet. `None`: nothing was done, and the request is not counted; see
    /// [`crate::limit::CountingStore::run_script`].
    pub(super) async fn exchange(
        &self,
        known: &Session,
        next: &Session,
    ) -> Result<Option<Exchange>, Failure> {
        let Some(counting) = self.store.counting() else { return Ok(None) };
        let keys = self.keys_behind(&known.ticket);
        let (key, count) = (keys.first().cloned().unwrap_or_default(), keys.len());
        let state = known.state.as_deref().unwrap_or_default().to_owned();
        // The head of a family that was rotated tells of thefts, and is looked at.
        let is_small = known.stored.len() <= SMALL && known.record.generation == 0;
        let outcome = if is_small && counting == Counting::ByRank {
            let arguments = vec![state, known.stored.clone(), next.stored.clone()];
            self.store.run_script(&EXCHANGE_SMALL, counting, keys, arguments).await?
        } else {
            let head = known.head.clone().unwrap_or_default();
            let mut arguments = vec![head, state, sha1(&known.stored)];
            arguments.extend(Difference::of(known, next).arguments());
            self.store.run_script(&EXCHANGE, Counting::Read, keys, arguments).await?
        };
        let Some(replies) = outcome else { return Ok(None) };
        let mut replies = replies.into_iter();
        match (replies.next(), replies.next()) {
            (Some(Reply::Integer(1)), None) => {
                self.store.has_written(&self.store.sync_token());
                Ok(Some(Exchange::Made))
            }
            (Some(Reply::Integer(0)), Some(values)) => {
                let mut values = values.values(count)?.into_iter();
                let loaded = self.loaded(&key, &mut values, &known.ticket, true);
                Ok(Some(Exchange::Found(Box::new(loaded))))
            }
            _ => Err(Failure::Garbled),
        }
    }

    /// Creates a session that nobody is logged in to, in one call, which counts the request. Whether its key was free; `None`: as
    /// with [`Self::exchange`].
    pub(super) async fn create_counted(&self, session: &Session) -> Result<Option<bool>, Failure> {
        let Session { ticket, stored, .. } = session;
        if !self.store.counts_next() || !self.isolate.may_run_scripts(self.host.now()) {
            return Ok(None);
        }
        let Some(counting) = self.store.counting() else { return Ok(None) };
        let ttl = self.rules.lifetimes.ttl(ticket.ends, ticket.remember, ticket.issued).as_millis().max(1);
        let key = self.key(&ticket.id.handle());
        let script = if counting == Counting::ByRank { &CREATE_BY_RANK } else { &CREATE };
        match self
            .store
            .run_script(script, counting, vec![key.clone()], vec![stored.clone(), ttl.to_string()])
            .await
        {
            Ok(None) => Ok(None),
            Ok(Some(replies)) => match replies.as_slice() {
                [Reply::Integer(created)] => {
                    self.store.has_written(&self.store.sync_token());
                    Ok(Some(*created == 1))
                }
                _ => Err(Failure::Garbled),
            },
            Err(failure) if failure.is_in_doubt() => {
                if self.store.pass_uncounted(failure).is_ok() {
                    return Err(failure);
                }
                // What was written was counted.
                let read = self.store.run(Batch::default().get_from_primary(&key)).await;
                let written = read.and_then(|[value]| value.value());
                let is_made = written.is_ok_and(|written| written.as_ref() == Some(stored));
                if is_made { Ok(Some(true)) } else { Err(Failure::NotCounted) }
            }
            Err(failure) => self.do_without_scripts(failure).map(|()| None),
        }
    }

    /// The store has refused a script: for a while it is not asked to run any. Error: it is not about scripts.
    pub(super) fn do_without_scripts(&self, failure: Failure) -> Result<(), Failure> {
        if !failure.may_concern_scripts() {
            return Err(failure);
        }
        self.isolate.refuse_scripts(self.host.now());
        let message = format!("a script was refused: {failure}; changes are made without it for a minute");
        self.host.log(&Line::new(log::Event::ScriptRefused, message));
        Ok(())
    }
}

/// How the next text is put together from the old one.
struct Difference<'a> {
    /// How it begins.
    start: &'a str,
    /// What is kept behind that, as a range of the old one.
    kept: [usize; 2],
    /// What comes then.
    middle: &'a str,
    /// From where the old one's rest is kept.
    rest: usize,
}

impl<'a> Difference<'a> {
    fn of(old: &'a Session, new: &'a Session) -> Self {
        match (parts(old), parts(new)) {
            (Some(old), Some(new)) if old[2] == new[2] => Self::of_parts(old, new),
            _ => Self { start: &new.stored, kept: [1, 0], middle: "", rest: old.stored.len() },
        }
    }

    /// Of texts in three parts, of which the third is the same in both.
    fn of_parts([before, data, _]: [&'a str; 3], [start, new, _]: [&'a str; 3]) -> Self {
        let first =
            common(data.bytes().zip(new.bytes()), |at| data.is_char_boundary(at) && new.is_char_boundary(at));
        let (left, new_left) = (data.split_at(first).1, new.split_at(first).1);
        let last = common(left.bytes().rev().zip(new_left.bytes().rev()), |at| {
            left.is_char_boundary(left.len() - at) && new_left.is_char_boundary(new_left.len() - at)
        });
        let kept = [before.len() + 1, before.len() + first];
        let middle = new_left.split_at(new_left.len() - last).0;
        Self { start, kept, middle, rest: before.len() + data.len() - last }
    }

    fn arguments(self) -> [String; 5] {
        let Self { start, kept: [from, to], middle, rest } = self;
        [start.to_owned(), from.to_string(), to.to_string(), middle.to_owned(), (rest + 1).to_string()]
    }
}

/// How many bytes are the same, up to a place between two characters of both texts.
fn common(pairs: impl Iterator<Item = (u8, u8)>, is_boundary: impl Fn(usize) -> bool) -> usize {
    let same = pairs.take_while(|(old, new)| old == new).count();
    (0..=same).rev().find(|at| is_boundary(*at)).unwrap_or(0)
}

/// What stands before `data`, `data`, and what stands behind it. `None` if that cannot be told, as of what is sealed.
fn parts(session: &Session) -> Option<[&str; 3]> {
    const NAME: &str = "\"data\":";
    let (stored, data) = (session.stored.as_str(), session.record.data.get());
    let (before, rest) = stored.split_at(stored.find(NAME)? + NAME.len());
    Some([before, data, rest.strip_prefix(data)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the script makes of it.
    fn put_together(old: &str, [start, from, to, middle, rest]: &[String; 5]) -> String {
        let number = |text: &String| text.parse::<usize>().expect("a number");
        let kept = old.get(number(from) - 1..number(to)).unwrap_or_default();
        [start, kept, middle, &old[number(rest) - 1..]].concat()
    }

    proptest! {
        #[test]
        fn the_new_text_is_put_together_from_the_old_one(
            old in "[abé€😀]{0,12}", new in "[abé€😀]{0,12}", same in "[abé€😀]{0,9}", also in "[abé€😀]{0,9}",
        ) {
            let [old, new] = [&old, &new].map(|text| [&same, text, &also].map(String::as_str).concat());
            let texts = [&old, &new].map(|data| ["{1", data, "}"].concat());
            let difference = Difference::of_parts(["{1", &old, "}"], ["{2", &new, "}"]);
            let arguments = difference.arguments();
            prop_assert_eq!(put_together(&texts[0], &arguments), ["{2", &new, "}"].concat());
            let sent: usize = arguments[0].len() + arguments[3].len();
            prop_assert!(sent <= 2 + new.len().saturating_sub(same.len() + also.len()), "{} bytes", sent);
        }
    }
}
