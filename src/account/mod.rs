//! Accounts: usernames and passwords, for sites without a server of their own.
//!
//! `account:<name>` is one JSON string, changed by compare-and-set like a session:
//! `{"v":1,"rev":"…","before":[],"id":"…","name":"…","hash":"$argon2id$…","roles":[],"created_at":…,"profile":{}}`, and
//! `"password_rev":"…"` after `hash` once its owner has changed the password; before `profile` `"disabled":true` if it is,
//! `"reset":{…}` while a reset of the password is under way,
//! and `"links":{…}` if it is tied to providers (`links`). A disabled account has `"v":2`: versions of this Worker that
//! do not know of that cannot read it, so that while a newer one is rolled out they let nobody in either.
//! `user:<tag>:account` holds the name, to find the account by its id.

mod accounts;
mod breach;
mod known_device;
mod links;
pub mod name;
pub mod new_password;
pub mod password;
mod reset;
mod settings;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

pub(crate) use self::settings::settings;
pub use self::{
    accounts::{Accounts, StoredAccount},
    breach::BreachCheck,
    known_device::KnownDevice,
    reset::{Reset, ResetToken},
    settings::AccountSettings,
};
use crate::{
    base64url,
    http::Response,
    id::Nonce,
    json,
    session::{User, change::empty_data, revision},
    time::{self, Time},
};

/// A short one-way name of an account's present password: no other password, and no other account, ever has it.
pub type PasswordTag = [u8; 12];

/// The stored account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    v: AccountVersion,
    /// The name of this state.
    #[serde(rename = "rev")]
    pub revision: Nonce,
    /// The names of the states before it, the latest first.
    #[serde(rename = "before", default)]
    pub previous_revisions: Vec<Nonce>,
    /// Opaque, stable, never used again.
    pub id: String,
    /// As it was registered.
    pub name: String,
    /// The password's hash, as a PHC string; empty if it has none: then it can only be entered through a reset.
    pub hash: String,
    /// The name of the password, if it is not the first one. Another hash of the same password keeps it.
    #[serde(rename = "password_rev", default, skip_serializing_if = "Option::is_none")]
    pub password_revision: Option<Nonce>,
    /// What the user may do.
    #[serde(default)]
    pub roles: Vec<String>,
    /// When it was registered.
    pub created_at: Time,
    /// Whether an operator has disabled it: it has no sessions, and nobody can log in to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// The reset of its password that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    /// The identities by which its owner can log in, too: one at most for each provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// The user's own document: always a JSON object.
    pub profile: Box<RawValue>,
}

impl Account {
    /// A new account with an empty profile.
    pub fn new(
        revision: Nonce,
        id: String,
        name: String,
        hash: String,
        roles: Vec<String>,
        now: Time,
    ) -> Self {
        Self {
            v: AccountVersion::ENABLED,
            revision,
            previous_revisions: Vec::new(),
            id,
            name,
            hash,
            password_revision: None,
            roles,
            created_at: now,
            disabled: false,
            reset: None,
            links: BTreeMap::new(),
            profile: empty_data(),
        }
    }

    /// Disables it, or enables it again.
    pub fn set_disabled(&mut self, disabled: bool) {
        self.disabled = disabled;
        self.v = if disabled { AccountVersion::DISABLED } else { AccountVersion::ENABLED };
    }

    /// The user who is logged in with it.
    pub fn user(&self) -> User {
        User { id: self.id.clone(), name: self.name.clone(), roles: self.roles.clone() }
    }

    /// Whether its record says that it is tied to this identity at a provider.
    pub fn has_link(&self, provider: &str, identity: &str) -> bool {
        self.links.get(provider).is_some_and(|own| own == identity)
    }

