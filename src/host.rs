//! What the core asks of the machine it runs on: time, randomness, Unicode's tables, one way to the store and one to
//! other services, the platform's own rate limit, signatures, a log.

use std::{fmt, time::Duration};

use crate::{log::Line, time::Time};

/// The machine. The Worker has one ([`crate::app`] sees nothing else of JavaScript); a program that embeds the core
/// brings its own.
pub trait Host: 'static {
    /// The time now.
    fn now(&self) -> Time;

    /// Fills `bytes` from a cryptographically secure source.
    fn fill_random(&self, bytes: &mut [u8]);

    /// `text` in Unicode normalization form KC (UAX #15).
    fn nfkc(&self, text: &str) -> String;

    /// `text` in lower case, by Unicode's rules, independent of any language.
    fn lower_case(&self, text: &str) -> String;

    /// Whether a character is a mark that belongs to the one before it (Unicode's general category M).
    fn is_mark(&self, character: char) -> bool;

    /// Waits for `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Sends one call to the store and waits for its answer, for [`Call::timeout`] at most.
    fn send(&self, call: Call) -> impl Future<Output = Result<Answer, Unreachable>>;

    /// Asks another service for a document and reads it to its end, for [`Query::timeout`] at most. A redirect is not followed. A
    /// machine that can ask nobody leaves this as it is.
    fn ask(&self, query: Query) -> impl Future<Output = Result<Document, Unreachable>> {
        drop(query);
        std::future::ready(Err(Unreachable))
    }

    /// Posts JSON to the operator's back end, and waits for the status of its answer, for [`Post::timeout`] at most. A
    /// redirect is an answer like any other: it is not followed.
    fn post(&self, post: Post<'_>) -> impl Future<Output = Result<u16, Unreachable>>;

    /// Whether there is a rate limit of the platform's own, in front of ours.
    fn has_platform_limit(&self) -> bool;

    /// Asks that limit whether `key` is over it.
    fn is_over_platform_limit(&self, key: &str) -> impl Future<Output = bool>;

    /// A signature over `message`, as JWS has it (RFC 7518 section 3.4, RFC 8037 section 3.1). The first of a key is also verified
    /// with the key's public half, so that no key signs what nobody could verify.
    fn sign(&self, key: &SigningKey, message: &str) -> impl Future<Output = Result<Vec<u8>, Unsigned>>;

    /// Whether a key of somebody else's has signed `message`, as JWS has it. A machine that can verify nothing leaves this as it
    /// is: nothing is signed then.
    fn verify(&self, key: &VerifyingKey, message: &str, signature: &[u8]) -> impl Future<Output = bool> {
        let _ = (key, message, signature);
        std::future::ready(false)
    }

    /// Writes a line for the operator: its `Display` is JSON on one line, its level says how much it matters.
    fn log(&self, line: &Line);
}

/// One HTTP call to the store: `POST`, with a JSON body.
#[derive(Debug)]
pub struct Call {
    /// The path below the store's URL: `/pipeline`.
    pub path: &'static str,
    /// The body.
    pub body: String,
    /// Whether the strings of the answer are to come as base64 (`Upstash-Encoding`).
    pub is_base64: bool,
    /// The read-your-writes token of an earlier answer; empty if there is none.
    pub sync_token: String,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
}

/// The store's answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub body: String,
    /// Upstash's `upstash-sync-token`; empty if the answer has none.
    pub sync_token: String,
}

/// One message to the operator's back end: `POST`, with a JSON body.
pub struct Post<'a> {
    /// Where to.
    pub url: &'a str,
    /// The headers.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body, which may hold a secret.
    pub body: &'a str,
    /// How long to wait for the status.
    pub timeout: Duration,
}

/// No answer came: the connection was refused or broke, or the timeout passed.
#[derive(Debug)]
pub struct Unreachable;

/// A private key that signs.
#[derive(PartialEq, Eq)]
pub struct SigningKey {
    /// How.
    pub algorithm: SigningAlgorithm,
    /// The key with its public half, as JSON (RFC 7517).
    pub jwk: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?}, …)", self.algorithm)
    }
}

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8032).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5).
    Es256,
}

/// The key is of no use, or what it signs is not verified with its public half.
#[derive(Debug)]
pub struct Unsigned;

/// A public key of somebody else's.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    /// How it verifies.
    pub algorithm: VerifyingAlgorithm,
    /// The key as JSON (RFC 7517), with the members that its kind needs and no others.
    pub jwk: String,
}

/// How a public key verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifyingAlgorithm {
    /// Ed25519 (RFC 8032).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017).
    Rs256,
}

/// One HTTP request to another service: `GET`, or `POST` with a form. It may hold secrets.
pub struct Query {
    /// The URL.
    pub url: String,
    /// Headers, each with its value.
    pub headers: Vec<(&'static str, String)>,
    /// The body (`application/x-www-form-urlencoded`) of a `POST`.
    pub form: Option<String>,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
    /// How much of the answer is read.
    pub max_bytes: usize,
}

/// What another service has answered.
#[derive(Debug)]
pub struct Document {
    /// The HTTP status.
    pub status: u16,
    /// The body, whatever it holds, as text; `None` if it is longer than [`Query::max_bytes`]. Empty unless the status is 200.
    pub text: Option<String>,
    /// `Cache-Control`; empty if it has none.
    pub cache_control: String,
}

/// `N` random bytes.
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
        fn is_mark(&self, character: char) -> bool {
            unicode_normalization::char::is_combining_mark(character)
        }
        async fn sleep(&self, _: Duration) {}
        async fn send(&self, _: Call) -> Result<Answer, Unreachable> {
            Err(Unreachable)
        }
        async fn post(&self, _: Post<'_>) -> Result<u16, Unreachable> {
            Err(Unreachable)
        }
        fn has_platform_limit(&self) -> bool {
            false
        }
        async fn is_over_platform_limit(&self, _: &str) -> bool {
            false
        }
        async fn sign(&self, _: &SigningKey, _: &str) -> Result<Vec<u8>, Unsigned> {
            Err(Unsigned)
        }
        fn log(&self, _: &Line) {}
    }
}
