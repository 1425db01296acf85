//! The secret id of a session, and what is derived from it.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::time::Time;

/// What lets someone into a session: 32 random bytes, which only the ticket holds. Does not print.
#[derive(Clone)]
pub struct Id {
    bytes: [u8; 32],
    /// Looked for in every request, more than once.
    handle: Handle,
}

impl Id {
    /// An id from 32 bytes of a cryptographically secure source, or out of a verified ticket.
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

    /// The id that follows this one in a rotation. Whoever holds this id and reads the nonce in the store finds
    /// the same successor; neither alone is enough.
    pub fn successor(&self, nonce: &Nonce) -> Self {
        let mut label = Vec::from(b"cloakroom successor v1 ");
        label.extend(nonce.to_string().into_bytes());
        Self::from_bytes(derive(&self.bytes, &label))
    }
}

/// One-way, and apart for each label: the id is of a fixed length and comes first.
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

/// The public name of a session, derived from its id one-way: it finds the session in the store, and lets
/// nobody into it. Prints as 24 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle([u8; 18]);

impl Handle {
    /// Reads a handle as it is printed.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

/// What a session keeps through all its rotations: the random name of its family of ids (the term of RFC 9700 for
/// refresh tokens), and how many ids came before the present one. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// The family.
    pub family: Family,
    /// Which of its ids: 0 is the first.
    pub generation: u32,
}

impl Lineage {
    /// A ticket has three bytes for it.
    pub const MAX_GENERATION: u32 = 0xff_ffff;

    /// Of the id after this one.
    pub fn next(self) -> Self {
        Self { generation: (self.generation + 1).min(Self::MAX_GENERATION), ..self }
    }
}

/// The name of a family; prints as 12 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family(pub [u8; 9]);

impl Family {
    /// Reads a name as it is printed.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

/// A random name that is used once; prints as 16 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce(pub [u8; 12]);

impl Nonce {
    /// A nonce that says when it was made.
    pub fn at(now: Time, random: [u8; 6]) -> Self {
        let mut bytes = [0; 12];
        let (time, rest) = bytes.split_at_mut(6);
        time.copy_from_slice(&now.six_bytes());
        rest.copy_from_slice(&random);
        Self(bytes)
    }

    /// When it was made, if it was made to say so.
    pub fn time(&self) -> Time {
        let [time @ .., _, _, _, _, _, _] = self.0;
        Time::from_six_bytes(time)
    }

    /// Reads a nonce as it is printed.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

/// At most 18 bytes, in base64url.
fn print(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(Base64UrlUnpadded::encode(bytes, &mut [0; 24]).unwrap_or_default())
}

/// So many bytes of base64url.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let decoded = Base64UrlUnpadded::decode(text, &mut bytes).ok()?;
    (decoded.len() == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::from_bytes([7; 32])
    }

    /// Made by hand with Python's hashlib on 2026-11-21. When it fails, no session of any deployment is found any more.
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
    fn a_nonce_may_say_when_it_was_made() {
        let now = Time(1_767_225_600_000);
        assert_eq!(Nonce::at(now, [3; 6]).time(), now);
    }

    #[test]
    fn an_id_does_not_print() {
        assert_eq!(format!("{:?}", id()), "Id(…)");
    }
}
