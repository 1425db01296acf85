//! What stands beside a record, in a key of ours: `foreign:<handle>`, JSON. While the session lives
//! `{"v":1,"sid":"…","created_at":…,"login":{"user":{…},"at":…}}`, and once its id has ended
//! `{"v":1,"ended_at":…,"by":"<handle>","next":"…"}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    foreign::Format,
    id::Handle,
    json::{self, Version},
    session::User,
    store::Batch,
    time::Time,
};

/// How much longer than a record is kept what stands beside it.
pub(super) const MARGIN: Duration = Duration::from_secs(3600);

/// Longer than a request of the application's is under way, which may write back a record that is gone already.
pub(in super::super) const UNDER_WAY: Duration = Duration::from_secs(15 * 60);

/// Of a session that lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Companion {
    pub(super) v: Version,
    /// The session's id: a handle alone does not lead to its record.
    pub(super) sid: String,
    /// When the session began here, or was first seen.
    pub(super) created_at: Time,
    /// Who has logged in here, and when the password was last given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<Login>,
    /// When it was rotated within the last minute, if it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rotations: Vec<Time>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Login {
    pub(super) user: User,
    pub(super) at: Time,
}

/// Of an id that has ended, for as long as the application may write its record back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) v: Version,
    pub(super) ended_at: Time,
    /// The handle of the session that took its place: evidence for whoever wrote that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<Handle>,
    /// The id that the same session has now, so that a logout that was under way ends it. It lets nobody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// What stands beside a record.
pub(super) enum Beside {
    /// Nothing: nobody has seen the session here yet.
    Nothing,
    Companion(Companion),
    Ended(Ended),
}

impl Beside {
    /// `None` if it cannot be read.
    pub(super) fn parse(stored: Option<&[u8]>) -> Option<Self> {
        let Some(stored) = stored else { return Some(Self::Nothing) };
        let stored = std::str::from_utf8(stored).ok()?;
        serde_json::from_str(stored)
            .map(Self::Ended)
            .or_else(|_| serde_json::from_str(stored).map(Self::Companion))
            .ok()
    }
}

impl Ended {
    /// The stored form of an id that ends now.
    pub(super) fn now(now: Time, by: Option<Handle>, next: Option<String>) -> String {
        json::to_string(&Self { v: Version, ended_at: now, by, next })
    }
}

impl Companion {
    pub(super) fn to_json(&self) -> String {
        json::to_string(self)
    }
}

/// A batch that reads records, or what stands beside them: as bytes where the format has those.
pub(in super::super) fn as_bytes<'a>(format: &Format, batch: Batch<'a>) -> Batch<'a> {
    if format.is_binary() { batch.binary() } else { batch }
}
