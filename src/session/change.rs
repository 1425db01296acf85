//! A change to a session's data, kept as an operation: on a conflict it is applied again, to the newest state.
//!
//! JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902, all or nothing), the latter with one operation more:
//! `{"op":"increment","path":"/views","value":1}`.

use std::borrow::Cow;

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchOperation, RemoveOperation, ReplaceOperation,
    jsonptr::PointerBuf,
};
use serde_json::{Map, Number, Value, value::RawValue};

use crate::{json, number};

/// Operations in one patch, at the most: each may shift a whole array.
const MAX_OPERATIONS: usize = 1000;
/// How deep data may nest. Below what the JSON parser reads (127), so that what was written can be read again.
const MAX_DEPTH: usize = 100;

/// A change that is right in itself.
#[derive(Debug)]
pub struct Change(Kind);

#[derive(Debug)]
enum Kind {
    Merge(Value),
    Patch(Vec<Operation>),
}

#[derive(Debug)]
enum Operation {
    Standard(PatchOperation),
    /// Ours, because the library takes 1 and 1.0 for different.
    Test {
        path: PointerBuf,
        value: Value,
    },
    Increment(Increment),
}

#[derive(Debug)]
struct Increment {
    path: PointerBuf,
    value: Number,
}

/// Why a request is not a change at all. The texts are for the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Another media type.
    MediaType,
    /// Malformed, or wrong in itself.
    Malformed(String),
    /// More operations than one patch may have.
    TooLarge(String),
}

/// Why a change does not fit this session's data. The texts are for the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A failed test, a missing path, an increment of a string, …
    Unprocessable(String),
    /// The result is over `max_bytes`.
    TooLarge(String),
}

impl Change {
    /// Reads a request's body. `content_type` is the header's value; parameters such as charset don't matter,
    /// JSON is always UTF-8 (RFC 8259).
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Self, Invalid> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let kind = match media_type.as_str() {
            "application/json" | "application/merge-patch+json" => Kind::Merge(merge_patch(body)?),
            "application/json-patch+json" => Kind::Patch(json_patch(body)?),
            _ => return Err(Invalid::MediaType),
        };
        Ok(Self(kind))
    }

    /// The data after the change. `max_bytes` is the limit for its JSON text; data that is over it already may
    /// still shrink.
    pub fn apply(&self, data: &RawValue, max_bytes: usize) -> Result<Box<RawValue>, Unfit> {
        let mut document: Value = serde_json::from_str(data.get()).unwrap_or_default();
        match &self.0 {
            Kind::Merge(patch) => json_patch::merge(&mut document, patch),
            Kind::Patch(operations) => apply_all(operations, &mut document, max_bytes)?,
        }
        if !document.is_object() {
            return Err(unprocessable("the data of a session is an object, and stays one"));
        }
        if is_deeper_than(MAX_DEPTH, &document) {
            return Err(unprocessable(format!(
                "the data of a session nests at most {MAX_DEPTH} levels deep"
            )));
        }
        let text = document.to_string();
        if text.len() > max_bytes.max(data.get().len()) {
            return Err(Unfit::TooLarge(format!(
                "the session's data would be {} bytes of JSON; at most {max_bytes} are kept",
                text.len()
            )));
        }
        RawValue::from_string(text).map_err(|_| unprocessable("the result is not JSON"))
    }
}

/// Empty data.
pub fn no_data() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn unprocessable(text: impl Into<String>) -> Unfit {
    Unfit::Unprocessable(text.into())
}

fn malformed(error: String) -> Invalid {
    Invalid::Malformed(format!("the body is not well-formed JSON: {error}"))
}

fn merge_patch(body: &[u8]) -> Result<Value, Invalid> {
    let patch: Value = json::document(body).map_err(malformed)?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Invalid::Malformed(
            "a merge patch is a JSON object: the members to change, null for those to remove".into(),
        ))
    }
}

fn json_patch(body: &[u8]) -> Result<Vec<Operation>, Invalid> {
    let patch: Value = json::document(body).map_err(malformed)?;
    let Value::Array(operations) = patch else {
        return Err(Invalid::Malformed("a JSON patch is an array of operations (RFC 6902)".into()));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Invalid::TooLarge(format!("a JSON patch has at most {MAX_OPERATIONS} operations")));
    }
    operations.into_iter().enumerate().map(|(index, operation)| read_operation(index, operation)).collect()
}

