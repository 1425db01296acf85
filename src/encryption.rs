//! Encryption of what is stored, for operators who set `SESSION_ENCRYPTION_KEY`.
//!
//! A sealed text is JSON, too: `{"v":1,"sealed":"<key id>.<base64url of nonce, ciphertext and tag>"}`. It is the whole record, under
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) with a random nonce, so that sealing twice gives two texts, and bound to its key of
//! the store: moved to another key it does not open. What was stored unsealed stays readable, and is sealed when it is next
//! written. A version of this Worker that knows no keys cannot read what is sealed, and leaves it alone.
//!
//! It hides what is in a record. It does not hide its length, nor keeps anybody who can write to the store from putting an
//! unsealed or an older record there.

use std::{borrow::Cow, fmt};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};

use crate::{
    base64url,
    host::{Host, random},
};

const BEFORE: &str = r#"{"v":1,"sealed":""#;
const AFTER: &str = r#""}"#;
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// In the place of the first key: nothing is sealed, and what is sealed stays readable.
const NONE: &str = "none";

/// The keys of a deployment; by default there are none, and nothing is sealed.
#[derive(Default)]
pub struct EncryptionKeys {
    /// The first one seals, if `seals`.
    keys: Vec<Key>,
    seals: bool,
}

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// Why a sealed text does not open. The end of a sentence, which names no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unopened(pub &'static str);

impl Unopened {
    const UNKNOWN_KEY: Self = Self("it is sealed under a key that is not in SESSION_ENCRYPTION_KEY");
    const CHANGED: Self = Self("it is sealed, and was changed or moved from another key of the store");
}

impl EncryptionKeys {
    /// From the text of `SESSION_ENCRYPTION_KEY`: base64 of 32 bytes each, separated by commas, of which the first seals and
    /// every one opens. With `none` in the first place nothing is sealed. `taken`: other secrets, none of which may be one of
    /// them. Errors: what is wrong, never with a key.
    pub fn parse(text: &str, taken: &[&str]) -> Result<Self, Vec<String>> {
        let entries: Vec<&str> = text.split(',').map(str::trim).collect();
        let seals = entries.first() != Some(&NONE);
        let entries = entries.get(usize::from(!seals)..).unwrap_or_default();
        let (mut keys, mut faults): (Vec<Key>, _) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let place = index + 1 + usize::from(!seals);
            let mut fault = |what: String| {
                faults.push(format!("SESSION_ENCRYPTION_KEY, entry {place} of its list: {what}"));
            };
            match decode(entry) {
                Err(what) => fault(what),
                Ok(_) if taken.contains(entry) => {
                    fault(format!("is used in another secret, too; each needs one of its own: {HOW_TO_MAKE}"))
                }
                Ok(bytes) => {
                    let key = Key::new(&bytes);
                    if keys.iter().any(|other| other.id == key.id) {
                        fault("is there twice; remove one".to_owned());
                    } else {
                        keys.push(key);
                    }
                }
            }
        }
        if entries.is_empty() {
            faults.push(
                "SESSION_ENCRYPTION_KEY is \"none\" alone: remove the secret, or name the keys that still open what is \
                 sealed, like \"none,KEY\""
                    .to_owned(),
            );
        }
        if faults.is_empty() { Ok(Self { keys, seals }) } else { Err(faults) }
    }

    /// Whether anything is sealed from now on.
    pub fn seals(&self) -> bool {
        self.seals
    }

    /// Whether there are keys at all, to seal or to open with.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is to be stored under `store_key`.
    pub fn seal(&self, store_key: &str, text: String, host: &impl Host) -> String {
        let Some(key) = self.keys.first().filter(|_| self.seals) else { return text };
        let nonce: [u8; NONCE_LEN] = random(host);
        let sealed = key.seal(store_key, &text, &nonce);
        let encoded = base64url::encode(&[&nonce[..], &sealed].concat());
        [BEFORE, &key.id, ".", &encoded, AFTER].concat()
    }

    /// What was given to [`Self::seal`]. What is stored unsealed is passed through.
    pub fn open<'t>(&self, store_key: &str, stored: &'t str) -> Result<Cow<'t, str>, Unopened> {
        let Some((id, encoded)) = parts(stored) else { return Ok(Cow::Borrowed(stored)) };
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Unopened::UNKNOWN_KEY)?;
        key.open(store_key, encoded).map(Cow::Owned).ok_or(Unopened::CHANGED)
    }

    /// Whether it is stored as it would be today: under the key that seals or, if nothing is sealed, unsealed.
    pub fn is_current(&self, stored: &str) -> bool {
        let id = parts(stored).map(|(id, _)| id);
        id == self.keys.first().filter(|_| self.seals).map(|key| &*key.id)
    }
}

/// Shows nothing of the keys.
impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKeys({} keys)", self.keys.len())
    }
}

impl Key {
    fn new(bytes: &[u8; KEY_LEN]) -> Self {
        // One-way: the key is random, and nothing of it can be found from this.
        let hash =
            Sha256::new().chain_update(b"cloakroom encryption key id v1 ").chain_update(bytes).finalize();
        Self {
            id: base64url::encode(hash.get(..6).unwrap_or_default()),
            cipher: XChaCha20Poly1305::new(bytes.into()),
        }
    }

