//! Who asks, signed: the JWT that an origin gets (RFC 7519), and the public keys it is verified with (RFC 7517).
//!
//! The keys are the secret `JWT_KEYS`: the first signs, all are published, so that they can be changed without a rejected
//! request. Of a key everything is checked here that can be without cryptography; the rest is [`Host::sign`]'s.

use serde::Serialize;
use serde_json::Value;

use crate::{
    app::App,
    base64url,
    config::Faults,
    host::{Host, SigningAlgorithm, SigningKey},
    http::Problem,
    id::Handle,
    json,
    log::{self, Line},
    session::{Session, User},
    time::Time,
};

/// How long a token is good for, in seconds: an origin verifies it at once.
const LIFETIME: u64 = 60;

/// The longest `kid`, in bytes: it stands in every token.
const MAX_KID: usize = 255;

/// A key of `JWT_KEYS`.
#[derive(Debug)]
pub struct Key {
    public: PublicKey,
    signing: SigningKey,
}

/// The half of a key that is published.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PublicKey {
    kty: &'static str,
    crv: &'static str,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    y: Option<String>,
    kid: String,
    alg: &'static str,
    r#use: &'static str,
}

/// What the platform needs of a key.
#[derive(Serialize)]
struct PrivateKey<'k> {
    kty: &'k str,
    crv: &'k str,
    x: &'k str,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<&'k str>,
    d: &'k str,
}

/// What is published (RFC 7517 section 5).
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct KeySet<'k> {
    keys: Vec<&'k PublicKey>,
}

impl<'k> KeySet<'k> {
    /// The public halves of these keys.
    pub(crate) fn new(keys: &'k [Key]) -> Self {
        Self { keys: keys.iter().map(|key| &key.public).collect() }
    }
}

/// What a token says. A name and roles are always there, so that nobody has to ask whether they are.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    name: &'a str,
    roles: &'a [String],
    sid: Handle,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    iat: u64,
    exp: u64,
}

impl<'a> Claims<'a> {
    /// Of a session and its user. `iss`: the Worker's origin; `aud`: for whom the token is.
    fn new(iss: &'a str, aud: &'a str, user: &'a User, session: &Session, now: Time) -> Self {
        let seconds = |time: Time| time.0 / 1000;
        let iat = seconds(now);
        Self {
            iss,
            aud,
            sub: &user.id,
            name: &user.name,
            roles: &user.roles,
            sid: session.ticket.id.handle(),
            auth_time: session.record.authenticated_at.map(seconds),
            iat,
            exp: iat + LIFETIME,
        }
    }
}

/// The protected header (RFC 7515 section 4).
#[derive(Serialize)]
struct Header<'k> {
    alg: &'k str,
    kid: &'k str,
    typ: &'static str,
}

/// What is signed: header and claims (RFC 7515 section 5.1, step 5).
fn signing_input(key: &PublicKey, claims: &Claims<'_>) -> String {
    let part = |json: String| base64url::encode(json.as_bytes());
    let header = Header { alg: key.alg, kid: &key.kid, typ: "JWT" };
    [part(json::to_string(&header)), part(json::to_string(claims))].join(".")
}

impl<H: Host> App<H> {
    /// The token that tells the origin who asks, in compact form (RFC 7515 section 3.1). `iss`: the Worker's origin; `aud`: for whom
    /// it is. Errors, both 500: the keys are of no use, or do not sign.
    pub(super) async fn token(
        &self,
        iss: &str,
        aud: &str,
        user: &User,
        session: &Session,
    ) -> Result<String, Problem> {
        let claims = Claims::new(iss, aud, user, session, self.host.now());
        self.check_keys().await?;
        // The configuration has seen to it that there is one.
        let key = self.config.jwt_keys.first().ok_or_else(Problem::misconfigured)?;
        let input = signing_input(&key.public, &claims);
        let signature = self.host.sign(&key.signing, &input).await.map_err(|_| cannot_sign())?;
        Ok([input, base64url::encode(&signature)].join("."))
    }

    /// Whether every key signs, and what it signs is verified with its public half: looked at once in an isolate. A key that does
    /// not sign yet is looked at, too: it is published, and will.
    pub(crate) async fn check_keys(&self) -> Result<(), Problem> {
        let known = &self.isolate.are_keys_good;
        if known.get().is_none() {
            let mut bad = Vec::new();
            for (index, key) in self.config.jwt_keys.iter().enumerate() {
                if self.host.sign(&key.signing, "").await.is_err() {
                    bad.push(index);
                }
            }
            // Another request may have been as far at the same time.
            if known.replace(Some(bad.is_empty())).is_none() {
                for index in &bad {
                    let message = format!(
                        "JWT_KEYS[{index}] cannot be used: its public half (x and, of P-256, y) does not belong to its \
                         private half (d). Copy the key as a whole, or make another; requests that need it are answered \
                         500 misconfigured"
                    );
                    self.host.log(&Line::new(log::Event::JwtKeyUnusable, message));
                }
            }
        }
        if known.get() == Some(true) { Ok(()) } else { Err(Problem::misconfigured()) }
    }
}

