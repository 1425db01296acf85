//! Errors as callers see them: RFC 9457 problem details.

use super::Response;
use crate::json::Object;

/// The codes of CONTRACT.md's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the table documents them")]
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
    Misconfigured,
    StoreUnavailable,
}

impl Code {
    fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad_request", "Bad Request"),
            Self::Unauthenticated => (401, "unauthenticated", "Unauthorized"),
            Self::InvalidCredentials => (401, "invalid_credentials", "Unauthorized"),
            Self::Reauthenticate => (403, "reauthenticate", "Forbidden"),
            Self::Forbidden => (403, "forbidden", "Forbidden"),
            Self::CrossSite => (403, "cross_site", "Forbidden"),
            Self::NotFound => (404, "not_found", "Not Found"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method Not Allowed"),
            Self::Conflict => (409, "conflict", "Conflict"),
            Self::PreconditionFailed => (412, "precondition_failed", "Precondition Failed"),
            Self::TooLarge => (413, "too_large", "Content Too Large"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "Unsupported Media Type"),
            Self::Unprocessable => (422, "unprocessable", "Unprocessable Content"),
            Self::RateLimited => (429, "rate_limited", "Too Many Requests"),
            Self::Misconfigured => (500, "misconfigured", "Internal Server Error"),
            Self::StoreUnavailable => (503, "store_unavailable", "Service Unavailable"),
        }
    }
}

/// A refusal or a failure, on its way to the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub code: Code,
    /// What is wrong and what to do, for people. Never holds a secret, a key, an id or a command.
    pub detail: String,
    /// A header that goes with it.
    pub header: Option<(&'static str, String)>,
}

impl Problem {
    /// A problem without a header of its own.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), header: None }
    }

    /// The same with a header.
    pub fn with_header(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let (status, code, title) = problem.code.row();
        let body = Object::default()
            .text("type", "about:blank")
            .text("title", title)
            .print("status", status)
            .text("detail", &problem.detail)
            .text("code", code)
            .end();
        let mut response = Self::new(status).body("application/problem+json", body);
        if let Some((name, value)) = problem.header {
            response = response.header(name, value);
        }
        response
    }
}
