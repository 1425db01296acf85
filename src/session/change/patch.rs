//! JSON Patch (RFC 6902) with one operation more: `{"op":"increment","path":"/views","value":1}`.

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation,
    ReplaceOperation,
    jsonptr::{Pointer, PointerBuf},
};
use serde_json::{Number, Value};

use super::{ApplyError, MAX_DEPTH, is_deeper_than, number, too_deep};
use crate::{
    document::{MAX_VALUES, count_values, shorten},
    http::Problem,
};

/// The most operations in one patch.
const MAX_OPERATIONS: usize = 1000;
/// The most array items and nested values that one patch moves. An insertion at the front of an array moves all of
/// it, a thousand of them would keep the CPU busy for seconds.
const MAX_MOVED: usize = 4_000_000;
const KNOWN: &str = "use add, remove, replace, move, copy, test or increment";

/// One operation of a patch.
#[derive(Debug)]
pub(super) enum Operation {
    Standard(PatchOperation),
    /// Not the library's, for which 1 and 1.0 are different.
    Test {
        path: PointerBuf,
        value: Value,
    },
    Increment {
        path: PointerBuf,
        value: Number,
    },
}

/// Reads a patch. 400 when it is wrong in itself, 413 when it has too many operations.
pub(super) fn parse(patch: Value) -> Result<Vec<Operation>, Problem> {
    let Value::Array(operations) = patch else {
        return Err(Problem::bad_request("a JSON Patch must be an array of operations (RFC 6902)"));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Problem::too_large(format!("a JSON Patch has at most {MAX_OPERATIONS} operations")));
    }
    let read = |(index, operation)| {
        Operation::parse(operation).map_err(|why| Problem::bad_request(format!("operation {index}: {why}")))
    };
    operations.into_iter().enumerate().map(read).collect()
}

/// A JSON Pointer, as JSON Schema.
#[cfg(test)]
pub(crate) fn json_pointer_schema() -> Value {
    serde_json::json!({"type": "string", "pattern": "^(/([^/~]|~[01])*)*$"})
}

/// What [`parse`] reads, as JSON Schema. `pointer`: where [`json_pointer_schema`] is.
#[cfg(test)]
pub(crate) fn json_patch_schema(pointer: &Value) -> Value {
    let operation = |names: &[&str], more: &str, schema: Value| {
        let mut properties = serde_json::json!({"op": {"enum": names}, "path": pointer});
        let mut required = vec!["op", "path"];
        if !more.is_empty() {
            properties[more] = schema;
            required.push(more);
        }
        serde_json::json!({"properties": properties, "required": required})
    };
    let operations = [
        operation(&["add", "replace", "test"], "value", serde_json::json!({})),
        operation(&["remove"], "", Value::Null),
        operation(&["move", "copy"], "from", pointer.clone()),
        operation(&["increment"], "value", serde_json::json!({"type": "number"})),
    ];
    let items = serde_json::json!({"type": "object", "oneOf": operations});
    serde_json::json!({"type": "array", "maxItems": MAX_OPERATIONS, "items": items})
}

/// Whether a patch begins with another document in place of the whole.
pub(super) fn replaces_all(operations: &[Operation]) -> bool {
    let Some(Operation::Standard(first)) = operations.first() else { return false };
    matches!(first, PatchOperation::Add(_) | PatchOperation::Replace(_)) && first.path().is_root()
}

/// Applies all operations in order. After an error `document` is of no use.
pub(super) fn apply(
    operations: Vec<Operation>,
    document: &mut Value,
    max_bytes: usize,
) -> Result<(), ApplyError> {
    let mut effort = Effort { copied: 0, copied_values: 0, moved: 0, max_bytes };
    for (index, operation) in operations.into_iter().enumerate() {
        effort.add(&operation, document)?;
        operation.apply(document).map_err(|why| {
            ApplyError::Unprocessable(format!("operation {index} (\"{}\"): {why}", operation.name()))
        })?;
    }
    Ok(())
}

