//! What the store keeps under a session's key, as JSON.
//!
//! A session: `{"v":1,"rev":"…","before":[],"user":null,"data":{…},"created_at":…,"authenticated_at":null,"rotated_at":…,"expires_at":…,"remember":false,"family":"…","generation":0}`
//! (times in milliseconds), or, for a while after a rotation, the way to its successor:
//! `{"v":1,"moved":{"nonce":"…","to":"…","until":…}}`. Beside a session that was rotated stands where its family of ids
//! has come to: `{"v":1,"generation":1,"to":"…"}`. None holds anything that lets someone in.

use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Device, Standing};
use crate::{
    id::{Family, Handle, Id, Lineage, Nonce},
    json::{self, Members, Object},
    ticket::{Ticket, UserTag},
    time::Time,
};

const VERSION: u64 = 1;

/// The stored session.
#[derive(Clone, Debug)]
pub struct Record {
    /// The names of the last states.
    pub revisions: Revisions,
    /// Who is logged in; `None` for an anonymous session.
    pub user: Option<User>,
    /// The application's data: always a JSON object. Kept as text: most requests only pass it on.
    pub data: Box<RawValue>,
    /// When the session began.
    pub created_at: Time,
    /// When a password was last given.
    pub authenticated_at: Option<Time>,
    /// When it got its present id.
    pub rotated_at: Time,
    /// The absolute end.
    pub expires_at: Time,
    /// Whether it is a "remember me" session.
    pub remember: bool,
    /// The user's revocation marks that it outlives: the one its login began under, and those it was kept through.
    pub marks: Vec<Nonce>,
    /// Where the login came from.
    pub device: Device,
    /// What it keeps through its rotations.
    pub lineage: Lineage,
}

/// The names of a session's last states, random. Every write of user, data or time of login makes a new one. By
/// those before it, whoever lost the answer to a write finds out whether it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revisions {
    /// The present state's.
    pub newest: Nonce,
    /// The last ones before it, newest first.
    before: Vec<Nonce>,
}

impl Revisions {
    /// More changes than this between a write and the search for it leave its fate unknown.
    const KEPT: usize = 4;

    /// Of a new session.
    pub fn first(revision: Nonce) -> Self {
        Self { newest: revision, before: Vec::new() }
    }

    /// After one write more.
    pub fn followed_by(&self, revision: Nonce) -> Self {
        let before = std::iter::once(&self.newest).chain(&self.before).take(Self::KEPT).copied();
        Self { newest: revision, before: before.collect() }
    }

    /// Writes them into what is stored.
    pub(crate) fn write(&self, object: &mut Object) {
        object.text("rev", &self.newest.to_string()).json("before", &list(&self.before));
    }

    /// Reads them there.
    pub(crate) fn read(members: &Members<'_>) -> Option<Self> {
        Some(Self { newest: Nonce::parse(members.name("rev")?)?, before: nonces(members, "before")? })
    }

    /// Whether this is the present state's name, or one of those just before.
    pub fn contains(&self, revision: &Nonce) -> bool {
        self.newest == *revision || self.before.contains(revision)
    }
}

/// The logged-in user.
#[derive(Clone, Debug)]
pub struct User {
    /// Opaque and stable.
    pub id: String,
    /// For people.
    pub name: String,
    /// What the user may do.
    pub roles: Vec<String>,
}

impl User {
    /// The user's tag in tickets and keys.
    pub fn tag(&self) -> UserTag {
        Self::tag_of(&self.id)
    }

    /// The same from the id alone.
    pub fn tag_of(id: &str) -> UserTag {
        let hash = Sha256::new().chain_update(b"cloakroom user tag v1 ").chain_update(id).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// As it is stored, and shown.
    pub(super) fn to_json(&self) -> String {
        let roles = json::list(self.roles.iter().map(|role| json::quoted(role)));
        Object::default().text("id", &self.id).text("name", &self.name).json("roles", &roles).end()
    }

    fn parse(json: &str) -> Option<Self> {
        let user = Members::parse(json)?;
        Some(Self { id: user.text("id")?, name: user.text("name")?, roles: user.texts("roles")? })
    }
}

/// The way from a rotated id to its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Leads from the old id to the new one; see [`Id::successor`].
    pub nonce: Nonce,
    /// The new handle, for those who know the old one only.
    pub to: Handle,
    /// How long the old id is still followed.
    pub until: Time,
}

