//! The data of a session as one handler sees it: as it was loaded, with the changes the handler has made since. They are kept
//! as operations, so that they can be made again to newer data.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use super::Error;
use crate::{
    document,
    http::Problem,
    session::{
        self,
        change::{ApplyError, Change, empty_data, to_data},
    },
};

/// The data of a session, and the changes to it that are not written yet.
pub(super) struct Data {
    /// As it was loaded.
    loaded: Box<RawValue>,
    changes: Vec<Change<'static>>,
    /// With the changes.
    current: Box<RawValue>,
    /// The most that it may have, in bytes of JSON.
    max_bytes: usize,
}

impl Data {
    /// As it was loaded; without a session it is empty.
    pub(super) fn new(loaded: Option<&RawValue>, max_bytes: usize) -> Self {
        let loaded = loaded.map_or_else(empty_data, RawValue::to_owned);
        Self { current: loaded.clone(), loaded, changes: Vec::new(), max_bytes }
    }

    /// Whether there are changes that are not written yet.
    pub(super) fn has_changes(&self) -> bool {
        self.current.get() != self.loaded.get()
    }

    /// Forgets the changes.
    pub(super) fn discard_changes(&mut self) {
        self.changes.clear();
        self.current.clone_from(&self.loaded);
    }

    /// A member of the data.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        get(&self.current, key)
    }

    /// All of it.
    pub(super) fn all<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(self.current.get())
    }

    /// Makes a change, to be written later. Errors: it does not fit the data, which stays as it is.
    pub(super) fn change(&mut self, change: Change<'static>) -> Result<(), Error> {
        let next = change.apply(&self.current, self.max_bytes).map_err(session::Error::from)?;
        self.current = next;
        // Also one that changes nothing here: it may change newer data.
        self.changes.push(change);
        Ok(())
    }

    /// The data after the changes, made to `newest`.
    pub(super) fn apply_to(&self, newest: &RawValue) -> Result<Box<RawValue>, session::Error> {
        if newest.get() == self.loaded.get() {
            return Ok(self.current.clone());
        }
        let apply = |data: Box<RawValue>, change: &Change<'_>| change.apply(&data, self.max_bytes);
        Ok(self.changes.iter().try_fold(newest.to_owned(), apply)?)
    }

    /// The data after `change`, which sees it as a `T`. Members that `T` does not know stay as they are.
    pub(super) fn update<T: Serialize + DeserializeOwned, R>(
        &self,
        data: &RawValue,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<(Box<RawValue>, R), Error> {
        // 1. What `T` sees, before and after.
        let mut value: T = read(data.get())?;
        let before = members(&value)?;
        let result = change(&mut value);
        let after = members(&value)?;
        // 2. The same members of the data.
        let (mut document, values_before) = parse(data)?;
        let all = document.as_object_mut().ok_or_else(unreadable)?;
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            all.remove(name);
        }
        for (name, value) in after {
            if before.get(&name) != Some(&value) {
                all.insert(name, value);
            }
        }
        Ok((self.checked(document, data, values_before)?, result))
    }

    /// The data after `change`, which sees one member as a `T`.
    pub(super) fn update_key<T: Default + Serialize + DeserializeOwned, R>(
        &self,
        data: &RawValue,
        key: &str,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<(Box<RawValue>, R), Error> {
        let mut value: T = get(data, key)?.unwrap_or_default();
        let result = change(&mut value);
        let (mut document, values_before) = parse(data)?;
        document.as_object_mut().ok_or_else(unreadable)?.insert(key.to_owned(), to_json(value)?);
        Ok((self.checked(document, data, values_before)?, result))
    }

    fn checked(&self, document: Value, data: &RawValue, values: usize) -> Result<Box<RawValue>, Error> {
        Ok(to_data(document, data, values, self.max_bytes).map_err(session::Error::from)?)
    }
}

