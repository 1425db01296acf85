//! What the store keeps under a session's key, as JSON.
//!
//! A session: `{"v":1,"rev":"…","before":[],"user":null,"data":{…},"created_at":…,"authenticated_at":null,"rotated_at":…,
//! "expires_at":…,"remember":false,"family":"…","generation":0}` (times in milliseconds). In the place of a session that was
//! rotated is the redirect to its successor: `{"v":1,"moved":{"nonce":"…","to":"…","until":…,"from":["…",0]}}`, and for a
//! moment in the place of one that another session has replaced a note that names it. None of these lets anyone in.
//!
//! Unknown members are ignored, so that while a newer version is rolled out, or after it was rolled back, its records can
//! be read. A change that must not be ignored gets another `v`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Device, User, UserState, family::GRACE};
use crate::{
    id::{Family, Generation, Handle, Nonce, next_generation},
    json::{self, Version},
    ticket::Ticket,
    time::{self, Time},
};

/// The stored session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub(super) v: Version,
    /// The name of this state; see `mod revision`.
    #[serde(rename = "rev")]
    pub revision: Nonce,
    /// The names of the states before it, the latest first.
    #[serde(rename = "before", default)]
    pub previous_revisions: Vec<Nonce>,
    /// Who is logged in; `None` for an anonymous session.
    pub user: Option<User>,
    /// The application's data: always a JSON object. Kept as text, as most requests only pass it on.
    pub data: Box<RawValue>,
    /// When the session began.
    pub created_at: Time,
    /// When the password was last given.
    pub authenticated_at: Option<Time>,
    /// When the session got its current id.
    pub rotated_at: Time,
    /// When it was rotated within the last minute, if it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Time>,
    /// The absolute end.
    pub expires_at: Time,
    /// Whether it is a "remember me" session.
    pub remember: bool,
    /// The user's revocation marks (random names of revocations of all sessions, see [`UserState`]) that this session
    /// survives: the one its login began under, and those it was kept through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Nonce>,
    /// Where the login came from.
    #[serde(default, skip_serializing_if = "Device::is_unknown")]
    pub device: Device,
    /// The name of the session at the provider that it began with: when that ends, it ends. Shown to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) provider_session: Option<String>,
    /// The family of its ids.
    pub family: Family,
    /// The position of its current id in the family.
    pub generation: Generation,
}

/// Names of states. Every write of user, data or login time gives the state a new random name, and keeps the names of
/// those just before. From them a writer whose answer was lost finds out whether its write was made.
pub(crate) mod revision {
    use crate::id::Nonce;

    /// After more changes than this the fate of a write is unknown.
    const KEPT: usize = 4;

    /// Whether the state `newest` is that of this name, or one of those that followed it.
    pub(crate) fn is_included(name: &Nonce, newest: Nonce, previous: &[Nonce]) -> bool {
        newest == *name || previous.contains(name)
    }

    /// The names before `newest` is replaced by another.
    pub(crate) fn history(newest: Nonce, previous: &[Nonce]) -> Vec<Nonce> {
        std::iter::once(&newest).chain(previous).take(KEPT).copied().collect()
    }
}

impl Record {
    /// The next state, under its own name.
    pub fn with_revision(self, revision: Nonce) -> Self {
        let previous_revisions = revision::history(self.revision, &self.previous_revisions);
        Self { revision, previous_revisions, ..self }
    }

    /// Whether this is the state of that name, or one of those that followed it.
    pub fn includes(&self, revision: &Nonce) -> bool {
        revision::is_included(revision, self.revision, &self.previous_revisions)
    }

    /// Whether the session survives the user's last revocation. A mark that has expired is older than every session.
    pub fn survives(&self, state: &UserState) -> bool {
        state.revocation_mark.is_none_or(|mark| self.marks.contains(&mark))
    }

    /// The same session, which survives this mark, too.
    pub(super) fn surviving(&self, mark: &Nonce) -> Self {
        // Older marks, and marks that were never set, do not matter any more.
        const KEPT: usize = 8;
        let marks = std::iter::once(mark).chain(&self.marks).take(KEPT).copied().collect();
        Self { marks, ..self.clone() }
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }
}

/// The redirect from a rotated id to its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Redirect {
    /// Together with the old id it gives the new one; see [`crate::id::Id::successor`].
    pub nonce: Nonce,
    /// The new handle, for those who know only the old one.
    pub to: Handle,
    /// Half a minute after the rotation, which is how long isolates of 0.1 follow it.
    pub(super) until: Time,
    /// The family of both ids, and the position of the old one. (Not in redirects of 0.1.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<(Family, Generation)>,
}

impl Redirect {
    /// How long the store keeps a redirect at least: when it is gone, its grace is over by every clock.
    pub const TTL: Duration = Duration::from_secs(60);

    /// A redirect from this ticket's id that begins now.
    pub fn new(nonce: Nonce, from: &Ticket, now: Time) -> Self {
        let to = from.id.successor(&nonce).handle();
        Self { nonce, to, until: now + GRACE, from: Some((from.family, from.generation)) }
    }

    /// The ticket of the successor: the same for everyone who holds the old one.
    pub(super) fn successor(&self, old: &Ticket) -> Ticket {
        let issued = Time(self.until.0.saturating_sub(time::milliseconds(GRACE)));
        let generation = next_generation(old.generation);
        Ticket { id: old.id.successor(&self.nonce), issued, generation, ..old.clone() }
    }

