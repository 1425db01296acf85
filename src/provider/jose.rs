//! Signed tokens (RFC 7515, in compact form) and the keys they are verified with (RFC 7517). How a token is verified follows
//! from the key alone (RFC 8725 section 3.1): a key of one kind verifies one algorithm, and no kind is a shared secret.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use crate::{
    base64url,
    host::{Host, VerifyingAlgorithm, VerifyingKey},
};

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// How many keys of a provider are looked at.
const MAX_KEYS: usize = 32;

/// The shortest and the longest RSA modulus, in bytes (RFC 7518 section 3.3 wants the shortest).
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A token in its parts, not verified.
pub(super) struct Untrusted<'t> {
    header: Header,
    /// What is signed.
    input: &'t str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What kind of token it is, if it says so (RFC 8725 section 3.11).
    typ: Option<String>,
    /// What must be understood, which is nothing (RFC 7515 section 4.1.11).
    crit: Option<Value>,
}

/// A key that a provider publishes.
#[derive(Clone, Debug)]
pub(super) struct Key {
    kid: Option<String>,
    verifying: VerifyingKey,
}

/// What is read of one (RFC 7518 section 6, RFC 8037 section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a key set that verify signatures. Others are left out (RFC 7517 section 5). `None` if it is none.
pub(super) fn keys(json: &str) -> Option<Vec<Key>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_str(json).ok()?;
    Some(set.keys.into_iter().filter_map(Key::parse).take(MAX_KEYS).collect())
}

impl Key {
    fn parse(json: Value) -> Option<Self> {
        let Jwk { kty, kid, alg, r#use, key_ops, crv, n, e, x, y } = serde_json::from_value(json).ok()?;
        let is_number = |text: &Option<String>| {
            text.as_deref().is_some_and(|text| base64url::decode_array::<32>(text).is_some())
        };
        let (algorithm, jwk) = match (&*kty, crv.as_deref()) {
            ("RSA", _) => {
                let modulus = base64url::decode(n.as_deref()?)?;
                if !RSA_BYTES.contains(&modulus.len()) || modulus.first() == Some(&0) {
                    return None;
                }
                (VerifyingAlgorithm::Rs256, json!({"kty": kty, "n": n, "e": e?}))
            }
            ("EC", Some("P-256")) if is_number(&x) && is_number(&y) => {
                (VerifyingAlgorithm::Es256, json!({"kty": kty, "crv": crv, "x": x, "y": y}))
            }
            ("OKP", Some("Ed25519")) if is_number(&x) => {
                (VerifyingAlgorithm::EdDsa, json!({"kty": kty, "crv": crv, "x": x}))
            }
            _ => return None,
        };
        let is_for_it = alg.is_none_or(|alg| names(algorithm).contains(&&*alg))
            && r#use.is_none_or(|usage| usage == "sig")
            && key_ops.is_none_or(|operations| operations.iter().any(|one| one == "verify"));
        is_for_it.then(|| Self { kid, verifying: VerifyingKey { algorithm, jwk: jwk.to_string() } })
    }
}

/// The names of an algorithm. WebCrypto's name of Ed25519 is that of RFC 9864.
fn names(algorithm: VerifyingAlgorithm) -> &'static [&'static str] {
    match algorithm {
        VerifyingAlgorithm::EdDsa => &["EdDSA", "Ed25519"],
        VerifyingAlgorithm::Es256 => &["ES256"],
        VerifyingAlgorithm::Rs256 => &["RS256"],
    }
}