fn read_operation(index: usize, mut operation: Value) -> Result<Operation, Invalid> {
    let wrong = |why: &str| Invalid::Malformed(format!("operation {index} of the JSON patch: {why}"));
    let name = operation.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
    let pointer = |field: &str| {
        let text = operation.get(field).and_then(Value::as_str);
        let pointer = text.and_then(|text| PointerBuf::parse(text).ok());
        pointer.ok_or_else(|| wrong(&format!("\"{field}\" is a JSON pointer like \"/cart/0\" (RFC 6901)")))
    };
    let path = pointer("path");
    let from = pointer("from");
    let value = operation.get_mut("value").map(Value::take);
    let value = value.ok_or_else(|| wrong("\"value\" is missing"));
    Ok(Operation::Standard(match name.as_str() {
        "add" => PatchOperation::Add(AddOperation { path: path?, value: value? }),
        "replace" => PatchOperation::Replace(ReplaceOperation { path: path?, value: value? }),
        "test" => return Ok(Operation::Test { path: path?, value: value? }),
        "remove" => PatchOperation::Remove(RemoveOperation { path: path? }),
        "move" => PatchOperation::Move(MoveOperation { path: path?, from: from? }),
        "copy" => PatchOperation::Copy(CopyOperation { path: path?, from: from? }),
        "increment" => {
            let Value::Number(value) = value? else { return Err(wrong("\"value\" is a number")) };
            return Ok(Operation::Increment(Increment { path: path?, value }));
        }
        _ => return Err(wrong("\"op\" is one of add, remove, replace, move, copy, test and increment")),
    }))
}

fn apply_all(operations: &[Operation], document: &mut Value, max_bytes: usize) -> Result<(), Unfit> {
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        let failed = |why: &dyn std::fmt::Display| {
            unprocessable(format!("operation {index} of the JSON patch: {why}"))
        };
        match operation {
            Operation::Increment(increment) => increment.apply(document).map_err(|why| failed(&why))?,
            Operation::Test { path, value } => {
                let found =
                    document.pointer(path.as_str()).ok_or_else(|| failed(&"there is nothing at \"path\""))?;
                if !is_equal(found, value) {
                    return Err(failed(&"the value is another one"));
                }
            }
            Operation::Standard(standard) => {
                // A copy of a copy of a copy … doubles each time: count what is copied before it is.
                if let PatchOperation::Copy(copy) = standard {
                    copied += document.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
                    if copied > max_bytes {
                        let limit = format!("a patch copies at most {max_bytes} bytes of JSON");
                        return Err(Unfit::TooLarge(limit));
                    }
                }
                json_patch::patch_unsafe(document, std::slice::from_ref(standard))
                    .map_err(|error| failed(&error.kind))?;
            }
        }
    }
    Ok(())
}

impl Increment {
    /// Adds to a number; a missing member of an object counts as 0.
    fn apply(&self, document: &mut Value) -> Result<(), Cow<'static, str>> {
        if let Some(number) = document.pointer_mut(self.path.as_str()) {
            let Value::Number(before) = &*number else {
                return Err("only a number can be incremented".into());
            };
            let sum = number::sum(before.as_str(), self.value.as_str()).and_then(|sum| sum.parse().ok());
            *number = Value::Number(sum.ok_or("the sum is out of range")?);
            return Ok(());
        }
        let parent = self.path.split_back().and_then(|(parent, member)| {
            let object: &mut Map<_, _> = document.pointer_mut(parent.as_str())?.as_object_mut()?;
            object.insert(member.decoded().into_owned(), Value::Number(self.value.clone()));
            Some(())
        });
        parent.ok_or_else(|| "the object that the path leads into does not exist".into())
    }
}