impl Moved {
    /// How long a rotated id still leads to its successor, in milliseconds: parallel requests are on their way with it.
    const GRACE_MS: u64 = 30_000;
    /// How long the store keeps the way: when it has none any more, the grace is over by every clock.
    pub const KEPT: Duration = Duration::from_millis(2 * Self::GRACE_MS);

    /// The way, from now on.
    pub fn new(nonce: Nonce, from: &Id, now: Time) -> Self {
        let to = from.successor(&nonce).handle();
        Self { nonce, to, until: Time(now.0.saturating_add(Self::GRACE_MS)) }
    }

    /// The ticket to the successor: the same for everyone who holds the old one.
    pub(super) fn successor(&self, old: &Ticket) -> Ticket {
        let rotated_at = Time(self.until.0.saturating_sub(Self::GRACE_MS));
        let lineage = old.lineage.next();
        Ticket { id: old.id.successor(&self.nonce), issued: rotated_at, lineage, ..old.clone() }
    }
}

/// Either of the two.
#[derive(Debug)]
pub enum Entry {
    /// A session.
    Here(Box<Record>),
    /// The way to where it went.
    Moved(Moved),
}

/// The newest id of a family: by it, whoever comes with an older one long after is noticed.
#[derive(Debug)]
pub struct Newest {
    /// Its number.
    pub generation: u32,
    /// Its handle.
    pub to: Handle,
}

impl Newest {
    /// What a ticket just made by a rotation holds.
    pub fn new(ticket: &Ticket) -> Self {
        Self { generation: ticket.lineage.generation, to: ticket.id.handle() }
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        stored().print("generation", self.generation).text("to", &self.to.to_string()).end()
    }

    /// Reads what the store holds; `None` when it is not ours.
    pub fn parse(json: &str) -> Option<Self> {
        let newest = parse_stored(json)?;
        let generation = newest.number("generation")?.try_into().ok()?;
        Some(Self { generation, to: Handle::parse(newest.name("to")?)? })
    }
}

impl Record {
    /// Whether the session outlives the user's revocations: nothing was revoked since its login began. A mark
    /// that has expired is older than every session.
    pub fn outlives(&self, standing: &Standing) -> bool {
        standing.mark.is_none_or(|mark| self.marks.contains(&mark))
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        let Lineage { family, generation } = self.lineage;
        let authenticated_at = self.authenticated_at.map(|time| time.0.to_string());
        let mut record = Object::of_about(self.data.get().len() + 512);
        record.print("v", VERSION);
        self.revisions.write(&mut record);
        record
            .json("user", self.user.as_ref().map(User::to_json).as_deref().unwrap_or("null"))
            .json("data", self.data.get())
            .print("created_at", self.created_at.0)
            .json("authenticated_at", authenticated_at.as_deref().unwrap_or("null"))
            .print("rotated_at", self.rotated_at.0)
            .print("expires_at", self.expires_at.0)
            .print("remember", self.remember);
        if !self.marks.is_empty() {
            record.json("marks", &list(&self.marks));
        }
        if !self.device.is_unknown() {
            record.json("device", &self.device.to_json());
        }
        record.text("family", &family.to_string()).print("generation", generation).end()
    }

    fn read(record: &Members<'_>) -> Option<Self> {
        let user = match record.get("user") {
            None => None,
            Some(user) => Some(User::parse(user)?),
        };
        let device = record.get("device").map_or(Some(Device::default()), Device::parse)?;
        let time = |name| record.number(name).map(Time);
        let authenticated_at = match record.get("authenticated_at") {
            None => None,
            Some(_) => Some(time("authenticated_at")?),
        };
        let revisions = Revisions::read(record)?;
        let family = Family::parse(record.name("family")?)?;
        Some(Self {
            revisions,
            user,
            data: record.object("data")?.to_owned(),
            created_at: time("created_at")?,
            authenticated_at,
            rotated_at: time("rotated_at")?,
            expires_at: time("expires_at")?,
            remember: record.flag("remember")?,
            marks: nonces(record, "marks")?,
            device,
            lineage: Lineage { family, generation: record.number("generation")?.try_into().ok()? },
        })
    }
}

