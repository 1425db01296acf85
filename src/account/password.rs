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

impl Params {
    /// The work it is, in block passes.
    fn cost(&self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.iterations)
    }

    fn for_argon2(self) -> Option<argon2::Params> {
        argon2::Params::new(self.memory_kib, self.iterations, self.parallelism, Some(32)).ok()
    }
}

/// A password, as it was sent. Does not print.
#[derive(serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(inline))]
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

/// The PHC string of a password.
pub fn hash(password: &str, salt: [u8; 16], params: Params) -> Option<String> {
    let hash = argon2id(password, &salt, params)?;
    let Params { memory_kib, iterations, parallelism } = params;
    let (salt, hash) = (encode(&salt), encode(&hash));
    Some(format!("$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}${salt}${hash}"))
}

/// Block passes of Argon2id (KiB of memory times iterations) that are the most a verification is filled up to: about a
/// second in workerd.
const MAX_FILL: u64 = 1_000_000;

/// Rounds of PBKDF2-SHA-256 that take as long as one block pass of Argon2id, measured in workerd.
const ROUNDS_PER_BLOCK: u64 = 2;

/// The least memory in which filler work is done: with less, rounding would make a difference.
const MIN_FILLER_KIB: u32 = 1024;

/// What is done to verify a password: the same amount of work for every name, whether there is such an account and however
/// its password was hashed, so that the time of the answer does not tell.
#[derive(Debug)]
pub struct Verification {
    stored: Option<Stored>,
    /// Argon2id whose outcome nobody looks at.
    filler: Option<Params>,
    today: Params,
    costliest: Params,
}

impl Verification {
    /// Plans it for the PHC string of an account; `None` if there is no such account. Each does as much work as the
    /// costliest of today's parameters, of this hash, and of `costliest`: of the hashes that were seen before.
    pub fn new(phc: Option<&str>, today: Params, costliest: Option<Params>) -> Self {
        let stored = phc.and_then(Stored::parse);
        let own = stored.as_ref().map(|stored| stored.work.as_argon2id(today));
        let candidates = [Some(today), costliest, own.filter(|own| own.cost() <= MAX_FILL)];
        let costliest = candidates.into_iter().flatten().max_by_key(Params::cost).unwrap_or(today);
        let filler = match &stored {
            None => Some(costliest),
            Some(stored) => filler(costliest.cost().saturating_sub(stored.work.cost()), costliest),
        };
        Self { stored, filler, today, costliest }
    }

    /// The costliest parameters so far, for the next verification.
    pub fn costliest(&self) -> Params {
        self.costliest
    }

    /// Does the work. `None` if the password is wrong, or there is no hash.
    pub fn run(self, password: &str) -> Option<Verified> {
        if let Some(filler) = self.filler {
            argon2id(password, &[0; 16], filler);
        }
        let Stored { work, salt, hash } = self.stored?;
        let computed = match work {
            Work::Argon2id(params) => argon2id(password, &salt, params)?,
            Work::Pbkdf2(rounds) => {
                pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, rounds)
            }
        };
        let is_right: bool = computed.ct_eq(&hash).into();
        is_right.then_some(Verified { is_outdated: work != Work::Argon2id(self.today) })
    }
}

/// Parameters of so many block passes, in about the memory that the costliest hash takes; `None` for as good as nothing.
fn filler(cost: u64, costliest: Params) -> Option<Params> {
    let most = u64::from(costliest.memory_kib.max(MIN_FILLER_KIB));
    let iterations = u32::try_from(cost.div_ceil(most)).ok()?;
    let memory_kib = u32::try_from(cost.checked_div(iterations.into())?).ok()?;
    (memory_kib >= 8).then_some(Params { memory_kib, iterations, parallelism: 1 })
}

