//! A batch of commands, written straight into the JSON of `POST /pipeline`.

use std::time::Duration;

use crate::{json, time};

/// Commands to be sent in one call. They run in order, but not as one: others' commands may come between.
#[derive(Debug)]
pub struct Batch {
    json: String,
    /// How many commands.
    length: usize,
    writes: bool,
    counts: bool,
    path: &'static str,
}

impl Default for Batch {
    fn default() -> Self {
        let mut json = String::with_capacity(512);
        json.push('[');
        Self { json, length: 0, writes: false, counts: false, path: "/pipeline" }
    }
}

impl Batch {
    /// `DEL`.
    pub fn delete(self, keys: &[&str]) -> Self {
        self.write(&[&["DEL"], keys].concat())
    }

    /// `DELEX … IFEQ`: compare-and-delete; replies 1, or 0 when the value is not `old` or is gone.
    pub fn delete_if(self, key: &str, old: &str) -> Self {
        self.write(&["DELEX", key, "IFEQ", old])
    }

    /// `MGET`: replies with a list, null for what is absent or not a string.
    pub fn get(self, keys: &[&str]) -> Self {
        let mut words = vec!["MGET"];
        words.extend(keys);
        self.command(&words)
    }

    /// `SET … NX`: writes what is not there yet; replies OK or null.
    pub fn create(self, key: &str, value: &str, ttl: Duration) -> Self {
        self.write(&["SET", key, value, "NX", "PX", &milliseconds(ttl)])
    }

    /// `MSETNX`: keys and values in turn, without an end, all or none; replies 1, or 0 when one is there already.
    pub fn claim(self, pairs: &[&str]) -> Self {
        self.write(&[&["MSETNX"], pairs].concat())
    }

    /// `SET … XX KEEPTTL`: writes over what is there; replies OK, or null when it is gone.
    pub fn overwrite(self, key: &str, value: &str) -> Self {
        self.write(&["SET", key, value, "XX", "KEEPTTL"])
    }

    /// `SET`: writes, whatever is there; replies OK.
    pub fn put(self, key: &str, value: &str, ttl: Duration) -> Self {
        self.write(&["SET", key, value, "PX", &milliseconds(ttl)])
    }

    /// `SET … IFEQ … KEEPTTL`: compare-and-set; replies OK, or null when the value is not `old` or is gone.
    pub fn replace(self, key: &str, old: &str, new: &str) -> Self {
        self.write(&["SET", key, new, "IFEQ", old, "KEEPTTL"])
    }

    /// The same with a new time to live.
    pub fn replace_for(self, key: &str, old: &str, new: &str, ttl: Duration) -> Self {
        self.write(&["SET", key, new, "IFEQ", old, "PX", &milliseconds(ttl)])
    }

    /// `PEXPIRE … GT`: a longer time to live; replies 1, or 0 when the key is gone or has as long already.
    pub fn extend(self, key: &str, ttl: Duration) -> Self {
        self.command(&["PEXPIRE", key, &milliseconds(ttl), "GT"])
    }

    /// The same for a key and its time to live, if there is one to extend.
    pub fn extend_some(self, touch: Option<(&str, Duration)>) -> Self {
        match touch {
            Some((key, ttl)) => self.extend(key, ttl),
            None => self,
        }
    }

    /// `SET … 0 … NX`: a counter with its time to live; replies OK, or null when it is there already.
    pub fn create_counter(self, key: &str, ttl: Duration) -> Self {
        self.command(&["SET", key, "0", "NX", "PX", &milliseconds(ttl)])
    }

    /// `INCR`: replies with the count.
    pub fn increment(mut self, key: &str) -> Self {
        self.counts = true;
        self.command(&["INCR", key])
    }

    /// `DECRBY`, after `SET … NX`, so that it never comes to less than nothing, and never without a time to live.
    pub fn refund(mut self, key: &str, count: u32, ttl: Duration) -> Self {
        self.counts = true;
        let count = count.to_string();
        self.command(&["SET", key, &count, "NX", "PX", &milliseconds(ttl)]).command(&["DECRBY", key, &count])
    }

