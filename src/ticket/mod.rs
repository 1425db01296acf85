//! The ticket: what the visitor keeps of a session.
//!
//! A cookie value of 148 characters: base64url of 111 bytes, all of it under a MAC. Nothing else lets anyone into a
//! session: the store holds hashes of ids, never an id. The ticket also carries what saves a round trip: when the
//! session ends at the latest, and when the ticket was issued, from which follows when a touch is due.
//!
//! ```text
//! version 1 | key id 4 | session id 32 | issued 6 | ends 6 | flags 2 | user tag 16 | family 9 | generation 3 | HMAC-SHA-256 32
//! ```
//!
//! Times are milliseconds, numbers are big-endian. The MAC covers a label, the cookie's name (so that a
//! ticket moved to another cookie is refused) and every byte before it.

pub mod cookie;
mod keyring;
pub mod signed_text;
pub mod sync;

use std::fmt;

pub use self::keyring::Keyring;
use self::keyring::{KEY_ID_LEN, MAC_LEN};
use crate::{
    base64url,
    foreign::Sid,
    id::{Family, Generation, Id, MAX_GENERATION},
    time::Time,
};

const VERSION: u8 = 1;
const BODY_LEN: usize = 79;
const TICKET_LEN: usize = BODY_LEN + MAC_LEN;
/// The length of a ticket as text. The bytes are a multiple of three, so every bit of the text has a meaning.
const TEXT_LEN: usize = TICKET_LEN / 3 * 4;

const REMEMBER: u16 = 1;
const HAS_USER: u16 = 2;

/// A short one-way hash of a user's id, equal in all of the user's tickets.
pub type UserTag = [u8; 16];

/// A ticket. A value exists only if it was made here or its MAC was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The session's secret id.
    pub id: Id,
    /// When the session's time to live was last renewed: when the ticket was issued or, once the session is loaded, by the
    /// last touch that this isolate remembers.
    pub issued: Time,
    /// The absolute end of the session.
    pub ends: Time,
    /// Whether the cookie outlives the browser's session.
    pub remember: bool,
    /// Whose session it is.
    pub user: Option<UserTag>,
    /// The family of the session's ids.
    pub family: Family,
    /// The position of this id in its family.
    pub generation: Generation,
    /// The id that another application has given the session, if it is one of those: then the rest follows from it, and this
    /// ticket has no text of its own.
    pub foreign: Option<Sid>,
}

/// Never shows the id.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("issued", &self.issued)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// A verified ticket.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// The ticket.
    pub ticket: Ticket,
    /// Whether another secret than the first signed it: it must be issued again.
    pub outdated: bool,
    /// The fingerprint of the key that signed it.
    pub key: &'a str,
}

/// Why a ticket is refused; found out without the store.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Rejected {
    /// Not the text of a ticket: wrong length, characters or version.
    Malformed,
    /// No secret of ours signed this, for this cookie.
    Forged,
    /// It names a key that is not known here: that of a secret that is being rolled out, perhaps.
    UnknownKey,
    /// Past its absolute end.
    Expired,
}

impl Ticket {
    /// The cookie's value, under the first secret.
    pub fn seal(&self, keyring: &Keyring) -> String {
        let mut flags = if self.remember { REMEMBER } else { 0 };
        if self.user.is_some() {
            flags |= HAS_USER;
        }
        let mut bytes = Vec::with_capacity(TICKET_LEN);
        bytes.push(VERSION);
        bytes.extend(keyring.signing_key_id());
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.issued.six_bytes());
        bytes.extend(self.ends.six_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.user.unwrap_or_default());
        bytes.extend(self.family.0);
        let [_, generation @ ..] = self.generation.min(MAX_GENERATION).to_be_bytes();
        bytes.extend(generation);
        bytes.extend(keyring.sign(&bytes));
        base64url::encode(&bytes)
    }

    /// Whether this may be the text of a ticket, by its form alone.
    pub fn has_form(text: &str) -> bool {
        text.len() == TEXT_LEN
            && base64url::decode_array::<TICKET_LEN>(text).is_some_and(|[version, ..]| version == VERSION)
    }

    /// Verifies a cookie's value: its form, then its MAC, then its end.
    pub fn open<'a>(text: &str, keyring: &'a Keyring, now: Time) -> Result<Verified<'a>, Rejected> {
        let verified = Self::verify(text, keyring)?;
        if verified.ticket.ends <= now { Err(Rejected::Expired) } else { Ok(verified) }
    }

    /// The same whether it has ended or not: for those who only look.
    pub fn verify<'a>(text: &str, keyring: &'a Keyring) -> Result<Verified<'a>, Rejected> {
        // 1. The form.
        if text.len() != TEXT_LEN {
            return Err(Rejected::Malformed);
        }
        let bytes: [u8; TICKET_LEN] = base64url::decode_array(text).ok_or(Rejected::Malformed)?;
        let (body, mac) = bytes.split_at(BODY_LEN);
        let mut rest = body;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(Rejected::Malformed);
        }
        // 2. The MAC, before anything else is used.
        let key_id = take(&mut rest)?;
        let (outdated, key) = keyring.verify(key_id, body, mac)?;
        // 3. The fields.
        let id = Id::from_bytes(take(&mut rest)?);
        let issued = Time::from_six_bytes(take(&mut rest)?);
        let ends = Time::from_six_bytes(take(&mut rest)?);
        let flags = u16::from_be_bytes(take(&mut rest)?);
        let user = (flags & HAS_USER != 0).then_some(take(&mut rest)?);
        let family = Family(take(&mut rest)?);
        let [a, b, c] = take(&mut rest)?;
        let generation = u32::from_be_bytes([0, a, b, c]);
        let remember = flags & REMEMBER != 0;
        let ticket = Self { id, issued, ends, remember, user, family, generation, foreign: None };
        Ok(Verified { ticket, outdated, key })
    }
}

