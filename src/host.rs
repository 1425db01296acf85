//! What the core asks of the machine it runs on.

use std::{fmt::Display, time::Duration};

use crate::time::Time;

/// Time, randomness, one way to the store and a log. The Worker has one ([`crate::gate`] never sees another
/// side of JavaScript); a program that embeds the crate brings its own.
pub trait Host {
    /// The time now.
    fn now(&self) -> Time;

    /// Fills `bytes` from a cryptographically secure source.
    fn fill_random(&self, bytes: &mut [u8]);

    /// The text in Unicode's normalization form KC.
    fn nfkc(&self, text: &str) -> String;

    /// The text in lower case, by Unicode's rules and no language's.
    fn lower_case(&self, text: &str) -> String;

    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Sends one call to the store and waits for its answer, for the call's timeout at the most.
    fn send(&self, call: Call) -> impl Future<Output = Result<Answer, Unreachable>>;

    /// Writes a line for the operator. It never holds a secret, an id or session data.
    fn log(&self, line: &dyn Display);
}

/// One HTTP call to the store.
#[derive(Debug)]
pub struct Call {
    /// Where below the store's URL: `/pipeline`.
    pub path: &'static str,
    /// The body, JSON.
    pub body: String,
    /// The read-your-writes token of an earlier answer; empty at first.
    pub sync_token: String,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// What came back over HTTP, whole.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub body: String,
    /// Upstash's `upstash-sync-token`.
    pub sync_token: String,
}

/// No answer came: refused, cut off, or too late.
#[derive(Debug)]
pub struct Unreachable;

/// So many random bytes.
pub fn random<const N: usize>(host: &impl Host) -> [u8; N] {
    let mut bytes = [0; N];
    host.fill_random(&mut bytes);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    /// A machine without a store, whose clock stands still.
    pub(crate) struct Machine;

    impl Host for Machine {
        fn now(&self) -> Time {
            Time(1_767_225_600_000)
        }
        fn fill_random(&self, bytes: &mut [u8]) {
            bytes.fill(4);
        }
        fn nfkc(&self, text: &str) -> String {
            text.nfkc().collect()
        }
        fn lower_case(&self, text: &str) -> String {
            text.to_lowercase()
        }
        async fn sleep(&self, _: Duration) {}
        async fn send(&self, _: Call) -> Result<Answer, Unreachable> {
            Err(Unreachable)
        }
        fn log(&self, _: &dyn Display) {}
    }
}
