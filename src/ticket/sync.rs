//! Read-your-writes across isolates: after a write the store's sync token travels with the visitor, in a
//! cookie beside the ticket, signed and short-lived, into the next requests. A replica that is asked with it
//! answers when it has caught up.

use std::time::Duration;

use super::{Keyring, sealed};
use crate::time::Time;

/// How long a replica may lag behind before nobody waits for it any more.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// The cookie's value; `None` when there is no token to speak of.
pub fn seal(token: &str, keyring: &Keyring, now: Time) -> Option<String> {
    sealed::seal(token, keyring, now)
}

/// The token, when it is ours and young enough.
pub fn open(value: &str, keyring: &Keyring, now: Time) -> Option<String> {
    let (token, issued) = sealed::open(value, keyring)?;
    (now - issued <= LIFETIME).then_some(token)
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64UrlUnpadded, Encoding};

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
