//! What holds for all sessions of a user: `user:<tag>:standing`, `{"v":1,"mark":"…","roles":[…],"rev":"…"}`, all optional but `v`. It is
//! read with every session, so that a change holds from the user's next request. (The key says `standing`, an earlier name,
//! because deployments hold such keys.)

use serde::{Deserialize, Serialize};

use crate::{
    id::Nonce,
    json::{self, Version},
};

/// The state of a user. Kept as long as a session from before it can last; later sessions know it from their beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserState {
    pub(crate) v: Version,
    /// The last revocation: a session that does not know this mark is revoked.
    #[serde(rename = "mark", default, skip_serializing_if = "Option::is_none")]
    pub revocation_mark: Option<Nonce>,
    /// The user's roles now, whatever the sessions say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// The name of a state that differs in nothing else, so that what is under way does not find the one that it has read.
    #[serde(rename = "rev", default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Nonce>,
}

impl UserState {
    /// A revocation that no session survives: what an unreadable state counts as.
    const REVOKED: Nonce = Nonce([0; 12]);

    /// Parses what the store holds, if it holds anything. One that cannot be read revokes every session.
    pub fn parse(stored: Option<&str>) -> Self {
        let Some(stored) = stored else { return Self::default() };
        serde_json::from_str(stored)
            .unwrap_or(Self { revocation_mark: Some(Self::REVOKED), ..Self::default() })
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_and_written_back_to_the_letter() {
        for stored in [
            r#"{"v":1,"mark":"AgICAgICAgICAgIC","roles":["a","b"]}"#,
            r#"{"v":1,"roles":[]}"#,
            r#"{"v":1}"#,
            r#"{"v":1,"rev":"AgICAgICAgICAgIC"}"#,
        ] {
            assert_eq!(UserState::parse(Some(stored)).to_json(), stored);
        }
        assert_eq!(UserState::parse(None), UserState::default());
    }

    #[test]
    fn an_unreadable_state_revokes() {
        for foreign in ["", "AgICAgICAgICAgIC", "{}", r#"{"v":1,"mark":"short"}"#, r#"{"v":2}"#] {
            assert_eq!(
                UserState::parse(Some(foreign)).revocation_mark,
                Some(UserState::REVOKED),
                "{foreign}"
            );
        }
    }
}
