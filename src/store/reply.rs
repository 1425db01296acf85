//! One reply of the store. It owns its text: a record is JSON within JSON, and comes escaped.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Failure;

/// One entry of a pipeline's answer: `{"result": …}` or `{"error": …}`.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing there, or a condition not met.
    Null,
    /// A number.
    Integer(i64),
    /// A value, or `OK`.
    Text(String),
    /// Several.
    List(Vec<Reply>),
    /// The kind of an error (`ERR`, `WRONGTYPE`, …), and nothing of its text: that may hold keys and values.
    Error(String),
}

/// A reply of the wrong kind is no reply: it is never taken for "nothing there".
impl Reply {
    /// The reply, unless it is an error.
    pub fn or_refused(self) -> Result<Self, Failure> {
        if let Self::Error(kind) = self { Err(Failure::Refused(kind)) } else { Ok(self) }
    }

    /// Whether a conditional write was done.
    pub fn is_done(&self) -> Result<bool, Failure> {
        match self {
            Self::Text(text) if text == "OK" => Ok(true),
            Self::Null => Ok(false),
            _ => Err(Failure::Garbled),
        }
    }

    /// How many keys were concerned.
    pub fn count(&self) -> Result<i64, Failure> {
        if let Self::Integer(count) = self { Ok(*count) } else { Err(Failure::Garbled) }
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

    /// A hash: names and values.
    pub fn pairs(self) -> Result<Vec<(String, String)>, Failure> {
        let mut texts = self.texts()?.into_iter();
        Ok(std::iter::from_fn(|| texts.next().zip(texts.next())).collect())
    }

    /// A text, `None` for what is not there.
    pub fn optional_text(self) -> Result<Option<String>, Failure> {
        if self == Self::Null { Ok(None) } else { self.text().map(Some) }
    }

    /// The values of so many keys, `None` for what is not there.
    pub fn values<const N: usize>(self) -> Result<[Option<String>; N], Failure> {
        self.all_values(N)?.try_into().map_err(|_| Failure::Garbled)
    }

    /// The same for as many keys as the caller says.
    pub fn all_values(self, length: usize) -> Result<Vec<Option<String>>, Failure> {
        let Self::List(list) = self else { return Err(Failure::Garbled) };
        if list.len() != length {
            return Err(Failure::Garbled);
        }
        list.into_iter().map(Self::optional_text).collect()
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Reply;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a result or an error")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reply, A::Error> {
        let mut reply = None;
        while let Some(name) = map.next_key::<&'de str>()? {
            match name {
                "result" => reply = Some(map.next_value::<Value>()?.0),
                "error" => reply = Some(Reply::Error(kind(&map.next_value::<String>()?))),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        reply.ok_or_else(|| A::Error::custom("neither a result nor an error"))
    }
}

/// The first word of an error, when it is a name.
fn kind(text: &str) -> String {
    let word = text.split(' ').next().unwrap_or_default();
    let is_name = (1..=20).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_name { word.to_owned() } else { "unnamed error".to_owned() }
}

/// What stands behind `"result":`.
struct Value(Reply);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Reply;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a number, a string or a list")
    }

    fn visit_unit<E: Error>(self) -> Result<Reply, E> {
        Ok(Reply::Null)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Reply, E> {
        Ok(Reply::Integer(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Reply, E> {
        i64::try_from(number).map(Reply::Integer).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Reply, E> {
        Ok(Reply::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Reply, A::Error> {
        let mut list = Vec::new();
        while let Some(Value(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Reply::List(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_a_reply_is_read() {
        let json = r#"[{"result":null},{"result":-7},{"result":"a\"b"},{"result":["x",null,[1]]},{"error":"WRONGTYPE key"}]"#;
        let replies: Vec<Reply> = serde_json::from_str(json).expect("the format");
        let text = |text: &str| Reply::Text(text.to_owned());
        assert_eq!(
            replies,
            [
                Reply::Null,
                Reply::Integer(-7),
                text("a\"b"),
                Reply::List(vec![text("x"), Reply::Null, Reply::List(vec![Reply::Integer(1)])]),
                Reply::Error("WRONGTYPE".into()),
            ]
        );
    }
}
