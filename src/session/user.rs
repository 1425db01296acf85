//! Who is logged in to a session.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ticket::UserTag;

/// The longest user id and the longest name, in bytes.
pub(crate) const MAX_ID: usize = 255;
pub(crate) const MAX_NAME: usize = 256;
/// How many roles a user may have, and the longest, in characters.
pub(crate) const MAX_ROLES: usize = 100;
pub(crate) const MAX_ROLE: usize = 64;

/// The logged-in user.
///
/// From a text it is a user with that id, which is also the name, and without roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct User {
    /// Opaque and stable, and never used again for another user.
    pub id: String,
    /// For people.
    pub name: String,
    /// What the user may do.
    #[serde(default)]
    pub roles: Vec<String>,
}

impl User {
    /// Whether the user has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// Says what is wrong with the user: the length of the id (1 to 255 bytes) or the name (256 bytes at most), or a role (1 to
    /// 64 characters without a comma, 100 at most). `field`: where it stands.
    pub fn check(&self, field: &str) -> Result<(), String> {
        check_id(&format!("\"{field}.id\""), &self.id)?;
        if self.name.len() > MAX_NAME {
            return Err(format!("\"{field}.name\" must have at most {MAX_NAME} bytes"));
        }
        check_roles(&format!("{field}.roles"), &self.roles)
    }

    /// The user's tag in tickets and keys.
    pub fn tag(&self) -> UserTag {
        Self::tag_of(&self.id)
    }

    /// The same from the id alone.
    pub fn tag_of(id: &str) -> UserTag {
        let hash = Sha256::new().chain_update(b"cloakroom user tag v1 ").chain_update(id).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

impl From<&str> for User {
    fn from(id: &str) -> Self {
        id.to_owned().into()
    }
}

impl From<String> for User {
    fn from(id: String) -> Self {
        Self { name: id.clone(), id, roles: Vec::new() }
    }
}

/// Says what is wrong with a user's id, which stands at `what`.
pub(crate) fn check_id(what: &str, id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(format!("{what} must have 1 to {MAX_ID} bytes"));
    }
    if [".", ".."].contains(&id) {
        return Err(format!("{what} must not be \".\" or \"..\": no URL can hold those"));
    }
    Ok(())
}

/// Says what is wrong with the roles of `field`.
pub(crate) fn check_roles(field: &str, roles: &[String]) -> Result<(), String> {
    if roles.len() > MAX_ROLES {
        return Err(format!("\"{field}\" must have at most {MAX_ROLES} roles"));
    }
    // They are listed with commas between them for proxies and origins.
    let is_role = |role: &str| !role.is_empty() && role.chars().count() <= MAX_ROLE && !role.contains(',');
    match roles.iter().position(|role| !is_role(role)) {
        None => Ok(()),
        Some(index) => {
            Err(format!("\"{field}[{index}]\" must have 1 to {MAX_ROLE} characters, and no comma"))
        }
    }
}
