//! A session's data by its members, each as its JSON. A change costs what its member has, and not what the whole has: a handler
//! may make thousands of them, as many as a visitor's form has fields.

use std::{collections::BTreeMap, rc::Rc};

use serde_json::{Map, Number, Value, value::RawValue};

use crate::{
    document::{self, MAX_VALUES, count_values, shorten},
    json,
    session::change::{
        ApplyError, MAX_DEPTH, is_deeper_than, pointer, sum, too_deep, too_large, too_many_values,
    },
};

/// A change that a handler makes, kept as an operation: it can be made again, to newer data.
pub(super) enum Edit {
    Insert(String, Rc<Member>),
    /// Of a member that may be missing.
    Remove(String),
    /// A missing member counts as zero.
    Increment(String, Number),
    /// RFC 7396: the patch's JSON, as parsed JSON takes far more memory than its text.
    Merge(String),
}

impl Edit {
    /// Errors: the value nests too deeply.
    pub(super) fn insert(key: &str, value: &Value) -> Result<Self, ApplyError> {
        Ok(Self::Insert(key.to_owned(), Member::new(value)?))
    }

    /// Errors: it is no number that is added.
    pub(super) fn increment(key: &str, by: Value) -> Result<Self, ApplyError> {
        let Value::Number(by) = by else { return Err(unprocessable("what is added must be a number")) };
        Ok(Self::Increment(key.to_owned(), by))
    }

    /// Errors: the patch is no object, or nests too deeply.
    pub(super) fn merge(patch: &Value) -> Result<Self, ApplyError> {
        if !patch.is_object() {
            return Err(unprocessable(
                "a merge patch must be a JSON object: the members to change, with null for those to remove",
            ));
        }
        if is_deeper_than(MAX_DEPTH, patch) {
            return Err(too_deep());
        }
        Ok(Self::Merge(patch.to_string()))
    }
}

/// The value of one member.
pub(super) struct Member {
    json: Box<RawValue>,
    /// How many JSON values it has, itself included.
    values: usize,
}

impl Member {
    fn new(value: &Value) -> Result<Rc<Self>, ApplyError> {
        if is_deeper_than(MAX_DEPTH - 1, value) {
            return Err(too_deep());
        }
        let json = RawValue::from_string(value.to_string()).map_err(|_| ApplyError::Unreadable)?;
        Ok(Rc::new(Self { json, values: count_values(value) }))
    }
}

/// A member, and what takes its place; none if it is removed.
type Replacement = (String, Option<Rc<Member>>);

/// All members.
#[derive(Default)]
pub(super) struct Members {
    members: BTreeMap<String, Rc<Member>>,
    size: Size,
}

/// Of the members together.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Of JSON, without the commas between them.
    bytes: usize,
    values: usize,
}

impl Members {
    /// Errors: it is no JSON object, or has far too many values.
    pub(super) fn parse(data: &RawValue) -> Result<Self, ApplyError> {
        let (document, _) = document::from_stored(data.get())?;
        let Value::Object(document) = document else { return Err(ApplyError::Unreadable) };
        let mut all = Self::default();
        for (key, value) in document {
            // It may nest more deeply than it may now.
            let json = RawValue::from_string(value.to_string()).map_err(|_| ApplyError::Unreadable)?;
            all.set(key, Some(Rc::new(Member { json, values: count_values(&value) })));
        }
        Ok(all)
    }

    pub(super) fn get(&self, key: &str) -> Option<&RawValue> {
        self.members.get(key).map(|member| &*member.json)
    }

    /// As one JSON object.
    pub(super) fn to_json(&self) -> Box<RawValue> {
        let members: BTreeMap<_, _> = self.members.iter().map(|(key, member)| (key, &*member.json)).collect();
        RawValue::from_string(json::to_string(&members)).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }

    /// Makes all of a change, or nothing. Errors: it does not fit the data, or that would have more than `max_bytes` of JSON or
    /// too many values; data that has more already may still shrink.
    pub(super) fn apply(&mut self, edit: &Edit, max_bytes: usize) -> Result<(), ApplyError> {
        match edit {
            Edit::Insert(key, member) => self.replace([(key.clone(), Some(Rc::clone(member)))], max_bytes),
            Edit::Remove(key) => self.replace([(key.clone(), None)], max_bytes),
            Edit::Increment(key, by) => {
                let fault = |what| unprocessable(&format!("{} {what}", shorten(&pointer(key))));
                let number = match self.value(key)? {
                    None => Number::from(0),
                    Some(Value::Number(number)) => number,
                    Some(_) => return Err(fault("is not a number, and cannot be incremented")),
                };
                let sum = sum(&number, by).ok_or_else(|| fault("would be out of range"))?;
                self.replace([(key.clone(), Some(Member::new(&sum.into())?))], max_bytes)
            }
            Edit::Merge(patch) => {
                let Value::Object(patch) = parse(patch)? else { return Err(ApplyError::Unreadable) };
                let changes = self.merged(patch)?;
                self.replace(changes, max_bytes)
            }
        }
    }

    /// What a merge patch makes of the members that it names.
    fn merged(&self, patch: Map<String, Value>) -> Result<Vec<Replacement>, ApplyError> {
        let merge = |(key, patch): (String, Value)| {
            if patch.is_null() {
                return Ok((key, None));
            }
            let mut value =
                if patch.is_object() { self.value(&key)?.unwrap_or_default() } else { Value::Null };
            json_patch::merge(&mut value, &patch);
            Ok((key, Some(Member::new(&value)?)))
        };
        patch.into_iter().map(merge).collect()
    }

