//! A change to a session's data. It is kept as an operation, so that after a conflict it can be applied again to the
//! newest data.
//!
//! JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902), all or nothing, the latter with an operation `increment`.

mod number;
mod patch;

use std::fmt;

use serde_json::{Value, value::RawValue};

use crate::{document, http::Problem};

/// How deep data may nest. Below what the JSON parser reads (127), so that what was written can be read again.
const MAX_DEPTH: usize = 100;
/// The value of `Accept-Patch` (RFC 5789).
const MEDIA_TYPES: &str = "application/json, application/merge-patch+json, application/json-patch+json";

/// A change that is well-formed. Whether it fits the data shows when it is applied.
#[derive(Debug)]
pub struct Change(Kind);

#[derive(Debug)]
enum Kind {
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

impl Change {
    /// Reads a request's body. `content_type` is the header's value; its parameters are ignored, JSON is always UTF-8
    /// (RFC 8259). `application/json` is a merge patch.
    ///
    /// 415 for another media type, 400 for what is malformed or wrong in itself, 413 for too many operations, 422 for
    /// too many values.
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Self, Problem> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" | "application/merge-patch+json" => {
                let patch = document::parse(body)?;
                if !patch.is_object() {
                    return Err(Problem::bad_request(
                        "a merge patch must be a JSON object: the members to change, with null for those to remove",
                    ));
                }
                Ok(Self(Kind::Merge(patch)))
            }
            "application/json-patch+json" => Ok(Self(Kind::Patch(patch::parse(document::parse(body)?)?))),
            _ => Err(Problem::unsupported_media_type(format!("send Content-Type: one of {MEDIA_TYPES}"))
                .with_header("Accept-Patch", MEDIA_TYPES)),
        }
    }

    /// The data after the change. Its JSON has at most `max_bytes`; data that is larger already may still shrink.
    pub fn apply(&self, data: &RawValue, max_bytes: usize) -> Result<Box<RawValue>, ApplyError> {
        // 1. Change all of it, or nothing.
        let mut document =
            document::from_stored(data.get()).filter(Value::is_object).ok_or(ApplyError::Unreadable)?;
        match &self.0 {
            Kind::Merge(patch) => json_patch::merge(&mut document, patch),
            Kind::Patch(operations) => patch::apply(operations, &mut document, max_bytes)?,
        }
        // 2. Check that it is still data of a session.
        if !document.is_object() {
            return Err(ApplyError::Unprocessable(
                "the data of a session must stay a JSON object".to_owned(),
            ));
        }
        if is_deeper_than(MAX_DEPTH, &document) {
            return Err(too_deep());
        }
        let json = document.to_string();
        if json.len() > max_bytes.max(data.get().len()) {
            return Err(ApplyError::TooLarge(format!(
                "the session's data would be {} bytes of JSON; the limit is {max_bytes}",
                json.len()
            )));
        }
        RawValue::from_string(json).map_err(|_| ApplyError::Unreadable)
    }
}

/// `{}`.
pub fn empty_data() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn too_deep() -> ApplyError {
    ApplyError::Unprocessable(format!("the data of a session nests at most {MAX_DEPTH} levels deep"))
}

fn is_deeper_than(levels: usize, value: &Value) -> bool {
    let inside = |value: &Value| levels == 0 || is_deeper_than(levels - 1, value);
    match value {
        Value::Array(items) => items.iter().any(inside),
        Value::Object(members) => members.values().any(inside),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
