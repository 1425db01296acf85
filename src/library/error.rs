//! What a handler's `?` passes on.

use std::{error, fmt};

use js_sys::Reflect;
use serde::{Deserialize, Serialize};

use super::ResponseHead;
use crate::{
    app::misconfigured,
    http::{Code, Problem, ProblemDetails, Response},
    json,
    log::{self, Line},
    session,
    store::Failure,
};

/// Why something was not done: a refusal or a failure of ours, with the answer for the client ready to return; or, inside of
/// [`Sessions::handle`](super::Sessions::handle), an error of the handler's own.
///
/// Displayed, it says what is wrong and what to do, without a secret, an id or session data.
pub struct Error(Box<Kind>);

enum Kind {
    Problem(Problem),
    /// A problem whose answer has its rate-limit fields and its cookies.
    Answered(Problem, Response),
    /// What is wrong with the configuration, a sentence each. For the operator, not for the client.
    Misconfigured(Vec<String>),
    Worker(worker::Error),
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl Error {
    pub(super) fn misconfigured(faults: Vec<String>) -> Self {
        Kind::Misconfigured(faults).into()
    }

    /// 500: the client learns nothing of a mistake in the handler, the log does.
    pub(super) fn mistake(what: impl Into<String>) -> Self {
        Problem::internal("something went wrong here")
            .logged(Line::new(log::Event::HandlerMistaken, what))
            .into()
    }

    pub(super) fn answered(problem: Problem, response: Response) -> Self {
        Kind::Answered(problem, response).into()
    }

    /// Which of the codes of docs/api.md it is; `None` for an error that is not ours.
    pub fn code(&self) -> Option<Code> {
        match &*self.0 {
            Kind::Problem(problem) | Kind::Answered(problem, _) => Some(problem.code),
            Kind::Misconfigured(_) => Some(Code::Misconfigured),
            Kind::Worker(_) => None,
        }
    }

    /// The answer for the client: problem details (RFC 9457) as JSON, with `Retry-After` for a 429. Errors: it is not ours.
    ///
    /// [`Session::respond`](super::Session::respond) and [`Session::refuse`](super::Session::refuse) add the rate-limit
    /// fields and the cookies.
    pub fn into_response<R: ResponseHead>(self) -> worker::Result<R> {
        match *self.0 {
            Kind::Problem(problem) => R::from_response(&Response::from(problem).uncacheable()),
            Kind::Answered(_, response) => R::from_response(&response),
            Kind::Misconfigured(_) => R::from_response(&misconfigured()),
            Kind::Worker(error) => Err(error),
        }
    }

    /// The problem, or the error that is not ours.
    pub(super) fn into_problem(self) -> Result<Problem, worker::Error> {
        match *self.0 {
            Kind::Problem(problem) | Kind::Answered(problem, _) => Ok(problem),
            Kind::Misconfigured(_) => Ok(Problem::misconfigured()),
            Kind::Worker(error) => Err(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Problem(problem) | Kind::Answered(problem, _) => f.write_str(&problem.detail),
            Kind::Misconfigured(faults) => {
                f.write_str("the configuration is faulty:")?;
                faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
            }
            Kind::Worker(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Problem(problem) | Kind::Answered(problem, _) => problem.fmt(f),
            Kind::Misconfigured(faults) => f.debug_tuple("Misconfigured").field(faults).finish(),
            Kind::Worker(error) => error.fmt(f),
        }
    }
}

impl error::Error for Error {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Kind::Problem(problem).into()
    }
}

impl From<session::Error> for Error {
    fn from(error: session::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Problem::store_unavailable(failure).into()
    }
}

/// A problem on its way through JavaScript: what `worker`'s errors are made of.
#[derive(Serialize, Deserialize)]
struct PassedOn {
    code: Code,
    detail: String,
    header: Option<(String, String)>,
    log: Option<PassedOnLine>,
    session_ended: bool,
}

/// A line that is logged when the problem is answered: what is known of it before.
#[derive(Serialize, Deserialize)]
struct PassedOnLine {
    event: log::Event,
    message: String,
    handle: Option<String>,
}

/// The headers that a problem of a handler's may have.
const HEADERS: [&str; 2] = ["Retry-After", "WWW-Authenticate"];

/// The property of a JavaScript error that holds it, as JSON.
const PROBLEM: &str = "cloakroomProblem";

/// Recognises a problem of ours that a function with `worker::Result` has passed on.
impl From<worker::Error> for Error {
    fn from(error: worker::Error) -> Self {
        let worker::Error::UnknownJsError { original, .. } = &error else {
            return Kind::Worker(error).into();
        };
        let json = Reflect::get(original, &PROBLEM.into()).ok().and_then(|json| json.as_string());
        let Some(passed_on) = json.and_then(|json| serde_json::from_str(&json).ok()) else {
            return Kind::Worker(error).into();
        };
        let PassedOn { code, detail, header, log, session_ended } = passed_on;
        let header = header.and_then(|(name, value)| {
            HEADERS.into_iter().find(|known| *known == name).map(|name| (name, value.into()))
        });
        let problem = match code {
            // Its faults are for the operator.
            Code::Misconfigured => Problem::misconfigured(),
            _ => {
                let log = log.map(|PassedOnLine { event, message, handle }| {
                    Box::new(Line { handle, ..Line::new(event, message) })
                });
                ProblemDetails { code, detail: detail.into(), header, log, session_ended }.into()
            }
        };
        problem.into()
    }
}

/// So that `?` works in a function with `worker::Result`. Its text is for the log.
impl From<Error> for worker::Error {
    fn from(error: Error) -> Self {
        // With `respond_with_errors` the text is what the client sees; the faults are logged already.
        let text = match error.code() {
            Some(Code::Misconfigured) => Problem::misconfigured().detail.to_string(),
            _ => error.to_string(),
        };
        let problem = match error.into_problem() {
            Ok(problem) => problem,
            Err(error) => return error,
        };
        let ProblemDetails { code, detail, header, log, session_ended } = problem.into_details();
        let header = header.map(|(name, value)| (name.to_owned(), value.into_owned()));
        let log = log.map(|line| {
            let Line { event, message, handle, .. } = *line;
            PassedOnLine { event, message, handle }
        });
        let passed_on = PassedOn { code, detail: detail.into(), header, log, session_ended };
        let error = js_sys::Error::new(&text);
        // A new object refuses no property.
        drop(Reflect::set(&error, &PROBLEM.into(), &json::to_string(&passed_on).into()));
        error.into()
    }
}
