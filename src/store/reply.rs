//! The replies of a batch, as the store sends them.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::{Failure, KnownError};

/// What a command replied.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// No such key, or a condition that was not met.
    Null,
    /// A number.
    Integer(i64),
    /// A value, or `OK`.
    Text(String),
    /// A value that is no text.
    Bytes(Vec<u8>),
    /// Several.
    List(Vec<Reply>),
}

/// A reply of the wrong kind is an error: it is never taken for "not found".
impl Reply {
    /// Whether a conditional write was made.
    pub fn is_ok(&self) -> Result<bool, Failure> {
        match self {
            Self::Text(text) if text == "OK" => Ok(true),
            Self::Null => Ok(false),
            _ => Err(Failure::Garbled),
        }
    }

    /// The same, also for a script, which replies 1 or 0.
    pub fn is_made(&self) -> Result<bool, Failure> {
        if let Self::Integer(made) = self { Ok(*made == 1) } else { self.is_ok() }
    }

    /// A value as bytes; `None` if there is no such key.
    pub fn bytes(self) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Bytes(bytes) => Ok(Some(bytes)),
            other => Ok(other.value()?.map(String::into_bytes)),
        }
    }

    /// What stands for itself when a caller has asked for base64: everything but `OK`.
    pub(super) fn decoded(self) -> Result<Self, Failure> {
        Ok(match self {
            Self::Text(text) if text == "OK" => Self::Text(text),
            Self::Text(text) => {
                let bytes = STANDARD.decode(text).map_err(|_| Failure::Garbled)?;
                String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
            }
            Self::List(list) => Self::List(list.into_iter().map(Self::decoded).collect::<Result<_, _>>()?),
            other => other,
        })
    }

    /// A number.
    pub fn integer(&self) -> Result<i64, Failure> {
        if let Self::Integer(number) = self { Ok(*number) } else { Err(Failure::Garbled) }
    }

    /// A text.
    pub fn text(self) -> Result<String, Failure> {
        if let Self::Text(text) = self { Ok(text) } else { Err(Failure::Garbled) }
    }

    /// Texts.
    pub fn texts(self) -> Result<Vec<String>, Failure> {
        let Self::List(list) = self else { return Err(Failure::Garbled) };
        list.into_iter().map(Self::text).collect()
    }

    /// A hash: fields and values.
    pub fn pairs(self) -> Result<Vec<(String, String)>, Failure> {
        let mut texts = self.texts()?.into_iter();
        Ok(std::iter::from_fn(|| texts.next().zip(texts.next())).collect())
    }

    /// A value; `None` if there is no such key.
    pub fn value(self) -> Result<Option<String>, Failure> {
        if self == Self::Null { Ok(None) } else { self.text().map(Some) }
    }

    /// The values of `count` keys; `None` for each that does not exist.
    pub fn values(self, count: usize) -> Result<Vec<Option<String>>, Failure> {
        let Self::List(list) = self else { return Err(Failure::Garbled) };
        if list.len() != count {
            return Err(Failure::Garbled);
        }
        list.into_iter().map(Self::value).collect()
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReplyVisitor)
    }
}

struct ReplyVisitor;

impl<'de> Visitor<'de> for ReplyVisitor {
    type Value = Reply;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reply of Redis")
    }

    fn visit_unit<E>(self) -> Result<Reply, E> {
        Ok(Reply::Null)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Reply, E> {
        Ok(Reply::Integer(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Reply, E> {
        number.try_into().map(Reply::Integer).map_err(|_| E::custom("beyond 64 bits"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Reply, E> {
        Ok(Reply::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Reply, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Reply::List(list))
    }
}

/// `{"result": …}` or `{"error": "ERR …"}`.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entry {
    Result(Reply),
    Error(String),
}

/// The replies of a batch; each may be an error. Of an error's text only its known name is kept: it may hold keys and
/// values.
pub(super) fn parse(body: &str) -> Result<Vec<Result<Reply, Failure>>, Failure> {
    let Ok(entries) = serde_json::from_str::<Vec<Entry>>(body) else {
        // Not from every gateway an error for the whole batch has its own status.
        let error = parse_error(body).filter(KnownError::is_specific);
        return Err(error.map_or(Failure::Garbled, Failure::Refused));
    };
    let reply = |entry| match entry {
        Entry::Result(reply) => Ok(reply),
        Entry::Error(text) => Err(Failure::Refused(KnownError::parse(&text))),
    };
    Ok(entries.into_iter().map(reply).collect())
}

/// The error for a whole batch: `{"error": "ERR …"}`. `None` if it is not in this format.
pub(super) fn parse_error(body: &str) -> Option<KnownError> {
    match serde_json::from_str(body) {
        Ok(Entry::Error(text)) => Some(KnownError::parse(&text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Vec<Reply>, Failure> {
        super::parse(body)?.into_iter().collect()
    }

    #[test]
    fn every_shape_of_a_reply_is_read() {
        let json = r#"[{"result":null},{"result":-7},{"result":"a\"b"},{"result":["x",null,[1]]}]"#;
        let text = |text: &str| Reply::Text(text.to_owned());
        let list = Reply::List(vec![text("x"), Reply::Null, Reply::List(vec![Reply::Integer(1)])]);
        assert_eq!(parse(json), Ok(vec![Reply::Null, Reply::Integer(-7), text("a\"b"), list]));
    }

    #[test]
    fn whatever_is_not_the_format_is_a_failure() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"error":"ERR x"}"#,
            "[1]",
            "[{}]",
            r#"[{"result""#,
            r#"[{"result":1.5}]"#,
            r#"[{"result":18446744073709551615}]"#,
            r#"[{"result":true}]"#,
            r#"[{"result":{}}]"#,
            r#"["result"]"#,
        ] {
            assert_eq!(parse(body), Err(Failure::Garbled), "{body}");
        }
    }

    #[test]
    fn an_error_is_for_one_command_or_for_the_whole_batch() {
        let full = KnownError::parse("ERR DB capacity quota exceeded");
        let one = r#"[{"result":1},{"error":"ERR DB capacity quota exceeded. sess:abc"}]"#;
        assert_eq!(parse(one), Err(Failure::Refused(full)));
        let whole = r#"{"error":"ERR DB capacity quota exceeded. sess:abc"}"#;
        assert_eq!(parse(whole), Err(Failure::Refused(full)));
        assert_eq!(parse_error(whole), Some(full));
        for text in ["", "null", "<html>", "[]", r#"{"error":1}"#, r#"{"result":"ERR"}"#] {
            assert_eq!(parse_error(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_of_an_error_s_own_text_is_kept() {
        for text in ["ERR no such thing as sess:abc", "sess:abc", "WRONGPASS sess:abc"] {
            let failure = parse(&format!(r#"[{{"error":"{text}"}}]"#)).expect_err("an error");
            assert!(!format!("{failure} {failure:?}").contains("sess"), "{failure:?}");
        }
    }
}
