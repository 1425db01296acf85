//! The settings of `[vars.CLOAKROOM.accounts]`.

use serde_json::Value;

use crate::{
    fields::Table,
    provider::{self, Provider},
};

/// Whether the Worker keeps usernames and passwords itself, and who can have one.
#[derive(Debug)]
pub struct AccountSettings {
    /// Whether users log in with a username and a password that the Worker keeps.
    pub has_login: bool,
    /// Whether anybody can register; otherwise accounts are made by the service API alone.
    pub is_open: bool,
    /// Names that nobody can register, as the operator writes them.
    pub reserved_names: Vec<String>,
    /// Words that no new password may hold, as the operator writes them.
    pub forbidden_words: Vec<String>,
    /// Where else users can log in.
    pub providers: Vec<Provider>,
}

/// Names by which a site's own people are known.
const RESERVED: [&str; 8] =
    ["admin", "administrator", "root", "support", "security", "webmaster", "postmaster", "hostmaster"];

/// The shortest word that can be forbidden, in characters. A shorter one is in too many passwords by chance.
const SHORTEST_WORD: usize = 3;

/// Reads the table. `environment` has the secrets of providers; what is wrong with those is added to `faults`.
pub(crate) fn settings(
    table: &mut Table<'_>,
    environment: &Value,
    faults: &mut Vec<String>,
) -> AccountSettings {
    let mut inner = table.table("accounts");
    let has_login = inner.flag("login", true);
    let is_open = inner.choice("register", &[("open", true), ("closed", false)], true);
    let reserved_names = inner.list("reserved", &RESERVED);
    if reserved_names.iter().any(|name| name.trim().is_empty()) {
        inner.fault("reserved", "a name in it is empty; [] reserves none");
    }
    let forbidden_words = inner.list("forbidden_words", &[]);
    if forbidden_words.iter().any(|word| word.trim().chars().count() < SHORTEST_WORD) {
        inner.fault(
            "forbidden_words",
            "a word in it has fewer than 3 characters: many passwords hold it by chance",
        );
    }
    let providers = provider::settings(&mut inner, environment, faults);
    table.include(inner);
    AccountSettings { has_login, is_open, reserved_names, forbidden_words, providers }
}
