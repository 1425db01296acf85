//! Records of Flask-Session: the whole session as MessagePack or JSON. Flask-Session reads both, whichever it writes; so does
//! this. Pickle, which earlier versions wrote, runs what it is given, and is never read.
//!
//! MessagePack has values that JSON lacks. They are shown as JSON can show them, bytes as base64 and timestamps as RFC 3339, and
//! a change leaves them as they are to the byte, or is refused.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value, value::RawValue};

use super::{
    Pointer, Record, Serializer, Unreadable, json,
    merge::{Original, Parts, merge},
};
use crate::{document, session::change::ApplyError};

/// Whether the session is a permanent one, as Flask itself notes it.
const PERMANENT: &str = "_permanent";

/// How deep MessagePack may nest: as deep as the JSON that is made of it can be read.
const MAX_DEPTH: usize = 127;

/// What is stored, in either form.
enum Stored<'a> {
    Packed(Vec<(Packed, Packed)>),
    Json(&'a str),
}

/// Reads a record. `ttl`: how long it lasts unused; only the application knows its own.
pub(super) fn read(stored: &[u8], ttl: Duration, user: Option<&Pointer>) -> Result<Record, Unreadable> {
    let mut has_user = user.is_some();
    let data = match parse(stored)? {
        Stored::Json(text) => RawValue::from_string(text.trim().to_owned()).map_err(|_| NOT_FLASK)?,
        Stored::Packed(members) => {
            // Bytes or a date name nobody, although they are shown as text.
            has_user = user.is_some_and(|user| is_plain_at(&members, user.names()));
            let shown = show_members(&members).ok_or(NOT_FLASK)?;
            RawValue::from_string(Value::Object(shown).to_string()).map_err(|_| NOT_FLASK)?
        }
    };
    let members = json::members(data.get()).ok_or(NOT_FLASK)?;
    let is_persistent = json::member(&members, PERMANENT).is_some_and(|permanent| permanent.get() == "true");
    Ok(Record { data, lifetime: ttl, is_persistent, has_user })
}

const NOT_FLASK: Unreadable =
    Unreadable("it is neither MessagePack nor JSON of Flask-Session: check cookie.record_prefix");
const PICKLE: Unreadable = Unreadable(
    "it is a pickle, which is never read, as it could run anything: use Flask-Session 0.8 or newer with \
     SESSION_SERIALIZATION_FORMAT = \"msgpack\" or \"json\", and delete the records from before",
);

/// Whether what is at a place is something that JSON holds.
fn is_plain_at(members: &[(Packed, Packed)], place: &[String]) -> bool {
    let Some((first, rest)) = place.split_first() else { return false };
    let found = members.iter().rev().find(|(name, _)| name.as_str() == Some(first)).map(|(_, value)| value);
    match (found, rest) {
        (Some(value), []) => value.is_plain(),
        (Some(Packed::Map(members)), rest) => is_plain_at(members, rest),
        _ => false,
    }
}

fn parse(stored: &[u8]) -> Result<Stored<'_>, Unreadable> {
    if let Some(Packed::Map(members)) = unpack(stored) {
        return Ok(Stored::Packed(members));
    }
    if let Some(text) = std::str::from_utf8(stored).ok().filter(|text| json::members(text).is_some()) {
        return Ok(Stored::Json(text));
    }
    // Protocols 2 to 5 begin with their number; the older ones are text that ends with a full stop.
    let is_pickle = matches!(stored, [0x80, 2..=5, .., b'.'] | [b'(' | b'c' | b'}' | b']', .., b'.']);
    Err(if is_pickle { PICKLE } else { NOT_FLASK })
}

fn unpack(mut bytes: &[u8]) -> Option<Packed> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, MAX_DEPTH).ok()?;
    bytes.is_empty().then_some(value)
}

/// The record of this data: in the form of the one `before`, with those of its values that JSON cannot hold.
pub(super) fn write(
    before: Option<&[u8]>,
    data: &RawValue,
    serializer: Serializer,
    is_permanent: bool,
) -> Result<Vec<u8>, ApplyError> {
    let before = before.map(parse).transpose().map_err(|_| ApplyError::Unreadable)?;
    let Value::Object(mut members) = document::from_stored(data.get())?.0 else {
        return Err(ApplyError::Unreadable);
    };
    if is_permanent {
        members.insert(PERMANENT.to_owned(), true.into());
    }
    let members = Value::Object(members);
    match before {
        Some(Stored::Packed(old)) => pack(&merge(Packed::Map(old), members)?),
        Some(Stored::Json(old)) => {
            let old = RawValue::from_string(old.trim().to_owned()).map_err(|_| ApplyError::Unreadable)?;
            Ok(merge(old, members)?.get().into())
        }
        None if serializer == Serializer::Json => Ok(members.to_string().into_bytes()),
        None => pack(&Packed::new(members)?),
    }
}