thread_local! {
    /// The memory of the last hash, for the next one to overwrite. If it were freed, small values would settle in it, and
    /// the next hash would need as much again beside it.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn argon2id(password: &str, salt: &[u8], params: Params) -> Option<[u8; 32]> {
    let params = params.for_argon2()?;
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
#[derive(Debug)]
struct Stored {
    work: Work,
    salt: Vec<u8>,
    hash: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Argon2id(Params),
    Pbkdf2(u32),
}

impl Work {
    /// In block passes of Argon2id.
    fn cost(self) -> u64 {
        match self {
            Self::Argon2id(params) => params.cost(),
            Self::Pbkdf2(rounds) => u64::from(rounds) / ROUNDS_PER_BLOCK,
        }
    }

    /// Parameters of as much work: itself, or today's with other iterations.
    fn as_argon2id(self, today: Params) -> Params {
        match self {
            Self::Argon2id(params) => params,
            Self::Pbkdf2(_) => filler(self.cost(), today).unwrap_or(today),
        }
    }
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
        // No stored hash may ask for more work than a request can do, or for what cannot be done.
        let is_affordable = match work {
            Work::Argon2id(params) => {
                params.memory_kib <= 65_536 && params.iterations <= 100 && params.for_argon2().is_some()
            }
            Work::Pbkdf2(rounds) => (1..=5_000_000).contains(&rounds),
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
    use proptest::prelude::*;

    use super::*;

    /// Verifies by itself, with nothing seen before.
    fn verify(password: &str, phc: Option<&str>, today: Params) -> Option<Verified> {
        Verification::new(phc, today, None).run(password)
    }

    impl Verification {
        fn cost(&self) -> u64 {
            self.stored.as_ref().map_or(0, |stored| stored.work.cost())
                + self.filler.map_or(0, |filler| filler.cost())
        }
    }

    /// A PHC string of this work, of no password.
    fn phc(work: Work) -> String {
        let hash = encode(&[7; 32]);
        match work {
            Work::Argon2id(Params { memory_kib, iterations, parallelism }) => {
                format!("$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}$c2FsdHNhbHQ${hash}")
            }
            Work::Pbkdf2(rounds) => format!("$pbkdf2-sha256$i={rounds},l=32$c2FsdHNhbHQ${hash}"),
        }
    }

    fn params() -> impl Strategy<Value = Params> {
        (8_u32..=65_536, 1_u32..=100).prop_map(|(memory_kib, iterations)| Params {
            memory_kib,
            iterations,
            parallelism: 1,
        })
    }

    fn work() -> impl Strategy<Value = Work> {
        prop_oneof![params().prop_map(Work::Argon2id), (1_u32..5_000_000).prop_map(Work::Pbkdf2)]
    }

    proptest! {
        #[test]
        fn every_name_costs_the_same_once_its_hash_has_been_seen(
            today in params(), works in prop::collection::vec(work(), 0..8),
        ) {
            prop_assume!(today.cost() >= 1000);
            let hashes: Vec<_> = works.iter().map(|work| phc(*work)).collect();
            // Each was seen once; nobody's is costlier than what others are filled up to.
            let seen = hashes.iter().fold(None, |seen, hash| {
                Some(Verification::new(Some(hash), today, seen).costliest())
            });
            let unknown = Verification::new(None, today, seen).cost();
            let garbage = Verification::new(Some("garbage"), today, seen).cost();
            prop_assert_eq!(unknown, garbage);
            prop_assert!(unknown >= today.cost() && unknown <= MAX_FILL.max(today.cost()));
            for (work, hash) in works.iter().zip(&hashes) {
                let known = Verification::new(Some(hash), today, seen).cost();
                prop_assert!(
                    known.abs_diff(unknown) * 100 <= unknown || work.cost() > MAX_FILL,
                    "{work:?}: {known}, an unknown name: {unknown}"
                );
            }
        }

        #[test]
        fn filler_is_work_that_argon2_does(cost in 0_u64..MAX_FILL, costliest in params()) {
            let Some(params) = filler(cost, costliest) else {
                prop_assert!(cost < 8);
                return Ok(());
            };
            prop_assert!(params.memory_kib <= costliest.memory_kib.max(MIN_FILLER_KIB));
            prop_assert!(params.for_argon2().is_some());
        }
    }

    #[test]
    fn a_name_is_never_told_by_the_parameters_of_its_hash() {
        let today = Params { memory_kib: 19_456, iterations: 2, parallelism: 1 };
        let cheaper = Params { memory_kib: 64, iterations: 1, parallelism: 1 };
        let costlier = Params { memory_kib: 47_104, iterations: 2, parallelism: 2 };
        for (case, work, seen, expected) in [
            ("today's", Work::Argon2id(today), None, today),
            ("an older, cheaper one", Work::Argon2id(cheaper), None, today),
            ("an import", Work::Pbkdf2(10_000), None, today),
            ("a costlier one that was seen", Work::Argon2id(costlier), Some(costlier), costlier),
            ("today's, with a costlier one seen", Work::Argon2id(today), Some(costlier), costlier),
        ] {
            let known = Verification::new(Some(&phc(work)), today, seen).cost();
            let unknown = Verification::new(None, today, seen);
            assert_eq!(unknown.filler, Some(expected), "{case}");
            assert!(known.abs_diff(unknown.cost()) < 20, "{case}: {known}");
        }
        let seen = Verification::new(Some(&phc(Work::Pbkdf2(1_000_000))), today, None).costliest();
        assert!(seen.cost().abs_diff(500_000) < 50 && seen.memory_kib <= today.memory_kib, "{seen:?}");
    }

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
            &phc(Work::Pbkdf2(0)),
            &phc(Work::Argon2id(Params { iterations: 0, ..LIGHT })),
            &phc(Work::Argon2id(Params { memory_kib: 7, ..LIGHT })),
        ] {
            assert_eq!(
                Verification::new(Some(phc), LIGHT, None).filler,
                Some(LIGHT),
                "the work of an unknown name"
            );
            assert_eq!(verify("plain", Some(phc), LIGHT), None, "{phc}");
        }
        assert_eq!(verify("anything", None, LIGHT), None);
    }
}
