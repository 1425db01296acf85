//! A batch of commands: the body of one `POST /pipeline` or `POST /multi-exec`.

use std::{borrow::Cow, time::Duration};

use serde::Serialize;

use super::Script;
use crate::time;

/// A command: its name and its arguments.
type Command<'a> = Vec<Cow<'a, str>>;

/// Commands to be sent in one call. They run in order; unless it is [`Batch::atomic`], commands of others may run in
/// between.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    commands: Vec<Command<'a>>,
    is_atomic: bool,
    /// Whether it changes what its sender may read next.
    writes: bool,
    /// Whether it changes counters, so that sending it twice would count twice.
    counts: bool,
    /// Whether its replies may hold bytes that are no text.
    is_binary: bool,
    /// A key to ask for if only the primary may answer.
    primary_key: Option<Cow<'a, str>>,
}

/// Written as the array of its commands.
impl Serialize for Batch<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.commands.serialize(serializer)
    }
}

impl<'a> Batch<'a> {
    /// `DEL`: replies with how many keys there were.
    pub fn delete(self, keys: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> Self {
        self.write(list(&["DEL"], keys))
    }

    /// `DELEX … IFEQ`: compare-and-delete; replies 1, or 0 if the value is not `old` or there is no such key.
    pub fn delete_if(self, key: &'a str, old: &'a str) -> Self {
        self.write(texts(&["DELEX", key, "IFEQ", old]))
    }

    /// `MGET`: replies with a list, null for a key that does not exist or is no string.
    pub fn get(self, keys: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> Self {
        self.command(list(&["MGET"], keys))
    }

    /// `SET … NX`: creates a key; replies OK, or null if it exists.
    pub fn create(self, key: &'a str, value: &'a str, ttl: Duration) -> Self {
        self.write(["SET".into(), key.into(), value.into(), "NX".into(), "PX".into(), milliseconds(ttl)])
    }

    /// `MSETNX`: creates several keys without expiry, all or none; replies 1, or 0 if one of them exists.
    pub fn create_all(self, pairs: [(&'a str, &'a str); 2]) -> Self {
        let [(a, b), (c, d)] = pairs;
        self.write(texts(&["MSETNX", a, b, c, d]))
    }

    /// `SET … XX`: overwrites a key that exists; replies OK, or null if it does not. Without a `ttl` the key keeps its time
    /// to live.
    pub fn overwrite(self, key: &'a str, value: &'a str, ttl: Option<Duration>) -> Self {
        match ttl {
            None => self.write(texts(&["SET", key, value, "XX", "KEEPTTL"])),
            Some(ttl) => self.write([
                "SET".into(),
                key.into(),
                value.into(),
                "XX".into(),
                "PX".into(),
                milliseconds(ttl),
            ]),
        }
    }

    /// `SET … IFEQ`: compare-and-set; replies OK, or null if the value is not `old` or there is no such key. Without a
    /// `ttl` the key keeps its time to live.
    pub fn replace(self, key: &'a str, old: &'a str, new: &'a str, ttl: Option<Duration>) -> Self {
        match ttl {
            None => self.write(texts(&["SET", key, new, "IFEQ", old, "KEEPTTL"])),
            Some(ttl) => self.write([
                "SET".into(),
                key.into(),
                new.into(),
                "IFEQ".into(),
                old.into(),
                "PX".into(),
                milliseconds(ttl),
            ]),
        }
    }

    /// `PEXPIRE … GT`: extends a time to live; replies 1, or 0 if it is longer already or there is no such key.
    pub fn extend_ttl(self, key: impl Into<Cow<'a, str>>, ttl: Duration) -> Self {
        self.command(["PEXPIRE".into(), key.into(), milliseconds(ttl), "GT".into()])
    }

    /// `SET … 0 … NX`: creates a counter together with its time to live; replies OK, or null if it exists.
    pub fn create_counter(self, key: impl Into<Cow<'a, str>>, ttl: Duration) -> Self {
        self.command(["SET".into(), key.into(), "0".into(), "NX".into(), "PX".into(), milliseconds(ttl)])
    }

    /// `INCR`, or `INCRBY` for more than one: replies with the new count.
    pub fn increment(mut self, key: impl Into<Cow<'a, str>>, count: u32) -> Self {
        self.counts = true;
        match count {
            1 => self.command(["INCR".into(), key.into()]),
            _ => self.command(["INCRBY".into(), key.into(), Cow::from(count.to_string())]),
        }
    }

    /// `SET … NX`, then `DECRBY`: takes `count` off a counter, which so never falls below zero and never exists without
    /// a time to live.
    pub fn refund(mut self, key: &'a str, count: u32, ttl: Duration) -> Self {
        self.counts = true;
        let count = count.to_string();
        let create: [Cow<'a, str>; 6] =
            ["SET".into(), key.into(), count.clone().into(), "NX".into(), "PX".into(), milliseconds(ttl)];
        self.command(create).command(["DECRBY".into(), key.into(), Cow::from(count)])
    }

    /// `PEXPIRE … NX`: a time to live for a key that has none.
    pub fn ensure_ttl(self, key: &'a str, ttl: Duration) -> Self {
        self.command(["PEXPIRE".into(), key.into(), milliseconds(ttl), "NX".into()])
    }

    /// `TIME`: the store's clock, as seconds and microseconds.
    pub fn time(self) -> Self {
        self.command(texts(&["TIME"]))
    }

    /// `GETEX`: a value. Redis counts it among the writes, so that the primary answers and never a replica.
    pub fn get_from_primary(self, key: &'a str) -> Self {
        self.command(texts(&["GETEX", key]))
    }

    /// `HSET`, and a time to live for the whole hash; two replies, numbers.
    pub fn hash_set(self, key: &'a str, field: &'a str, value: &'a str, ttl: Duration) -> Self {
        self.write(texts(&["HSET", key, field, value])).expire(key, ttl)
    }

    /// `HDEL`: replies with how many fields there were.
    pub fn hash_delete(
        self,
        key: &'a str,
        fields: impl IntoIterator<Item = impl Into<Cow<'a, str>>>,
    ) -> Self {
        self.write(list(&["HDEL", key], fields))
    }

    /// `HLEN`: how many fields a hash has.
    pub fn hash_length(self, key: &'a str) -> Self {
        self.command(texts(&["HLEN", key]))
    }

    /// `HGETALL`: fields and values in turn.
    pub fn hash(self, key: impl Into<Cow<'a, str>>) -> Self {
        self.command(["HGETALL".into(), key.into()])
    }

    /// `HINCRBY`: adds to a number in a hash; replies with the sum.
    pub fn hash_add(self, key: &'a str, field: &'a str, count: u32) -> Self {
        self.write(["HINCRBY".into(), key.into(), field.into(), Cow::from(count.to_string())])
    }

    /// `PTTL`: milliseconds; negative if there is no key or no expiry.
    pub fn ttl(self, key: &'a str) -> Self {
        self.command(texts(&["PTTL", key]))
    }

    /// Only the primary may answer, never a replica: the commands are one transaction, with one in it that Redis counts
    /// among the writes. `key` is one of those read, and a string.
    pub fn at_primary(self, key: impl Into<Cow<'a, str>>) -> Self {
        Self { primary_key: Some(key.into()), ..self }.atomic()
    }

    /// Its replies may hold bytes: they come as base64.
    pub fn binary(self) -> Self {
        Self { is_binary: true, ..self }
    }

    /// `EVAL`: runs a script, which changes these keys.
    pub fn script(
        self,
        script: &'a str,
        keys: impl IntoIterator<Item = impl Into<Cow<'a, str>>>,
        arguments: impl IntoIterator<Item = impl Into<Cow<'a, str>>>,
    ) -> Self {
        self.write(script_command("EVAL", script, keys, arguments))
    }

    /// `EVALSHA`: the same for a script that the store has kept. An error if it has not; see
    /// `KnownError::is_unknown_script`.
    ///
    /// It may count and not write: whether it has written, its reply tells.
    pub fn kept_script(self, script: &'a Script, keys: &'a [String], arguments: &'a [String]) -> Self {
        let command = script_command("EVALSHA", &script.name, keys, arguments);
        Self { counts: true, ..self }.command(command)
    }

    /// The same with its text.
    pub fn unkept_script(self, script: &'a Script, keys: &'a [String], arguments: &'a [String]) -> Self {
        let command = script_command("EVAL", script.text, keys, arguments);
        Self { counts: true, ..self }.command(command)
    }

    /// `SET`, whatever there is; replies OK.
    pub fn set(self, key: &'a str, value: &'a str, ttl: Duration) -> Self {
        self.write(["SET".into(), key.into(), value.into(), "PX".into(), milliseconds(ttl)])
    }

    /// As one transaction (`POST /multi-exec`).
    pub fn atomic(self) -> Self {
        Self { is_atomic: true, ..self }
    }

    /// `PFADD`: counts distinct names; replies with a number.
    pub fn count_distinct(
        self,
        key: &'a str,
        names: impl IntoIterator<Item = impl Into<Cow<'a, str>>>,
    ) -> Self {
        self.write(list(&["PFADD", key], names))
    }

    /// `PFCOUNT`: how many distinct names there were.
    pub fn distinct(self, key: impl Into<Cow<'a, str>>) -> Self {
        self.command(["PFCOUNT".into(), key.into()])
    }

    /// `PEXPIRE`: sets the time to live.
    pub fn expire(self, key: &'a str, ttl: Duration) -> Self {
        self.write(["PEXPIRE".into(), key.into(), milliseconds(ttl)])
    }

    /// `PING`.
    pub fn ping(self) -> Self {
        self.command(texts(&["PING"]))
    }

    /// Reads more keys: in the batch's first command if that is an `MGET`, which costs no command more, else in one
    /// that comes first. Says whether that was the case.
    pub(crate) fn get_also(&mut self, keys: impl Iterator<Item = Cow<'a, str>>) -> bool {
        match self.commands.first_mut() {
            Some(command) if command.first().is_some_and(|name| name == "MGET") => {
                command.extend(keys);
                true
            }
            _ => {
                self.commands.insert(0, list(&["MGET"], keys));
                false
            }
        }
    }

    /// Adds the command that only the primary answers, if one is needed. Says whether it was: then there is one reply more.
    pub(crate) fn reach_primary(&mut self) -> bool {
        let Some(key) = self.primary_key.take().filter(|_| !self.writes && !self.counts) else {
            return false;
        };
        self.commands.push(vec!["GETEX".into(), key]);
        true
    }

    /// Whether it changes what its sender may read next.
    pub(crate) fn writes(&self) -> bool {
        self.writes
    }

    /// Whether sending it twice has the same effect as sending it once, and leaves no doubt about it.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.writes && !self.counts
    }

    /// Whether its replies may hold bytes.
    pub(super) fn is_binary(&self) -> bool {
        self.is_binary
    }

    /// How many commands it has, and so replies.
    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Where it is sent.
    pub(super) fn path(&self) -> &'static str {
        if self.is_atomic { "/multi-exec" } else { "/pipeline" }
    }

    fn write(mut self, command: impl Into<Command<'a>>) -> Self {
        self.writes = true;
        self.command(command)
    }

    fn command(mut self, command: impl Into<Command<'a>>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// A command of texts.
fn texts<'a>(words: &[&'a str]) -> Command<'a> {
    words.iter().copied().map(Cow::from).collect()
}