    #[allow(clippy::expect_used, reason = "fails only for a text of over 256 GB")]
    fn seal(&self, store_key: &str, text: &str, nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
        let aad = associated_data(store_key);
        let payload = Payload { msg: text.as_bytes(), aad: aad.as_bytes() };
        self.cipher.encrypt(<&XNonce>::from(nonce), payload).expect("a text that fits in memory")
    }

    fn open(&self, store_key: &str, encoded: &str) -> Option<String> {
        let bytes = base64url::decode(encoded)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let aad = associated_data(store_key);
        let payload = Payload { msg: sealed, aad: aad.as_bytes() };
        String::from_utf8(self.cipher.decrypt(<&XNonce>::from(nonce), payload).ok()?).ok()
    }
}

/// The key id and the rest of a sealed text; `None` if it is not sealed.
fn parts(stored: &str) -> Option<(&str, &str)> {
    stored.strip_prefix(BEFORE)?.strip_suffix(AFTER)?.split_once('.')
}

fn associated_data(store_key: &str) -> String {
    ["cloakroom sealed v1 ", store_key].concat()
}

const HOW_TO_MAKE: &str = "make one with `openssl rand -base64 32`";

/// The bytes of a key, in the standard or the URL-safe alphabet, with or without padding.
fn decode(text: &str) -> Result<[u8; KEY_LEN], String> {
    const ANY: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    if text.is_empty() {
        return Err(format!("is empty; {HOW_TO_MAKE}, or remove it"));
    }
    if text == NONE {
        return Err("\"none\" stands only in the first place".to_owned());
    }
    let bytes = ANY
        .decode(text.replace('-', "+").replace('_', "/"))
        .map_err(|_| format!("is not base64; {HOW_TO_MAKE}"))?;
    let length = bytes.len();
    let bytes: [u8; KEY_LEN] = bytes
        .try_into()
        .map_err(|_| format!("has {length} bytes as base64; exactly {KEY_LEN} are needed: {HOW_TO_MAKE}"))?;
    // Of 32 random bytes about 30 differ; as many as 16 equal ones do not happen.
    let different =
        bytes.iter().enumerate().filter(|(at, one)| !bytes.iter().take(*at).any(|other| other == *one));
    let is_text = bytes.iter().all(u8::is_ascii_graphic);
    let is_counted = bytes.windows(2).all(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == 1));
    if different.count() < 16 || is_text || is_counted {
        return Err(format!("looks like a placeholder or a passphrase; {HOW_TO_MAKE}"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::tests::Machine;

    // Made with `openssl rand -base64 32`.
    const A: &str = "q4LT/Ib+31SPZv0CVhgyLYe05/ii2Fof6T+KQai7Lic=";
    const B: &str = "gdgcUFfg/gicr0fPJsEBCcbA0T5bH5hxAAv0ho5V2JU=";

    fn keys(text: &str) -> EncryptionKeys {
        EncryptionKeys::parse(text, &[]).expect("keys")
    }

    #[test]
    fn what_is_sealed_is_json_of_which_nothing_can_be_read_and_opens_again() {
        let keys = keys(A);
        let text = r#"{"v":1,"data":{"card":"4111"}}"#;
        let sealed = keys.seal("sess:a", text.to_owned(), &Machine);
        let json: serde_json::Value = serde_json::from_str(&sealed).expect("JSON");
        assert_eq!(json["v"], 1);
        assert!(!sealed.contains("card") && !sealed.contains("4111"), "{sealed}");
        assert_eq!(keys.open("sess:a", &sealed).as_deref(), Ok(text));
        assert!(keys.is_current(&sealed) && !keys.is_current(text));
    }

    /// Made with libsodium (PyNaCl 1.6): deployments hold texts like this one.
    #[test]
    fn a_frozen_text_opens() {
        assert_eq!(keys(A).open("sess:a", FROZEN).as_deref(), Ok("{\"v\":1}"));
    }
    const FROZEN: &str =
        r#"{"v":1,"sealed":"MRZK8xDz.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX_iXtoc76QWaDRxJ8XeJgm_afmtQgNRg"}"#;

    #[test]
    fn the_first_key_seals_and_every_one_opens() {
        let (old, both, new) = (keys(A), keys(&format!("{B}, {A}")), keys(B));
        let sealed = old.seal("k", "x".to_owned(), &Machine);
        assert_eq!(both.open("k", &sealed).as_deref(), Ok("x"));
        assert!(!both.is_current(&sealed));
        assert_eq!(new.open("k", &sealed), Err(Unopened::UNKNOWN_KEY));
        assert_eq!(EncryptionKeys::default().open("k", &sealed), Err(Unopened::UNKNOWN_KEY));
        let again = both.seal("k", "x".to_owned(), &Machine);
        assert_eq!(new.open("k", &again).as_deref(), Ok("x"));
        assert!(both.is_current(&again) && new.is_current(&again));
    }

    #[test]
    fn with_none_in_the_first_place_nothing_is_sealed_and_everything_opens() {
        let (on, off) = (keys(A), keys(&format!("none,{A}")));
        let sealed = on.seal("k", "x".to_owned(), &Machine);
        assert_eq!(off.open("k", &sealed).as_deref(), Ok("x"));
        assert_eq!(off.seal("k", "x".to_owned(), &Machine), "x");
        assert!(!off.seals() && on.seals() && off.is_current("x") && !off.is_current(&sealed));
    }

    #[test]
    fn a_sealed_text_opens_under_its_own_key_of_the_store_alone() {
        let keys = keys(A);
        let sealed = keys.seal("app:sess:a", "x".to_owned(), &Machine);
        for other in ["app:sess:b", "sess:a", "app:account:a", "", "app:sess:a "] {
            assert_eq!(keys.open(other, &sealed), Err(Unopened::CHANGED), "{other}");
        }
    }

    #[test]
    fn a_text_with_one_bit_flipped_or_a_byte_less_does_not_open() {
        let keys = keys(A);
        let sealed = keys.seal("k", "secret".to_owned(), &Machine);
        let (id, encoded) = parts(&sealed).expect("a sealed text");
        let bytes = base64url::decode(encoded).expect("base64url");
        let with = |bytes: &[u8]| [BEFORE, id, ".", &base64url::encode(bytes), AFTER].concat();
        assert_eq!(with(&bytes), sealed);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.open("k", &with(&flipped)), Err(Unopened::CHANGED), "{bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(keys.open("k", &with(&bytes[..length])), Err(Unopened::CHANGED), "{length}");
        }
        // Cut off anywhere it opens as nothing that was stored.
        for length in 0..sealed.len() {
            assert_ne!(keys.open("k", &sealed[..length]).as_deref(), Ok("secret"), "{length}");
        }
        let other_id = sealed.replace(id, "AAAAAAAA");
        assert_eq!(keys.open("k", &other_id), Err(Unopened::UNKNOWN_KEY));
    }

    #[test]
    fn keys_that_are_none_are_refused_and_never_repeated() {
        let half = "XRLGQemQsUr4YezcaiLltA==";
        let long = "mQPXb9LtcPvRK5XchyfFpAXX1flctDguw7lWi5RDIOdA";
        let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let counted = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let passphrase = base64url::encode(b"correct-horse-battery-staple-123");
        let hex = "99a999af49093f1d214fdbbca1771053";
        for (text, what) in [
            ("", "is empty"),
            ("?", "is not base64"),
            (half, "has 16 bytes"),
            (long, "has 33 bytes"),
            (hex, "has 24 bytes"),
            (zeros, "looks like a placeholder"),
            (counted, "looks like a placeholder"),
            (&passphrase, "looks like a placeholder"),
            ("none", "\"none\" stands only"),
        ] {
            for (list, entry) in [(format!("{A},{text}"), 2), (format!("none, {A},{text}"), 3)] {
                let faults = EncryptionKeys::parse(&list, &[]).expect_err(text);
                let [fault] = &faults[..] else { panic!("{faults:?}") };
                let start = format!("SESSION_ENCRYPTION_KEY, entry {entry} of its list: {what}");
                assert!(fault.starts_with(&start), "{fault}");
                assert!(!fault.contains(A) && (text.len() < 5 || !fault.contains(text)), "{fault}");
            }
        }
        for (list, taken, what) in [
            (format!("{A},{A}"), "", "is there twice"),
            (format!("{A},{}", A.trim_end_matches('=')), "", "is there twice"),
            (A.to_owned(), A, "is used in another secret"),
            ("none".to_owned(), "", "is \"none\" alone"),
        ] {
            let faults = EncryptionKeys::parse(&list, &[taken]).expect_err(what);
            assert!(faults.len() == 1 && faults[0].contains(what) && !faults[0].contains(A), "{faults:?}");
        }
    }

    #[test]
    fn a_key_may_be_written_in_either_alphabet_and_without_padding() {
        let url_safe = A.replace('+', "-").replace('/', "_");
        for text in [&url_safe, A.trim_end_matches('='), &format!(" {A}\n")] {
            assert!(keys(text).is_current(&keys(A).seal("k", String::new(), &Machine)), "{text}");
        }
    }

    #[test]
    fn debug_does_not_leak_a_key() {
        assert_eq!(format!("{:?}", keys(&format!("{A},{B}"))), "EncryptionKeys(2 keys)");
    }

    proptest! {
        #[test]
        fn any_text_opens_as_it_was_sealed(key in ".*", text in ".*") {
            let keys = keys(A);
            let sealed = keys.seal(&key, text.clone(), &Machine);
            let opened = keys.open(&key, &sealed);
            prop_assert_eq!(opened.as_deref(), Ok(&*text));
        }

        #[test]
        fn no_text_makes_it_panic(key in ".*", text in ".*") {
            let keys = keys(A);
            let _ = keys.open(&key, &text);
            let _ = keys.open(&key, &[BEFORE, &keys.keys[0].id, ".", &text, AFTER].concat());
        }
    }
}
