//! JSON whose shape we know: objects read member by member out of borrowed text, and written straight into text.
//! Derived code would do the same in four times the bytes. What callers make up is a [`serde_json::Value`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

use crate::number;

/// A document that a caller sent. What is wrong is said with where it is. Its numbers are kept as they are written,
/// and are within the range of floats: others could not read them.
pub(crate) fn document(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| at(bytes.get(..error.valid_up_to()), "invalid unicode code point"))?;
    let document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let beyond = number::beyond_range(text);
    beyond.map_or(Ok(document), |end| Err(at(bytes.get(..end), "number out of range")))
}

/// In the parser's own words.
fn at(before: Option<&[u8]>, what: &str) -> String {
    let before = before.unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
    format!("{what} at line {line} column {column}")
}

/// The members of an object, each as the JSON it stands there as. Their names hold no escapes.
pub(crate) struct Members<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Takes an object apart; `None` when it is none.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// A member, as it stands; `None` also when it is null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        let (_, json) = self.0.iter().find(|(known, _)| *known == name)?;
        Some(json.get()).filter(|json| *json != "null")
    }

    /// An object, as it stands.
    pub(crate) fn object(&self, name: &str) -> Option<&'a RawValue> {
        let (_, json) = self.0.iter().find(|(known, _)| *known == name)?;
        Some(*json).filter(|json| json.get().starts_with('{'))
    }

    /// True or false.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.get(name)?.parse().ok()
    }

    /// A string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// A string of ours, which needs no escapes.
    pub(crate) fn name(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.strip_prefix('"')?.strip_suffix('"')
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Strings; none when there is no such member.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        self.get(name).map_or(Some(Vec::new()), |json| serde_json::from_str(json).ok())
    }
}

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Vec::with_capacity(16);
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// An object being written, its members in the order they are given.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    /// One of about so many bytes.
    pub(crate) fn of_about(length: usize) -> Self {
        Self(String::with_capacity(length))
    }

    /// A member that is JSON already.
    pub(crate) fn json(&mut self, name: &str, json: &str) -> &mut Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        push_text(&mut self.0, name);
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.json(name, "");
        push_text(&mut self.0, text);
        self
    }

    /// A number, or true or false.
    pub(crate) fn print(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.json(name, &value.to_string())
    }

    /// All of it.
    pub(crate) fn end(&mut self) -> String {
        let mut json = std::mem::take(&mut self.0);
        json.push_str(if json.is_empty() { "{}" } else { "}" });
        json
    }
}

/// A list of what is JSON already.
pub(crate) fn list(items: impl Iterator<Item = String>) -> String {
    let mut json = String::from("[");
    for item in items {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&item);
    }
    json.push(']');
    json
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_text(&mut json, text);
    json
}

/// Appends `text` as a JSON string.
pub(crate) fn push_text(json: &mut String, text: &str) {
    json.reserve(text.len() + 2);
    json.push('"');
    let mut written = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        json.push_str(text.get(written..index).unwrap_or_default());
        json.push('\\');
        written = index;
        if byte < b' ' {
            json.push_str("u00");
            json.extend(
                [byte / 16, byte % 16].map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default()),
            );
            written += 1;
        }
    }
    json.push_str(text.get(written..).unwrap_or_default());
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut object = Object::default();
        object.text("a", "x\"y\n").print("b", 7).json("c", r#"["d","e"]"#).json("f", "null");
        let json = object.end();
        assert_eq!(json, r#"{"a":"x\"y\u000a","b":7,"c":["d","e"],"f":null}"#);
        let members = Members::parse(&json).expect("an object");
        assert_eq!(members.text("a").as_deref(), Some("x\"y\n"));
        assert_eq!(members.number("b"), Some(7));
        assert_eq!(members.texts("c"), Some(vec!["d".to_owned(), "e".to_owned()]));
        assert_eq!((members.get("f"), members.get("g"), members.number("a")), (None, None, None));
        assert_eq!(Object::default().end(), "{}");
    }

    #[test]
    fn what_is_wrong_with_a_document_is_said_with_where_it_is() {
        assert_eq!(document(b"{\"a\":1e308}"), Ok(serde_json::from_str("{\"a\":1e308}").expect("JSON")));
        for (bytes, fault) in [
            (&b"{\n\"a\":1e999}"[..], "number out of range at line 2 column 9"),
            (b"{\"a\":\"\xff\"}", "invalid unicode code point at line 1 column 6"),
            (b"{", "EOF while parsing an object at line 1 column 1"),
        ] {
            assert_eq!(document(bytes), Err(fault.to_owned()));
        }
    }

    #[test]
    fn what_is_no_object_is_nothing() {
        for json in ["", "[]", "{", "null", r#"{"a":1}x"#, r#"{"a":01}"#] {
            assert!(Members::parse(json).is_none(), "{json}");
        }
    }
}
