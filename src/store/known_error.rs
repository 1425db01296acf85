//! The errors of Redis and Upstash, and what an operator can do about each. They are recognized by their first words: the
//! rest of a text holds numbers, commands and keys, and is forgotten.

use std::fmt;

/// An error that a store is known to answer with. It is as small as a pointer: every `?` on its way moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownError(&'static Known);

#[derive(Debug, PartialEq, Eq)]
struct Known {
    /// Its first words.
    name: &'static str,
    /// What it means and what to do; empty if only its text says that.
    advice: &'static str,
    /// Whether it may be over a moment later.
    is_transient: bool,
}

const TOKEN: &str = "check UPSTASH_REDIS_REST_TOKEN: copy it again from the database's page";
const UNKNOWN_COMMAND: &str = "the store does not know a command that Upstash knows (SET with IFEQ, DELEX, or another): it is \
                               an older Redis behind an adapter; use Upstash, or a newer Redis";
const TOO_LARGE: &str =
    "one request or value is larger than the plan allows: lower session.max_bytes, or upgrade the plan";
const OVERLOADED: &str = "the store is starting or busy: if it stays so, look at the database's page";

const fn lasting(name: &'static str, advice: &'static str) -> Known {
    Known { name, advice, is_transient: false }
}

const fn transient(name: &'static str, advice: &'static str) -> Known {
    Known { name, advice, is_transient: true }
}

/// The store does not keep a script of this name.
const NO_SCRIPT: &str = "NOSCRIPT";

/// The longer of two names that begin alike comes first.
static KNOWN: [Known; 29] = [
    // Upstash, https://upstash.com/docs/redis/troubleshooting
    lasting(
        "ERR max requests limit exceeded",
        "the plan's commands for this month are used up: upgrade the plan, or wait for the next month",
    ),
    lasting(
        "ERR max daily request limit exceeded",
        "the plan's commands for today are used up: upgrade the plan, or wait for tomorrow",
    ),
    lasting(
        "ERR max bandwidth",
        "the plan's bandwidth for this month is used up: upgrade the plan, or wait for the next month",
    ),
    lasting("ERR max request size exceeded", TOO_LARGE),
    lasting("ERR max single record size exceeded", TOO_LARGE),
    lasting("ERR max key size exceeded", "a key is longer than the plan allows: shorten key_prefix"),
    transient(
        "ERR max concurrent connections exceeded",
        "the plan's connections are in use: upgrade the plan, or close those of other clients",
    ),
    lasting(
        "ERR DB capacity quota exceeded",
        "the database is full, so that nothing can be written: upgrade the plan, or delete what others keep in it",
    ),
    lasting("ERR unknown command", UNKNOWN_COMMAND),
    lasting("ERR unknown subcommand", UNKNOWN_COMMAND),
    lasting("ERR Command is not available", UNKNOWN_COMMAND),
    lasting("ERR syntax error", UNKNOWN_COMMAND),
    lasting("ERR wrong number of arguments", UNKNOWN_COMMAND),
    lasting("ERR", ""),
    // Redis
    transient("BUSY", OVERLOADED),
    transient("CLUSTERDOWN", OVERLOADED),
    lasting("CROSSSLOT", "the store is a cluster, whose keys cannot be changed together: use one database"),
    lasting(
        "EXECABORT",
        "a command of a transaction was refused before it ran, by an older Redis for instance",
    ),
    transient("LOADING", OVERLOADED),
    transient("MASTERDOWN", OVERLOADED),
    lasting("MISCONF", "the store cannot save to its disk, so that nothing can be written"),
    lasting("NOAUTH", TOKEN),
    lasting(
        "NOPERM",
        "UPSTASH_REDIS_REST_TOKEN does not allow a command: copy the standard token, not the read-only one",
    ),
    lasting("NOREPLICAS", "the store has too few replicas, so that nothing can be written"),
    lasting(NO_SCRIPT, "the store does not know a script that it was to keep: it may have been started anew"),
    lasting("OOM", "the store's memory is full, so that nothing can be written: give it more"),
    lasting(
        "READONLY",
        "the store is a replica, where nothing can be written: UPSTASH_REDIS_REST_URL must lead to the primary",
    ),
    lasting("WRONGPASS", TOKEN),
    lasting("WRONGTYPE", "another application uses a key of ours: set key_prefix"),
];

