//! Structs read from a document, with errors in the words of the person who wrote the document.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::shorten;

type Error = serde_path_to_error::Error<serde_json::Error>;

/// Reads `T` from a JSON object. The error names the field and what it takes, never its value.
pub(super) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, String> {
    if !body.is_object() {
        return Err("the body must be a JSON object".to_owned());
    }
    serde_path_to_error::deserialize(body).map_err(|error| explain::<T>(body, &error))
}

/// Rewrites an error of serde's. Its texts repeat values before `, expected `, so of those texts only what follows is
/// used: that part comes from `T`.
fn explain<T: DeserializeOwned>(body: &Value, error: &Error) -> String {
    let text = error.inner().to_string();
    let path = error.path();
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let wanted = type_of_missing::<T>(body, path, name);
        let wanted = wanted.map_or_else(String::new, |wanted| format!(" ({wanted})"));
        return format!("{} is missing{wanted}", quoted(path, Some(name)));
    }
    let field = quoted(path, None);
    if text.starts_with("unknown field `") {
        let known = expected(&text).map_or_else(|| "none".to_owned(), names);
        return format!("unknown field {field}; known fields: {known}");
    }
    if text.starts_with("unknown variant `") {
        let known = expected(&text).map_or_else(|| "none".to_owned(), names);
        return format!("{field} must be one of {known}");
    }
    if ["invalid type: ", "invalid value: ", "invalid length "].iter().any(|prefix| text.starts_with(prefix))
    {
        let wanted = expected(&text).map_or_else(|| "something else".to_owned(), in_words);
        return format!("{field} must be {wanted}");
    }
    if path.iter().len() == 0 { text } else { format!("{field}: {text}") }
}

/// What a missing field takes. serde does not say, so the field is set to null and read once more.
fn type_of_missing<T: DeserializeOwned>(body: &Value, path: &Path, name: &str) -> Option<String> {
    let mut body = body.clone();
    let mut object = &mut body;
    for segment in path {
        object = match segment {
            Segment::Map { key } => object.get_mut(key)?,
            Segment::Seq { index } => object.get_mut(index)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    object.as_object_mut()?.insert(name.to_owned(), Value::Null);
    let error = serde_path_to_error::deserialize::<_, T>(&body).err()?;
    let is_about_it = error.path().iter().len() == path.iter().len() + 1
        && matches!(error.path().iter().next_back(), Some(Segment::Map { key }) if key == name);
    let text = error.inner().to_string();
    (is_about_it && text.starts_with("invalid type: ")).then(|| expected(&text).map(in_words)).flatten()
}

fn expected(text: &str) -> Option<&str> {
    text.rsplit_once(", expected ").map(|(_, expected)| expected)
}

/// `user.id` in quotes; "the body" when there is no path.
fn quoted(path: &Path, member: Option<&str>) -> String {
    let path = if path.iter().len() == 0 { String::new() } else { path.to_string() };
    let whole = match member {
        Some(member) if path.is_empty() => member.to_owned(),
        Some(member) => format!("{path}.{member}"),
        None if path.is_empty() => return "the body".to_owned(),
        None => path,
    };
    format!("\"{}\"", shorten(&whole))
}

/// serde's lists: "one of `a`, `b`, `c`", "`a` or `b`", "`a`".
fn names(list: &str) -> String {
    list.strip_prefix("one of ").unwrap_or(list).replace("` or `", ", ").replace('`', "")
}

/// What serde expects, in words of JSON. A text that is not serde's own is ours, and stays.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        "f32" | "f64" => "a number",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        _ if expected.starts_with("struct ") => "an object",
        _ if expected.starts_with("string or map") || expected.starts_with("enum ") => "a string",
        other => other,
    };
    words.to_owned()
}
