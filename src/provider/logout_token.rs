//! What a logout token must say (OpenID Connect Back-Channel Logout 1.0 sections 2.4 and 2.6), once its signature is verified.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value};

use super::{
    Failure, Provider,
    id_token::{Audience, Seconds, TOLERANCE},
};
use crate::time::Time;

/// What the header of one says that it is, if it says so.
pub(super) const LOGOUT_TOKEN: &str = "logout+jwt";

/// The user has logged out at the provider.
#[derive(Debug)]
pub(crate) struct Logout {
    /// Who; `None`: whose session it is that has ended.
    pub(crate) subject: Option<String>,
    sid: Option<String>,
    jti: String,
    /// When the provider says so, by its clock.
    issued: Time,
    /// Until when the token is good here.
    pub(crate) until: Time,
}

/// The claims that are looked at.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: Option<String>,
    aud: Audience,
    azp: Option<String>,
    iat: Seconds,
    exp: Seconds,
    jti: String,
    sid: Option<String>,
    #[serde(rename = "events")]
    _events: Events,
    /// Whether there is one, which makes it an ID token.
    #[serde(rename = "nonce", default, deserialize_with = "is_there")]
    has_nonce: bool,
}

#[derive(Deserialize)]
struct Events {
    #[serde(rename = "http://schemas.openid.net/event/backchannel-logout")]
    _logout: Map<String, Value>,
}

/// Also with `null`.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Logout {
    /// From a verified token's payload.
    pub(super) fn parse(payload: &[u8], issuer: &str, client_id: &str, now: Time) -> Result<Self, Failure> {
        let claims: Claims = serde_json::from_slice(payload).map_err(|_| {
            Failure::InvalidResponse("its logout token lacks a claim, such as events, that it must have")
        })?;
        match claims.fault(issuer, client_id, now) {
            Some(fault) => Err(Failure::InvalidResponse(fault)),
            None => {
                let time = |Seconds(seconds): Seconds| Time(seconds.saturating_mul(1000));
                let Claims { sub: subject, sid, jti, iat, exp, .. } = claims;
                let until = time(Seconds(exp.0.saturating_add(TOLERANCE)));
                Ok(Self { subject, sid, jti, issued: time(iat), until })
            }
        }
    }

    /// The name of the session at the provider that has ended; `None`: all of the user's have.
    pub(crate) fn session(&self, provider: &Provider) -> Option<String> {
        self.sid.as_ref().map(|sid| provider.session_name(sid))
    }

    /// The token's own name, and that under which it counts for the account that the user is tied to.
    pub(crate) fn names(&self, provider: &Provider) -> (String, String) {
        (provider.token_name(&self.jti), provider.account_token_name(&self.jti))
    }

    /// What began after this has begun since the logout, however wrong the clocks are: a token can be late.
    pub(crate) fn certainly_past(&self) -> Time {
        self.issued + Duration::from_secs(TOLERANCE)
    }
}

impl Claims {
    fn fault(&self, issuer: &str, client_id: &str, now: Time) -> Option<&'static str> {
        let now = now.0 / 1000;
        let (has_us, is_authorized) = self.aud.admits(client_id, self.azp.as_deref());
        let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        let faults = [
            (self.iss != issuer, "its logout token is of another issuer (iss)"),
            (!has_us || !is_authorized, "its logout token is for another client (aud, azp)"),
            (self.exp.0 <= now.saturating_sub(TOLERANCE), "its logout token has expired (exp)"),
            (self.iat.0 > now + TOLERANCE, "its logout token is of the future (iat)"),
            (self.has_nonce, "its logout token has a nonce, as an ID token has"),
            (
                (self.sub.is_none() && self.sid.is_none()) || is_empty(&self.sub) || is_empty(&self.sid),
                "its logout token says of nobody that they have logged out (sub, sid)",
            ),
            (self.jti.is_empty(), "its logout token has no name of its own (jti)"),
        ];
        faults.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, fault)| fault)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_767_225_600;
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

    fn claims() -> Value {
        json!({
            "iss": "https://acme.example", "sub": "1234", "aud": "client", "iat": NOW, "exp": NOW + 120,
            "jti": "bWJq", "sid": "08a5019c", "events": {EVENT: {}},
        })
    }

    fn parse(claims: &Value) -> Result<Logout, Failure> {
        let now = Time(NOW * 1000 + 500);
        Logout::parse(claims.to_string().as_bytes(), "https://acme.example", "client", now)
    }

    fn changed(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    #[test]
    fn what_a_logout_token_must_say_is_checked() {
        for (name, value) in [
            ("x", json!(1)),
            ("aud", json!(["client"])),
            ("exp", json!(NOW - 59)),
            ("iat", json!(NOW + 60)),
            ("iat", json!(NOW - 86_400)),
            ("sub", Value::Null),
            ("sid", Value::Null),
            ("events", json!({EVENT: {"more": 1}, "https://other.example": {}})),
        ] {
            assert!(parse(&changed(name, value.clone())).is_ok(), "{name}: {value}");
        }
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("iss", Value::Null),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("aud", json!(["client", "other"])),
            ("azp", json!("other")),
            ("exp", json!(NOW - 60)),
            ("exp", Value::Null),
            ("iat", json!(NOW + 61)),
            ("iat", Value::Null),
            ("jti", json!("")),
            ("jti", Value::Null),
            ("sub", json!("")),
            ("sub", json!(1234)),
            ("sid", json!("")),
            ("nonce", json!("n")),
            ("nonce", Value::Null),
            ("events", Value::Null),
            ("events", json!({})),
            ("events", json!([EVENT])),
            ("events", json!(EVENT)),
            ("events", json!({EVENT: true})),
            ("events", json!({EVENT: null})),
            ("events", json!({EVENT: []})),
            ("events", json!({"http://schemas.openid.net/event/backchannel-logou": {}})),
        ] {
            assert!(parse(&changed(name, value.clone())).is_err(), "{name}: {value}");
        }
        let mut nobody = changed("sub", Value::Null);
        nobody["sid"] = Value::Null;
        assert!(parse(&nobody).is_err());
        let twice = claims().to_string().replacen('{', r#"{"jti":"x","#, 1);
        assert!(Logout::parse(twice.as_bytes(), "https://acme.example", "client", Time(NOW * 1000)).is_err());
    }

    #[test]
    fn what_it_says_is_read_with_the_tolerance_for_clocks() {
        let logout = parse(&claims()).expect("good");
        assert_eq!(logout.subject.as_deref(), Some("1234"));
        assert_eq!(logout.certainly_past(), Time((NOW + 60) * 1000));
        assert_eq!(logout.until, Time((NOW + 180) * 1000));
        let provider = super::super::tests::provider();
        assert!(logout.session(&provider) == Some(provider.session_name("08a5019c")));
        let user_wide = parse(&changed("sid", Value::Null)).expect("good");
        assert_eq!(user_wide.session(&provider), None);
    }
}