    fn value(&self, key: &str) -> Result<Option<Value>, ApplyError> {
        self.get(key).map(|json| parse(json.get())).transpose()
    }

    /// Gives members these values, or removes them.
    fn replace(
        &mut self,
        changes: impl IntoIterator<Item = Replacement>,
        max_bytes: usize,
    ) -> Result<(), ApplyError> {
        let max_bytes = max_bytes.max(self.bytes());
        let max_values = MAX_VALUES.max(self.values());
        let replaced: Vec<_> =
            changes.into_iter().map(|(key, member)| (key.clone(), self.set(key, member))).collect();
        let (bytes, values) = (self.bytes(), self.values());
        let fault = if values > max_values {
            too_many_values(values)
        } else if bytes > max_bytes {
            too_large(bytes, max_bytes)
        } else {
            return Ok(());
        };
        for (key, member) in replaced {
            self.set(key, member);
        }
        Err(fault)
    }

    /// Returns what was there.
    fn set(&mut self, key: String, member: Option<Rc<Member>>) -> Option<Rc<Member>> {
        let name = json::to_string(&key).len() + ":".len();
        let size = |member: &Rc<Member>| (name + member.json.get().len(), member.values);
        if let Some((bytes, values)) = member.as_ref().map(size) {
            self.size = Size { bytes: self.size.bytes + bytes, values: self.size.values + values };
        }
        let before = match member {
            Some(member) => self.members.insert(key, member),
            None => self.members.remove(&key),
        };
        if let Some((bytes, values)) = before.as_ref().map(size) {
            self.size = Size { bytes: self.size.bytes - bytes, values: self.size.values - values };
        }
        before
    }

    fn bytes(&self) -> usize {
        "{}".len() + self.size.bytes + self.members.len().saturating_sub(1)
    }

    /// The object itself is one.
    fn values(&self) -> usize {
        1 + self.size.values
    }
}

fn parse(json: &str) -> Result<Value, ApplyError> {
    Ok(document::from_stored(json)?.0)
}

fn unprocessable(what: &str) -> ApplyError {
    ApplyError::Unprocessable(what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            (0_u8..3).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inside| {
            prop_oneof![
                prop::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any_key(), inside, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]", Just("a/b~\"\n".to_owned()), Just("__proto__".to_owned()), Just(String::new())]
    }

    fn any_object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map(any_key(), any_value(), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    proptest! {
        /// As the same changes to the whole: those of RFC 6902 and RFC 7396.
        #[test]
        fn a_change_of_a_member_makes_what_it_makes_of_the_whole(
            before in any_object(), key in any_key(), value in any_value(), patch in any_object(), by in -3_i64..3,
            max_bytes in prop_oneof![Just(65_536_usize), 2_usize..80],
        ) {
            let operation = |operation: Value| json!([operation]).to_string();
            let edits = [
                (Edit::insert(&key, &value), operation(json!({"op": "add", "path": pointer(&key), "value": value}))),
                (Ok(Edit::Remove(key.clone())), json!({ key.as_str(): null }).to_string()),
                (Edit::increment(&key, by.into()), operation(json!({"op": "increment", "path": pointer(&key), "value": by}))),
                (Edit::merge(&patch), patch.to_string()),
            ];
            for (edit, text) in edits {
                let media_type = if text.starts_with('[') { "application/json-patch+json" } else { "application/json" };
                let change = crate::session::change::Change::parse(media_type, text.as_bytes()).expect("a change");
                let expected = change.apply(&raw(&before), max_bytes);
                let mut members = Members::parse(&raw(&before)).expect("an object");
                let outcome = members.apply(&edit.expect("an edit"), max_bytes);
                let (found, bytes) = (members.to_json(), members.bytes());
                prop_assert_eq!(bytes, found.get().len());
                prop_assert_eq!(members.values(), count_values(&serde_json::from_str(found.get()).expect("JSON")));
                match expected {
                    Ok(expected) => {
                        prop_assert_eq!(outcome, Ok(()));
                        prop_assert_eq!(found.get(), expected.get());
                    }
                    Err(expected) => {
                        let outcome = outcome.expect_err("refused, too");
                        prop_assert_eq!(std::mem::discriminant(&outcome), std::mem::discriminant(&expected));
                        let unchanged = raw(&before);
                        prop_assert_eq!(found.get(), unchanged.get());
                    }
                }
            }
        }
    }

    #[test]
    fn data_has_so_many_values_and_so_many_levels_and_no_more() {
        let deep = |levels| (0..levels).fold(json!(1), |inside, _| json!([inside]));
        assert!(Edit::insert("a", &deep(99)).is_ok());
        assert!(matches!(Edit::insert("a", &deep(100)), Err(ApplyError::Unprocessable(_))));
        assert!(matches!(Edit::merge(&json!({"a": deep(200)})), Err(ApplyError::Unprocessable(_))));
        let mut members = Members::default();
        let insert = |members: &mut Members, key: &str, items: usize| {
            members.apply(&Edit::insert(key, &vec![0; items].into()).expect("an edit"), 1_000_000)
        };
        insert(&mut members, "a", MAX_VALUES - 3).expect("it fits");
        insert(&mut members, "b", 0).expect("it fits");
        let refused = insert(&mut members, "b", 1).expect_err("too many");
        assert!(refused.to_string().contains("10001 JSON values; the limit is 10000"), "{refused}");
        assert_eq!(members.get("b").map(RawValue::get), Some("[]"));
    }
}
