//! What an ID token must say (OpenID Connect Core section 3.1.3.7), once its signature is verified.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use super::Failure;
use crate::{base64url, host::VerifyingAlgorithm, time::Time};

/// How far the provider's clock may be from ours, in seconds.
pub(super) const TOLERANCE: u64 = 60;

/// The claims that are looked at.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    pub(super) sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: Seconds,
    iat: Seconds,
    nbf: Option<Seconds>,
    nonce: Option<String>,
    auth_time: Option<Seconds>,
    at_hash: Option<String>,
    sid: Option<Value>,
    #[serde(flatten)]
    pub(super) names: Names,
}

/// What a user is called; none of it says who they are.
#[derive(Deserialize, Default)]
pub(super) struct Names {
    name: Option<String>,
    preferred_username: Option<String>,
    email: Option<String>,
}

impl Names {
    /// The first there is.
    pub(super) fn first(&self) -> Option<&str> {
        let all = [&self.name, &self.preferred_username, &self.email];
        all.into_iter().flatten().map(|name| &**name).find(|name| !name.trim().is_empty())
    }
}

/// One, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// Whether a token for these is for this client, and whether it was issued to it: by `azp` or, without one, as there is no
    /// other that it is for.
    pub(super) fn admits(&self, client: &str, azp: Option<&str>) -> (bool, bool) {
        let is_ours = |own: &String| own == client;
        let (has_us, has_others) = match self {
            Self::One(own) => (own == client, false),
            Self::Several(clients) => (clients.iter().any(is_ours), !clients.iter().all(is_ours)),
        };
        (has_us, azp.map_or(!has_others, |azp| azp == client))
    }
}

/// A number of seconds since 1970 (RFC 7519 section 2). What is behind its point is left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(pub(super) u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = serde_json::Number::deserialize(deserializer)?.to_string();
        let whole = text.split('.').next().unwrap_or_default().parse();
        whole.map(Self).map_err(|_| serde::de::Error::custom("a number of seconds"))
    }
}

/// What is known of the login that the token is for.
pub(super) struct Expected<'e> {
    pub(super) issuer: &'e str,
    pub(super) client_id: &'e str,
    pub(super) nonce: &'e str,
    /// The token that came with it, and how the ID token is signed.
    pub(super) access_token: &'e str,
    pub(super) algorithm: VerifyingAlgorithm,
    /// Since when the user must have proved who they are, if they were to do that anew.
    pub(super) authenticated_since: Option<Time>,
    pub(super) now: Time,
}

impl Claims {
    /// From a verified token's payload, which was issued for this login.
    pub(super) fn parse(payload: &[u8], expected: &Expected<'_>) -> Result<Self, Failure> {
        let claims: Self = serde_json::from_slice(payload)
            .map_err(|_| Failure::InvalidResponse("its ID token lacks a claim that it must have"))?;
        claims.fault(expected).map_or(Ok(claims), |fault| Err(Failure::InvalidResponse(fault)))
    }

    /// When the user has proved who they are, if it says so: not later than now.
    pub(super) fn auth_time(&self, now: Time) -> Option<Time> {
        self.auth_time.map(|Seconds(seconds)| Time(seconds.saturating_mul(1000)).min(now))
    }

    /// The session at the provider that the login belongs to, if it says so (OpenID Connect Back-Channel Logout section 2.1).
    pub(super) fn session(&self) -> Option<&str> {
        self.sid.as_ref().and_then(Value::as_str).filter(|sid| !sid.is_empty())
    }

    fn fault(&self, expected: &Expected<'_>) -> Option<&'static str> {
        let now = expected.now.0 / 1000;
        let is_after = |Seconds(time): Seconds, limit: u64| time > limit;
        let (has_us, is_authorized) = self.aud.admits(expected.client_id, self.azp.as_deref());
        let is_hash_right = self
            .at_hash
            .as_ref()
            .is_none_or(|hash| *hash == access_token_hash(expected.access_token, expected.algorithm));
        let is_recent = expected.authenticated_since.is_none_or(|since| {
            let earliest = (since.0 / 1000).saturating_sub(TOLERANCE);
            self.auth_time.is_some_and(|Seconds(time)| time >= earliest)
        });
        let faults = [
            (self.iss != expected.issuer, "its ID token is of another issuer (iss)"),
            (!has_us, "its ID token is for another client (aud)"),
            (!is_authorized, "its ID token was issued to another client (azp)"),
            (!is_after(self.exp, now.saturating_sub(TOLERANCE)), "its ID token has expired (exp)"),
            (is_after(self.iat, now + TOLERANCE), "its ID token is of the future (iat)"),
            (
                self.nbf.is_some_and(|nbf| is_after(nbf, now + TOLERANCE)),
                "its ID token is not valid yet (nbf)",
            ),
            (self.nonce.as_deref() != Some(expected.nonce), "its ID token is for another login (nonce)"),
            (!is_hash_right, "its ID token goes with another access token (at_hash)"),
            (!is_recent, "it did not let the visitor log in anew (auth_time)"),
        ];
        faults.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, fault)| fault)
    }
}

