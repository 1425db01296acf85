//! JSON that callers send, and stored JSON that is about to be changed.
//!
//! Both become a [`Value`] by way of a visitor of our own, because `serde_json`'s gives two member names a meaning:
//! with its feature `raw_value` the value of `$serde_json::private::RawValue` is parsed as JSON. Here no name means
//! anything. Of members with the same name the last one counts, as in JavaScript. 64-bit integers keep every digit;
//! other numbers are doubles.

mod fields;

use std::{fmt, marker::PhantomData};

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
    value::MapAccessDeserializer,
};
use serde_json::{Map, Number, Value};

use crate::http::Problem;

/// The most JSON values in one request body, and in data after a change. An object inside another takes 420 bytes of
/// memory for 5 bytes of text, so these are 4 MiB at most.
pub(crate) const MAX_VALUES: usize = 10_000;

/// The most JSON values of stored data that is about to be changed: it may have been written under other limits. These
/// are 20 MiB at most, for as long as the change is applied.
pub(crate) const MAX_STORED_VALUES: usize = 50_000;

/// The longest name or path of the caller's that an error repeats, in characters.
const MAX_SHOWN: usize = 100;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Parses a request body: one JSON document in UTF-8, with or without a byte order mark.
///
/// 400 `bad_request` when it is malformed or holds a number that no double can, 422 `unprocessable` when it has more
/// than [`MAX_VALUES`] values. Neither text repeats any of the document.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    // serde_json reads bytes, too, but that would be a second copy of it in the bundle.
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let (lines, column) = (before.iter().filter(|byte| **byte == b'\n').count() + 1, line.len() + 1);
        let detail = format!("the body is not valid JSON: it is not UTF-8 at line {lines} column {column}");
        Problem::bad_request(detail)
    })?;
    let mut count = 0;
    read_value(text, &mut count, MAX_VALUES).map_err(|error| {
        if count > MAX_VALUES {
            Problem::unprocessable(format!(
                "the body has more than {MAX_VALUES} JSON values (each string, number, true, false, null, array and \
                 object counts)"
            ))
        } else {
            Problem::bad_request(format!("the body is not valid JSON: {}", explain(&error.to_string())))
        }
    })
}

/// Parses a request body into `T`, a struct with `#[serde(deny_unknown_fields)]`.
///
/// Fails as [`parse`] does, and with 400 `bad_request` when a field is missing, unknown or of the wrong type. The
/// text names the field and what it takes, never its value. Messages of `T`'s own (`Error::custom`) are passed on as
/// they are. A free-form member is a `Box<RawValue>`; a `Value` would give names a meaning again.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    fields::read(&parse(bytes)?).map_err(Problem::bad_request)
}

/// For `#[serde(deserialize_with)]`: a struct within a request body. serde would read one from an array, too.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Members<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }

    deserializer.deserialize_map(Members(PhantomData))
}

/// The same for a struct that may be left out (with `#[serde(default)]`) or null.
pub(crate) fn optional_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(bound = "T: Deserialize<'de>")]
    struct Members<T>(#[serde(deserialize_with = "object")] T);

    Ok(Option::deserialize(deserializer)?.map(|Members(members)| members))
}

/// Why JSON from the store was not parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StoredFault {
    /// It is not JSON.
    Unreadable,
    /// It has more than [`MAX_STORED_VALUES`] values.
    TooManyValues,
}

/// Parses JSON from the store. Returns also how many values it has.
pub(crate) fn from_stored(text: &str) -> Result<(Value, usize), StoredFault> {
    let mut count = 0;
    let value = read_value(text, &mut count, MAX_STORED_VALUES);
    match value {
        Ok(value) => Ok((value, count)),
        Err(_) if count > MAX_STORED_VALUES => Err(StoredFault::TooManyValues),
        Err(_) => Err(StoredFault::Unreadable),
    }
}

/// How many JSON values there are in `value`, itself included.
pub(crate) fn count_values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count_values).sum(),
        Value::Object(members) => members.values().map(count_values).sum(),
        _ => 0_usize,
    }
}

/// Whether this build reads numbers as numbers. Any crate of the same build can turn on `serde_json`'s feature
/// `arbitrary_precision`; numbers then arrive as maps, and documents would change their meaning.
pub(crate) fn is_sound() -> bool {
    ["1", "-1", "1.5"].iter().all(|text| from_stored(text).is_ok_and(|(value, _)| value.is_number()))
}

/// A name or path as an error repeats it: at most [`MAX_SHOWN`] characters.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// An error of the parser's; those of its texts that speak of its own workings say what is wrong with the JSON.
fn explain(text: &str) -> String {
    const LONE_SURROGATE: &str = "half of a surrogate pair (\\ud800 to \\udfff) is not a character";
    const IN_WORDS: &[(&str, &str)] = &[
        ("EOF while parsing a value", "it ends where a value is expected,"),
        ("EOF while parsing", "it ends inside"),
        ("recursion limit exceeded", "it nests too deeply (at most 127 levels)"),
        ("lone leading surrogate in hex escape", LONE_SURROGATE),
        ("unexpected end of hex escape", LONE_SURROGATE),
        (
            "control character (\\u0000-\\u001F) found while parsing a string",
            "a control character in a string must be escaped",
        ),
        ("expected ident", "expected `true`, `false` or `null`"),
    ];
    let known = IN_WORDS.iter().find_map(|(theirs, ours)| Some((ours, text.strip_prefix(theirs)?)));
    known.map_or_else(|| text.to_owned(), |(ours, rest)| [ours, rest].concat())
}

fn read_value(text: &str, count: &mut usize, limit: usize) -> serde_json::Result<Value> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = Tree { count, limit }.deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// Builds a [`Value`], and stops before there are more than `limit`.
struct Tree<'a> {
    count: &'a mut usize,
    limit: usize,
}

impl Tree<'_> {
    /// For a value inside this one.
    fn inside(&mut self) -> Tree<'_> {
        Tree { count: self.count, limit: self.limit }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.count += 1;
        if *self.count > self.limit {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.inside())? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            object.insert(name, members.next_value_seed(self.inside())?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
pub(crate) mod tests;
