//! A changed document put back into the form in which its application keeps it. What the change leaves alone stays as it is: the
//! order of members, the digits of numbers, values that JSON cannot hold.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, value::RawValue};

use super::json;
use crate::{document, session::change::ApplyError};

/// A value in its application's form.
pub(super) trait Original: Sized {
    /// The name of a member.
    type Name;

    /// What it is as JSON.
    fn show(&self) -> Option<Value>;

    /// What it consists of.
    fn into_parts(self) -> Parts<Self>;

    /// Whether JSON holds all of it.
    fn is_plain(&self) -> bool;

    /// What a name is in JSON.
    fn text(name: &Self::Name) -> Cow<'_, str>;

    /// Whether a name is a text.
    fn is_text(name: &Self::Name) -> bool;

    /// A value from JSON.
    fn new(value: Value) -> Result<Self, ApplyError>;

    /// An object of these members.
    fn object(members: Vec<(Self::Name, Self)>) -> Result<Self, ApplyError>;

    /// A list of these items.
    fn list(items: Vec<Self>) -> Result<Self, ApplyError>;

    /// A name from JSON.
    fn name(name: String) -> Self::Name;
}

/// What a value consists of.
pub(super) enum Parts<T: Original> {
    /// Members, each with another name in JSON.
    Object(Vec<(T::Name, T)>),
    /// Items.
    List(Vec<T>),
    /// Nothing that could be changed by itself.
    Other(T),
}

/// The value whose JSON is changed to `new`. 422 if the change alters what JSON cannot hold; it may remove that.
pub(super) fn merge<T: Original>(old: T, new: Value) -> Result<T, ApplyError> {
    if old.show().as_ref() == Some(&new) {
        return Ok(old);
    }
    let is_plain = old.is_plain();
    match (old.into_parts(), new) {
        (Parts::Object(old), Value::Object(new)) => merge_members(old, new),
        (Parts::List(old), Value::Array(new)) => merge_items(old, new),
        (_, new) if is_plain => T::new(new),
        _ => Err(read_only()),
    }
}

/// The members that stay keep their places; new ones follow.
fn merge_members<T: Original>(old: Vec<(T::Name, T)>, mut new: Map<String, Value>) -> Result<T, ApplyError> {
    let are_texts = old.iter().all(|(name, _)| T::is_text(name));
    let mut merged = Vec::new();
    for (name, value) in old {
        if let Some(new) = new.remove(&*T::text(&name)) {
            merged.push((name, merge(value, new)?));
        }
    }
    // Beside names that are no texts a new one is perhaps not meant to be one.
    if !are_texts && !new.is_empty() {
        return Err(read_only());
    }
    for (name, value) in new {
        merged.push((T::name(name), T::new(value)?));
    }
    T::object(merged)
}

/// Items that are the same at the beginning and at the end stay. Between them, if there are as many as before, each is changed in
/// its place; otherwise each that is still there stays.
fn merge_items<T: Original>(mut old: Vec<T>, mut new: Vec<Value>) -> Result<T, ApplyError> {
    let is_same = |(old, new): (&T, &Value)| old.show().as_ref() == Some(new);
    let first = old.iter().zip(&new).take_while(|pair| is_same(*pair)).count();
    let last = old
        .iter()
        .skip(first)
        .rev()
        .zip(new.iter().skip(first).rev())
        .take_while(|pair| is_same(*pair))
        .count();
    let tail = old.split_off(old.len() - last);
    let middle = old.split_off(first);
    new.truncate(new.len() - last);
    let new = new.split_off(first);
    let mut merged = old;
    if middle.len() == new.len() {
        for (old, new) in middle.into_iter().zip(new) {
            merged.push(merge(old, new)?);
        }
    } else {
        // By their JSON, as there may be thousands.
        let mut left: BTreeMap<String, Vec<T>> = BTreeMap::new();
        for old in middle.into_iter().rev() {
            let shown = old.show().map(|shown| shown.to_string()).unwrap_or_default();
            left.entry(shown).or_default().push(old);
        }
        let mut has_new = false;
        for new in new {
            match left.get_mut(&new.to_string()).and_then(Vec::pop) {
                Some(kept) => merged.push(kept),
                None => {
                    has_new = true;
                    merged.push(T::new(new)?);
                }
            }
        }
        // Which of those that are gone has become which of the new ones cannot be told.
        if has_new && !left.values().flatten().all(T::is_plain) {
            return Err(read_only());
        }
    }
    merged.extend(tail);
    T::list(merged)
}

fn read_only() -> ApplyError {
    ApplyError::Unprocessable(
        "the change alters a value that JSON cannot hold (bytes, a date, an infinite number, a map with other keys than \
         texts): only the application can do that"
            .to_owned(),
    )
}

/// JSON, kept as its text.
impl Original for Box<RawValue> {
    type Name = String;

    fn show(&self) -> Option<Value> {
        document::from_stored(self.get()).ok().map(|(value, _)| value)
    }

    fn into_parts(self) -> Parts<Self> {
        if let Some(members) = json::members(self.get()) {
            return Parts::Object(
                members.into_iter().map(|(name, value)| (name, value.to_owned())).collect(),
            );
        }
        serde_json::from_str(self.get()).map_or(Parts::Other(self), Parts::List)
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn text(name: &String) -> Cow<'_, str> {
        name.into()
    }

    fn is_text(_: &String) -> bool {
        true
    }

    fn new(value: Value) -> Result<Self, ApplyError> {
        raw(value.to_string())
    }

    fn object(members: Vec<(String, Self)>) -> Result<Self, ApplyError> {
        let members = members.iter().map(|(name, value)| (name.as_str(), &**value));
        json::object(members).ok_or(ApplyError::Unreadable)
    }

    fn list(items: Vec<Self>) -> Result<Self, ApplyError> {
        let items: Vec<&str> = items.iter().map(|item| item.get()).collect();
        raw(format!("[{}]", items.join(",")))
    }

    fn name(name: String) -> String {
        name
    }
}

fn raw(text: String) -> Result<Box<RawValue>, ApplyError> {
    RawValue::from_string(text).map_err(|_| ApplyError::Unreadable)
}
