//! The signing secrets: the first signs, every one verifies.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Rejected;

/// The length of a MAC in bytes.
pub(super) const MAC_LEN: usize = 32;
/// The length of a key's id in bytes.
pub(super) const KEY_ID_LEN: usize = 4;

type KeyId = [u8; KEY_ID_LEN];

/// The keys of one cookie. Never empty.
pub struct Keyring {
    signing: Key,
    older: Vec<Key>,
}

/// A key, with the part that all its MACs begin with already hashed.
struct Key {
    id: KeyId,
    fingerprint: String,
    mac: Hmac<Sha256>,
}

impl Keyring {
    /// The keys from the secrets, first the one that signs, for the cookie of this name.
    pub fn new(secrets: &[&str], cookie_name: &str) -> Self {
        let mut keys = secrets.iter().map(|secret| Key::new(secret, cookie_name));
        Self { signing: keys.next().unwrap_or_else(|| Key::new("", cookie_name)), older: keys.collect() }
    }

    /// The keys' fingerprints, first the one that signs. They are public and do not reveal the secrets.
    pub fn fingerprints(&self) -> Vec<String> {
        std::iter::once(&self.signing).chain(&self.older).map(|key| key.fingerprint.clone()).collect()
    }

    /// 32 secret bytes that follow from a text, by each key in turn: its fingerprint, and the bytes. The text begins with a
    /// label, and so as nothing that is signed does.
    pub(crate) fn derive(&self, text: &str) -> impl Iterator<Item = (&str, [u8; 32])> {
        let keys = std::iter::once(&self.signing).chain(&self.older);
        keys.map(move |key| {
            (&*key.fingerprint, key.mac.clone().chain_update(text).finalize().into_bytes().into())
        })
    }

    /// The id of the key that signs.
    pub(super) fn signing_key_id(&self) -> KeyId {
        self.signing.id
    }

    /// The MAC of `body` under the first secret.
    pub(super) fn sign(&self, body: &[u8]) -> [u8; MAC_LEN] {
        self.signing.mac.clone().chain_update(body).finalize().into_bytes().into()
    }

    /// Checks the MAC of `body` in constant time; says whether the key is an older one, and its fingerprint.
    pub(super) fn verify(&self, id: KeyId, body: &[u8], mac: &[u8]) -> Result<(bool, &str), Rejected> {
        let outdated = id != self.signing.id;
        let mut keys = std::iter::once(&self.signing).chain(&self.older);
        let key = keys.find(|key| key.id == id).ok_or(Rejected::UnknownKey)?;
        key.mac.clone().chain_update(body).verify_slice(mac).map_err(|_| Rejected::Forged)?;
        Ok((outdated, &key.fingerprint))
    }
}

/// Shows nothing of the keys.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.older.len() + 1)
    }
}

impl Key {
    /// Each use of a secret has its own key, derived with its own label (NIST SP 800-108).
    fn new(secret: &str, cookie_name: &str) -> Self {
        let [a, b, c, d, ..] = derive(secret, b"cloakroom key id v1");
        let mut mac = hmac(&derive(secret, b"cloakroom ticket key v1"));
        // The name's end is marked by a byte that no cookie name can hold.
        mac.update(cookie_name.as_bytes());
        mac.update(&[0]);
        let id = [a, b, c, d];
        Self { id, fingerprint: format!("{:08x}", u32::from_be_bytes(id)), mac }
    }
}

fn derive(secret: &str, label: &[u8]) -> [u8; 32] {
    hmac(secret.as_bytes()).chain_update(label).finalize().into_bytes().into()
}

#[allow(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104)")]
fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}
