//! Read-your-writes across isolates: after a write the store's sync token travels with the visitor, in a
//! cookie beside the ticket, signed and short-lived, into the next requests. A replica that is asked with it
//! answers when it has caught up.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};

use super::{KEY_ID_LEN, Keyring, MAC_LEN, take};
use crate::time::Time;

/// How long a replica may lag behind before nobody waits for it any more.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// Longer tokens are not the store's.
const MAX_TOKEN: usize = 512;

/// `key id 4 | issued 6 | token | HMAC-SHA-256 32` in base64url; `None` when there is no token to speak of.
pub fn seal(token: &str, keyring: &Keyring, now: Time) -> Option<String> {
    if token.is_empty() || token.len() > MAX_TOKEN {
        return None;
    }
    let mut bytes = Vec::from(keyring.signing_key_id());
    bytes.extend(now.six_bytes());
    bytes.extend(token.as_bytes());
    bytes.extend(keyring.sign(&bytes));
    Some(Base64UrlUnpadded::encode_string(&bytes))
}

/// The token, when it is ours and young enough.
pub fn open(text: &str, keyring: &Keyring, now: Time) -> Option<String> {
    const OVERHEAD: usize = KEY_ID_LEN + 6 + MAC_LEN;
    if text.len() > (OVERHEAD + MAX_TOKEN) * 4 / 3 + 1 {
        return None;
    }
    let bytes = Base64UrlUnpadded::decode_vec(text).ok()?;
    let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
    let mut rest = body;
    keyring.verify(take(&mut rest).ok()?, body, mac).ok()?;
    let issued = Time::from_six_bytes(take(&mut rest).ok()?);
    // A header's value, and nothing that could end its line.
    let token =
        std::str::from_utf8(rest).ok().filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))?;
    (now - issued <= LIFETIME).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_767_225_600_000);

    fn keyring(name: &str) -> Keyring {
        Keyring::new(&["a newer secret of this deployment, 2026"], name)
    }

    #[test]
    fn a_token_travels_for_ten_seconds() {
        let keyring = keyring("a-sync");
        let text = seal("token/1=", &keyring, NOW).expect("a token");
        assert_eq!(open(&text, &keyring, Time(NOW.0 + 10_000)).as_deref(), Some("token/1="));
        assert_eq!(open(&text, &keyring, Time(NOW.0 + 10_001)), None);
    }

    #[test]
    fn only_what_we_signed_for_this_cookie_is_a_token() {
        let keyring = keyring("a-sync");
        let text = seal("token", &keyring, NOW).expect("a token");
        assert_eq!(open(&text, &self::keyring("b-sync"), NOW), None);
        let bytes = Base64UrlUnpadded::decode_vec(&text).expect("base64url");
        for index in 0..bytes.len() {
            let mut tampered = bytes.clone();
            tampered[index] ^= 1;
            assert_eq!(
                open(&Base64UrlUnpadded::encode_string(&tampered), &keyring, NOW),
                None,
                "byte {index}"
            );
        }
        for text in ["", "A", "!", &"A".repeat(10_000), &text[1..]] {
            assert_eq!(open(text, &keyring, NOW), None);
        }
    }

    #[test]
    fn what_could_not_stand_in_a_header_is_no_token() {
        let keyring = keyring("a-sync");
        assert_eq!(seal("", &keyring, NOW), None);
        assert_eq!(seal(&"x".repeat(513), &keyring, NOW), None);
        let text = seal("a\nb", &keyring, NOW).expect("sealed");
        assert_eq!(open(&text, &keyring, NOW), None);
    }
}