fn pack(value: &Packed) -> Result<Vec<u8>, ApplyError> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|_| ApplyError::Unreadable)?;
    Ok(bytes)
}

/// A value as JSON shows it. `None`: it has more values than a document may have.
fn show(value: &Packed) -> Option<Value> {
    Some(match value {
        Packed::Nil => Value::Null,
        Packed::Boolean(value) => (*value).into(),
        Packed::Integer(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => Value::Null,
        },
        Packed::F32(number) => show_float(f64::from(*number)),
        Packed::F64(number) => show_float(*number),
        Packed::String(text) => text.as_str().map_or_else(|| show_bytes(text.as_bytes()), Value::from),
        Packed::Binary(bytes) => show_bytes(bytes),
        Packed::Ext(-1, bytes) => timestamp(bytes).map_or_else(|| show_bytes(bytes), Value::from),
        Packed::Ext(_, bytes) => show_bytes(bytes),
        Packed::Array(items) => Value::Array(items.iter().map(show).collect::<Option<_>>()?),
        Packed::Map(members) => Value::Object(show_members(members)?),
    })
}

/// The members of a map. Names that are no text are shown as what they would be as values.
fn show_members(members: &[(Packed, Packed)]) -> Option<Map<String, Value>> {
    let mut shown = Map::new();
    for (name, value) in members {
        // Flask itself cannot read it either.
        if matches!(name, Packed::String(text) if !text.is_str()) {
            return None;
        }
        shown.insert(show_name(name).into_owned(), show(value)?);
    }
    Some(shown)
}

fn show_name(name: &Packed) -> Cow<'_, str> {
    match (name.as_str(), show(name)) {
        (Some(text), _) => text.into(),
        (None, Some(Value::String(text))) => text.into(),
        (None, Some(other)) => other.to_string().into(),
        (None, None) => "".into(),
    }
}

/// What is no number in JSON is null.
fn show_float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn show_bytes(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

/// A timestamp of MessagePack's, in one of its three forms, as RFC 3339.
fn timestamp(bytes: &[u8]) -> Option<String> {
    let (seconds, nanoseconds) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (i64::try_from(both & ((1 << 34) - 1)).ok()?, u32::try_from(both >> 34).ok()?)
        }
        [a, b, c, d, ref seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    let timestamp = Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?;
    Some(timestamp.to_string())
}

/// Whether each member has another name in JSON: 1 and "1" have the same.
fn has_one_name_each(members: &[(Packed, Packed)]) -> bool {
    let names: BTreeSet<_> = members.iter().map(|(name, _)| show_name(name)).collect();
    names.len() == members.len()
}

impl Original for Packed {
    type Name = Self;

    fn show(&self) -> Option<Value> {
        show(self)
    }

    fn into_parts(self) -> Parts<Self> {
        match self {
            Self::Map(members) if has_one_name_each(&members) => Parts::Object(members),
            Self::Array(items) => Parts::List(items),
            other => Parts::Other(other),
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Nil | Self::Boolean(_) | Self::Integer(_) => true,
            Self::F32(_) | Self::Binary(_) | Self::Ext(..) => false,
            Self::F64(number) => number.is_finite(),
            Self::String(text) => text.is_str(),
            Self::Array(items) => items.iter().all(Self::is_plain),
            Self::Map(members) => members.iter().all(|(name, value)| name.is_str() && value.is_plain()),
        }
    }

    fn text(name: &Self) -> Cow<'_, str> {
        show_name(name)
    }

    fn is_text(name: &Self) -> bool {
        name.is_str()
    }

    fn new(value: Value) -> Result<Self, ApplyError> {
        Ok(match value {
            Value::Null => Self::Nil,
            Value::Bool(value) => value.into(),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => number.into(),
                (None, None) => number.as_f64().unwrap_or_default().into(),
            },
            Value::String(text) => text.into(),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::new).collect::<Result<_, _>>()?),
            Value::Object(members) => {
                let member = |(name, value): (String, Value)| Ok((name.into(), Self::new(value)?));
                Self::Map(members.into_iter().map(member).collect::<Result<_, ApplyError>>()?)
            }
        })
    }

    fn object(members: Vec<(Self, Self)>) -> Result<Self, ApplyError> {
        Ok(Self::Map(members))
    }

    fn list(items: Vec<Self>) -> Result<Self, ApplyError> {
        Ok(Self::Array(items))
    }

    fn name(name: String) -> Self {
        name.into()
    }
}