impl<'t> Untrusted<'t> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'t str) -> Result<Self, Failure> {
        Self::take_apart(token).ok_or(Failure::InvalidResponse("its token is no signed JWT in compact form"))
    }

    fn take_apart(token: &'t str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (input, signature) = token.rsplit_once('.')?;
        let (header, payload) = input.split_once('.')?;
        let header: Header = serde_json::from_slice(&base64url::decode(header)?).ok()?;
        let (payload, signature) = (base64url::decode(payload)?, base64url::decode(signature)?);
        header.crit.is_none().then_some(Self { header, input, payload, signature })
    }

    /// What kind of token it says it is, in lower case and without `application/` (RFC 7515 section 4.1.9).
    pub(super) fn kind(&self) -> Option<String> {
        let kind = self.header.typ.as_ref()?.to_ascii_lowercase();
        Some(kind.strip_prefix("application/").unwrap_or(&kind).to_owned())
    }

    /// The keys that it may be signed with: by its `kid`, if it has one, and of its algorithm.
    pub(super) fn candidates<'k>(&self, keys: &'k [Key]) -> Vec<&'k Key> {
        let is_named = |key: &&Key| self.header.kid.is_none() || key.kid == self.header.kid;
        let fits = |key: &&Key| names(key.verifying.algorithm).contains(&&*self.header.alg);
        keys.iter().filter(is_named).filter(fits).collect()
    }

    /// What it says, and how it is signed, if one of these keys has signed it.
    pub(super) async fn verify(
        self,
        keys: &[Key],
        host: &impl Host,
    ) -> Result<(Vec<u8>, VerifyingAlgorithm), Failure> {
        for key in self.candidates(keys) {
            if host.verify(&key.verifying, self.input, &self.signature).await {
                return Ok((self.payload, key.verifying.algorithm));
            }
        }
        Err(Failure::InvalidResponse("no key that it publishes has signed its token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of RFC 7515 appendix A.3 and RFC 8037 appendix A.2.
    fn ec() -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": "two",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }
    fn okp() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }
    fn rsa(bytes: usize) -> Value {
        json!({"kty": "RSA", "kid": "three", "n": base64url::encode(&vec![0x99; bytes]), "e": "AQAB"})
    }
    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }
    fn token(header: &Value) -> String {
        [&*base64url::encode(header.to_string().as_bytes()), "e30", "AA"].join(".")
    }

    #[test]
    fn keys_that_verify_nothing_here_are_left_out() {
        let set = json!({"keys": [
            ec(), okp(), rsa(256),
            with(ec(), "alg", json!("ES256")), with(okp(), "alg", json!("Ed25519")), with(rsa(256), "use", json!("sig")),
            7, {}, {"kty": "oct", "k": "AAAA", "alg": "HS256"}, rsa(128), rsa(255),
            with(rsa(256), "alg", json!("HS256")), with(rsa(256), "alg", json!("PS256")), with(rsa(256), "use", json!("enc")),
            with(ec(), "alg", json!("RS256")), with(ec(), "crv", json!("P-384")), with(ec(), "x", json!("AA")), with(ec(), "y", json!("AA")),
            with(okp(), "crv", json!("X25519")), with(okp(), "key_ops", json!(["sign"])), with(okp(), "x", json!("AA")),
            with(rsa(256), "e", Value::Null), with(rsa(256), "n", json!(base64url::encode(&[0; 256]))), rsa(1025),
        ]});
        assert_eq!(keys(&set.to_string()).map(|keys| keys.len()), Some(6));
        for none in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(keys(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_key_set_without_end_is_not_looked_at_to_its_end() {
        let set = json!({"keys": vec![okp(); MAX_KEYS + 1]});
        assert_eq!(keys(&set.to_string()).map(|keys| keys.len()), Some(MAX_KEYS));
    }

    #[test]
    fn a_key_s_kind_says_how_a_token_is_verified_and_not_the_token() {
        let set = keys(&json!({"keys": [ec(), okp(), rsa(256)]}).to_string()).expect("a set");
        let count =
            |header: Value| Untrusted::take_apart(&token(&header)).map(|token| token.candidates(&set).len());
        for (header, found) in [
            (json!({"alg": "ES256"}), 1),
            (json!({"alg": "ES256", "kid": "two"}), 1),
            (json!({"alg": "RS256", "kid": "three"}), 1),
            (json!({"alg": "EdDSA"}), 1),
            (json!({"alg": "RS256", "kid": "two"}), 0),
            (json!({"alg": "ES256", "kid": "three"}), 0),
            (json!({"alg": "ES256", "kid": "unknown"}), 0),
            (json!({"alg": "HS256", "kid": "three"}), 0),
            (json!({"alg": "none"}), 0),
            (json!({"alg": "None"}), 0),
            (json!({"alg": ""}), 0),
            (json!({"alg": "PS256"}), 0),
        ] {
            assert_eq!(count(header.clone()), Some(found), "{header}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = token(&json!({"alg": "ES256"}));
        assert!(Untrusted::take_apart(&good).is_some());
        for bad in [
            String::new(),
            "..".to_owned(),
            good.replace('.', ""),
            format!("{good}."),
            format!("{good}.AA"),
            format!("{good}="),
            format!("{good}{}", "A".repeat(MAX_TOKEN)),
            token(&json!({"alg": "ES256", "crit": ["b64"], "b64": false})),
            token(&json!({"alg": 7})),
            token(&json!({})),
            token(&json!([])),
        ] {
            assert!(Untrusted::take_apart(&bad).is_none(), "{}", bad.get(..60).unwrap_or(&bad));
        }
    }
}
