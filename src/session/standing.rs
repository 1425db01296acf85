//! What holds for all sessions of a user: `user:<tag>:standing`, `{"v":1,"mark":"…","roles":[…]}`, both optional. It is
//! read with every session, so that what is written here holds from the user's next request.

use crate::{
    id::Nonce,
    json::{self, Members, Object},
};

/// A user's standing. Kept for as long as a session from before it can last: later ones know it from their beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last revocation: what began under another mark is dead.
    pub mark: Option<Nonce>,
    /// The roles that the user has now, whatever the sessions say.
    pub roles: Option<Vec<String>>,
}

impl Standing {
    /// Reads what the store holds. What is not ours is a revocation that no session outlives.
    pub fn parse(stored: Option<&str>) -> Self {
        let Some(stored) = stored else { return Self::default() };
        Self::read(stored).unwrap_or(Self { mark: Some(Nonce([0; 12])), roles: None })
    }

    fn read(stored: &str) -> Option<Self> {
        let members = Members::parse(stored).filter(|members| members.number("v") == Some(1))?;
        let mark = match members.name("mark") {
            None => None,
            Some(mark) => Some(Nonce::parse(mark)?),
        };
        let roles = match members.get("roles") {
            None => None,
            Some(_) => Some(members.texts("roles")?),
        };
        Some(Self { mark, roles })
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        let mut object = Object::default();
        object.print("v", 1);
        if let Some(mark) = &self.mark {
            object.text("mark", &mark.to_string());
        }
        if let Some(roles) = &self.roles {
            object.json("roles", &json::list(roles.iter().map(|role| json::quoted(role))));
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_read_and_written_back_and_what_is_foreign_revokes() {
        for stored in
            [r#"{"v":1,"mark":"AgICAgICAgICAgIC","roles":["a","b"]}"#, r#"{"v":1,"roles":[]}"#, r#"{"v":1}"#]
        {
            assert_eq!(Standing::parse(Some(stored)).to_json(), stored);
        }
        assert_eq!(Standing::parse(None), Standing::default());
        for foreign in ["", "AgICAgICAgICAgIC", "{}", r#"{"v":1,"mark":"short"}"#] {
            assert_eq!(Standing::parse(Some(foreign)).mark, Some(Nonce([0; 12])), "{foreign}");
        }
    }
}