/// A command that ends with a list.
fn list<'a>(words: &[&'a str], list: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> Command<'a> {
    let mut command = texts(words);
    // `extend` would be a larger copy of this for each kind of list.
    for word in list {
        command.push(word.into());
    }
    command
}

/// A command that runs a script.
fn script_command<'a>(
    name: &'a str,
    script: &'a str,
    keys: impl IntoIterator<Item = impl Into<Cow<'a, str>>>,
    arguments: impl IntoIterator<Item = impl Into<Cow<'a, str>>>,
) -> Command<'a> {
    let mut command = list(&[name, script], keys);
    let count = command.len() - 2;
    command.insert(2, count.to_string().into());
    command.extend(arguments.into_iter().map(Into::into));
    command
}

/// At least 1: the store refuses less, or deletes the key. A century at most: it refuses what its clock cannot hold.
fn milliseconds(ttl: Duration) -> Cow<'static, str> {
    time::milliseconds(ttl).clamp(1, 3_155_760_000_000).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_json_of_a_pipeline() {
        let batch = Batch::default()
            .get(["a", "b"])
            .create("k", "a \"quoted\"\nline", Duration::from_secs(1))
            .extend_ttl("k", Duration::ZERO)
            .extend_ttl("k", Duration::MAX)
            .increment("n", 1)
            .increment("n", 20);
        assert_eq!(
            serde_json::to_string(&batch).expect("JSON"),
            r#"[["MGET","a","b"],["SET","k","a \"quoted\"\nline","NX","PX","1000"],["PEXPIRE","k","1","GT"],["PEXPIRE","k","3155760000000","GT"],["INCR","n"],["INCRBY","n","20"]]"#
        );
    }

    #[test]
    fn more_keys_are_read_by_the_first_command_if_that_reads_keys() {
        let mut batch = Batch::default().get(["a"]);
        assert!(batch.get_also(["b".into()].into_iter()));
        assert_eq!(serde_json::to_string(&batch).expect("JSON"), r#"[["MGET","a","b"]]"#);
        let mut batch = Batch::default().ping();
        assert!(!batch.get_also(["b".into()].into_iter()));
        assert_eq!(serde_json::to_string(&batch).expect("JSON"), r#"[["MGET","b"],["PING"]]"#);
    }
}
