//! A short text in a cookie of its own beside the ticket, signed, with the time it was made:
//! `key id 4 | issued 6 | text | HMAC-SHA-256 32` in base64url.

use base64ct::{Base64UrlUnpadded, Encoding};

use super::{KEY_ID_LEN, Keyring, MAC_LEN, take};
use crate::time::Time;

/// Longer texts are not ours.
const MAX_TEXT: usize = 512;

/// The cookie's value; `None` when there is no text to speak of.
pub fn seal(text: &str, keyring: &Keyring, now: Time) -> Option<String> {
    if text.is_empty() || text.len() > MAX_TEXT {
        return None;
    }
    let mut bytes = Vec::from(keyring.signing_key_id());
    bytes.extend(now.six_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(keyring.sign(&bytes));
    Some(Base64UrlUnpadded::encode_string(&bytes))
}

/// The text and when it was sealed, when it is ours.
pub fn open(value: &str, keyring: &Keyring) -> Option<(String, Time)> {
    const OVERHEAD: usize = KEY_ID_LEN + 6 + MAC_LEN;
    if value.len() > (OVERHEAD + MAX_TEXT) * 4 / 3 + 1 {
        return None;
    }
    let bytes = Base64UrlUnpadded::decode_vec(value).ok()?;
    let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
    let mut rest = body;
    keyring.verify(take(&mut rest).ok()?, body, mac).ok()?;
    let issued = Time::from_six_bytes(take(&mut rest).ok()?);
    // A header's value, and nothing that could end its line.
    let text =
        std::str::from_utf8(rest).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
    Some((text.to_owned(), issued))
}
