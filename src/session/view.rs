//! A session as callers see it.

use super::{Kept, Lifetimes, Record, Session, User};
use crate::{
    id::Handle,
    json::{self, Object},
    time::Time,
};

/// The public form of no session.
pub const NO_SESSION: &str = r#"{"session":null}"#;

fn view(handle: Handle, record: &Record, idle_expires_at: Time) -> Object {
    let authenticated_at = record.authenticated_at.map(|time| json::quoted(&time.rfc3339()));
    let mut view = Object::of_about(record.data.get().len() + 512);
    view.text("handle", &handle.to_string())
        .json("user", record.user.as_ref().map(User::to_json).as_deref().unwrap_or("null"))
        .json("data", record.data.get())
        .text("created_at", &record.created_at.rfc3339())
        .json("authenticated_at", authenticated_at.as_deref().unwrap_or("null"))
        .text("expires_at", &record.expires_at.rfc3339())
        .text("idle_expires_at", &idle_expires_at.rfc3339())
        .print("remember", record.remember);
    view
}

impl Session {
    /// `{"session": {…}}`, with `set_cookie` beside it when the caller is to pass the cookie on.
    pub fn to_json(&self, lifetimes: &Lifetimes, set_cookie: Option<&str>) -> String {
        let session = view(self.ticket.id.handle(), &self.record, lifetimes.idle_end(&self.ticket)).end();
        let mut body = Object::of_about(session.len() + 16);
        body.json("session", &session);
        if let Some(set_cookie) = set_cookie {
            body.text("set_cookie", set_cookie);
        }
        body.end()
    }
}

impl Kept {
    /// `{"session": {…}}`, with what the store says of it.
    pub fn to_json(&self, now: Time) -> String {
        let session = view(self.handle, &self.record, Time(now.0.saturating_add(self.ttl_ms)))
            .print("ttl_seconds", self.ttl_ms / 1000)
            .print("stored_bytes", self.stored.len())
            .end();
        Object::default().json("session", &session).end()
    }
}