impl Moved {
    /// The stored form.
    pub fn to_json(&self) -> String {
        let mut moved = Object::default();
        moved
            .text("nonce", &self.nonce.to_string())
            .text("to", &self.to.to_string())
            .print("until", self.until.0);
        stored().json("moved", &moved.end()).end()
    }

    fn parse(json: &str) -> Option<Self> {
        let moved = Members::parse(json)?;
        let (nonce, to) = (Nonce::parse(moved.name("nonce")?)?, Handle::parse(moved.name("to")?)?);
        Some(Self { nonce, to, until: Time(moved.number("until")?) })
    }
}

impl Entry {
    /// Reads what the store holds. `None` when it is not ours: not JSON, another version, another shape.
    pub fn parse(json: &str) -> Option<Self> {
        let entry = parse_stored(json)?;
        match entry.get("moved") {
            Some(moved) => Moved::parse(moved).map(Self::Moved),
            None => Record::read(&entry).map(Box::new).map(Self::Here),
        }
    }
}

/// The beginning of all that is stored.
fn stored() -> Object {
    let mut object = Object::default();
    object.print("v", VERSION);
    object
}

fn parse_stored(json: &str) -> Option<Members<'_>> {
    Members::parse(json).filter(|members| members.number("v") == Some(VERSION))
}

fn list(nonces: &[Nonce]) -> String {
    json::list(nonces.iter().map(|nonce| format!("\"{nonce}\"")))
}

fn nonces(members: &Members<'_>, name: &str) -> Option<Vec<Nonce>> {
    members.texts(name)?.iter().map(|text| Nonce::parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by this code on 2026-11-21: deployments hold records like these.
    const FROZEN: &str = r#"{"v":1,"rev":"AQEBAQEBAQEBAQEB","before":["BAQEBAQEBAQEBAQE"],"user":{"id":"u1","name":"Ada","roles":["admin"]},"data":{"b":1, "a":0.1},"created_at":1767225600000,"authenticated_at":1767225600001,"rotated_at":1767225600002,"expires_at":1767312000000,"remember":true,"marks":["BQUFBQUFBQUFBQUF","BgYGBgYGBgYGBgYG"],"device":{"user_agent":"x","ip":"203.0.113.0"},"family":"BwcHBwcHBwcH","generation":3}"#;
    const FROZEN_MOVE: &str = r#"{"v":1,"moved":{"nonce":"AgICAgICAgICAgIC","to":"W5mFHxzQHphIkp8jCPn54IoR","until":1767225630000}}"#;

    #[test]
    fn a_frozen_record_is_read_and_written_back_to_the_letter() {
        let Some(Entry::Here(record)) = Entry::parse(FROZEN) else { panic!("a session") };
        assert_eq!(record.to_json(), FROZEN);
        assert_eq!(record.revisions.newest, Nonce([1; 12]));
    }

    #[test]
    fn a_frozen_move_is_read_and_written_back_to_the_letter() {
        let Some(Entry::Moved(moved)) = Entry::parse(FROZEN_MOVE) else { panic!("a move") };
        assert_eq!(moved.to_json(), FROZEN_MOVE);
    }

    #[test]
    fn a_session_outlives_the_marks_it_knows_and_those_that_have_expired() {
        let Some(Entry::Here(mut record)) = Entry::parse(FROZEN) else { panic!("a session") };
        let standing = |mark: Option<u8>| Standing { mark: mark.map(|byte| Nonce([byte; 12])), roles: None };
        for (mark, outlives) in [(None, true), (Some(5), true), (Some(6), true), (Some(7), false)] {
            assert_eq!(record.outlives(&standing(mark)), outlives, "{mark:?}");
        }
        record.marks.clear();
        assert!(record.outlives(&standing(None)) && !record.outlives(&standing(Some(5))));
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let foreign = [
            "",
            "null",
            "hello",
            "{}",
            &FROZEN.replace("\"v\":1", "\"v\":2"),
            &FROZEN.replace(r#"{"b":1, "a":0.1}"#, "[1]"),
            &FROZEN.replace("1767312000000", "-1"),
            &FROZEN[..100],
            &FROZEN_MOVE.replace("\"v\":1", "\"v\":2"),
        ];
        for json in foreign {
            assert!(Entry::parse(json).is_none(), "{json}");
        }
    }
}
