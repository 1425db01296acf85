//! Passwords: Argon2id as PHC strings (RFC 9106), and PBKDF2-SHA-256 as other systems export it.

use std::{
    alloc::{Layout, handle_alloc_error},
    cell::RefCell,
};

use argon2::{Algorithm, Argon2, Block, Version};
use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The cost parameters of Argon2id; OWASP's minimum by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

/// A password, as it was sent. Does not print.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A password that is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Whether its hash was made with other parameters than today's, and must be renewed.
    pub is_outdated: bool,
}

/// What is wrong with a new password (NIST SP 800-63B: its length, and not a common one).
pub fn fault(password: &str, folded_name: &str) -> Option<&'static str> {
    let lower = password.to_ascii_lowercase();
    if password.chars().count() < 8 {
        Some("a password has at least 8 characters")
    } else if password.chars().count() > 1024 {
        Some("a password has at most 1024 characters")
    } else if COMMON.split(' ').any(|common| common == lower) || is_monotonous(&lower) || lower == folded_name
    {
        Some("this password is too common; choose another")
    } else {
        None
    }
}

/// The most common passwords of eight characters and more.
const COMMON: &str = "password password1 password12 password123 password! passw0rd p@ssw0rd p@ssword 12345678 123456789 \
    1234567890 0123456789 987654321 87654321 123123123 1q2w3e4r 1q2w3e4r5t 1qaz2wsx qwertyui qwertyuiop \
    qwerty123 qwerty12 qwerty1234 asdfghjkl zxcvbnm123 abcd1234 abc12345 a1b2c3d4 iloveyou iloveyou1 \
    sunshine princess football baseball superman trustno1 letmein123 welcome1 welcome123 administrator";

/// Two different characters at the most.
fn is_monotonous(password: &str) -> bool {
    let mut kinds: Vec<char> = Vec::new();
    for character in password.chars() {
        if !kinds.contains(&character) {
            kinds.push(character);
        }
    }
    kinds.len() <= 2
}

/// The PHC string of a password.
pub fn hash(password: &str, salt: [u8; 16], params: Params) -> Option<String> {
    let hash = argon2id(password, &salt, params)?;
    let Params { memory_kib, iterations, parallelism } = params;
    let (salt, hash) = (encode(&salt), encode(&hash));
    Some(format!("$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}${salt}${hash}"))
}

/// Verifies a password. Without a hash (there is no such account) it does the same work, and fails.
pub fn verify(password: &str, phc: Option<&str>, params: Params) -> Option<Verified> {
    let stored = phc.and_then(Stored::parse);
    let Some(stored) = stored else {
        argon2id(password, &[0; 16], params);
        return None;
    };
    let hash = match stored.work {
        Work::Argon2id(work) => argon2id(password, &stored.salt, work)?,
        Work::Pbkdf2(rounds) => {
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &stored.salt, rounds)
        }
    };
    let is_right: bool = hash.ct_eq(&stored.hash).into();
    is_right.then_some(Verified { is_outdated: stored.work != Work::Argon2id(params) })
}

thread_local! {
    /// The memory of the last hash, for the next one to overwrite. If it were freed, small values would settle in it, and
    /// the next hash would need as much again beside it.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn argon2id(password: &str, salt: &[u8], params: Params) -> Option<[u8; 32]> {
    let Params { memory_kib, iterations, parallelism } = params;
    let params = argon2::Params::new(memory_kib, iterations, parallelism, Some(32)).ok()?;
    let count = params.block_count();
    let mut hash = [0; 32];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.len() < count {
            *blocks = Vec::new();
            // Out of memory says nothing about the password: as with any failed allocation, the instance is replaced.
            blocks.try_reserve_exact(count).unwrap_or_else(|_| handle_alloc_error(Layout::new::<Block>()));
            blocks.resize(count, Block::new());
        }
        let blocks = blocks.get_mut(..count)?;
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, blocks).ok()
    })?;
    Some(hash)
}

/// A hash, parsed.
struct Stored {
    work: Work,
    salt: Vec<u8>,
    hash: [u8; 32],
}

#[derive(PartialEq, Eq)]
enum Work {
    Argon2id(Params),
    Pbkdf2(u32),
}

impl Stored {
    /// `$argon2id$v=19$m=…,t=…,p=…$salt$hash`, `$pbkdf2-sha256$i=…,l=32$salt$hash` (also `$pbkdf2-sha256$…$salt$hash`, as
    /// passlib writes it), or Django's `pbkdf2_sha256$…$salt$hash`, whose salt is text.
    fn parse(phc: &str) -> Option<Self> {
        let fields: Vec<&str> = phc.split('$').collect();
        let (work, salt, hash) = match *fields.as_slice() {
            ["", "argon2id", "v=19", params, salt, hash] => {
                let work = Params {
                    memory_kib: param(params, "m=")?,
                    iterations: param(params, "t=")?,
                    parallelism: param(params, "p=")?,
                };
                (Work::Argon2id(work), decode(salt)?, hash)
            }
            ["", "pbkdf2-sha256", params, salt, hash] => {
                let rounds = params.parse().ok().or_else(|| param(params, "i="))?;
                (Work::Pbkdf2(rounds), decode(salt)?, hash)
            }
            ["pbkdf2_sha256", rounds, salt, hash] => (Work::Pbkdf2(rounds.parse().ok()?), salt.into(), hash),
            _ => return None,
        };
        // No stored hash may ask for more work than a request can do.
        let is_affordable = match work {
            Work::Argon2id(params) => params.memory_kib <= 65_536 && params.iterations <= 100,
            Work::Pbkdf2(rounds) => rounds <= 5_000_000,
        };
        if !is_affordable {
            return None;
        }
        Some(Self { work, salt, hash: decode(hash)?.try_into().ok()? })
    }
}

