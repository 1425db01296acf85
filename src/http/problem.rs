//! Errors as callers see them: RFC 9457 problem details.

use std::{borrow::Cow, ops::Deref};

use serde::{Deserialize, Serialize};

use super::{Failed, Response};
use crate::log::{self, Line};

/// The codes of docs/api.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/api.md documents them")]
pub enum Code {
    BadRequest,
    Unauthenticated,
    InvalidCredentials,
    CrossSite,
    Reauthenticate,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    Unprocessable,
    RateLimited,
    Internal,
    Misconfigured,
    StoreUnavailable,
    ProviderUnavailable,
    BadGateway,
    #[serde(rename(serialize = "bad_gateway"))]
    GatewayTimeout,
}

impl Code {
    /// Whether something failed here: what the request asked for may be fine.
    pub fn is_failure(self) -> bool {
        self.status().0 >= 500
    }

    pub(crate) fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthenticated | Self::InvalidCredentials => (401, "Unauthorized"),
            Self::CrossSite | Self::Reauthenticate | Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::Conflict => (409, "Conflict"),
            Self::PreconditionFailed => (412, "Precondition Failed"),
            Self::TooLarge => (413, "Content Too Large"),
            Self::UnsupportedMediaType => (415, "Unsupported Media Type"),
            Self::Unprocessable => (422, "Unprocessable Content"),
            Self::RateLimited => (429, "Too Many Requests"),
            Self::Internal | Self::Misconfigured => (500, "Internal Server Error"),
            Self::StoreUnavailable | Self::ProviderUnavailable => (503, "Service Unavailable"),
            Self::BadGateway => (502, "Bad Gateway"),
            Self::GatewayTimeout => (504, "Gateway Timeout"),
        }
    }
}

/// A refusal or a failure. It is as small as a pointer: every `?` on its way to the answer moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<ProblemDetails>);

/// What the caller is told of a [`Problem`], and what the operator's log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemDetails {
    /// Which.
    pub code: Code,
    /// What is wrong and what to do, for people. Never holds a secret, a key, an id or a command.
    pub detail: Cow<'static, str>,
    /// A header that goes with it.
    pub header: Option<(&'static str, Cow<'static, str>)>,
    /// A line for the operator.
    pub log: Option<Box<Line>>,
    /// Whether the session that the request came with is known to have ended.
    pub session_ended: bool,
}