/// `at_hash` (section 3.1.3.6): the left half of the hash that the signature is made with.
fn access_token_hash(token: &str, algorithm: VerifyingAlgorithm) -> String {
    let half = |hash: &[u8]| base64url::encode(hash.get(..hash.len() / 2).unwrap_or_default());
    match algorithm {
        VerifyingAlgorithm::EdDsa => half(&Sha512::digest(token)),
        VerifyingAlgorithm::Es256 | VerifyingAlgorithm::Rs256 => half(&Sha256::digest(token)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_767_225_600;

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://acme.example",
            client_id: "client",
            nonce: "n",
            access_token: "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y",
            algorithm: VerifyingAlgorithm::Rs256,
            authenticated_since: None,
            now: Time(NOW * 1000 + 500),
        }
    }

    fn claims() -> Value {
        json!({
            "iss": "https://acme.example", "sub": "1234", "aud": "client", "nonce": "n",
            "exp": NOW + 300, "iat": NOW, "name": "Ada",
        })
    }

    fn parse(claims: &Value, expected: &Expected<'_>) -> Result<String, Failure> {
        Claims::parse(claims.to_string().as_bytes(), expected).map(|claims| claims.sub)
    }

    #[test]
    fn what_a_token_must_say_is_checked() {
        type Change = (&'static str, Value);
        let good: [&[Change]; 11] = [
            &[],
            &[("aud", json!(["client"]))],
            &[("azp", json!("client"))],
            &[("aud", json!(["client", "other"])), ("azp", json!("client"))],
            &[("exp", json!(NOW - 59))],
            &[("iat", json!(NOW + 60))],
            &[("iat", json!(NOW - 86_400))],
            &[("exp", json!(1_767_225_900.75))],
            &[("nbf", json!(NOW + 60))],
            // The example of OpenID Connect Core appendix A.3.
            &[("at_hash", json!("77QmUPtjPfzWtF2AnpK9RQ"))],
            &[("name", Value::Null), ("auth_time", json!(NOW - 9000))],
        ];
        let bad: [&[Change]; 24] = [
            &[("iss", json!("https://acme.example/"))],
            &[("iss", json!("https://evil.example"))],
            &[("iss", Value::Null)],
            &[("sub", Value::Null)],
            &[("sub", json!(1234))],
            &[("aud", json!("other"))],
            &[("aud", json!([]))],
            &[("aud", json!(["other"]))],
            &[("aud", json!(["client", "other"]))],
            &[("aud", json!(["client", "other"])), ("azp", json!("other"))],
            &[("azp", json!("other"))],
            &[("exp", json!(NOW - 60))],
            &[("exp", Value::Null)],
            &[("exp", json!("4000000000"))],
            &[("exp", json!(-1))],
            &[("iat", json!(NOW + 61))],
            &[("iat", Value::Null)],
            &[("nbf", json!(NOW + 61))],
            &[("nonce", Value::Null)],
            &[("nonce", json!(""))],
            &[("nonce", json!("m"))],
            &[("nonce", json!("n "))],
            &[("at_hash", json!("77QmUPtjPfzWtF2AnpK9RR"))],
            &[("at_hash", json!(""))],
        ];
        let changed = |changes: &[Change]| {
            let mut claims = claims();
            for (name, value) in changes {
                claims[*name] = value.clone();
            }
            claims
        };
        for changes in good {
            assert_eq!(parse(&changed(changes), &expected()).as_deref(), Ok("1234"), "{changes:?}");
        }
        for changes in bad {
            let outcome = parse(&changed(changes), &expected());
            assert!(matches!(outcome, Err(Failure::InvalidResponse(_))), "{changes:?}");
        }
    }

    #[test]
    fn what_a_token_says_of_the_login_there_is_no_later_than_now_and_no_empty_name() {
        let now = Time(NOW * 1000);
        let parse = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            Claims::parse(claims.to_string().as_bytes(), &expected()).expect("good")
        };
        let auth_time = |value| parse("auth_time", value).auth_time(now);
        assert_eq!(auth_time(json!(NOW - 9)), Some(Time((NOW - 9) * 1000)));
        // Else the login would stay fresh for longer.
        assert_eq!(auth_time(json!(NOW + 1_000_000)), Some(now));
        assert_eq!(auth_time(json!(u64::MAX)), Some(now));
        assert_eq!(auth_time(Value::Null), None);
        for (sid, name) in [(json!("s"), Some("s")), (json!(""), None), (json!(7), None), (Value::Null, None)]
        {
            assert_eq!(parse("sid", sid.clone()).session(), name, "{sid}");
        }
    }

    #[test]
    fn a_claim_that_is_there_twice_is_none() {
        let twice = claims().to_string().replacen('{', r#"{"aud":"client","#, 1);
        assert!(Claims::parse(twice.as_bytes(), &expected()).is_err());
    }

    #[test]
    fn an_access_token_s_hash_is_by_the_algorithm_of_the_signature() {
        const SHA_512: &str = "q7nS86GgvvFaZkzALLWqJYaJIKw2wCDAVfCAsm5CrBM";
        for (algorithm, is_right) in [
            (VerifyingAlgorithm::EdDsa, true),
            (VerifyingAlgorithm::Es256, false),
            (VerifyingAlgorithm::Rs256, false),
        ] {
            let mut claims = claims();
            claims["at_hash"] = json!(SHA_512);
            assert_eq!(
                parse(&claims, &Expected { algorithm, ..expected() }).is_ok(),
                is_right,
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn who_was_to_log_in_anew_has_done_so_since() {
        let expected = Expected { authenticated_since: Some(Time(NOW * 1000)), ..expected() };
        for (auth_time, is_recent) in
            [(json!(NOW), true), (json!(NOW - 60), true), (json!(NOW - 61), false), (Value::Null, false)]
        {
            let mut claims = claims();
            claims["auth_time"] = auth_time.clone();
            assert_eq!(parse(&claims, &expected).is_ok(), is_recent, "{auth_time}");
        }
    }
}
