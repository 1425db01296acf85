//! Resetting a forgotten password: a token of one use, which an operator's back end sends to the account's owner.
//!
//! The account itself holds the token's hash, so that compare-and-set lets one use through, and a deleted account leaves
//! nothing behind.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{base64url, ticket::UserTag, time::Time};

/// A reset that is under way, as the account holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The token's hash: who reads the store cannot use it.
    hash: String,
    /// When the token ends.
    pub expires_at: Time,
}

/// What opens a reset. Does not print.
pub struct ResetToken {
    /// Whose account.
    pub user: UserTag,
    secret: [u8; 32],
}

impl ResetToken {
    /// How long it is good.
    const LIFETIME: Duration = Duration::from_secs(30 * 60);

    /// A new one.
    pub fn new(user: UserTag, secret: [u8; 32]) -> Self {
        Self { user, secret }
    }

    /// From its text; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 48] = base64url::decode_array(text)?;
        Some(Self { user: *bytes.first_chunk()?, secret: *bytes.last_chunk()? })
    }

    /// What the owner gets: letters, digits, `-` and `_`, so that it can stand in a link.
    pub fn text(&self) -> String {
        base64url::encode(&[&self.user[..], &self.secret].concat())
    }

    /// What the account holds of it.
    pub fn begin(&self, now: Time) -> Reset {
        Reset { hash: self.hash(), expires_at: now + Self::LIFETIME }
    }

    /// Whether it opens this reset.
    pub fn opens(&self, reset: Option<&Reset>, now: Time) -> bool {
        let reset = reset.filter(|reset| now < reset.expires_at);
        reset.is_some_and(|reset| self.hash().as_bytes().ct_eq(reset.hash.as_bytes()).into())
    }

    /// The secret is random: there is nothing to slow down.
    fn hash(&self) -> String {
        let hash = Sha256::new().chain_update(b"cloakroom reset v1 ").chain_update(self.secret).finalize();
        base64url::encode(&hash)
    }
}

impl std::fmt::Debug for ResetToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_767_225_600_000);

    #[test]
    fn a_token_opens_its_own_reset_until_it_ends() {
        let token = ResetToken::new([1; 16], [2; 32]);
        let reset = token.begin(NOW);
        let read = ResetToken::parse(&token.text()).expect("a token");
        assert_eq!(read.user, [1; 16]);
        assert!(read.opens(Some(&reset), NOW) && read.opens(Some(&reset), NOW + Duration::from_secs(1799)));
        assert!(!read.opens(Some(&reset), NOW + Duration::from_secs(1800)));
        assert!(!read.opens(None, NOW));
        assert!(!ResetToken::new([1; 16], [3; 32]).opens(Some(&reset), NOW));
    }

    #[test]
    fn neither_the_store_nor_a_log_has_the_token() {
        let token = ResetToken::new([1; 16], [2; 32]);
        let stored = crate::json::to_string(&token.begin(NOW));
        assert!(!stored.contains(&token.text()) && !stored.contains(&base64url::encode(&[2; 32])));
        assert_eq!(format!("{token:?}"), "ResetToken(…)");
    }

    #[test]
    fn what_is_no_token_is_none() {
        let text = ResetToken::new([1; 16], [2; 32]).text();
        for text in ["", "a", &text[1..], &format!("{text}A"), &text.replace('A', "="), "🧥"] {
            assert!(ResetToken::parse(text).is_none(), "{text}");
        }
    }
}