    /// The tag of the present password.
    pub fn password_tag(&self) -> PasswordTag {
        let revision = self.password_revision.map(|revision| revision.0).unwrap_or_default();
        // The revision has a fixed length: the input is unambiguous.
        let hash = Sha256::new()
            .chain_update(b"cloakroom password tag v1 ")
            .chain_update(revision)
            .chain_update(&self.id)
            .finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// The strong entity tag of the profile: it depends on the content alone.
    pub fn profile_etag(&self) -> String {
        let digest = Sha256::digest(self.profile.get());
        ["\"", &base64url::encode(digest.get(..12).unwrap_or_default()), "\""].concat()
    }

    /// The answer that shows the account to an operator.
    pub fn response(&self) -> Response {
        let Self { id, name, roles, disabled, created_at, links, .. } = self;
        let providers = links.keys().map(String::as_str).collect();
        Response::json(&AccountView {
            id,
            name,
            roles,
            disabled: *disabled,
            created_at: *created_at,
            providers,
        })
    }

    /// The answer that shows the profile.
    pub fn profile_response(&self) -> Response {
        Response::json(&self.profile).header("ETag", self.profile_etag())
    }

    /// The next state, under its own name.
    pub fn with_revision(self, revision: Nonce) -> Self {
        let previous_revisions = revision::history(self.revision, &self.previous_revisions);
        Self { revision, previous_revisions, ..self }
    }

    /// Whether this is the state of that name, or one of those that followed it.
    pub fn includes(&self, revision: &Nonce) -> bool {
        revision::is_included(revision, self.revision, &self.previous_revisions)
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// Parses what the store holds; `None` if it cannot be read.
    pub fn parse(stored: &str) -> Option<Self> {
        let account: Self = serde_json::from_str(stored).ok()?;
        let is_whole = account.profile.get().starts_with('{');
        let is_known = account.disabled || account.v == AccountVersion::ENABLED;
        (is_whole && is_known).then_some(account)
    }
}

/// `"v"` of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
struct AccountVersion(u64);

impl AccountVersion {
    const ENABLED: Self = Self(1);
    const DISABLED: Self = Self(2);
}

impl From<AccountVersion> for u64 {
    fn from(version: AccountVersion) -> Self {
        version.0
    }
}

impl TryFrom<u64> for AccountVersion {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        let version = Self(number);
        if [Self::ENABLED, Self::DISABLED].contains(&version) { Ok(version) } else { Err("another version") }
    }
}

/// What an operator sees of an account: never its hash, its profile, who it is at a provider, or whether a reset is under way.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AccountView<'a> {
    id: &'a str,
    name: &'a str,
    roles: &'a [String],
    disabled: bool,
    #[serde(serialize_with = "time::as_rfc3339")]
    created_at: Time,
    /// Which providers it is tied to, if it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    providers: Vec<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by 0.1.0 on 2026-11-21: deployments hold accounts like this one, and operators import them.
    const FROZEN: &str = r#"{"v":1,"rev":"AQEBAQEBAQEBAQEB","before":["BAQEBAQEBAQEBAQE"],"id":"u1","name":"Ada","hash":"$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA","roles":["admin"],"created_at":1767225600000,"profile":{"b":1, "a":0.1}}"#;

    #[test]
    fn a_frozen_account_is_read_and_written_back_to_the_letter() {
        let account = Account::parse(FROZEN).expect("an account");
        assert_eq!(account.to_json(), FROZEN);
        assert_eq!(account.user().roles, ["admin"]);
    }

    /// So that a version from before accounts could be disabled refuses it, too.
    #[test]
    fn a_disabled_account_has_another_version() {
        let mut account = Account::parse(FROZEN).expect("an account");
        account.set_disabled(true);
        let stored = account.to_json();
        assert!(stored.starts_with(r#"{"v":2,"#) && stored.contains(r#""disabled":true"#), "{stored}");
        let mut read = Account::parse(&stored).expect("an account");
        assert!(read.disabled);
        read.set_disabled(false);
        assert_eq!(read.to_json(), FROZEN);
        // As somebody imports it.
        let imported = FROZEN.replace(r#""profile""#, r#""disabled":true,"profile""#);
        assert!(Account::parse(&imported).is_some_and(|account| account.disabled));
    }

    #[test]
    fn what_an_account_is_tied_to_is_written_if_it_is_tied() {
        let stored =
            FROZEN.replace(r#""profile""#, r#""links":{"acme":"acme:1","other":"other:2"},"profile""#);
        let account = Account::parse(&stored).expect("an account");
        assert_eq!(account.to_json(), stored);
        assert!(account.has_link("acme", "acme:1") && account.has_link("other", "other:2"));
        assert!(!account.has_link("acme", "acme:2") && !account.has_link("third", "acme:1"));
        let shown = account.response().body;
        assert!(shown.contains(r#""providers":["acme","other"]"#) && !shown.contains("acme:1"), "{shown}");
    }

    #[test]
    fn the_tag_of_a_password_is_its_account_s_and_changes_with_it_alone() {
        let account = Account::parse(FROZEN).expect("an account");
        let tag = account.password_tag();
        let renewed = Account { hash: "$argon2id$…".to_owned(), roles: Vec::new(), ..account.clone() };
        assert_eq!(renewed.with_revision(Nonce([9; 12])).password_tag(), tag);
        let changed = Account { password_revision: Some(Nonce([1; 12])), ..account.clone() };
        assert_ne!(changed.password_tag(), tag);
        assert_eq!(
            Account::parse(&changed.to_json()).map(|read| read.password_tag()),
            Some(changed.password_tag())
        );
        assert_ne!(Account { id: "u2".to_owned(), ..account }.password_tag(), tag);
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        for json in [
            "",
            "null",
            "{}",
            &FROZEN.replace("\"v\":1", "\"v\":2"),
            &FROZEN.replace("\"u1\"", "1"),
            &FROZEN.replace(r#"{"b":1, "a":0.1}"#, "[]"),
        ] {
            assert!(Account::parse(json).is_none(), "{json}");
        }
    }
}