    /// The stored form.
    pub fn to_json(self) -> String {
        json::to_string(&StoredRedirect { v: Version, moved: self })
    }
}

/// In the place of a session that another one has replaced, for a moment: nobody is led on from it. It tells whoever wrote
/// the other one that their write was made. For isolates of 0.1 it is a redirect whose grace is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// The handle of the other one.
    pub by: Handle,
}

impl Replaced {
    /// The stored form.
    pub fn to_json(self) -> String {
        let moved = Redirect { nonce: Nonce([0; 12]), to: self.by, until: Time(0), from: None };
        json::to_string(&StoredRedirect { v: Version, moved })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRedirect {
    v: Version,
    moved: Redirect,
}

/// What is stored under a session's key.
#[derive(Debug)]
pub enum Entry {
    /// A session.
    Session(Box<Record>),
    /// The redirect to its successor.
    Redirect(Redirect),
    /// The note that it was replaced.
    Replaced(Replaced),
}

impl Entry {
    /// Parses what the store holds. `None` if it cannot be read: not JSON, another version, another shape.
    pub fn parse(json: &str) -> Option<Self> {
        if let Ok(record) = serde_json::from_str::<Box<Record>>(json) {
            return record.data.get().starts_with('{').then_some(Self::Session(record));
        }
        let StoredRedirect { moved, .. } = serde_json::from_str(json).ok()?;
        Some(match moved.until {
            Time(0) => Self::Replaced(Replaced { by: moved.to }),
            _ => Self::Redirect(moved),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by 0.1.0 on 2026-11-21: deployments hold records like these.
    const FROZEN: &str = r#"{"v":1,"rev":"AQEBAQEBAQEBAQEB","before":["BAQEBAQEBAQEBAQE"],"user":{"id":"u1","name":"Ada","roles":["admin"]},"data":{"b":1, "a":0.1},"created_at":1767225600000,"authenticated_at":1767225600001,"rotated_at":1767225600002,"expires_at":1767312000000,"remember":true,"marks":["BQUFBQUFBQUFBQUF","BgYGBgYGBgYGBgYG"],"device":{"user_agent":"x","ip":"203.0.113.0"},"family":"BwcHBwcHBwcH","generation":3}"#;
    const FROZEN_ANONYMOUS: &str = r#"{"v":1,"rev":"AQEBAQEBAQEBAQEB","before":[],"user":null,"data":{},"created_at":1767225600000,"authenticated_at":null,"rotated_at":1767225600000,"expires_at":1767312000000,"remember":false,"family":"BwcHBwcHBwcH","generation":0}"#;
    const FROZEN_REDIRECT: &str = r#"{"v":1,"moved":{"nonce":"AgICAgICAgICAgIC","to":"W5mFHxzQHphIkp8jCPn54IoR","until":1767225630000}}"#;

    #[test]
    fn frozen_records_are_read_and_written_back_to_the_letter() {
        for frozen in [FROZEN, FROZEN_ANONYMOUS] {
            let Some(Entry::Session(record)) = Entry::parse(frozen) else { panic!("a session") };
            assert_eq!(record.to_json(), frozen);
            assert_eq!(record.revision, Nonce([1; 12]));
        }
    }

    #[test]
    fn frozen_redirects_are_read_and_written_back_to_the_letter() {
        let Some(Entry::Redirect(redirect)) = Entry::parse(FROZEN_REDIRECT) else { panic!("a redirect") };
        assert_eq!(redirect.to_json(), FROZEN_REDIRECT);
        let replaced = Replaced { by: redirect.to };
        let Some(Entry::Replaced(read)) = Entry::parse(&replaced.to_json()) else { panic!("a note") };
        assert_eq!(read, replaced);
    }

    #[test]
    fn a_session_survives_the_marks_it_knows_and_those_that_have_expired() {
        let Some(Entry::Session(mut record)) = Entry::parse(FROZEN) else { panic!("a session") };
        let state = |mark: Option<u8>| UserState {
            revocation_mark: mark.map(|byte| Nonce([byte; 12])),
            ..UserState::default()
        };
        for (mark, survives) in [(None, true), (Some(5), true), (Some(6), true), (Some(7), false)] {
            assert_eq!(record.survives(&state(mark)), survives, "{mark:?}");
        }
        record.marks.clear();
        assert!(record.survives(&state(None)) && !record.survives(&state(Some(5))));
    }

    #[test]
    fn a_state_includes_itself_and_the_four_before_it() {
        let Some(Entry::Session(record)) = Entry::parse(FROZEN_ANONYMOUS) else { panic!("a session") };
        let names: Vec<Nonce> = (2..8).map(|byte| Nonce([byte; 12])).collect();
        let record = names.iter().fold(*record, |record, name| record.with_revision(*name));
        assert!(names[1..].iter().all(|name| record.includes(name)));
        assert!(!record.includes(&names[0]) && !record.includes(&Nonce([1; 12])));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let foreign = [
            "",
            "null",
            "hello",
            "{}",
            &FROZEN.replace("\"v\":1", "\"v\":2"),
            &FROZEN.replace(r#"{"b":1, "a":0.1}"#, "[1]"),
            &FROZEN.replace("1767312000000", "-1"),
            &FROZEN.replace("\"remember\"", "\"another\""),
            &FROZEN[..100],
            &FROZEN_REDIRECT.replace("\"v\":1", "\"v\":2"),
        ];
        for json in foreign {
            assert!(Entry::parse(json).is_none(), "{json}");
        }
    }
}
