//! The store: batches of commands and their replies, in Upstash's REST format.
//!
//! One law: *not found is a reply, broken is an error*. A [`Failure`] says that nothing is known; it is never read as
//! "no session".

mod batch;
#[cfg(test)]
pub(crate) mod fake;
mod known_error;
mod reply;
mod script;

use std::{
    cell::{Cell, RefCell},
    fmt,
    time::Duration,
};

pub(crate) use self::script::sha1;
pub use self::{batch::Batch, known_error::KnownError, reply::Reply, script::Script};
use crate::{
    host::{Call, Host, Unreachable, random},
    time::Time,
};

/// How often a batch that only reads is sent at most.
const MAX_ATTEMPTS: u32 = 3;

/// The replies of a batch, one for each command.
pub type Replies = Vec<Result<Reply, Failure>>;

/// The store failed. What a command did before the failure is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer came: refused, broken off, or too late.
    Unreachable,
    /// An HTTP status other than 200, and the error that came with it, if it can be read.
    Status(u16, Option<KnownError>),
    /// An answer of status 200 in another format.
    Garbled,
    /// The batch or a command of it was answered with an error.
    Refused(KnownError),
    /// The request is over a rate limit: the store was not asked, or its replies are withheld.
    RateLimited,
    /// The request could not be counted in its rate limits: the batch was not sent.
    NotCounted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no answer (refused, broken off, or over store.timeout)"),
            Self::Status(status, Some(error)) if error.is_specific() => write!(f, "status {status}, {error}"),
            Self::Status(status, _) => match status {
                401 | 403 => write!(f, "status {status}: check UPSTASH_REDIS_REST_TOKEN"),
                300..=399 | 404 | 405 => write!(f, "status {status}: check UPSTASH_REDIS_REST_URL"),
                _ => write!(f, "status {status}"),
            },
            Self::Garbled => {
                f.write_str("an answer that is not Upstash's format; check UPSTASH_REDIS_REST_URL")
            }
            Self::Refused(error) => write!(f, "a command was refused, {error}"),
            Self::RateLimited => f.write_str("the request is over a rate limit"),
            Self::NotCounted => f.write_str("no answer that counts the request in its rate limits"),
        }
    }
}

impl Failure {
    /// Whether a write may have been made all the same.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Garbled | Self::Status(500.., _))
    }

    /// Whether the same may succeed without a script.
    pub(crate) fn may_concern_scripts(&self) -> bool {
        matches!(self, Self::Refused(error) if error.may_concern_scripts())
    }

    /// Whether the same batch may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Status(429 | 500.., error) => {
                error.is_none_or(|error| error.is_transient() || !error.is_specific())
            }
            _ => false,
        }
    }
}

/// The store, as one request sees it: later calls read what earlier ones wrote.
pub struct Store<'a, H> {
    host: &'a H,
    /// How long one batch may take, with its retries.
    timeout: Duration,
    sync_token: RefCell<String>,
    has_written: Cell<bool>,
}

impl<'a, H: Host> Store<'a, H> {
    /// The store behind `host`. A batch is answered within `timeout`, or has failed. `sync_token`: from an earlier
    /// answer to this visitor; empty if there is none.
    pub fn new(host: &'a H, timeout: Duration, sync_token: String) -> Self {
        Self { host, timeout, sync_token: RefCell::new(sync_token), has_written: Cell::new(false) }
    }

    /// The token by which a later request reads what this one wrote; `None` if it wrote nothing, or if it was taken.
    pub fn take_sync_token(&self) -> Option<String> {
        self.has_written.take().then(|| self.sync_token.borrow().clone())
    }

    /// The token by which a request reads what this one has read and written.
    pub fn sync_token(&self) -> String {
        self.sync_token.borrow().clone()
    }

    /// Another request has written on this one's behalf: what it wrote is read by this token.
    pub fn has_written(&self, sync_token: &str) {
        sync_token.clone_into(&mut self.sync_token.borrow_mut());
        self.has_written.set(true);
    }

    /// The time now.
    pub fn now(&self) -> Time {
        self.host.now()
    }

    /// When a batch that is sent now has failed if it was not answered.
    pub fn deadline(&self) -> Time {
        self.now() + self.timeout
    }

    /// Sends the batch, in one call. Errors: no answer, or one of the replies is an error.
    pub async fn run_all(&self, batch: Batch<'_>) -> Result<Vec<Reply>, Failure> {
        self.send(&batch, self.deadline()).await?.into_iter().collect()
    }

    /// Sends the batch, in one call: one reply for each command, of which some may be errors. A batch that only reads is
    /// repeated, up to three times in all, after a transient failure and while there is time.
    pub async fn send(&self, batch: &Batch<'_>, deadline: Time) -> Result<Replies, Failure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let outcome = self.send_once(batch, deadline - self.host.now()).await;
            let Err(failure) = &outcome else { return outcome };
            if !batch.is_repeatable() || !failure.is_transient() || attempts == MAX_ATTEMPTS {
                return outcome;
            }
            self.backoff(attempts).await;
            if self.host.now() >= deadline {
                return outcome;
            }
        }
    }

    /// Waits a short random time, longer with every attempt, so that clients that failed together do not return
    /// together.
    pub async fn backoff(&self, attempts: u32) {
        let [jitter] = random(self.host);
        self.host.sleep(Duration::from_millis(5 + u64::from(jitter) / 8) * attempts).await;
    }

    async fn send_once(&self, batch: &Batch<'_>, timeout: Duration) -> Result<Replies, Failure> {
        let sync_token = self.sync_token.borrow().clone();
        let body = serde_json::to_string(batch).map_err(|_| Failure::Garbled)?;
        let call = Call { path: batch.path(), body, is_base64: batch.is_binary(), sync_token, timeout };
        let answer = self.host.send(call).await.map_err(|Unreachable| Failure::Unreachable)?;
        if answer.status != 200 {
            return Err(Failure::Status(answer.status, reply::parse_error(&answer.body)));
        }
        self.sync_token.replace(answer.sync_token);
        self.has_written.set(self.has_written.get() || batch.writes());
        let mut replies = reply::parse(&answer.body)?;
        if batch.is_binary() {
            replies = replies.into_iter().map(|reply| reply.and_then(Reply::decoded)).collect();
        }
        if replies.len() == batch.len() { Ok(replies) } else { Err(Failure::Garbled) }
    }
}