    /// `PEXPIRE … NX`: a time to live for what has none.
    pub fn expire_endless(self, key: &str, ttl: Duration) -> Self {
        self.command(&["PEXPIRE", key, &milliseconds(ttl), "NX"])
    }

    /// `TIME`: seconds and microseconds since 1970, as texts.
    pub fn time(self) -> Self {
        self.command(&["TIME"])
    }

    /// `GETEX`: a value, asked of the primary and never of a replica: Redis counts it among the writes.
    pub fn get_from_primary(self, key: &str) -> Self {
        self.command(&["GETEX", key])
    }

    /// `HSET`, and a time to live for the whole hash; two replies, numbers.
    pub fn list(self, key: &str, name: &str, value: &str, ttl: Duration) -> Self {
        self.write(&["HSET", key, name, value]).expire(key, ttl)
    }

    /// `HDEL`: replies with how many were there.
    pub fn unlist(self, key: &str, names: &[&str]) -> Self {
        self.write(&[&["HDEL", key], names].concat())
    }

    /// `HLEN`.
    pub fn count(self, key: &str) -> Self {
        self.command(&["HLEN", key])
    }

    /// `PTTL`: milliseconds, negative when there is no key or no end.
    pub fn time_to_live(self, key: &str) -> Self {
        self.command(&["PTTL", key])
    }

    /// `PEXPIRE … 1 GT`, which changes nothing and counts as a write: as one with it, what follows is asked of the
    /// primary and never of a replica. Replies with a number.
    pub fn at_primary(self, key: &str) -> Self {
        self.command(&["PEXPIRE", key, "1", "GT"]).as_one()
    }

    /// All of it as one: nothing of others' comes between (`POST /multi-exec`).
    pub fn as_one(self) -> Self {
        Self { path: "/multi-exec", ..self }
    }

    /// `HINCRBY`: counts in a hash; replies with the sum.
    pub fn add(self, key: &str, field: &str, count: u32) -> Self {
        self.write(&["HINCRBY", key, field, &count.to_string()])
    }

    /// `PFADD`: counts different names; replies with a number.
    pub fn count_different(self, key: &str, names: &[&str]) -> Self {
        self.write(&[&["PFADD", key], names].concat())
    }

    /// `PFCOUNT`: how many different names there were.
    pub fn different(self, key: &str) -> Self {
        self.command(&["PFCOUNT", key])
    }

    /// `HGETALL`: names and values in turn.
    pub fn hash(self, key: &str) -> Self {
        self.command(&["HGETALL", key])
    }

    /// `PEXPIRE`: a new time to live.
    pub fn expire(self, key: &str, ttl: Duration) -> Self {
        self.write(&["PEXPIRE", key, &milliseconds(ttl)])
    }

    /// `PING`.
    pub fn ping(self) -> Self {
        self.command(&["PING"])
    }

    /// Whether it changes what its sender may look for next.
    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    /// Whether sending it twice is different from sending it once, or leaves a doubt what it did.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.writes && !self.counts
    }

    fn write(mut self, words: &[&str]) -> Self {
        self.writes = true;
        self.command(words)
    }

    fn command(mut self, words: &[&str]) -> Self {
        self.length += 1;
        if self.json.len() > 1 {
            self.json.push(',');
        }
        let mut separator = '[';
        for word in words {
            self.json.push(separator);
            json::push_text(&mut self.json, word);
            separator = ',';
        }
        self.json.push(']');
        self
    }

    /// How many replies it gets.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Where it is sent.
    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    /// The body of the call.
    pub(super) fn to_json(&self) -> String {
        [&self.json, "]"].concat()
    }
}

/// At least 1, which the store asks for.
fn milliseconds(ttl: Duration) -> String {
    time::milliseconds(ttl).max(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_json_of_a_pipeline() {
        let batch = Batch::default()
            .get(&["a", "b"])
            .create("k", "a \"quoted\"\nline", Duration::from_secs(1))
            .extend("k", Duration::ZERO);
        assert_eq!(
            batch.to_json(),
            r#"[["MGET","a","b"],["SET","k","a \"quoted\"\u000aline","NX","PX","1000"],["PEXPIRE","k","1","GT"]]"#
        );
    }
}
