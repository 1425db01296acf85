//! Why an operation on a session or an account was not carried out.

use std::time::Duration;

use super::{change::ApplyError, rotate::MAX_ROTATIONS};
use crate::{
    host::Host,
    http::{Failed, Problem},
    id::Handle,
    limit::CountingStore,
    log::{self, Line},
    store::Failure,
};

/// Why an operation was not carried out. As small as it can be, as every `?` on its way moves it: what takes more room is
/// behind a pointer.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed: whether a write was made is not known.
    Store(Failure),
    /// The session has ended meanwhile.
    Ended,
    /// It is not known whether a write was made: what it was made to has ended meanwhile, or changed too often.
    Unknown,
    /// What is stored under this session's key cannot be read. It is left as it is.
    Unreadable(Box<UnreadableSession>),
    /// An account cannot be read. It is left as it is. Why: a sentence's end that names no data.
    UnreadableAccount(&'static str),
    /// Others kept changing the same thing until the deadline.
    Conflict,
    /// The username is taken.
    NameTaken,
    /// Who this is at a provider is tied to another account, or the account to somebody else there.
    AlreadyLinked,
    /// There is no such user, or the password is wrong.
    InvalidCredentials,
    /// The login was too long ago for this.
    NotFresh,
    /// The user has no account here.
    NoAccount,
    /// A condition of the request does not hold.
    PreconditionFailed(Failed),
    /// The change does not fit the data.
    NotApplicable(Box<ApplyError>),
    /// No session has this handle, or it is another user's.
    NotFound,
    /// Refused for another reason, as the caller is told: the session was rotated too often within a minute, or its format is
    /// another application's, which has nothing that this could be done with.
    Refused(Problem),
}

/// A session that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct UnreadableSession {
    /// Which.
    pub handle: Handle,
    /// Why. A sentence's end that names no data.
    pub why: &'static str,
}

impl Error {
    /// What is stored under this session's key cannot be read.
    pub(super) fn unreadable(handle: Handle, why: &'static str) -> Self {
        Self::Unreadable(Box::new(UnreadableSession { handle, why }))
    }

    /// The session was rotated too often within a minute. `wait`: until it may be again.
    pub(super) fn too_many_rotations(wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(1);
        let detail = format!(
            "the limit \"rotate\" of {MAX_ROTATIONS} rotations in 60 s is reached; try again in {seconds} s"
        );
        Self::Refused(Problem::rate_limited(detail, seconds))
    }

    /// The same, when part of the request was carried out already.
    pub(crate) fn after_a_change(self) -> Self {
        if self == Self::Ended { Self::Unknown } else { self }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        Self::PreconditionFailed(failed)
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        Self::NotApplicable(Box::new(error))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(failure) => Self::store_unavailable(failure),
            Error::Ended => Self::session_ended(),
            Error::Unknown => Self::store_unavailable(
                "it is not known whether a write was made, as its object has changed or ended since",
            ),
            Error::Unreadable(session) => {
                let UnreadableSession { handle, why } = *session;
                unreadable(&format!("session {handle}"), Some(handle), why)
            }
            Error::UnreadableAccount(why) => unreadable("an account", None, why),
            Error::Conflict => Self::conflict(
                "others kept changing this until the deadline, or it ended in the meantime; try again",
            ),
            Error::NameTaken => Self::conflict("this username is taken; choose another"),
            Error::AlreadyLinked => {
                Self::conflict("this is tied to another account already; untie it there first")
            }
            Error::InvalidCredentials => Self::invalid_credentials(),
            Error::NotFresh => Self::reauthenticate(),
            Error::NoAccount => Self::not_found("the user has no account here"),
            Error::PreconditionFailed(failed) => Self::precondition_failed(failed),
            Error::NotApplicable(error) => match *error {
                ApplyError::Unprocessable(detail) => Self::unprocessable(detail),
                ApplyError::TooLarge(detail) => Self::too_large(detail),
                ApplyError::Unreadable => unreadable("the data of a session or a profile", None, UNREADABLE),
            },
            Error::NotFound => Self::not_found("there is no session with this handle"),
            Error::Refused(problem) => problem,
        }
    }
}

/// Why what this Worker itself has written cannot be read.
pub(crate) const UNREADABLE: &str = "it is not JSON of this version";

fn unreadable(what: &str, handle: Option<Handle>, why: &str) -> Problem {
    let message = format!("{what} cannot be read: {why}; it was left as it is");
    let line = Line::new(log::Event::RecordUnreadable, message);
    let handle = handle.map(|handle| handle.to_string());
    Problem::internal("what is stored here cannot be read; it was left as it is")
        .logged(Line { handle, ..line })
}

/// How often an operation may lose the answer to a write: as long as it is not known what came of it, nobody can be told.
const MAX_LOST: u32 = 5;

/// The retries of one operation whose writes were not answered.
#[derive(Default)]
pub struct Retry {
    lost: u32,
}

impl Retry {
    /// Waits before the next attempt. Errors: a failure that leaves no doubt, or too many of the others.
    pub(crate) async fn after<H: Host>(
        &mut self,
        failure: Failure,
        store: &CountingStore<'_, H>,
    ) -> Result<(), Error> {
        self.lost += 1;
        if !failure.is_in_doubt() || self.lost > MAX_LOST {
            return Err(failure.into());
        }
        store.backoff(self.lost).await;
        Ok(())
    }
}
