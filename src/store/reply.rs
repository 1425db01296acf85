//! One reply of the store. It owns its text: a record is JSON within JSON, and comes escaped.

use serde_json::Value;

use super::Failure;

/// What a command replied.
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
}

/// A reply of the wrong kind is no reply: it is never taken for "nothing there".
impl Reply {
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

/// The kinds of errors that Redis and Upstash have names for.
const KINDS: [&str; 16] = [
    "BUSY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "ERR",
    "EXECABORT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
    "WRONGTYPE",
];

/// The replies of a batch; some may be errors.
pub(super) fn parse(body: &str) -> Result<Vec<Result<Reply, Failure>>, Failure> {
    match serde_json::from_str(body) {
        Ok(Value::Array(entries)) => Ok(entries.into_iter().map(entry).collect()),
        _ => Err(Failure::Garbled),
    }
}

/// `{"result": …}` or `{"error": …}`. Of an error only the kind is kept: its text may hold keys and values.
fn entry(mut entry: Value) -> Result<Reply, Failure> {
    if let Some(Value::String(text)) = entry.get("error") {
        let word = text.split(' ').next().unwrap_or_default();
        let kind = KINDS.into_iter().find(|kind| *kind == word);
        return Err(Failure::Refused(kind.unwrap_or("unnamed error")));
    }
    result(entry.get_mut("result").ok_or(Failure::Garbled)?.take())
}

fn result(value: Value) -> Result<Reply, Failure> {
    match value {
        Value::Null => Ok(Reply::Null),
        Value::Number(number) => number.as_i64().map(Reply::Integer).ok_or(Failure::Garbled),
        Value::String(text) => Ok(Reply::Text(text)),
        Value::Array(list) => list.into_iter().map(result).collect::<Result<_, _>>().map(Reply::List),
        _ => Err(Failure::Garbled),
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
        ] {
            assert_eq!(parse(body), Err(Failure::Garbled), "{body}");
        }
    }

    #[test]
    fn an_entry_in_error_shows_its_kind_only() {
        let body = r#"[{"result":1},{"error":"ERR max requests limit exceeded. key sess:abc"}]"#;
        assert_eq!(parse(body), Err(Failure::Refused("ERR")));
        assert_eq!(parse(r#"[{"error":"sess:abc"}]"#), Err(Failure::Refused("unnamed error")));
    }
}