type Detail = Cow<'static, str>;

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<Detail>) -> Self {
        let detail = detail.into();
        Self(Box::new(ProblemDetails { code, detail, header: None, log: None, session_ended: false }))
    }

    /// The same with a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.0.header = Some((name, value.into()));
        self
    }

    /// The same with other words.
    pub(crate) fn with_detail(mut self, detail: impl Into<Detail>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// The same with a line for the operator's log.
    pub fn logged(mut self, line: Line) -> Self {
        self.0.log = Some(Box::new(line));
        self
    }

    /// What it says, to take it apart.
    pub fn into_details(self) -> ProblemDetails {
        *self.0
    }

    /// 400: the request is wrong in itself.
    pub fn bad_request(detail: impl Into<Detail>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// 401: the route needs a session, a logged-in one, or the admin token.
    pub fn unauthenticated(detail: impl Into<Detail>) -> Self {
        Self::new(Code::Unauthenticated, detail).with_header("WWW-Authenticate", "Bearer")
    }

    /// 401, because the session that the request came with has ended.
    pub fn session_ended() -> Self {
        let mut problem = Self::no_session();
        problem.0.session_ended = true;
        problem
    }

    /// 401: the route needs a session.
    pub fn no_session() -> Self {
        Self::unauthenticated("there is no session, or it has ended")
    }

    /// 401: the username or the password is wrong.
    pub fn invalid_credentials() -> Self {
        Self::new(Code::InvalidCredentials, "the username or the password is wrong")
    }

    /// 401: the token of a reset opens nothing.
    pub fn invalid_reset() -> Self {
        let detail = "this token is no good, was used, or has expired: ask for another reset";
        Self::new(Code::InvalidCredentials, detail)
    }

    /// 403: the request was made by a page of another site.
    pub fn cross_site(detail: impl Into<Detail>) -> Self {
        Self::new(Code::CrossSite, detail)
    }

    /// 403: the login was too long ago.
    pub fn reauthenticate() -> Self {
        let detail =
            "this needs a recent login: POST the password to reauthenticate, then repeat the request";
        Self::new(Code::Reauthenticate, detail)
    }

    /// 403: the user does not have the role.
    pub fn forbidden() -> Self {
        Self::new(Code::Forbidden, "the user does not have this role")
    }

    /// 404.
    pub fn not_found(detail: impl Into<Detail>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// 405, with the methods that are allowed, and perhaps what to do instead.
    pub fn method_not_allowed(method: &str, allowed: String, hint: Option<String>) -> Self {
        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
        let detail = format!("{method} is not allowed here; allowed: {allowed}{hint}");
        Self::new(Code::MethodNotAllowed, detail).with_header("Allow", allowed)
    }

    /// 409.
    pub fn conflict(detail: impl Into<Detail>) -> Self {
        Self::new(Code::Conflict, detail)
    }

    /// 412.
    pub fn precondition_failed(failed: Failed) -> Self {
        Self::new(Code::PreconditionFailed, failed.to_string())
    }

    /// 413.
    pub fn too_large(detail: impl Into<Detail>) -> Self {
        Self::new(Code::TooLarge, detail)
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<Detail>) -> Self {
        Self::new(Code::UnsupportedMediaType, detail)
    }

    /// 422: right in itself, and not possible here.
    pub fn unprocessable(detail: impl Into<Detail>) -> Self {
        Self::new(Code::Unprocessable, detail)
    }

    /// 429. `seconds`: until a request can succeed.
    pub fn rate_limited(detail: impl Into<Detail>, seconds: u64) -> Self {
        Self::new(Code::RateLimited, detail).with_header("Retry-After", seconds.to_string())
    }

    /// 500: what is stored cannot be read, or a mistake of ours.
    pub fn internal(detail: impl Into<Detail>) -> Self {
        Self::new(Code::Internal, detail)
    }

    /// 500: the configuration is wrong.
    pub fn misconfigured() -> Self {
        Self::new(Code::Misconfigured, "this Worker's configuration is wrong; its log says what to change")
    }

    /// 502: the origin behind the gateway cannot be reached.
    pub fn bad_gateway() -> Self {
        Self::new(Code::BadGateway, "the application behind this address cannot be reached; try again")
    }

    /// 502: the origin's answer asks for something that cannot be carried out. What that is, is for the log.
    pub fn bad_answer() -> Self {
        Self::new(
            Code::BadGateway,
            "the application behind this address has answered with something that cannot be carried out; the log of its \
             gateway says what",
        )
    }

    /// 504: the origin does not answer in time.
    pub fn gateway_timeout() -> Self {
        Self::new(
            Code::GatewayTimeout,
            "the application behind this address did not answer in time; try again",
        )
    }

    /// 503: a provider that users log in with is down. `failure` goes into the log.
    pub(crate) fn provider_unavailable(failure: String) -> Self {
        let detail = "the provider's keys could not be had; send this again later";
        Self::new(Code::ProviderUnavailable, detail)
            .with_header("Retry-After", "10")
            .logged(Line::new(log::Event::ProviderFailed, failure))
    }

    /// 503: the store did not answer, or answered with an error. `failure` goes into the log.
    pub fn store_unavailable(failure: impl std::fmt::Display) -> Self {
        Self::new(Code::StoreUnavailable, "the session store did not answer as expected; try again")
            .with_header("Retry-After", "1")
            .logged(Line::new(log::Event::StoreFailed, format!("the store failed: {failure}")))
    }
}

impl Deref for Problem {
    type Target = ProblemDetails;

    fn deref(&self) -> &ProblemDetails {
        &self.0
    }
}

impl From<ProblemDetails> for Problem {
    fn from(details: ProblemDetails) -> Self {
        Self(Box::new(details))
    }
}

/// RFC 9457 section 3.1, and `code`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Problem"))]
pub(crate) struct Body<'a> {
    #[cfg_attr(test, schemars(extend("const" = "about:blank")))]
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[cfg_attr(test, schemars(with = "String"))] // which, each answer says
    code: Code,
    /// The same for a client of OAuth 2.0 (RFC 6749 section 5.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    error: Option<&'a str>,
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.answer(None)
    }
}

impl Problem {
    /// The answer, with the `error` that a client of OAuth 2.0 looks for (RFC 6749 section 5.2).
    pub(crate) fn answer_to_client(self, error: &str) -> Response {
        self.answer(Some(error))
    }

    fn answer(self, error: Option<&str>) -> Response {
        let ProblemDetails { code, detail, header, .. } = self.into_details();
        let (status, title) = code.status();
        let body = Body { r#type: "about:blank", title, status, detail: &detail, code, error };
        let mut response = Response::json(&body).status(status).media_type("application/problem+json");
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_answered_as_problem_json() {
        let response = Response::from(Problem::rate_limited("too many requests", 7));
        assert_eq!(response.status, 429);
        assert_eq!(
            response.body,
            r#"{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"too many requests","code":"rate_limited"}"#
        );
        let headers = [("Content-Type", "application/problem+json"), ("Retry-After", "7")];
        assert_eq!(response.headers, headers.map(|(name, value)| (name, value.into())));
    }
}
