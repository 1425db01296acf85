//! A session as callers see it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Lifetimes, Record, Session, StoredSession, User};
use crate::{
    http::Response,
    id::Handle,
    time::{Time, as_rfc3339},
};

/// `{"session": …}`, with `set_cookie` beside it if the caller is to pass cookies on.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Body<'a> {
    session: Option<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_cookie: Option<&'a [String]>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct View<'a> {
    handle: Handle,
    user: Option<&'a User>,
    #[cfg_attr(test, schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    data: &'a RawValue,
    #[serde(serialize_with = "as_rfc3339")]
    created_at: Time,
    authenticated_at: Option<Rfc3339>,
    #[serde(serialize_with = "as_rfc3339")]
    expires_at: Time,
    #[serde(serialize_with = "as_rfc3339")]
    idle_expires_at: Time,
    remember: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<usize>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
struct Rfc3339(#[serde(serialize_with = "as_rfc3339")] Time);

impl<'a> View<'a> {
    fn new(handle: Handle, record: &'a Record, idle_expires_at: Time) -> Self {
        Self {
            handle,
            user: record.user.as_ref(),
            data: &record.data,
            created_at: record.created_at,
            authenticated_at: record.authenticated_at.map(Rfc3339),
            expires_at: record.expires_at,
            idle_expires_at,
            remember: record.remember,
            ttl_seconds: None,
            stored_bytes: None,
        }
    }
}

/// The answer to a request without a session.
pub fn no_session() -> Response {
    Response::json(&Body { session: None, set_cookie: None })
}

impl Session {
    /// The answer that shows the session, with its ETag.
    pub fn response(&self, lifetimes: &Lifetimes) -> Response {
        Response::json(&self.body(lifetimes, None)).header("ETag", self.etag())
    }

    /// The answer to a back end that is to pass these `Set-Cookie` lines on.
    pub fn response_with_cookies(&self, lifetimes: &Lifetimes, set_cookie: &[String]) -> Response {
        Response::json(&self.body(lifetimes, Some(set_cookie)))
    }

    fn body<'a>(&'a self, lifetimes: &Lifetimes, set_cookie: Option<&'a [String]>) -> Body<'a> {
        let view = View::new(self.ticket.id.handle(), &self.record, lifetimes.idle_end(&self.ticket));
        Body { session: Some(view), set_cookie }
    }
}

impl StoredSession {
    /// The answer that shows the session, with what the store says of it.
    pub fn response(&self, now: Time) -> Response {
        let view = View {
            ttl_seconds: Some(self.ttl_ms / 1000),
            stored_bytes: Some(self.stored_bytes),
            ..View::new(self.handle, &self.record, Time(now.0.saturating_add(self.ttl_ms)))
        };
        Response::json(&Body { session: Some(view), set_cookie: None })
    }
}
