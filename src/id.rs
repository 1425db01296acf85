//! The secret id of a session, and the names derived from it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{base64url, time::Time};

/// The secret id of a session: 32 random bytes, which only the ticket holds. Does not print.
#[derive(Clone)]
pub struct Id {
    bytes: [u8; 32],
    /// Computed once: every request needs it more than once.
    handle: Handle,
}

impl Id {
    /// An id from 32 bytes of a cryptographically secure source, or of a verified ticket.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let [handle @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _] = derive(&bytes, b"cloakroom handle v1");
        Self { bytes, handle: Handle(handle) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The public name of the session.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The id that replaces this one in a rotation. Everyone who holds this id and reads the nonce from the store
    /// derives the same successor; neither alone is enough.
    pub fn successor(&self, nonce: &Nonce) -> Self {
        let mut label = Vec::from(b"cloakroom successor v1 ");
        label.extend(nonce.to_string().into_bytes());
        Self::from_bytes(derive(&self.bytes, &label))
    }
}

/// One-way, and independent for each label. The input is unambiguous: the id has a fixed length and comes first.
fn derive(id: &[u8; 32], label: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(id).chain_update(label).finalize().into()
}

/// In constant time.
impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for Id {}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(…)")
    }
}

/// The public name of a session: a one-way hash of its id. It finds the session in the store and cannot be used to
/// log in. Prints as 24 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "String", extend("pattern" = "^[A-Za-z0-9_-]{24}$")))]
#[serde(transparent)]
pub struct Handle(#[serde(with = "base64url")] [u8; 18]);

impl Handle {
    /// Parses a handle as it is printed.
    pub fn parse(text: &str) -> Option<Self> {
        base64url::decode_array(text).map(Self)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64url::write(&self.0, f)
    }
}

/// The name of a token family (RFC 9700 section 4.14.2): all ids that one session has had through its rotations. Random,
/// not secret. Prints as 12 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Family(#[serde(with = "base64url")] pub [u8; 9]);

/// What all families of one session have in common, also after a renewed login: the first part of their names.
pub type Origin = [u8; 6];

impl Family {
    /// Parses a name as it is printed.
    pub fn parse(text: &str) -> Option<Self> {
        base64url::decode_array(text).map(Self)
    }

    /// What it has in common with other families of the same session.
    pub fn origin(self) -> Origin {
        let [origin @ .., _, _, _] = self.0;
        origin
    }

    /// Another family of the same session.
    pub fn renewed(self, random: [u8; 3]) -> Self {
        let ([a, b, c, d, e, f], [x, y, z]) = (self.origin(), random);
        Self([a, b, c, d, e, f, x, y, z])
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64url::write(&self.0, f)
    }
}

/// The position of an id in its family: 0 is the first. A ticket has three bytes for it.
pub type Generation = u32;

/// The generation after this one; the last one a ticket can hold stays.
pub fn next_generation(generation: Generation) -> Generation {
    (generation + 1).min(MAX_GENERATION)
}

/// The last generation that a ticket can hold.
pub const MAX_GENERATION: Generation = 0xff_ffff;

/// A random name that is used once; prints as 16 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "base64url")] pub [u8; 12]);

impl Nonce {
    /// A nonce that holds the time it was made.
    pub fn at(now: Time, random: [u8; 6]) -> Self {
        let mut bytes = [0; 12];
        let (time, rest) = bytes.split_at_mut(6);
        time.copy_from_slice(&now.six_bytes());
        rest.copy_from_slice(&random);
        Self(bytes)
    }

    /// The time a nonce of [`Nonce::at`] was made.
    pub fn time(&self) -> Time {
        let [time @ .., _, _, _, _, _, _] = self.0;
        Time::from_six_bytes(time)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64url::write(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::from_bytes([7; 32])
    }

    /// Made by hand with Python's hashlib on 2026-11-21. If this fails, no deployment finds its sessions any more.
    #[test]
    fn the_frozen_handle_is_still_derived() {
        assert_eq!(id().handle().to_string(), "W5mFHxzQHphIkp8jCPn54IoR");
    }

    #[test]
    fn a_successor_depends_on_the_id_and_the_nonce() {
        let (one, two) = (Nonce([1; 12]), Nonce([2; 12]));
        assert_eq!(id().successor(&one), id().successor(&one));
        assert_ne!(id().successor(&one), id().successor(&two));
        assert_ne!(id().successor(&one), Id::from_bytes([8; 32]).successor(&one));
        assert_ne!(id().successor(&one), id());
    }

    #[test]
    fn a_nonce_can_hold_the_time_it_was_made() {
        let now = Time(1_767_225_600_000);
        assert_eq!(Nonce::at(now, [3; 6]).time(), now);
    }

    #[test]
    fn an_id_does_not_print() {
        assert_eq!(format!("{:?}", id()), "Id(…)");
    }
}
