//! Compare-and-set that reads as well: one script reads what a load reads and, if that is what this isolate knows, writes the
//! session's next state; if it is not, it tells what there is. What a load makes of a session depends on nothing else in the
//! store, so that a session which is still what was read last need not be loaded to be changed.
//!
//! Of a long text only what differs is sent. Before `data` and behind it the old state is compared to the letter; `data` itself
//! is known by the random name of its state, which stands before it. What is sealed is known by its nonce.

use std::sync::LazyLock;

use super::{Session, Sessions, load::Loaded};
use crate::{
    encryption,
    host::Host,
    limit::counted,
    log::{self, Line},
    store::{Failure, Reply, Script},
};

/// Its own keys: the session, the head of its family, its user's state, if it has one. Arguments: what is known of the
/// head and the state, empty for nothing; the length of the session's text, how it begins and ends; the next text, in five parts:
/// how it begins, the first and the last byte of a part that is kept, what comes in the middle, the first byte of the part that is kept
/// at the end. Replies 1, or 0 and the values of its keys.
static EXCHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(counted!(
    "
local stored = values[1]
local is_known = stored and #stored == tonumber(ARGV[4]) and string.sub(stored, 1, #ARGV[5]) == ARGV[5]
  and string.sub(stored, #stored - #ARGV[6] + 1) == ARGV[6]
for i = 2, own do is_known = is_known and (values[i] or '') == ARGV[i] end
if not is_known then
  local found = {}
  for i = 1, own do found[i] = values[i] end
  return {0, counts, found}
end
local next = ARGV[7] .. string.sub(stored, tonumber(ARGV[8]), tonumber(ARGV[9])) .. ARGV[10] .. string.sub(stored, tonumber(ARGV[11]))
redis.call('SET', KEYS[1], next, 'KEEPTTL')
return {1, counts}"
))
});

/// Creates a key with its time to live, for a session that nobody is logged in to. Replies 1, or 0 if there is such a key.
static CREATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(counted!(
        "if redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then return {1, counts} end
return {0, counts}"
    ))
});

/// What came of it.
pub(super) enum Exchange {
    /// The next state is written.
    Made,
    /// Nothing is written: this is what there is.
    Found(Loaded),
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
        let keys = self.keys_behind(&known.ticket);
        let key = keys.first().cloned().unwrap_or_default();
        let count = keys.len();
        let beside = [&known.head, &known.state].map(|text| text.clone().unwrap_or_default());
        let mut arguments = Vec::from(beside);
        arguments.extend(Difference::of(known, next).arguments());
        let Some(replies) = self.store.run_script(&EXCHANGE, keys, arguments).await? else { return Ok(None) };
        let mut replies = replies.into_iter();
        match (replies.next(), replies.next()) {
            (Some(Reply::Integer(1)), None) => {
                self.store.has_written(&self.store.sync_token());
                Ok(Some(Exchange::Made))
            }
            (Some(Reply::Integer(0)), Some(values)) => {
                let mut values = values.values(count)?.into_iter();
                Ok(Some(Exchange::Found(self.loaded(&key, &mut values, &known.ticket, true))))
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
        let ttl = self.rules.lifetimes.ttl(ticket.ends, ticket.remember, ticket.issued).as_millis().max(1);
        let keys = vec![self.key(&ticket.id.handle())];
        match self.store.run_script(&CREATE, keys, vec![stored.clone(), ttl.to_string()]).await {
            Ok(None) => Ok(None),
            Ok(Some(replies)) => match replies.as_slice() {
                [Reply::Integer(created)] => {
                    self.store.has_written(&self.store.sync_token());
                    Ok(Some(*created == 1))
                }
                _ => Err(Failure::Garbled),
            },
            Err(Failure::RateLimited) => Err(Failure::RateLimited),
            Err(failure) if failure.is_in_doubt() => {
                self.store.pass_uncounted(failure)?;
                Err(failure)
            }
            Err(failure) => {
                self.do_without_scripts(failure);
                Ok(None)
            }
        }
    }

    /// The store has refused a script: for a while it is not asked to run any.
    pub(super) fn do_without_scripts(&self, failure: Failure) {
        self.isolate.refuse_scripts(self.host.now());
        let message = format!("a script was refused: {failure}; changes are made without it for a minute");
        self.host.log(&Line::new(log::Event::ScriptRefused, message));
    }
}

/// How a text becomes another.
struct Difference<'a> {
    old: &'a str,
    /// What the old one is known by: how it begins and ends.
    known: [&'a str; 2],
    /// How the new one begins.
    start: &'a str,
    /// What is kept behind that, as a range of the old one.
    kept: [usize; 2],
    /// What comes then.
    middle: &'a str,
    /// From where the old one's rest is kept.
    rest: usize,
}

impl<'a> Difference<'a> {
    fn of(known: &'a Session, next: &'a Session) -> Self {
        let (old, new) = (known.stored.as_str(), next.stored.as_str());
        let whole = |known| Self { old, known, start: new, kept: [1, 0], middle: "", rest: old.len() };
        match (parts(known), parts(next)) {
            (Some(old_parts), Some(new_parts)) if old_parts[2] == new_parts[2] => {
                Self::of_parts(old, old_parts, new_parts)
            }
            (Some([before, _, behind]), _) => whole([before, behind]),
            (None, _) => whole([encryption::name(old).unwrap_or(old), ""]),
        }
    }

