//! The store: batches of commands and their replies, in Upstash's REST format.
//!
//! It keeps one law: *absent is a reply, broken is an error*. A [`Failure`] says that nothing is known; it is
//! never read as "no session".

mod batch;
mod reply;

use std::{
    cell::{Cell, RefCell},
    fmt,
    time::Duration,
};

pub use self::{batch::Batch, reply::Reply};
use crate::{
    host::{Call, Host, Unreachable, random},
    time::Time,
};

/// How often a batch that only reads is sent at the most.
const MAX_TRIES: u32 = 3;

/// The store failed. What a command did before the failure is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer came: refused, cut off, or too late.
    Unreachable,
    /// An answer, but not of a working store (an HTTP status other than 200).
    Status(u16),
    /// An answer of status 200 that is not what was asked for.
    Garbled,
    /// A command was answered with an error, of which this is the kind (`ERR`, `WRONGTYPE`, …).
    Refused(&'static str),
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

impl Failure {
    /// Whether a write may have been made all the same.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Garbled | Self::Status(500..))
    }

    /// Whether the same again may go well a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Status(429 | 500..))
    }
}

/// The store, as one request sees it: later calls read what earlier ones wrote.
pub struct Store<'a, H> {
    host: &'a H,
    /// How long one batch may take, repetitions included.
    timeout: Duration,
    sync_token: RefCell<String>,
    has_written: Cell<bool>,
}

impl<'a, H: Host> Store<'a, H> {
    /// The store behind `host`, which answers a batch within `timeout` or has failed. `sync_token` is of an earlier
    /// answer to this visitor; empty if there is none.
    pub fn new(host: &'a H, timeout: Duration, sync_token: String) -> Self {
        Self { host, timeout, sync_token: RefCell::new(sync_token), has_written: Cell::new(false) }
    }

    /// The token by which a later request sees what this one has written; `None` when it has written nothing.
    pub fn written(&self) -> Option<String> {
        self.has_written.get().then(|| self.sync_token.borrow().clone())
    }

    /// Sends the batch, in one call: so many replies as there are commands, none of them an error. A batch that only
    /// reads is repeated, twice at the most, when the failure may pass and there is time left.
    pub async fn run<const N: usize>(&self, batch: Batch) -> Result<[Reply; N], Failure> {
        self.run_all(batch).await?.try_into().map_err(|_| Failure::Garbled)
    }

    /// The same for a batch whose length is known to the caller alone.
    pub async fn run_all(&self, batch: Batch) -> Result<Vec<Reply>, Failure> {
        let replies = self.run_each(batch, self.deadline()).await?;
        replies.into_iter().collect()
    }

    /// The same, but some replies may be errors.
    pub async fn run_each(
        &self,
        batch: Batch,
        deadline: Time,
    ) -> Result<Vec<Result<Reply, Failure>>, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.send(&batch, deadline - self.host.now()).await;
            let Err(failure) = &outcome else { return outcome };
            if !batch.is_repeatable() || !failure.is_passing() || tries == MAX_TRIES {
                return outcome;
            }
            self.pause(tries).await;
            if self.host.now() >= deadline {
                return outcome;
            }
        }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        self.host.now()
    }

    /// Until when a batch sent now is answered, or has failed.
    pub fn deadline(&self) -> Time {
        self.now() + self.timeout
    }

    /// A short time of no fixed length, longer with every try, so that those who failed together don't come
    /// again together.
    pub async fn pause(&self, tries: u32) {
        let [jitter] = random(self.host);
        self.host.sleep(Duration::from_millis(5 + u64::from(jitter) / 8) * tries).await;
    }

    async fn send(&self, batch: &Batch, timeout: Duration) -> Result<Vec<Result<Reply, Failure>>, Failure> {
        let sync_token = self.sync_token.borrow().clone();
        let call = Call { path: batch.path(), body: batch.to_json(), sync_token, timeout };
        let answer = self.host.send(call).await.map_err(|Unreachable| Failure::Unreachable)?;
        if answer.status != 200 {
            return Err(Failure::Status(answer.status));
        }
        self.sync_token.replace(answer.sync_token);
        self.has_written.set(self.has_written.get() || batch.writes());
        let replies = reply::parse(&answer.body)?;
        if replies.len() == batch.length() { Ok(replies) } else { Err(Failure::Garbled) }
    }
}