impl Operation {
    /// Members that an operation does not need are ignored (RFC 6902 section 4).
    fn parse(operation: Value) -> Result<Self, String> {
        let Value::Object(mut members) = operation else {
            return Err("it must be an object such as {\"op\":\"remove\",\"path\":\"/cart/0\"}".to_owned());
        };
        let value = members.remove("value");
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let pointer = |name: &str| {
            let pointer = text(name).and_then(|text| PointerBuf::parse(text).ok());
            pointer.ok_or_else(|| format!("\"{name}\" must be a JSON Pointer such as \"/cart/0\" (RFC 6901)"))
        };
        let value = value.ok_or("\"value\" is missing");
        let path = pointer("path");
        Ok(Self::Standard(match text("op") {
            Some("add") => PatchOperation::Add(AddOperation { path: path?, value: value? }),
            Some("replace") => PatchOperation::Replace(ReplaceOperation { path: path?, value: value? }),
            Some("test") => return Ok(Self::Test { path: path?, value: value? }),
            Some("remove") => PatchOperation::Remove(RemoveOperation { path: path? }),
            Some("move") => PatchOperation::Move(MoveOperation { path: path?, from: pointer("from")? }),
            Some("copy") => PatchOperation::Copy(CopyOperation { path: path?, from: pointer("from")? }),
            Some("increment") => {
                let Value::Number(value) = value? else {
                    return Err("\"value\" must be a number".to_owned());
                };
                return Ok(Self::Increment { path: path?, value });
            }
            Some(_) => return Err(format!("unknown \"op\": {KNOWN}")),
            None => return Err(format!("\"op\" is missing or not a string: {KNOWN}")),
        }))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Test { .. } | Self::Standard(PatchOperation::Test(_)) => "test",
            Self::Increment { .. } => "increment",
            Self::Standard(PatchOperation::Add(_)) => "add",
            Self::Standard(PatchOperation::Remove(_)) => "remove",
            Self::Standard(PatchOperation::Replace(_)) => "replace",
            Self::Standard(PatchOperation::Move(_)) => "move",
            Self::Standard(PatchOperation::Copy(_)) => "copy",
        }
    }

    /// The error says why it does not fit this document.
    fn apply(&self, document: &mut Value) -> Result<(), String> {
        match self {
            Self::Standard(operation) => json_patch::patch_unsafe(document, std::slice::from_ref(operation))
                .map_err(|error| explain(document, operation, &error.kind)),
            Self::Test { path, value } => {
                let found = document.pointer(path.as_str()).ok_or_else(|| nothing_at(path))?;
                if is_equal(found, value) {
                    return Ok(());
                }
                Err(format!("the value at {} is different", shown(path)))
            }
            Self::Increment { path, value } => increment(document, path, value),
        }
    }
}

/// Adds to a number. A missing member of an object counts as 0.
fn increment(document: &mut Value, path: &Pointer, by: &Number) -> Result<(), String> {
    let sum = |number: &Number| {
        let sum = number::sum(number, by).map(Value::Number);
        sum.ok_or_else(|| format!("the sum at {} is out of range", shown(path)))
    };
    if let Some(found) = document.pointer_mut(path.as_str()) {
        let Value::Number(number) = &*found else {
            return Err(format!("the value at {} is not a number", shown(path)));
        };
        *found = sum(number)?;
        return Ok(());
    }
    let Some((parent, member)) = path.split_back() else { return Err(nothing_at(path)) };
    match document.pointer_mut(parent.as_str()) {
        Some(Value::Object(members)) => {
            members.insert(member.decoded().into_owned(), sum(&Number::from(0))?);
            Ok(())
        }
        Some(Value::Array(_)) => Err(nothing_at(path)),
        found => Err(no_parent(parent, found.as_deref(), "an object")),
    }
}

/// Why an operation of the library failed. `document` is what it left behind.
fn explain(document: &Value, operation: &PatchOperation, kind: &PatchErrorKind) -> String {
    let (from, path) = match operation {
        PatchOperation::Move(operation) => (operation.from.as_ptr(), operation.path.as_ptr()),
        PatchOperation::Copy(operation) => (operation.from.as_ptr(), operation.path.as_ptr()),
        other => (other.path(), other.path()),
    };
    match (kind, operation) {
        (PatchErrorKind::CannotMoveInsideItself, _) => format!("{} cannot be moved into itself", shown(from)),
        (PatchErrorKind::InvalidFromPointer, PatchOperation::Move(_)) | (_, PatchOperation::Remove(_))
            if from.is_root() =>
        {
            "the data as a whole cannot be removed".to_owned()
        }
        (PatchErrorKind::InvalidFromPointer, _) => nothing_at(from),
        (_, PatchOperation::Remove(_) | PatchOperation::Replace(_)) => nothing_at(path),
        _ => {
            let parent = path.parent().unwrap_or(path);
            let found = document.pointer(parent.as_str());
            if found.is_some_and(Value::is_array) {
                let end = shorten(&format!("{parent}/-"));
                return format!("{} is not a position in the array; use {end} to append", shown(path));
            }
            no_parent(parent, found, "an object or an array")
        }
    }
}