/// What is left of an error that no store is known for.
static UNKNOWN: Known = lasting("an error without a known name", "");

/// What stands before the reason for which a transaction was discarded.
const DISCARDED: &str = "because of: ";

impl KnownError {
    /// From the text of an error.
    pub(crate) fn parse(text: &str) -> Self {
        let find = |text: &str| KNOWN.iter().find(|known| begins_with(text, known.name));
        let reason = text.strip_prefix("EXECABORT ").and_then(|text| text.split_once(DISCARDED));
        Self(reason.and_then(|(_, reason)| find(reason)).or_else(|| find(text)).unwrap_or(&UNKNOWN))
    }

    /// Whether a script must be sent with its text.
    pub(crate) fn is_unknown_script(&self) -> bool {
        self.0.name == NO_SCRIPT
    }

    /// Whether it may be about a script, and not about the store or the account.
    pub(crate) fn may_concern_scripts(&self) -> bool {
        const NAMES: [&str; 7] = [
            "ERR",
            "ERR unknown command",
            "ERR Command is not available",
            "ERR syntax error",
            "ERR wrong number of arguments",
            "NOPERM",
            NO_SCRIPT,
        ];
        NAMES.contains(&self.0.name) || *self == Self(&UNKNOWN)
    }

    /// Whether its name alone says what is wrong.
    pub(super) fn is_specific(&self) -> bool {
        !self.0.advice.is_empty()
    }

    /// Whether the same batch may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        self.0.is_transient
    }
}

/// The name, and what to do.
impl fmt::Display for KnownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Known { name, advice, .. } = self.0;
        f.write_str(name)?;
        if advice.is_empty() { Ok(()) } else { write!(f, ": {advice}") }
    }
}

/// Whether a text begins with these words, in any case of letters.
fn begins_with(text: &str, words: &str) -> bool {
    text.split_at_checked(words.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(words) && !rest.starts_with(|next: char| next.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_recognized_by_its_first_words_alone() {
        for (text, name) in [
            (
                "ERR max requests limit exceeded. Limit: 500000, Usage: 500000.",
                "ERR max requests limit exceeded",
            ),
            (
                "ERR max daily request limit exceeded. Limit: 10000, Usage: 10001. See https://a.example",
                "ERR max daily request limit exceeded",
            ),
            ("ERR max request size exceeded. Limit: 1048576 bytes", "ERR max request size exceeded"),
            ("ERR DB capacity quota exceeded", "ERR DB capacity quota exceeded"),
            ("ERR unknown command 'DELEX', with args beginning with: 'sess:abc'", "ERR unknown command"),
            ("ERR Syntax error", "ERR syntax error"),
            (
                "EXECABORT Transaction discarded because of: ERR DB capacity quota exceeded",
                "ERR DB capacity quota exceeded",
            ),
            ("EXECABORT Transaction discarded because of previous errors.", "EXECABORT"),
            ("EXECABORT Transaction discarded because of: sess:abc", "EXECABORT"),
            ("WRONGPASS invalid or missing auth token", "WRONGPASS"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
            ("ERR", "ERR"),
            ("ERR no such thing as sess:abc", "ERR"),
            ("ERRATIC", UNKNOWN.name),
            ("sess:abc OOM", UNKNOWN.name),
            ("ä", UNKNOWN.name),
            ("", UNKNOWN.name),
        ] {
            assert_eq!(KnownError::parse(text).0.name, name, "{text}");
        }
    }

    #[test]
    fn of_names_that_begin_alike_the_longer_is_found() {
        for known in &KNOWN {
            assert_eq!(KnownError::parse(known.name), KnownError(known));
        }
    }

    #[test]
    fn every_error_but_the_unnamed_says_what_to_do() {
        for known in KNOWN.iter().filter(|known| known.name != "ERR") {
            let error = KnownError(known);
            assert!(error.is_specific() && error.to_string().len() > known.name.len() + 20, "{error}");
        }
    }
}