    /// Of texts in three parts of which the first names the second, and the third is the same in both.
    fn of_parts(old: &'a str, [before, data, behind]: [&'a str; 3], [start, new, _]: [&'a str; 3]) -> Self {
        let first =
            common(data.bytes().zip(new.bytes()), |at| data.is_char_boundary(at) && new.is_char_boundary(at));
        let (left, new_left) = (data.split_at(first).1, new.split_at(first).1);
        let last = common(left.bytes().rev().zip(new_left.bytes().rev()), |at| {
            left.is_char_boundary(left.len() - at) && new_left.is_char_boundary(new_left.len() - at)
        });
        let kept = [before.len() + 1, before.len() + first];
        let middle = new_left.split_at(new_left.len() - last).0;
        let rest = before.len() + data.len() - last;
        Self { old, known: [before, behind], start, kept, middle, rest }
    }

    fn arguments(self) -> [String; 8] {
        let Self { old, known: [begins, ends], start, kept: [from, to], middle, rest } = self;
        [
            old.len().to_string(),
            begins.to_owned(),
            ends.to_owned(),
            start.to_owned(),
            from.to_string(),
            to.to_string(),
            middle.to_owned(),
            (rest + 1).to_string(),
        ]
    }
}

/// How many bytes are the same, up to a place between two characters of both texts.
fn common(pairs: impl Iterator<Item = (u8, u8)>, is_boundary: impl Fn(usize) -> bool) -> usize {
    let same = pairs.take_while(|(old, new)| old == new).count();
    (0..=same).rev().find(|at| is_boundary(*at)).unwrap_or(0)
}

/// What stands before `data`, `data`, and what stands behind it. `None` if that cannot be told.
fn parts(session: &Session) -> Option<[&str; 3]> {
    const NAME: &str = "\"data\":";
    let (stored, data) = (session.stored.as_str(), session.record.data.get());
    let (before, rest) = stored.split_at(stored.find(NAME)? + NAME.len());
    let behind = rest.strip_prefix(data)?;
    before.contains(&session.record.revision.to_string()).then_some([before, data, behind])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the script makes of it.
    fn put_together(
        old: &str,
        [length, begins, ends, start, from, to, middle, rest]: &[String; 8],
    ) -> String {
        let number = |text: &String| text.parse::<usize>().expect("a number");
        assert_eq!(old.len(), number(length));
        assert!(old.starts_with(begins) && old.ends_with(ends));
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
            let difference = Difference::of_parts(&texts[0], ["{1", &old, "}"], ["{2", &new, "}"]);
            let arguments = difference.arguments();
            prop_assert_eq!(put_together(&texts[0], &arguments), ["{2", &new, "}"].concat());
            let sent: usize = arguments[3].len() + arguments[6].len();
            prop_assert!(sent <= 2 + new.len().saturating_sub(same.len() + also.len()), "{} bytes", sent);
        }
    }
}