/// Why nothing can be put below `parent`, where `found` is.
fn no_parent(parent: &Pointer, found: Option<&Value>, wanted: &str) -> String {
    match found {
        None => format!("{}; add {wanted} there first", nothing_at(parent)),
        Some(_) => format!("the value at {} is not {wanted}", shown(parent)),
    }
}

fn nothing_at(path: &Pointer) -> String {
    format!("there is nothing at {}", shown(path))
}

fn shown(path: &Pointer) -> String {
    if path.is_root() { "\"\"".to_owned() } else { shorten(path.as_str()) }
}

/// What a patch has cost so far. Memory and CPU are bounded before they are spent.
struct Effort {
    /// Bytes of JSON. A copy of a copy of a copy … doubles each time.
    copied: usize,
    /// JSON values in them.
    copied_values: usize,
    /// Array items shifted, and values whose depth was looked at.
    moved: usize,
    max_bytes: usize,
}

impl Effort {
    fn add(&mut self, operation: &Operation, document: &Value) -> Result<(), ApplyError> {
        let Operation::Standard(operation) = operation else { return Ok(()) };
        match operation {
            PatchOperation::Add(AddOperation { path, value }) => {
                self.shift(document, path)?;
                check_depth(path, value)?;
            }
            PatchOperation::Replace(ReplaceOperation { path, value }) => check_depth(path, value)?,
            PatchOperation::Remove(RemoveOperation { path }) => self.shift(document, path)?,
            PatchOperation::Move(MoveOperation { from, path }) => {
                self.shift(document, from)?;
                self.shift(document, path)?;
                // Only a value that moves further down can make the document deeper.
                if let Some(value) = document.pointer(from.as_str()).filter(|_| path.count() > from.count()) {
                    self.move_values(count_values(value))?;
                    check_depth(path, value)?;
                }
            }
            PatchOperation::Copy(CopyOperation { from, path }) => {
                self.shift(document, path)?;
                if let Some(value) = document.pointer(from.as_str()) {
                    check_depth(path, value)?;
                    self.copied_values += count_values(value);
                    if self.copied_values <= MAX_VALUES {
                        self.copied += value.to_string().len();
                    }
                }
                if self.copied_values > MAX_VALUES {
                    return Err(ApplyError::TooLarge(format!(
                        "a JSON Patch copies at most {MAX_VALUES} JSON values"
                    )));
                }
                if self.copied > self.max_bytes {
                    let limit = self.max_bytes;
                    return Err(ApplyError::TooLarge(format!(
                        "a JSON Patch copies at most {limit} bytes of JSON"
                    )));
                }
            }
            PatchOperation::Test(_) => {}
        }
        Ok(())
    }

    /// An item is put into an array, or taken out: those behind it move.
    fn shift(&mut self, document: &Value, path: &Pointer) -> Result<(), ApplyError> {
        let Some((parent, last)) = path.split_back() else { return Ok(()) };
        let Some(Value::Array(items)) = document.pointer(parent.as_str()) else { return Ok(()) };
        let index = last.encoded().parse().unwrap_or(items.len());
        self.move_values(items.len().saturating_sub(index))
    }

    fn move_values(&mut self, count: usize) -> Result<(), ApplyError> {
        self.moved += count;
        if self.moved <= MAX_MOVED {
            return Ok(());
        }
        Err(ApplyError::TooLarge(format!(
            "the JSON Patch moves more than {MAX_MOVED} values; insert at the end of arrays, or send fewer operations"
        )))
    }
}

/// Whether `value` may stand at `path`. Asked before it does: a deeper document would overflow the stack.
fn check_depth(path: &Pointer, value: &Value) -> Result<(), ApplyError> {
    match MAX_DEPTH.checked_sub(path.count()) {
        Some(levels) if !is_deeper_than(levels, value) => Ok(()),
        _ => Err(too_deep()),
    }
}

/// Numbers are equal by value, however they are written (RFC 6902 section 4.6).
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number::is_equal(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
}