fn cannot_sign() -> Problem {
    Problem::internal("who asks could not be signed for the application behind this address; try again")
        .logged(Line::new(
            log::Event::SigningFailed,
            "a key of JWT_KEYS that was good has not signed: the request was not passed on",
        ))
}

/// The keys of `JWT_KEYS`, if it is bound; and what is wrong with it, which never repeats a value.
pub(crate) fn keys(bound: Option<&Value>, faults: &mut Faults) -> Vec<Key> {
    const WHAT: &str = "JWT_KEYS must be a JSON array of private keys, like [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \
                        \"2026-11\", \"x\": \"…\", \"d\": \"…\"}]: the first signs; docs/gateway.md says how to make one";
    let Some(bound) = bound else { return Vec::new() };
    // As a secret it is a text, as a variable perhaps the array itself.
    let parsed = bound.as_str().map(|text| serde_json::from_str(text).unwrap_or_default());
    let Some(entries) = parsed.as_ref().unwrap_or(bound).as_array().filter(|entries| !entries.is_empty())
    else {
        faults.push(WHAT.to_owned());
        return Vec::new();
    };
    let mut keys: Vec<Key> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let mut entry = Entry { index, value: entry, faults };
        let kid = entry.text("kid");
        let first =
            entries.iter().take(index).position(|other| other.get("kid").and_then(Value::as_str) == kid);
        if let Some(first) = first.filter(|_| kid.is_some()) {
            entry.fault(
                "kid",
                &format!("JWT_KEYS[{first}] has the same: verifiers must know which key is meant"),
            );
        }
        keys.extend(entry.read());
    }
    keys
}

/// An entry of `JWT_KEYS`, being read.
struct Entry<'e> {
    index: usize,
    value: &'e Value,
    faults: &'e mut Faults,
}

