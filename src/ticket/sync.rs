//! Read-your-writes across isolates: after a write the store's sync token travels with the visitor, in a signed,
//! short-lived cookie beside the ticket. A replica that is asked with the token answers when it has caught up.

use std::time::Duration;

use super::{Keyring, signed_text};
use crate::time::Time;

/// How long a token is sent along: no replica is expected to lag behind longer.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// The longest token that travels.
const MAX_TOKEN: usize = 512;

/// The cookie's value; `None` if there is no token, and for one that is too long.
pub fn sign(token: &str, keyring: &Keyring, now: Time) -> Option<String> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    signed_text::sign(token, keyring, now)
}

/// Whether this deployment signed it, however long ago.
pub fn is_ours(value: &str, keyring: &Keyring) -> bool {
    signed_text::open(value, keyring).is_some()
}

/// The token, if this deployment signed it and it has not expired.
pub fn open(value: &str, keyring: &Keyring, now: Time) -> Option<String> {
    let (token, issued) = signed_text::open(value, keyring)?;
    (now - issued <= LIFETIME).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base64url;

    const NOW: Time = Time(1_767_225_600_000);

    fn keyring(name: &str) -> Keyring {
        Keyring::new(&["a newer secret of this deployment, 2026"], name)
    }

    #[test]
    fn a_token_travels_for_ten_seconds() {
        let keyring = keyring("a-sync");
        let text = sign("token/1=", &keyring, NOW).expect("a token");
        assert_eq!(open(&text, &keyring, Time(NOW.0 + 10_000)).as_deref(), Some("token/1="));
        assert_eq!(open(&text, &keyring, Time(NOW.0 + 10_001)), None);
    }

    #[test]
    fn only_what_we_signed_for_this_cookie_is_a_token() {
        let keyring = keyring("a-sync");
        let text = sign("token", &keyring, NOW).expect("a token");
        assert_eq!(open(&text, &self::keyring("b-sync"), NOW), None);
        let bytes = base64url::decode(&text).expect("base64url");
        for index in 0..bytes.len() {
            let mut tampered = bytes.clone();
            tampered[index] ^= 1;
            assert_eq!(open(&base64url::encode(&tampered), &keyring, NOW), None, "byte {index}");
        }
        for text in ["", "A", "!", &"A".repeat(10_000), &text[1..]] {
            assert_eq!(open(text, &keyring, NOW), None);
        }
    }

    #[test]
    fn what_could_not_stand_in_a_header_is_no_token() {
        let keyring = keyring("a-sync");
        assert_eq!(sign("", &keyring, NOW), None);
        assert_eq!(sign(&"x".repeat(513), &keyring, NOW), None);
        let text = sign("a\nb", &keyring, NOW).expect("signed");
        assert_eq!(open(&text, &keyring, NOW), None);
    }
}
