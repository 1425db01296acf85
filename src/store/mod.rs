//! The store: batches of commands and their replies, in Upstash's REST format.
//!
//! It keeps one law: *absent is a reply, broken is an error*. A [`Failure`] says that nothing is known; it is
//! never read as "no session".

mod batch;
mod reply;

use std::{cell::RefCell, fmt};

pub use self::{batch::Batch, reply::Reply};
use crate::host::{Call, Host, Unreachable};

/// The store failed. What a command did before the failure is unknown.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer came: refused, cut off, or too late.
    Unreachable,
    /// An answer, but not of a working store (an HTTP status other than 200).
    Status(u16),
    /// An answer of status 200 that is not what was asked for.
    Garbled,
    /// A command was answered with an error, of which this is the kind (`ERR`, `WRONGTYPE`, …).
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no answer (refused, cut off, or over store.timeout)"),
            Self::Status(401) => f.write_str("status 401: check UPSTASH_REDIS_REST_TOKEN"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Garbled => {
                f.write_str("an answer that is not Upstash's format; check UPSTASH_REDIS_REST_URL")
            }
            Self::Refused(kind) => write!(f, "a command was refused ({kind})"),
        }
    }
}

/// The store, as one request sees it: later calls read what earlier ones wrote.
pub struct Store<'a, H> {
    host: &'a H,
    sync_token: RefCell<String>,
}

impl<'a, H: Host> Store<'a, H> {
    /// The store behind `host`.
    pub fn new(host: &'a H) -> Self {
        Self { host, sync_token: RefCell::default() }
    }

    /// Sends the batch, in one call. As many replies as commands were sent, none of them an error.
    pub async fn run<const N: usize>(&self, batch: Batch) -> Result<[Reply; N], Failure> {
        let sync_token = self.sync_token.borrow().clone();
        let call = Call { path: "/pipeline", body: batch.into_json(), sync_token };
        let answer = self.host.send(call).await.map_err(|Unreachable| Failure::Unreachable)?;
        if answer.status != 200 {
            return Err(Failure::Status(answer.status));
        }
        self.sync_token.replace(answer.sync_token);
        parse(&answer.body)
    }
}

fn parse<const N: usize>(body: &str) -> Result<[Reply; N], Failure> {
    let replies: Vec<Reply> = serde_json::from_str(body).map_err(|_| Failure::Garbled)?;
    for reply in &replies {
        if let Reply::Error(kind) = reply {
            return Err(Failure::Refused(kind.clone()));
        }
    }
    replies.try_into().map_err(|_| Failure::Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<const N: usize>(body: &str) -> Result<(), Failure> {
        super::parse::<N>(body).map(|_| ())
    }

    #[test]
    fn as_many_replies_as_commands_or_none_at_all() {
        let body = r#"[{"result":"OK"},{"result":null}]"#;
        assert_eq!(parse::<2>(body), Ok(()));
        assert_eq!(parse::<1>(body), Err(Failure::Garbled));
        assert_eq!(parse::<3>(body), Err(Failure::Garbled));
    }

    #[test]
    fn whatever_is_not_the_format_is_a_failure() {
        for body in ["", "<html>", "{}", r#"{"error":"ERR x"}"#, "[1]", "[{}]", r#"[{"result""#] {
            assert_eq!(parse::<1>(body), Err(Failure::Garbled), "{body}");
        }
    }

    #[test]
    fn an_entry_in_error_fails_the_batch_and_shows_its_kind_only() {
        let body = r#"[{"result":1},{"error":"ERR max requests limit exceeded. key sess:abc"}]"#;
        let failure = parse::<2>(body).err();
        assert_eq!(failure, Some(Failure::Refused("ERR".into())));
        assert_eq!(parse::<1>(r#"[{"error":"sess:abc"}]"#), Err(Failure::Refused("unnamed error".into())));
    }
}
