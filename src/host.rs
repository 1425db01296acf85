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