impl<'e> Entry<'e> {
    /// `None` if something is wrong. Members that mean nothing here are ignored (RFC 7517 section 4).
    fn read(&mut self) -> Option<Key> {
        let before = self.faults.len();
        if !self.value.is_object() {
            self.faults
                .push(format!("JWT_KEYS[{}]: a private key, which is a JSON object (RFC 7517)", self.index));
            return None;
        }
        // 1. Which kind of key.
        let kid = self.text("kid").filter(|kid| (1..=MAX_KID).contains(&kid.len()));
        if kid.is_none() {
            self.fault("kid", &format!("a name of 1 to {MAX_KID} bytes, by which verifiers find the key"));
        }
        let (kty, crv, algorithm) = match self.text("kty") {
            Some("OKP") => ("OKP", "Ed25519", SigningAlgorithm::EdDsa),
            Some("EC") => ("EC", "P-256", SigningAlgorithm::Es256),
            _ => {
                let what = "\"OKP\" (with crv \"Ed25519\", signs as EdDSA) or \"EC\" (with crv \"P-256\", signs as ES256)";
                self.fault("kty", what);
                return None;
            }
        };
        if self.text("crv") != Some(crv) {
            self.fault("crv", &format!("\"{crv}\" is the one that is possible with kty \"{kty}\""));
            return None;
        }
        // 2. Its numbers.
        let x = self.number("x", "copy the key as a whole");
        let y = if algorithm == SigningAlgorithm::Es256 {
            self.number("y", "copy the key as a whole")
        } else {
            None
        };
        let d =
            self.number("d", "this is the public half alone, which signs nothing: the private key is needed");
        // 3. What it says that it is for. WebCrypto writes Ed25519 by the name of RFC 9864.
        let (alg, other) = match algorithm {
            SigningAlgorithm::EdDsa => ("EdDSA", "Ed25519"),
            SigningAlgorithm::Es256 => ("ES256", "ES256"),
        };
        let is_absent_or = |name, test: &dyn Fn(&Value) -> bool| self.value.get(name).is_none_or(test);
        let has_alg = is_absent_or("alg", &|own| *own == alg || *own == other);
        let has_use = is_absent_or("use", &|own| *own == "sig");
        let can_sign =
            |operations: &Value| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "sign"));
        let has_operations = is_absent_or("key_ops", &can_sign);
        for (is_right, name, what) in [
            (has_alg, "alg", format!("such a key signs as \"{alg}\": write that, or leave it out")),
            (has_use, "use", "a key that signs is for \"sig\": write that, or leave it out".to_owned()),
            (
                has_operations,
                "key_ops",
                "a list with \"sign\" in it: add that, or leave the list out".to_owned(),
            ),
        ] {
            if !is_right {
                self.fault(name, &what);
            }
        }
        // 4. All or nothing.
        if self.faults.len() > before {
            return None;
        }
        let public = PublicKey { kty, crv, x: x?, y, kid: kid?.to_owned(), alg, r#use: "sig" };
        let jwk = json::to_string(&PrivateKey { kty, crv, x: &public.x, y: public.y.as_deref(), d: &d? });
        Some(Key { public, signing: SigningKey { algorithm, jwk } })
    }

    fn text(&self, name: &str) -> Option<&'e str> {
        self.value.get(name).and_then(Value::as_str)
    }

    /// 32 bytes, as the text that stands for them. `missing`: what to do if they are not there.
    fn number(&mut self, name: &str, missing: &str) -> Option<String> {
        if self.value.get(name).is_none() {
            self.faults.push(format!("JWT_KEYS[{}].{name} is missing: {missing}", self.index));
            return None;
        }
        let text = self.text(name).filter(|text| base64url::decode_array::<32>(text).is_some());
        if text.is_none() {
            self.fault(name, "32 bytes as base64url, which is 43 characters without \"=\"");
        }
        text.map(String::from)
    }

    fn fault(&mut self, name: &str, what: &str) {
        self.faults.push(format!("JWT_KEYS[{}].{name}: {what}", self.index));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The keys of RFC 8037 appendix A.1 and RFC 7515 appendix A.3.
    fn example(kty: &str) -> Value {
        if kty == "OKP" {
            json!({
                "kty": "OKP", "crv": "Ed25519", "kid": "one",
                "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            })
        } else {
            json!({
                "kty": "EC", "crv": "P-256", "kid": "two",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
            })
        }
    }

    fn read(bound: &Value) -> (Vec<Key>, Faults) {
        let mut faults = Faults::new();
        let keys = keys(Some(bound), &mut faults);
        (keys, faults)
    }

    #[test]
    fn both_kinds_of_key_are_read_from_a_text_or_a_list_and_only_their_public_halves_are_published() {
        let list = json!([example("OKP"), example("EC")]);
        for bound in [list.clone(), Value::from(list.to_string())] {
            let (keys, faults) = read(&bound);
            assert_eq!(faults, Faults::new());
            let published = serde_json::to_value(KeySet::new(&keys)).expect("JSON");
            let public = |kty, alg| {
                let mut key = example(kty);
                let members = key.as_object_mut().expect("an object");
                members.remove("d");
                members.extend([("alg".to_owned(), json!(alg)), ("use".to_owned(), json!("sig"))]);
                key
            };
            assert_eq!(published, json!({"keys": [public("OKP", "EdDSA"), public("EC", "ES256")]}));
            let shown = format!("{keys:?}");
            assert!(!shown.contains("nWGxne_9") && !shown.contains("jpsQnnGQ"), "{shown}");
        }
        assert!(keys(None, &mut Faults::new()).is_empty());
    }

    #[test]
    fn members_that_other_programs_write_are_no_fault() {
        for (kty, more) in [
            ("OKP", json!({"alg": "EdDSA", "use": "sig", "key_ops": ["sign"], "ext": true})),
            ("OKP", json!({"alg": "Ed25519", "x5c": [], "note": "ours"})),
            ("EC", json!({"alg": "ES256", "key_ops": ["verify", "sign"]})),
        ] {
            let mut key = example(kty);
            key.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
            assert_eq!(read(&json!([key])).1, Faults::new(), "{more}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_and_nothing_of_it_repeated() {
        const WHOLE: &str = "JWT_KEYS must be a JSON array of private keys";
        let with = |kty: &str, name: &str, value: Value| {
            let mut key = example(kty);
            key[name] = value;
            json!([key])
        };
        let without = |kty: &str, name: &str| {
            let mut key = example(kty);
            key.as_object_mut().expect("an object").remove(name);
            json!([key])
        };
        let short = "A".repeat(42);
        for (bound, beginning) in [
            (json!(""), WHOLE),
            (json!("[{]"), WHOLE),
            (json!([]), WHOLE),
            (json!(7), WHOLE),
            (example("OKP"), WHOLE),
            (json!({"keys": [example("OKP")]}), WHOLE),
            (json!([[example("OKP")]]), "JWT_KEYS[0]: a private key, which is a JSON object"),
            (json!([example("OKP"), "secret"]), "JWT_KEYS[1]: a private key, which is a JSON object"),
            (
                json!([example("OKP"), example("EC"), example("OKP")]),
                "JWT_KEYS[2].kid: JWT_KEYS[0] has the same",
            ),
            (with("OKP", "kty", json!("RSA")), "JWT_KEYS[0].kty: \"OKP\""),
            (with("OKP", "kty", json!("oct")), "JWT_KEYS[0].kty: \"OKP\""),
            (with("OKP", "kty", json!("EC")), "JWT_KEYS[0].crv: \"P-256\""),
            (with("OKP", "crv", json!("X25519")), "JWT_KEYS[0].crv: \"Ed25519\""),
            (with("EC", "crv", json!("P-384")), "JWT_KEYS[0].crv: \"P-256\""),
            (without("OKP", "kty"), "JWT_KEYS[0].kty"),
            (without("EC", "crv"), "JWT_KEYS[0].crv"),
            (without("OKP", "kid"), "JWT_KEYS[0].kid: a name"),
            (with("OKP", "kid", json!("")), "JWT_KEYS[0].kid: a name"),
            (with("OKP", "kid", json!(7)), "JWT_KEYS[0].kid: a name"),
            (with("OKP", "kid", json!("k".repeat(256))), "JWT_KEYS[0].kid: a name"),
            (without("OKP", "d"), "JWT_KEYS[0].d is missing: this is the public half alone"),
            (without("OKP", "x"), "JWT_KEYS[0].x is missing: copy"),
            (without("EC", "y"), "JWT_KEYS[0].y is missing: copy"),
            (with("OKP", "d", json!(short)), "JWT_KEYS[0].d: 32 bytes"),
            (with("OKP", "d", json!("*".repeat(43))), "JWT_KEYS[0].d: 32 bytes"),
            (with("OKP", "x", json!(format!("{}=", "A".repeat(43)))), "JWT_KEYS[0].x: 32 bytes"),
            (with("EC", "y", json!(7)), "JWT_KEYS[0].y: 32 bytes"),
            (with("OKP", "alg", json!("ES256")), "JWT_KEYS[0].alg: such a key signs as \"EdDSA\""),
            (with("EC", "alg", json!("Ed25519")), "JWT_KEYS[0].alg: such a key signs as \"ES256\""),
            (with("EC", "use", json!("enc")), "JWT_KEYS[0].use"),
            (with("EC", "key_ops", json!(["verify"])), "JWT_KEYS[0].key_ops"),
            (with("EC", "key_ops", json!("sign")), "JWT_KEYS[0].key_ops"),
        ] {
            let (_, faults) = read(&bound);
            let [fault] = &*faults else { panic!("{bound}: {faults:?}") };
            assert!(fault.starts_with(beginning), "{bound}: {fault}");
            for value in ["nWGxne_9", "jpsQnnGQ", "11qYAYK", "f83OJ3D2", "secret", "k".repeat(9).as_str()] {
                assert!(!fault.contains(value), "{fault}");
            }
        }
        // All at once.
        let two = json!([{"kty": "OKP", "crv": "Ed25519", "x": "", "use": "enc"}, 7]);
        assert_eq!(read(&two).1.len(), 5, "{:?}", read(&two).1);
    }

    #[test]
    fn a_token_says_who_asks_to_the_letter() {
        let (keys, _) = read(&json!([example("OKP")]));
        let id = crate::id::Id::from_bytes([7; 32]);
        let roles = ["a \"b\"".to_owned(), "Ωμέγα".to_owned()];
        let mut claims = Claims {
            iss: "https://app.example",
            aud: "https://internal.example",
            sub: "u/1",
            name: "Адa ☂",
            roles: &roles,
            sid: id.handle(),
            auth_time: Some(1_767_225_000),
            iat: 1_767_225_600,
            exp: 1_767_225_660,
        };
        let parts = |claims: &Claims<'_>| {
            let input = signing_input(&keys[0].public, claims);
            let decode =
                |part| String::from_utf8(base64url::decode(part).expect("base64url")).expect("UTF-8");
            input.split('.').map(decode).collect::<Vec<_>>()
        };
        let handle = id.handle();
        let body = |auth_time: &str| {
            format!(
                "{{\"iss\":\"https://app.example\",\"aud\":\"https://internal.example\",\"sub\":\"u/1\",\"name\":\"Адa ☂\",\
                 \"roles\":[\"a \\\"b\\\"\",\"Ωμέγα\"],\"sid\":\"{handle}\",{auth_time}\"iat\":1767225600,\"exp\":1767225660}}"
            )
        };
        let header = "{\"alg\":\"EdDSA\",\"kid\":\"one\",\"typ\":\"JWT\"}";
        assert_eq!(parts(&claims), [header.to_owned(), body("\"auth_time\":1767225000,")]);
        claims.auth_time = None;
        assert_eq!(parts(&claims)[1], body(""));
    }
}
