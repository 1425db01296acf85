//! A short text in a cookie of its own beside the ticket, signed, with the time it was signed:
//! `key id 4 | issued 6 | text | HMAC-SHA-256 32` in base64url.

use super::{KEY_ID_LEN, Keyring, MAC_LEN, take};
use crate::{base64url, time::Time};

/// Longer texts are refused.
const MAX_TEXT: usize = 768;

/// The cookie's value; `None` for an empty text and for one that is too long.
pub fn sign(text: &str, keyring: &Keyring, now: Time) -> Option<String> {
    if text.is_empty() || text.len() > MAX_TEXT {
        return None;
    }
    let mut bytes = Vec::from(keyring.signing_key_id());
    bytes.extend(now.six_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(keyring.sign(&bytes));
    Some(base64url::encode(&bytes))
}

/// The text and when it was signed; `None` if no key of `keyring` signed it.
pub fn open(value: &str, keyring: &Keyring) -> Option<(String, Time)> {
    const OVERHEAD: usize = KEY_ID_LEN + 6 + MAC_LEN;
    if value.len() > (OVERHEAD + MAX_TEXT) * 4 / 3 + 1 {
        return None;
    }
    let bytes = base64url::decode(value)?;
    let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
    let mut rest = body;
    keyring.verify(take(&mut rest).ok()?, body, mac).ok()?;
    let issued = Time::from_six_bytes(take(&mut rest).ok()?);
    // It becomes a header's value: nothing in it may end the header's line.
    let text =
        std::str::from_utf8(rest).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
    Some((text.to_owned(), issued))
}
