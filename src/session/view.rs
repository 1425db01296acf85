//! A session as callers see it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Kept, Lifetimes, Record, Session, User, to_json};
use crate::{id::Handle, time::Time};

/// The public form of no session.
pub const NO_SESSION: &str = r#"{"session":null}"#;

#[derive(Serialize)]
struct Body<'a> {
    session: View<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_cookie: Option<&'a str>,
}

#[derive(Serialize)]
struct View<'a> {
    handle: &'a Handle,
    user: Option<&'a User>,
    data: &'a RawValue,
    #[serde(serialize_with = "Time::as_rfc3339")]
    created_at: Time,
    #[serde(serialize_with = "optional_rfc3339")]
    authenticated_at: Option<Time>,
    #[serde(serialize_with = "Time::as_rfc3339")]
    expires_at: Time,
    #[serde(serialize_with = "Time::as_rfc3339")]
    idle_expires_at: Time,
    remember: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<usize>,
}

impl<'a> View<'a> {
    fn new(handle: &'a Handle, record: &'a Record, idle_expires_at: Time) -> Self {
        Self {
            handle,
            user: record.user.as_ref(),
            data: &record.data,
            created_at: record.created_at,
            authenticated_at: record.authenticated_at,
            expires_at: record.expires_at,
            idle_expires_at,
            remember: record.remember,
            ttl_seconds: None,
            stored_bytes: None,
        }
    }
}

impl Session {
    /// `{"session": {…}}`, with `set_cookie` beside it when the caller is to pass the cookie on.
    pub fn to_json(&self, lifetimes: &Lifetimes, set_cookie: Option<&str>) -> String {
        let handle = self.ticket.id.handle();
        let session = View::new(&handle, &self.record, lifetimes.idle_end(&self.ticket));
        to_json(&Body { session, set_cookie })
    }
}

impl Kept {
    /// `{"session": {…}}`, with what the store says of it.
    pub fn to_json(&self, now: Time) -> String {
        let session = View {
            ttl_seconds: Some(self.ttl_ms / 1000),
            stored_bytes: Some(self.stored.len()),
            ..View::new(&self.handle, &self.record, Time(now.0.saturating_add(self.ttl_ms)))
        };
        to_json(&Body { session, set_cookie: None })
    }
}

#[allow(clippy::ref_option, reason = "the signature serde asks for")]
fn optional_rfc3339<S: serde::Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => time.as_rfc3339(serializer),
        None => serializer.serialize_none(),
    }
}