fn param(params: &str, name: &str) -> Option<u32> {
    params.split(',').find_map(|param| param.strip_prefix(name))?.parse().ok()
}

/// Base64 as PHC strings have it: without padding. Django and passlib also write padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// Passlib writes `.` for `+`.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.replace('.', "+")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIGHT: Params = Params { memory_kib: 32, iterations: 3, parallelism: 1 };

    #[test]
    fn a_hash_is_a_phc_string_that_its_password_alone_opens() {
        let phc = hash("correct horse", [7; 16], LIGHT).expect("a hash");
        assert!(phc.starts_with("$argon2id$v=19$m=32,t=3,p=1$BwcHBwcHBwcHBwcHBwcHBw$"), "{phc}");
        assert_eq!(verify("correct horse", Some(&phc), LIGHT), Some(Verified { is_outdated: false }));
        for wrong in ["Correct horse", "correct horse ", "", "correct hors"] {
            assert_eq!(verify(wrong, Some(&phc), LIGHT), None, "{wrong}");
        }
        let heavier = Params { iterations: 4, ..LIGHT };
        assert_eq!(verify("correct horse", Some(&phc), heavier), Some(Verified { is_outdated: true }));
    }

    #[test]
    fn a_hash_depends_on_nothing_that_was_hashed_before() {
        let hashes = |params: &[Params]| -> Vec<_> {
            params.iter().map(|params| argon2id("correct horse", &[7; 16], *params)).collect()
        };
        let (heavy, lanes) = (Params { memory_kib: 128, ..LIGHT }, Params { parallelism: 4, ..LIGHT });
        let mut backwards = hashes(&[lanes, heavy, LIGHT]);
        backwards.reverse();
        assert_eq!(hashes(&[LIGHT, heavy, lanes]), backwards);
    }

    #[test]
    fn debug_does_not_leak_a_password() {
        assert_eq!(format!("{:?}", Password("correct horse".to_owned())), "Password(…)");
    }

    #[test]
    fn nothing_is_cut_off_a_long_password() {
        let (long, longer) = ("ä".repeat(1023) + "x", "ä".repeat(1023) + "y");
        let phc = hash(&long, [1; 16], LIGHT).expect("a hash");
        assert!(verify(&long, Some(&phc), LIGHT).is_some() && verify(&longer, Some(&phc), LIGHT).is_none());
    }

    /// Made with Python's hashlib.pbkdf2_hmac on 2026-11-21.
    #[test]
    fn what_other_systems_export_is_verified_and_outdated() {
        let hash = PBKDF2_HASH;
        for phc in [
            format!("$pbkdf2-sha256$i=1000,l=32$c2FsdHNhbHQ${hash}"),
            format!("$pbkdf2-sha256$1000$c2FsdHNhbHQ${}", hash.replace('+', ".")),
            format!("pbkdf2_sha256$1000$saltsalt${hash}="),
        ] {
            assert_eq!(
                verify("correct horse", Some(&phc), LIGHT),
                Some(Verified { is_outdated: true }),
                "{phc}"
            );
            assert_eq!(verify("wrong horse", Some(&phc), LIGHT), None, "{phc}");
        }
    }

    const PBKDF2_HASH: &str = "qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0";

    #[test]
    fn what_is_no_hash_opens_for_nobody() {
        for phc in [
            "",
            "plain",
            "$argon2id$v=19$m=32,t=3,p=1$$",
            "$argon2i$v=19$m=32,t=3,p=1$AAAA$AAAA",
            "$1$a$b",
            "$argon2id$v=19$m=99999999,t=3,p=1$AAAA$AAAA",
            "pbkdf2_sha256$4000000000$saltsalt$AAAA",
        ] {
            assert_eq!(verify("plain", Some(phc), LIGHT), None, "{phc}");
        }
        assert_eq!(verify("anything", None, LIGHT), None);
    }

    #[test]
    fn a_chosen_password_is_long_enough_and_not_a_common_one() {
        for bad in ["short", "Password1", "aaaaaaaaaa", "abababababab", "adalovelace", &"x1y2z3".repeat(200)]
        {
            assert!(fault(bad, "adalovelace").is_some(), "{bad}");
        }
        for good in ["correct horse", "ключ от дома", "        x y", "🔑🔒🗝️🔐🧥🎫🏠🚪"]
        {
            assert_eq!(fault(good, "adalovelace"), None, "{good}");
        }
    }
}
