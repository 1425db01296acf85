//! Bytes as base64url without padding (RFC 4648 section 5), in canonical form only: one text for each value.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserializer, Serializer, de};

/// The text of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of `text`, of any length; `None` if it is not canonical base64url.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Exactly `N` bytes; `None` if `text` is not that.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Of the right length, so that the bytes fit: otherwise the decoder panics.
    if text.len() != (N * 4).div_ceil(3) {
        return None;
    }
    let mut bytes = [0; N];
    let length = URL_SAFE_NO_PAD.decode_slice_unchecked(text, &mut bytes).ok()?;
    (length == N).then_some(bytes)
}

/// Writes at most 24 bytes, without an allocation.
pub(crate) fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 32];
    let length = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
    f.write_str(text.get(..length).and_then(|text| std::str::from_utf8(text).ok()).ok_or(fmt::Error)?)
}

/// For `#[serde(with = "base64url")]`.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(bytes))
}

/// For `#[serde(with = "base64url")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    struct Text<const N: usize>;

    impl<const N: usize> de::Visitor<'_> for Text<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{N} bytes as base64url")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
            decode_array(text).ok_or_else(|| E::custom("not base64url of the right length"))
        }
    }

    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_one_text() {
        assert_eq!(decode_array::<4>("AQIDBA"), Some([1, 2, 3, 4]));
        for text in ["", "AQID", "AQIDBAU", "AQIDBB", "AQIDBA==", "AQID+A", "AQIDBA\n", "AQIDBAUG"] {
            assert_eq!(decode_array::<4>(text), None, "{text}");
        }
        assert_eq!(decode_array::<3>("AQID"), Some([1, 2, 3]));
    }
}