/// A member of the data.
fn get<T: DeserializeOwned>(data: &RawValue, key: &str) -> Result<Option<T>, Error> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(data.get()).map_err(|_| unreadable())?;
    members.get(key).map(|value| read(value.get())).transpose()
}

/// All data, and how many JSON values it has.
fn parse(data: &RawValue) -> Result<(Value, usize), session::Error> {
    Ok(document::from_stored(data.get()).map_err(ApplyError::from)?)
}

/// A value as JSON. Errors: it cannot be.
pub(super) fn to_json(value: impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|_| {
        mistake("a value cannot be JSON: a map's keys must be strings, a number at most 64 bits".to_owned())
    })
}

/// The members of a value. Errors: it is no JSON object.
fn members(value: &impl Serialize) -> Result<Map<String, Value>, Error> {
    match to_json(value)? {
        Value::Object(members) => Ok(members),
        _ => Err(mistake("the data of a session must be a struct or a map".to_owned())),
    }
}

/// Reads what is stored as a `T`. The error names the type alone: a key, too, can be data.
fn read<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|_| {
        let name = std::any::type_name::<T>();
        mistake(format!(
            "what the session holds cannot be read as {name}: if members may be missing, as in a new session, give it \
             #[serde(default)]"
        ))
    })
}

fn unreadable() -> Error {
    mistake("the data of the session is not a JSON object".to_owned())
}