/// Numbers by what they are worth, however they are written (RFC 6902 section 4.6).
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number::is_equal(a.as_str(), b.as_str()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
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
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MERGE: &str = "application/merge-patch+json";
    const PATCH: &str = "application/json-patch+json";

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    fn apply_with(media_type: &str, data: &Value, body: &Value, max_bytes: usize) -> Result<Value, Unfit> {
        let change = Change::parse(media_type, body.to_string().as_bytes()).expect("a change");
        let result = change.apply(&raw(data), max_bytes)?;
        Ok(serde_json::from_str(result.get()).expect("JSON"))
    }

    fn apply(media_type: &str, data: Value, body: Value) -> Result<Value, Unfit> {
        apply_with(media_type, &data, &body, 65_536)
    }

    fn refused(media_type: &str, body: &str) -> bool {
        matches!(Change::parse(media_type, body.as_bytes()), Err(Invalid::Malformed(_)))
    }

    #[test]
    fn a_merge_patch_follows_rfc_7396() {
        let data =
            json!({"title": "Goodbye!", "author": {"given": "John", "family": "Doe"}, "tags": ["a"], "n": 1});
        let patch =
            json!({"title": "Hello!", "author": {"family": null}, "tags": ["b"], "new": {"x": null, "y": 1}});
        let result =
            json!({"title": "Hello!", "author": {"given": "John"}, "tags": ["b"], "n": 1, "new": {"y": 1}});
        assert_eq!(apply(MERGE, data, patch), Ok(result));
    }

    #[test]
    fn a_json_patch_is_done_in_order() {
        let patch = json!([
            {"op": "test", "path": "/a/b", "value": 1},
            {"op": "add", "path": "/list", "value": [1]},
            {"op": "add", "path": "/list/-", "value": 2},
            {"op": "copy", "from": "/list", "path": "/copy"},
            {"op": "move", "from": "/a", "path": "/z"},
            {"op": "replace", "path": "/z/b", "value": "x"},
            {"op": "remove", "path": "/list/0"},
            {"op": "increment", "path": "/views", "value": 2},
            {"op": "increment", "path": "/views", "value": 3},
        ]);
        let result = json!({"list": [2], "copy": [1, 2], "z": {"b": "x"}, "views": 5});
        assert_eq!(apply(PATCH, json!({"a": {"b": 1}}), patch), Ok(result));
    }

    #[test]
    fn what_does_not_fit_the_data_is_unprocessable() {
        let patches = [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/missing"}]),
            json!([{"op": "replace", "path": "/missing", "value": 1}]),
            json!([{"op": "add", "path": "/missing/x", "value": 1}]),
            json!([{"op": "add", "path": "/list/7", "value": 1}]),
            json!([{"op": "move", "from": "/missing", "path": "/x"}]),
            json!([{"op": "copy", "from": "/missing", "path": "/x"}]),
            json!([{"op": "increment", "path": "/text", "value": 1}]),
            json!([{"op": "increment", "path": "/missing/views", "value": 1}]),
            json!([{"op": "increment", "path": "/list/-", "value": 1}]),
            json!([{"op": "increment", "path": "/list/9", "value": 1}]),
            json!([{"op": "increment", "path": "", "value": 1}]),
            json!([{"op": "increment", "path": "/big", "value": 1}]),
            json!([{"op": "increment", "path": "/huge", "value": 1e308}]),
            json!([{"op": "replace", "path": "", "value": [1]}]),
        ];
        let data = json!({"a": 1, "text": "x", "list": [0], "big": u64::MAX, "huge": 1e308});
        for patch in patches {
            let shown = patch.to_string();
            assert!(matches!(apply(PATCH, data.clone(), patch), Err(Unfit::Unprocessable(_))), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_in_itself_is_refused_before_any_data_is_looked_at() {
        for body in ["", "[1]", "\"x\"", "null", "{", "{\"a\":1}x", "{\"a\":1e999}", "\u{feff}{}"] {
            assert!(refused(MERGE, body), "{body}");
        }
        let patches = [
            "{}",
            "[1]",
            "[{}]",
            r#"[{"op":"frobnicate","path":"/a"}]"#,
            r#"[{"op":"add","path":"/a"}]"#,
            r#"[{"op":"add","path":"a","value":1}]"#,
            r#"[{"op":"add","path":"/~2","value":1}]"#,
            r#"[{"op":"move","path":"/a"}]"#,
            r#"[{"op":"increment","path":"/a"}]"#,
            r#"[{"op":"increment","path":"/a","value":"1"}]"#,
        ];
        for body in patches {
            assert!(refused(PATCH, body), "{body}");
        }
        assert!(Change::parse(MERGE, b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        assert!(refused(MERGE, &deep));
    }

    #[test]
    fn other_media_types_are_named_as_such() {
        for media_type in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            assert_eq!(Change::parse(media_type, b"{}").err(), Some(Invalid::MediaType), "{media_type}");
        }
        for media_type in
            ["application/json", "Application/JSON; charset=utf-8", " application/merge-patch+json ;x"]
        {
            assert!(Change::parse(media_type, b"{}").is_ok(), "{media_type}");
        }
    }

    #[test]
    fn data_over_the_limit_is_too_large_unless_it_shrinks() {
        let is_too_large = |data: &Value, patch: &Value| {
            matches!(apply_with(MERGE, data, patch, 20), Err(Unfit::TooLarge(_)))
        };
        assert!(!is_too_large(&json!({}), &json!({"a": "x".repeat(12)})));
        assert!(is_too_large(&json!({}), &json!({"a": "x".repeat(13)})));
        let over = json!({"a": "x".repeat(30), "b": 1});
        assert!(!is_too_large(&over, &json!({"b": null})));
        assert!(is_too_large(&over, &json!({"b": 22})));
    }

    #[test]
    fn copies_that_double_are_stopped_before_they_fill_the_memory() {
        let double = |index| json!({"op": "copy", "from": "", "path": format!("/{index}")});
        let patch = (0..60).map(double).collect();
        assert!(matches!(apply(PATCH, json!({"a": "xxxxxxxx"}), patch), Err(Unfit::TooLarge(_))));
        let many = json!(vec![json!({"op": "test", "path": "/a", "value": 1}); 1001]);
        assert!(matches!(Change::parse(PATCH, many.to_string().as_bytes()), Err(Invalid::TooLarge(_))));
    }

    #[test]
    fn data_never_nests_deeper_than_it_can_be_read_again() {
        let nested = |levels| (0..levels).fold(json!(1), |value, _| json!({ "a": value }));
        assert!(apply(MERGE, json!({}), nested(100)).is_ok());
        assert!(matches!(apply(MERGE, json!({}), nested(101)), Err(Unfit::Unprocessable(_))));
    }

    #[test]
    fn an_increment_keeps_whole_numbers_whole() {
        let cases = [
            (json!(1), json!(-3), json!(-2)),
            (json!(0.5), json!(1), json!(1.5)),
            (json!(u64::MAX - 1), json!(1), json!(u64::MAX)),
        ];
        for (before, value, after) in cases {
            let patch = json!([{"op": "increment", "path": "/n", "value": value}]);
            assert_eq!(apply(PATCH, json!({"n": before}), patch), Ok(json!({"n": after})));
        }
        let odd = json!([{"op": "increment", "path": "/a~1b", "value": 1}]);
        assert_eq!(apply(PATCH, json!({}), odd), Ok(json!({"a/b": 1})));
    }

    proptest! {
        /// What makes re-application safe: increments and merges of different members commute.
        #[test]
        fn increments_commute(values in proptest::collection::vec(-1000..1000_i64, 1..20)) {
            let total: i64 = values.iter().sum();
            let mut data = json!({});
            for value in values {
                let patch = json!([{"op": "increment", "path": "/n", "value": value}]);
                data = apply(PATCH, data, patch).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            }
            prop_assert_eq!(data, json!({ "n": total }));
        }

        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>, patch: bool) {
            let media_type = if patch { PATCH } else { MERGE };
            if let Ok(change) = Change::parse(media_type, &body) {
                drop(change.apply(&no_data(), 65_536));
            }
        }

        #[test]
        fn numbers_survive_being_rewritten(number: f64) {
            prop_assume!(number.is_finite());
            let data = apply(MERGE, json!({ "n": number }), json!({"x": 1})).map_err(|_| TestCaseError::fail("unfit"))?;
            prop_assert_eq!(data["n"].as_f64(), Some(number));
        }
    }
}
