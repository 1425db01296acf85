//! A change to a session's data. It is kept as an operation, so that after a conflict it can be applied again to the
//! newest data; and as the text that the caller sent, parsed each time, because a request waits for the store between
//! reading its change and applying it, and parsed JSON takes up to eighty times the memory of its text.
//!
//! JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902), all or nothing, the latter with an operation `increment`.

mod number;
mod patch;

use std::fmt;

use serde_json::{Map, Value, value::RawValue};

pub(crate) use self::number::sum;
#[cfg(test)]
pub(crate) use self::patch::{json_patch_schema, json_pointer_schema};
use crate::{
    document::{self, MAX_STORED_VALUES, StoredFault},
    http::Problem,
};

/// How deep data may nest. Below what the JSON parser reads (127), so that what was written can be read again.
pub(crate) const MAX_DEPTH: usize = 100;
/// The value of `Accept-Patch` (RFC 5789).
pub(crate) const MEDIA_TYPES: &str =
    "application/json, application/merge-patch+json, application/json-patch+json";

/// A change that is well-formed. Whether it fits the data shows when it is applied.
pub struct Change<'a> {
    format: Format,
    text: &'a [u8],
}

#[derive(Clone, Copy)]
enum Format {
    MergePatch,
    JsonPatch,
}

/// A change, parsed.
enum Parsed {
    Merge(Value),
    Patch(Vec<patch::Operation>),
}

/// Why a change cannot be applied to this data. The texts are for the caller; they may repeat the paths of the change,
/// and hold no values.
#[derive(Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// A failed test, a missing path, an increment of a string, data that is no object any more.
    Unprocessable(String),
    /// The data would be larger than it may be, or the patch takes too much work.
    TooLarge(String),
    /// The stored data is not a JSON object. It is left as it is.
    Unreadable,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unprocessable(text) | Self::TooLarge(text) => f.write_str(text),
            Self::Unreadable => f.write_str("the stored data is not a JSON object"),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<StoredFault> for ApplyError {
    fn from(fault: StoredFault) -> Self {
        match fault {
            StoredFault::Unreadable => Self::Unreadable,
            StoredFault::TooManyValues => Self::TooLarge(format!(
                "what is stored has more than {MAX_STORED_VALUES} JSON values, so that it can only be replaced as a \
                 whole: send a JSON Patch that begins with {{\"op\":\"replace\",\"path\":\"\",\"value\":{{…}}}}"
            )),
        }
    }
}

impl<'a> Change<'a> {
    /// Reads a request's body. `content_type` is the header's value; its parameters are ignored, JSON is always UTF-8
    /// (RFC 8259). `application/json` is a merge patch.
    ///
    /// 415 for another media type, 400 for what is malformed or wrong in itself, 413 for too many operations, 422 for
    /// too many values.
    pub fn parse(content_type: &str, body: &'a [u8]) -> Result<Self, Problem> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let format = match media_type.as_str() {
            "application/json" | "application/merge-patch+json" => Format::MergePatch,
            "application/json-patch+json" => Format::JsonPatch,
            _ => {
                let detail = format!("send Content-Type: one of {MEDIA_TYPES}");
                return Err(Problem::unsupported_media_type(detail).with_header("Accept-Patch", MEDIA_TYPES));
            }
        };
        let change = Self { format, text: body };
        change.parsed()?;
        Ok(change)
    }

    fn parsed(&self) -> Result<Parsed, Problem> {
        let value = document::parse(self.text)?;
        match self.format {
            Format::MergePatch if value.is_object() => Ok(Parsed::Merge(value)),
            Format::MergePatch => Err(Problem::bad_request(
                "a merge patch must be a JSON object: the members to change, with null for those to remove",
            )),
            Format::JsonPatch => patch::parse(value).map(Parsed::Patch),
        }
    }

    /// The data after the change. Its JSON has at most `max_bytes` and 10,000 values; data that has more
    /// already may still shrink.
    pub fn apply(&self, data: &RawValue, max_bytes: usize) -> Result<Box<RawValue>, ApplyError> {
        // 1. Change all of it, or nothing. It was parsed before: it can be parsed.
        let parsed = self
            .parsed()
            .map_err(|problem| ApplyError::Unprocessable(problem.into_details().detail.into_owned()))?;
        let (mut document, values_before) = match &parsed {
            // Whatever there was is replaced, so it need not be parsed.
            Parsed::Patch(operations) if patch::replaces_all(operations) => (Value::Object(Map::new()), 0),
            _ => document::from_stored(data.get())?,
        };
        if !document.is_object() {
            return Err(ApplyError::Unreadable);
        }
        match parsed {
            Parsed::Merge(patch) => json_patch::merge(&mut document, &patch),
            Parsed::Patch(operations) => patch::apply(operations, &mut document, max_bytes)?,
        }
        // 2. Check that it is still data of a session.
        to_data(document, data, values_before, max_bytes)
    }
}

/// The JSON Pointer of a member (RFC 6901 section 3).
pub(crate) fn pointer(member: &str) -> String {
    format!("/{}", member.replace('~', "~0").replace('/', "~1"))
}

/// A changed document as the data of a session, which had `values_before` JSON values in `data` before the change.
pub(crate) fn to_data(
    document: Value,
    data: &RawValue,
    values_before: usize,
    max_bytes: usize,
) -> Result<Box<RawValue>, ApplyError> {
    if !document.is_object() {
        return Err(ApplyError::Unprocessable("the data of a session must stay a JSON object".to_owned()));
    }
    if is_deeper_than(MAX_DEPTH, &document) {
        return Err(too_deep());
    }
    let values = document::count_values(&document);
    if values > document::MAX_VALUES.max(values_before) {
        return Err(too_many_values(values));
    }
    let json = document.to_string();
    drop(document);
    if json.len() > max_bytes.max(data.get().len()) {
        return Err(too_large(json.len(), max_bytes));
    }
    RawValue::from_string(json).map_err(|_| ApplyError::Unreadable)
}

/// Does not print data.
impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change(…)")
    }
}

/// `{}`.
pub fn empty_data() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

pub(crate) fn too_many_values(values: usize) -> ApplyError {
    let limit = document::MAX_VALUES;
    ApplyError::Unprocessable(format!(
        "the session's data would have {values} JSON values; the limit is {limit}"
    ))
}

pub(crate) fn too_large(bytes: usize, max_bytes: usize) -> ApplyError {
    ApplyError::TooLarge(format!(
        "the session's data would be {bytes} bytes of JSON; the limit is {max_bytes}"
    ))
}

pub(crate) fn too_deep() -> ApplyError {
    ApplyError::Unprocessable(format!("the data of a session nests at most {MAX_DEPTH} levels deep"))
}

pub(crate) fn is_deeper_than(levels: usize, value: &Value) -> bool {
    let inside = |value: &Value| levels == 0 || is_deeper_than(levels - 1, value);
    match value {
        Value::Array(items) => items.iter().any(inside),
        Value::Object(members) => members.values().any(inside),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