/// 500: the client learns nothing of a mistake in the handler, the log does.
fn mistake(what: String) -> Error {
    Problem::internal("something went wrong here").logged(what).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::tests::{document, text};

    /// What a handler may do with a member.
    #[derive(Clone, Debug)]
    enum Operation {
        Insert(String, Value),
        Remove(String),
        Increment(String, Value),
        Patch(Value),
        Update(String, Value),
        Discard,
    }

    /// Few enough that operations meet, beside any at all.
    fn key() -> impl Strategy<Value = String> {
        prop_oneof![3 => proptest::sample::select(vec!["a", "a/b", "~1", "__proto__"]).prop_map(String::from), 2 => text()]
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (key(), document()).prop_map(|(key, value)| Operation::Insert(key, value)),
            key().prop_map(Operation::Remove),
            (key(), prop_oneof![any::<i64>().prop_map(Value::from), document()])
                .prop_map(|(key, by)| Operation::Increment(key, by)),
            document().prop_map(Operation::Patch),
            (key(), document()).prop_map(|(key, value)| Operation::Update(key, value)),
            Just(Operation::Discard),
        ]
    }

    /// Does it. Errors: it was refused.
    fn perform(data: &mut Data, operation: &Operation) -> Result<(), Error> {
        match operation {
            Operation::Insert(key, value) => data.change(Change::insert(key, value)),
            Operation::Remove(key) => data.change(Change::remove(key)),
            Operation::Increment(key, by) => data.change(Change::increment(key, by)),
            Operation::Patch(patch) => data.change(Change::merge_patch(patch)),
            Operation::Update(key, value) => {
                let change = |all: &mut BTreeMap<String, Box<RawValue>>| {
                    let value = RawValue::from_string(value.to_string());
                    value.map(|value| drop(all.insert(key.clone(), value)))
                };
                let (next, result) = data.update(&data.current, change)?;
                result.map_err(|_| unreadable())?;
                data.current = next;
                Ok(())
            }
            Operation::Discard => {
                data.discard_changes();
                Ok(())
            }
        }
    }

    /// A member as JSON. (As a `Value`, serde_json would give some names within it a meaning.)
    fn member(data: &Data, key: &str) -> Option<String> {
        let value: Option<Box<RawValue>> = data.get(key).unwrap_or_else(|error| panic!("{error}"));
        value.map(|value| value.get().to_owned())
    }

    const MAX_BYTES: usize = 1000;

    proptest! {
        #[test]
        fn whatever_is_inserted_is_read_back_and_removed(key in text(), value in document(), other in text()) {
            let mut data = Data::new(None, 1_000_000);
            prop_assert_eq!(member(&data, &key), None);
            if data.change(Change::insert(&key, &value)).is_ok() {
                prop_assert_eq!(member(&data, &key), Some(value.to_string()));
                prop_assert_eq!(member(&data, &other).is_some(), key == other);
                prop_assert!(data.change(Change::remove(&key)).is_ok());
            }
            prop_assert_eq!(data.current.get(), "{}");
        }

        #[test]
        fn increments_add_up(key in text(), summands in proptest::collection::vec(-1_000_000_i64..1_000_000, 0..8)) {
            let mut data = Data::new(None, 1_000_000);
            for summand in &summands {
                prop_assert!(data.change(Change::increment(&key, &json!(summand))).is_ok());
            }
            let sum: Option<i64> = data.get(&key).unwrap_or_else(|error| panic!("{error}"));
            prop_assert_eq!(sum, (!summands.is_empty()).then(|| summands.iter().sum()));
        }

        #[test]
        fn nothing_panics_nor_outgrows_its_limit(operations in proptest::collection::vec(operation(), 0..20)) {
            let mut data = Data::new(None, MAX_BYTES);
            for operation in &operations {
                let before = data.current.get().to_owned();
                if let Err(error) = perform(&mut data, operation) {
                    prop_assert_eq!(data.current.get(), before, "refused, {}", error);
                }
                prop_assert!(data.current.get().len() <= MAX_BYTES);
                prop_assert!(document::from_stored(data.current.get()).is_ok_and(|(all, _)| all.is_object()));
            }
        }

        #[test]
        fn operations_are_made_to_newer_data(
            key in text(), value in document(), newer_key in text(), newer in document(),
        ) {
            let loaded = json!({ "loaded": true }).to_string();
            let loaded = RawValue::from_string(loaded).unwrap_or_else(|error| panic!("{error}"));
            let make = |max_bytes, key: &str, value: &Value| {
                let mut data = Data::new(Some(&loaded), max_bytes);
                data.change(Change::insert(key, value)).map(|()| data)
            };
            let (Ok(mine), Ok(theirs)) = (make(1_000_000, &key, &value), make(1_000_000, &newer_key, &newer)) else {
                return Ok(());
            };
            let both = mine.apply_to(&theirs.current).unwrap_or_else(|error| panic!("{error:?}"));
            let both = Data::new(Some(&both), 1_000_000);
            prop_assert_eq!(member(&both, &key), Some(value.to_string()));
            if key != newer_key {
                prop_assert_eq!(member(&both, &newer_key), Some(newer.to_string()));
            }
            // And are refused if they do not fit any more.
            let tight = make(theirs.current.get().len(), &key, &value);
            if let Ok(tight) = tight && key != newer_key && !["loaded", &newer_key].contains(&&*key) {
                prop_assert!(tight.apply_to(&theirs.current).is_err());
            }
        }
    }

    #[test]
    fn the_text_of_an_error_holds_no_data() {
        let mut data = Data::new(None, 100);
        data.change(Change::insert("secret key", &json!("secret value")))
            .unwrap_or_else(|error| panic!("{error}"));
        let errors = [
            data.get::<u64>("secret key").err(),
            data.all::<Vec<u64>>().err(),
            data.change(Change::increment("other", &json!("secret value"))).err(),
            data.change(Change::insert("other", &json!("secret value".repeat(10)))).err(),
            data.update(&data.current, |_: &mut BTreeMap<String, u64>| ()).err(),
            data.update(&data.current, |all: &mut Value| *all = json!(["secret value"])).err(),
            to_json(BTreeMap::from([(vec!["secret key"], 1)])).err(),
        ];
        for (index, error) in errors.iter().enumerate() {
            let Some(error) = error else { panic!("{index} is no error") };
            assert!(!format!("{error} {error:?}").contains("secret"), "{index}: {error} {error:?}");
        }
    }
}
