//! Accounts: who may log in by name and password, for sites with no server of their own.
//!
//! `account:<name>` is one JSON string, changed by compare-and-set like a session:
//! `{"v":1,"rev":"…","before":[],"id":"…","name":"…","hash":"$argon2id$…","roles":[],"created_at":…,"profile":{}}`.
//! `user:<tag>:account` leads there from the account's id.

mod known;
pub mod name;
pub mod password;
mod registry;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

pub use self::{
    known::KnownDevice,
    registry::{Kept, Registry},
};
use crate::{
    json::{self, Members, Object},
    session::{Revisions, User, change::no_data},
    time::Time,
};

const VERSION: u64 = 1;

/// The stored account.
#[derive(Clone, Debug)]
pub struct Account {
    /// The names of the last states.
    pub revisions: Revisions,
    /// Opaque and stable, and never used again.
    pub id: String,
    /// As it was registered.
    pub name: String,
    /// The password's hash, as a PHC string.
    pub hash: String,
    /// What the user may do.
    pub roles: Vec<String>,
    /// When it was registered.
    pub created_at: Time,
    /// The user's own document: always a JSON object.
    pub profile: Box<RawValue>,
}

impl Account {
    /// A new account, without roles and with an empty profile.
    pub fn new(revisions: Revisions, id: String, name: String, hash: String, now: Time) -> Self {
        Self { revisions, id, name, hash, roles: Vec::new(), created_at: now, profile: no_data() }
    }

    /// Who is logged in with it.
    pub fn user(&self) -> User {
        User { id: self.id.clone(), name: self.name.clone(), roles: self.roles.clone() }
    }

    /// The strong entity tag of the profile: another for each content, whatever else changes.
    pub fn etag(&self) -> String {
        let digest = Sha256::digest(self.profile.get());
        ["\"", &Base64UrlUnpadded::encode_string(digest.get(..12).unwrap_or_default()), "\""].concat()
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        let mut account = Object::default();
        account.print("v", VERSION);
        self.revisions.write(&mut account);
        account
            .text("id", &self.id)
            .text("name", &self.name)
            .text("hash", &self.hash)
            .json("roles", &json::list(self.roles.iter().map(|role| json::quoted(role))))
            .print("created_at", self.created_at.0)
            .json("profile", self.profile.get())
            .end()
    }

    /// Reads what the store holds; `None` when it is not ours.
    pub fn parse(json: &str) -> Option<Self> {
        let account = Members::parse(json).filter(|members| members.number("v") == Some(VERSION))?;
        Some(Self {
            revisions: Revisions::read(&account)?,
            id: account.text("id")?,
            name: account.text("name")?,
            hash: account.text("hash")?,
            roles: account.texts("roles")?,
            created_at: Time(account.number("created_at")?),
            profile: account.object("profile")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by this code on 2026-11-21: deployments hold accounts like this one, and operators import them.
    const FROZEN: &str = r#"{"v":1,"rev":"AQEBAQEBAQEBAQEB","before":["BAQEBAQEBAQEBAQE"],"id":"u1","name":"Ada","hash":"$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA","roles":["admin"],"created_at":1767225600000,"profile":{"b":1, "a":0.1}}"#;

    #[test]
    fn a_frozen_account_is_read_and_written_back_to_the_letter() {
        let account = Account::parse(FROZEN).expect("an account");
        assert_eq!(account.to_json(), FROZEN);
        assert_eq!(account.user().roles, ["admin"]);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        for json in ["", "null", "{}", &FROZEN.replace("\"v\":1", "\"v\":2"), &FROZEN.replace("\"u1\"", "1")]
        {
            assert!(Account::parse(json).is_none(), "{json}");
        }
    }
}
