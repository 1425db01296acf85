//! What is remembered of a login while the visitor is at the provider: in a signed cookie of theirs, so that another browser
//! cannot end what this one has begun.
//!
//! `state`, `nonce` and the PKCE verifier follow from one random value by a hash: from those that travel through URLs the
//! verifier does not follow. The cookie is not encrypted. Only its owner's browser has it, and whoever can read it there could
//! as well log in there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    account::PasswordTag,
    base64url, json,
    ticket::{Keyring, signed_text},
    time::Time,
};

/// How long a visitor may take at the provider.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// How many logins a browser can have under way, in as many tabs: each has a cookie of its own.
pub(crate) const SLOTS: usize = 4;

/// The longest path of a Rust Worker's own that ends a login, in bytes.
pub(crate) const MAX_ROUTE: usize = 100;

/// A login under way.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// What must come back.
    memo: Memo,
    /// When it was begun.
    pub(crate) begun: Time,
}

/// As it stands in the cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memo {
    #[serde(rename = "s", with = "base64url")]
    seed: [u8; 32],
    /// What ends it: the provider's id for the service's route, the path of a Rust Worker's own.
    #[serde(rename = "p")]
    route: String,
    #[serde(rename = "t")]
    return_to: String,
    #[serde(rename = "r")]
    remember: bool,
    /// Whether the visitor was to prove anew who they are.
    #[serde(rename = "f")]
    fresh: bool,
    /// What is to be tied to the provider: an account with this password, by its tag.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
}

impl Pending {
    /// A login that begins now. `seed` is random.
    pub(crate) fn new(
        seed: [u8; 32],
        route: &str,
        return_to: &str,
        remember: bool,
        fresh: bool,
        now: Time,
    ) -> Self {
        let (route, return_to) = (route.to_owned(), return_to.to_owned());
        let memo = Memo { seed, route, return_to, remember, fresh, account: None };
        Self { memo, begun: now }
    }

    /// The same, to tie an account to the provider as long as it has this password, in place of a login.
    pub(crate) fn tying(mut self, password: &PasswordTag) -> Self {
        self.memo.account = Some(base64url::encode(password));
        self
    }

    /// The cookie's value; `None` if it would be too long.
    pub(crate) fn seal(&self, keyring: &Keyring) -> Option<String> {
        signed_text::sign(&json::to_string(&self.memo), keyring, self.begun)
    }

    /// From the cookie's value, if this deployment made it less than [`LIFETIME`] ago.
    pub(crate) fn open(value: &str, keyring: &Keyring, now: Time) -> Option<Self> {
        let (text, begun) = signed_text::open(value, keyring)?;
        let memo = serde_json::from_str(&text).ok()?;
        (now - begun < LIFETIME).then_some(Self { memo, begun })
    }

    /// Whether this login is to end at this route, which is one provider's, and its `state` is this one.
    pub(crate) fn is_of(&self, route: &str, state: &str) -> bool {
        let is_same: bool = self.state().as_bytes().ct_eq(state.as_bytes()).into();
        is_same && self.memo.route == route
    }

    /// Ties the answer to this browser (RFC 6749 section 10.12).
    pub(crate) fn state(&self) -> String {
        self.derive("state")
    }

    /// Ties the ID token to this login (OpenID Connect Core section 3.1.2.1).
    pub(crate) fn nonce(&self) -> String {
        self.derive("nonce")
    }

    /// Ties the code to this login (RFC 7636 section 4.1).
    pub(super) fn verifier(&self) -> String {
        self.derive("verifier")
    }

    /// What is told of the verifier beforehand, by S256 (RFC 7636 section 4.2).
    pub(super) fn challenge(&self) -> String {
        base64url::encode(&Sha256::digest(self.verifier()))
    }

    /// Where the visitor goes afterwards.
    pub(crate) fn return_to(&self) -> &str {
        &self.memo.return_to
    }

    /// Whether the session outlives the browser.
    pub(crate) fn remember(&self) -> bool {
        self.memo.remember
    }

    /// Whether it is to tie an account to the provider.
    pub(crate) fn is_tie(&self) -> bool {
        self.memo.account.is_some()
    }

    /// Whether that is the account with this password.
    pub(crate) fn ties(&self, password: &PasswordTag) -> bool {
        self.memo.account.as_deref() == Some(&*base64url::encode(password))
    }

    /// Whether the visitor was to prove anew who they are.
    pub(crate) fn is_fresh(&self) -> bool {
        self.memo.fresh
    }

    fn derive(&self, label: &str) -> String {
        let hash = Sha256::new().chain_update("cloakroom login v1 ").chain_update(label).chain_update(" ");
        base64url::encode(&hash.chain_update(self.memo.seed).finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_767_225_600_000);

    fn keyring() -> Keyring {
        Keyring::new(&["a newer secret of this deployment, 2026"], "a-login")
    }

    fn pending() -> Pending {
        Pending::new([7; 32], "acme", "/a?b=%22", true, false, NOW)
    }

    #[test]
    fn a_login_is_remembered_for_ten_minutes() {
        let value = pending().seal(&keyring()).expect("short enough");
        let open = |after: u64| Pending::open(&value, &keyring(), NOW + Duration::from_secs(after));
        for after in [0, 599] {
            assert!(
                open(after).is_some_and(|opened| opened == pending() && opened.return_to() == "/a?b=%22")
            );
        }
        assert!(open(600).is_none());
    }

    #[test]
    fn no_bit_of_it_can_be_changed_and_no_other_cookie_of_ours_is_one() {
        let value = pending().seal(&keyring()).expect("short enough");
        let bytes = base64url::decode(&value).expect("base64url");
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert!(Pending::open(&base64url::encode(&changed), &keyring(), NOW).is_none(), "{index}");
        }
        let other = Keyring::new(&["a newer secret of this deployment, 2026"], "a-sync");
        assert!(Pending::open(&value, &other, NOW).is_none());
        let text = signed_text::sign("{}", &keyring(), NOW).expect("short enough");
        assert!(Pending::open(&text, &keyring(), NOW).is_none());
    }

    #[test]
    fn what_was_begun_for_an_account_is_for_that_account_and_its_password_alone() {
        let tie = pending().tying(&[1; 12]);
        let value = tie.seal(&keyring()).expect("short enough");
        let opened = Pending::open(&value, &keyring(), NOW).expect("its own");
        assert!(opened.is_tie() && opened.ties(&[1; 12]) && !opened.ties(&[2; 12]));
        assert!(!pending().is_tie() && !pending().ties(&[1; 12]) && !pending().ties(&[0; 12]));
    }

    #[test]
    fn the_longest_return_to_fits() {
        let long = format!("/{}", "a".repeat(511));
        let pending = Pending::new([7; 32], &"p".repeat(MAX_ROUTE), &long, true, true, NOW).tying(&[255; 12]);
        assert!(pending.seal(&keyring()).is_some());
    }

    #[test]
    fn state_nonce_and_verifier_differ_and_only_this_login_s_state_is_right() {
        let pending = pending();
        let (state, nonce, verifier) = (pending.state(), pending.nonce(), pending.verifier());
        assert!(state != nonce && nonce != verifier && verifier != state && pending.challenge() != verifier);
        assert!(pending.is_of("acme", &state));
        for (provider, state) in
            [("other", &*state), ("acme", ""), ("acme", &nonce), ("acme", &state[1..]), ("acme", &verifier)]
        {
            assert!(!pending.is_of(provider, state));
        }
    }
}
