//! The cookies of applications: which id they carry, and whether a secret has signed it.
//!
//! Express: `s:` + id + `.` + base64(HMAC-SHA-256(secret, id)) without padding, percent-encoded (the package
//! cookie-signature). Flask-Session with its signer: id + `.` + base64url(HMAC-SHA-1(key, id)) without padding, where the key
//! is HMAC-SHA-1(secret, "flask-session") (itsdangerous, `key_derivation="hmac"`); without it the id alone.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Application, Format, Sid};
use crate::base64url;

/// Longer values are no cookie of a browser's.
const MAX_VALUE: usize = 4096;

/// What JavaScript's `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The id in a cookie's value. `None`: no secret of ours has signed it.
pub(super) fn open(format: &Format, value: &str) -> Option<Sid> {
    if value.len() > MAX_VALUE {
        return None;
    }
    match format.application {
        Application::Express => {
            let value = decode_component(value);
            let (sid, signature) = value.strip_prefix("s:")?.rsplit_once('.')?;
            is_signed(format, sid, signature)?;
            Sid::parse(sid)
        }
        // Of the form that Flask-Session makes: nobody can name another key of the database.
        Application::Flask if format.secrets.is_empty() => {
            let is_safe = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            Sid::parse(value).filter(|_| is_safe)
        }
        Application::Flask => {
            let (sid, signature) = value.rsplit_once('.')?;
            is_signed(format, sid, signature)?;
            Sid::parse(sid)
        }
    }
}

/// The value of the cookie with this id.
pub(super) fn seal(format: &Format, sid: &Sid) -> String {
    let sid = sid.as_str();
    let Some(secret) = format.secrets.first() else { return sid.to_owned() };
    let signature = signature(format.application, secret, sid);
    match format.application {
        Application::Express => utf8_percent_encode(&format!("s:{sid}.{signature}"), COMPONENT).to_string(),
        Application::Flask => format!("{sid}.{signature}"),
    }
}

/// `decodeURIComponent`, as the package `cookie` applies it: a value that cannot be decoded stays as it is.
fn decode_component(value: &str) -> Cow<'_, str> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let is_right = value
        .match_indices('%')
        .all(|(at, _)| is_digit(value.as_bytes().get(at + 1)) && is_digit(value.as_bytes().get(at + 2)));
    if !is_right {
        return value.into();
    }
    percent_decode_str(value).decode_utf8().unwrap_or(value.into())
}

/// Whether one of the secrets has signed `sid`, in constant time.
fn is_signed(format: &Format, sid: &str, given: &str) -> Option<()> {
    let is_of = |secret: &Vec<u8>| {
        bool::from(signature(format.application, secret, sid).as_bytes().ct_eq(given.as_bytes()))
    };
    format.secrets.iter().any(is_of).then_some(())
}

fn signature(application: Application, secret: &[u8], sid: &str) -> String {
    match application {
        Application::Express => STANDARD_NO_PAD.encode(mac::<Hmac<Sha256>>(secret, sid)),
        Application::Flask => {
            let key = mac::<Hmac<Sha1>>(secret, "flask-session");
            base64url::encode(&mac::<Hmac<Sha1>>(&key, sid))
        }
    }
}

#[allow(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104)")]
fn mac<M: Mac + KeyInit>(key: &[u8], text: &str) -> Vec<u8> {
    let mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}