/// Cuts the next field off.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Rejected> {
    let (field, after) = rest.split_first_chunk().ok_or(Rejected::Malformed)?;
    *rest = after;
    Ok(*field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Time = Time(1_767_225_600_000);
    const OLD: &str = "an older secret of this deployment, 2025";
    const NEW: &str = "a newer secret of this deployment, 2026";

    fn keyring(secrets: &[&str]) -> Keyring {
        Keyring::new(secrets, "__Host-session")
    }

    fn ticket() -> Ticket {
        Ticket {
            id: Id::from_bytes([7; 32]),
            issued: NOW,
            ends: Time(NOW.0 + 86_400_000),
            remember: true,
            user: Some([9; 16]),
            family: Family([5; 9]),
            generation: 0x01_0203,
            foreign: None,
        }
    }

    /// Made by hand with Python's hmac on 2026-11-21. If this fails, every visitor of every deployment is logged out.
    #[test]
    fn the_frozen_ticket_is_still_made_and_still_opens() {
        let frozen = "AROJ4GIHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwGbdtqoAAGbfAEEAAADCQkJCQkJCQkJCQkJCQkJCQUFBQUFBQUFBQECAxjMraCOieq4SAdCTmICT7C9mJSQf1zdrW9Pn3AKXaE9";
        assert_eq!(ticket().seal(&keyring(&[NEW])), frozen);
        let keyring = keyring(&[NEW]);
        let verified = Ticket::open(frozen, &keyring, NOW).expect("a good ticket");
        assert_eq!(verified, Verified { ticket: ticket(), outdated: false, key: "1389e062" });
    }

    #[test]
    fn every_flipped_bit_of_the_bytes_and_every_other_character_of_the_text_is_refused() {
        let keyring = keyring(&[NEW, OLD]);
        let text = ticket().seal(&keyring);
        let bytes = base64url::decode(&text).expect("base64url");
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut tampered = bytes.clone();
                tampered[index] ^= 1 << bit;
                let tampered = base64url::encode(&tampered);
                assert!(Ticket::open(&tampered, &keyring, NOW).is_err(), "byte {index}, bit {bit}");
            }
        }
        for index in 0..text.len() {
            for byte in (0..=127_u8).filter(|byte| *byte != text.as_bytes()[index]) {
                let mut tampered = text.clone().into_bytes();
                tampered[index] = byte;
                let tampered = String::from_utf8(tampered).expect("ASCII");
                assert!(Ticket::open(&tampered, &keyring, NOW).is_err(), "character {index} as {byte}");
            }
        }
    }

    #[test]
    fn shortened_lengthened_and_foreign_texts_are_malformed() {
        let keyring = keyring(&[NEW]);
        let text = ticket().seal(&keyring);
        let wrong = [
            String::new(),
            text[..147].to_owned(),
            format!("{text}A"),
            format!("{text}="),
            format!("\"{text}\""),
            "é".repeat(74),
            "A".repeat(148),
            "A".repeat(100_000),
        ];
        for text in wrong {
            assert_eq!(Ticket::open(&text, &keyring, NOW), Err(Rejected::Malformed), "{text:.20}");
        }
    }

    #[test]
    fn a_ticket_moved_to_another_cookie_is_refused() {
        let text = ticket().seal(&Keyring::new(&[NEW], "__Host-admin"));
        assert_eq!(Ticket::open(&text, &keyring(&[NEW]), NOW), Err(Rejected::Forged));
    }

    #[test]
    fn a_ticket_under_an_older_secret_opens_as_outdated_until_the_secret_is_dropped() {
        let text = ticket().seal(&keyring(&[OLD]));
        let open =
            |secrets: &[&str]| Ticket::open(&text, &keyring(secrets), NOW).map(|verified| verified.outdated);
        assert_eq!(open(&[OLD]), Ok(false));
        assert_eq!(open(&[NEW, OLD]), Ok(true));
        assert_eq!(open(&[NEW]), Err(Rejected::UnknownKey));
    }

    #[test]
    fn a_ticket_opens_before_its_absolute_end_only() {
        let keyring = keyring(&[NEW]);
        let (text, ends) = (ticket().seal(&keyring), ticket().ends);
        assert!(Ticket::open(&text, &keyring, Time(ends.0 - 1)).is_ok());
        assert_eq!(Ticket::open(&text, &keyring, ends), Err(Rejected::Expired));
    }

    #[test]
    fn debug_does_not_leak_the_id() {
        let shown = format!("{:?} {:?}", ticket(), keyring(&[NEW]));
        assert!(!shown.contains("7, 7") && !shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_the_same(
            id: [u8; 32], issued in 0..1_u64 << 48, life in 1..1_u64 << 40, remember: bool, user: Option<[u8; 16]>,
            family: [u8; 9], generation in 0..=MAX_GENERATION,
        ) {
            let ends = Time((issued + life).min((1 << 48) - 1));
            prop_assume!(issued < ends.0);
            let (id, family, issued) = (Id::from_bytes(id), Family(family), Time(issued));
            let ticket = Ticket { id, issued, ends, remember, user, family, generation, foreign: None };
            let keyring = keyring(&[NEW]);
            let verified = Ticket::open(&ticket.seal(&keyring), &keyring, issued);
            prop_assert_eq!(verified.map(|verified| (verified.ticket, verified.outdated)), Ok((ticket, false)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            prop_assert!(Ticket::open(&text, &keyring(&[NEW]), NOW).is_err());
        }
    }
}
