//! The data of a session as one handler sees it: as it was loaded, with the changes the handler has made since. They are kept
//! as operations, so that they can be made again to newer data.

use std::{borrow::Cow, collections::BTreeMap, panic::Location};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use super::{
    Error,
    members::{Edit, Members},
};
use crate::{
    document,
    session::{
        self,
        change::{ApplyError, empty_data, to_data},
    },
};

/// The data of a session, and the changes to it that are not written yet.
pub(super) struct Data {
    /// As it was loaded.
    loaded: Box<RawValue>,
    changes: Vec<Edit>,
    /// With the changes, if there are any.
    changed: Option<Members>,
    /// The most that it may have, in bytes of JSON.
    max_bytes: usize,
}

impl Data {
    /// As it was loaded; without a session it is empty.
    pub(super) fn new(loaded: Option<&RawValue>, max_bytes: usize) -> Self {
        let loaded = loaded.map_or_else(empty_data, RawValue::to_owned);
        Self { loaded, changes: Vec::new(), changed: None, max_bytes }
    }

    /// Whether there are changes that are not written yet.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty() && self.current().get() != self.loaded.get()
    }

    /// Forgets the changes.
    pub(super) fn discard_changes(&mut self) {
        self.changes.clear();
        self.changed = None;
    }

    /// With the changes.
    fn current(&self) -> Cow<'_, RawValue> {
        self.changed.as_ref().map_or(Cow::Borrowed(&*self.loaded), |changed| Cow::Owned(changed.to_json()))
    }

    /// A member of the data.
    #[track_caller]
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let place = Some(Location::caller());
        match &self.changed {
            Some(changed) => changed.get(key).map_or(Ok(None), |json| read_member(json.get(), place)),
            None => get(&self.loaded, key, place),
        }
    }

    /// All of it.
    #[track_caller]
    pub(super) fn all<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(self.current().get(), Some(Location::caller()))
    }

    /// Makes a change, to be written later. Errors: it does not fit the data, which stays as it is.
    pub(super) fn change(&mut self, change: Result<Edit, ApplyError>) -> Result<(), Error> {
        self.make(change).map_err(|error| session::Error::from(error).into())
    }

    fn make(&mut self, change: Result<Edit, ApplyError>) -> Result<(), ApplyError> {
        let change = change?;
        let changed = match &mut self.changed {
            Some(changed) => changed,
            None => self.changed.insert(Members::parse(&self.loaded)?),
        };
        changed.apply(&change, self.max_bytes)?;
        // Also one that changes nothing here: it may change newer data.
        self.changes.push(change);
        Ok(())
    }

    /// The data after the changes, made to `newest`.
    pub(super) fn apply_to(&self, newest: &RawValue) -> Result<Box<RawValue>, session::Error> {
        if self.changes.is_empty() {
            return Ok(newest.to_owned());
        }
        if newest.get() == self.loaded.get() {
            return Ok(self.current().into_owned());
        }
        let mut members = Members::parse(newest)?;
        self.changes.iter().try_for_each(|change| members.apply(change, self.max_bytes))?;
        Ok(members.to_json())
    }

    /// The data after `change`, which sees it as a `T`. Members that `T` does not know stay as they are.
    pub(super) fn update<T: Serialize + DeserializeOwned, R>(
        &self,
        data: &RawValue,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<(Box<RawValue>, R), Error> {
        // 1. What `T` sees, before and after.
        let mut value: T = read(data.get(), None)?;
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
        let mut value: T = get(data, key, None)?.unwrap_or_default();
        let result = change(&mut value);
        let (mut document, values_before) = parse(data)?;
        document.as_object_mut().ok_or_else(unreadable)?.insert(key.to_owned(), to_json(value)?);
        Ok((self.checked(document, data, values_before)?, result))
    }

    fn checked(&self, document: Value, data: &RawValue, values: usize) -> Result<Box<RawValue>, Error> {
        Ok(to_data(document, data, values, self.max_bytes).map_err(session::Error::from)?)
    }
}

/// A member of the data. One that is null is none to a `T` that knows no null.
fn get<T: DeserializeOwned>(data: &RawValue, key: &str, place: Place) -> Result<Option<T>, Error> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(data.get()).map_err(|_| unreadable())?;
    members.get(key).map_or(Ok(None), |json| read_member(json.get(), place))
}

fn read_member<T: DeserializeOwned>(json: &str, place: Place) -> Result<Option<T>, Error> {
    match serde_json::from_str(json) {
        Ok(value) => Ok(Some(value)),
        Err(_) if json == "null" => Ok(None),
        Err(_) => Err(Error::mistake(format!(
            "a member of the session's data is no {}{}: it was written as another type",
            std::any::type_name::<T>(),
            asked_at(place),
        ))),
    }
}

/// All data, and how many JSON values it has.
fn parse(data: &RawValue) -> Result<(Value, usize), session::Error> {
    Ok(document::from_stored(data.get()).map_err(ApplyError::from)?)
}

/// A value as JSON. Errors: it cannot be.
pub(super) fn to_json(value: impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|_| {
        Error::mistake("a value cannot be JSON: a map's keys must be strings, a number at most 64 bits")
    })
}

/// The members of a value. Errors: it is no JSON object.
fn members(value: &impl Serialize) -> Result<Map<String, Value>, Error> {
    match to_json(value)? {
        Value::Object(members) => Ok(members),
        _ => Err(Error::mistake("the data of a session must be a struct or a map")),
    }
}

/// Where a handler reads, if that is known: an error names it and the type, and no key, which can be data, too.
type Place = Option<&'static Location<'static>>;

fn asked_at(place: Place) -> String {
    place.map_or_else(String::new, |place| format!(", which was asked for at {place}"))
}

/// Reads all data as a `T`.
fn read<T: DeserializeOwned>(json: &str, place: Place) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|_| {
        let (name, asked_at) = (std::any::type_name::<T>(), asked_at(place));
        Error::mistake(format!(
            "what the session holds cannot be read as {name}{asked_at}: if members may be missing, \
             as in a new session, give it #[serde(default)]"
        ))
    })
}

fn unreadable() -> Error {
    Error::mistake("the data of the session is not a JSON object")
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
            Operation::Insert(key, value) => data.change(Edit::insert(key, value)),
            Operation::Remove(key) => data.change(Ok(Edit::Remove(key.clone()))),
            Operation::Increment(key, by) => data.change(Edit::increment(key, by.clone())),
            Operation::Patch(patch) => data.change(Edit::merge(patch)),
            Operation::Update(key, value) => {
                let change = |all: &mut BTreeMap<String, Box<RawValue>>| {
                    let value = RawValue::from_string(value.to_string());
                    value.map(|value| drop(all.insert(key.clone(), value)))
                };
                let (next, result) = data.update(&data.current(), change)?;
                result.map_err(|_| unreadable())?;
                *data = Data::new(Some(&next), data.max_bytes);
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
            if data.change(Edit::insert(&key, &value)).is_ok() {
                prop_assert_eq!(member(&data, &key), Some(value.to_string()));
                prop_assert_eq!(member(&data, &other).is_some(), key == other);
                prop_assert!(data.change(Ok(Edit::Remove(key.clone()))).is_ok());
            }
            prop_assert_eq!(data.current().get().to_owned(), "{}");
        }

        #[test]
        fn increments_add_up(key in text(), summands in proptest::collection::vec(-1_000_000_i64..1_000_000, 0..8)) {
            let mut data = Data::new(None, 1_000_000);
            for summand in &summands {
                prop_assert!(data.change(Edit::increment(&key, json!(summand))).is_ok());
            }
            let sum: Option<i64> = data.get(&key).unwrap_or_else(|error| panic!("{error}"));
            prop_assert_eq!(sum, (!summands.is_empty()).then(|| summands.iter().sum()));
        }

        #[test]
        fn nothing_panics_nor_outgrows_its_limit(operations in proptest::collection::vec(operation(), 0..20)) {
            let mut data = Data::new(None, MAX_BYTES);
            for operation in &operations {
                let before = data.current().get().to_owned();
                if let Err(error) = perform(&mut data, operation) {
                    prop_assert_eq!(data.current().get().to_owned(), before, "refused, {}", error);
                }
                prop_assert!(data.current().get().len() <= MAX_BYTES);
                prop_assert!(document::from_stored(data.current().get()).is_ok_and(|(all, _)| all.is_object()));
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
                data.change(Edit::insert(key, value)).map(|()| data)
            };
            let (Ok(mine), Ok(theirs)) = (make(1_000_000, &key, &value), make(1_000_000, &newer_key, &newer)) else {
                return Ok(());
            };
            let both = mine.apply_to(&theirs.current()).unwrap_or_else(|error| panic!("{error:?}"));
            let both = Data::new(Some(&both), 1_000_000);
            prop_assert_eq!(member(&both, &key), Some(value.to_string()));
            if key != newer_key {
                prop_assert_eq!(member(&both, &newer_key), Some(newer.to_string()));
            }
            // And are refused if they do not fit any more.
            let tight = make(theirs.current().get().len(), &key, &value);
            if let Ok(tight) = tight && key != newer_key && !["loaded", &newer_key].contains(&&*key) {
                prop_assert!(tight.apply_to(&theirs.current()).is_err());
            }
        }
    }

    #[test]
    fn the_text_of_an_error_holds_no_data() {
        let mut data = Data::new(None, 100);
        data.change(Edit::insert("secret key", &json!("secret value")))
            .unwrap_or_else(|error| panic!("{error}"));
        let errors = [
            data.get::<u64>("secret key").err(),
            data.all::<Vec<u64>>().err(),
            data.change(Edit::increment("other", json!("secret value"))).err(),
            data.change(Edit::insert("other", &json!("secret value".repeat(10)))).err(),
            data.update(&data.current(), |_: &mut BTreeMap<String, u64>| ()).err(),
            data.update(&data.current(), |all: &mut Value| *all = json!(["secret value"])).err(),
            to_json(BTreeMap::from([(vec!["secret key"], 1)])).err(),
        ];
        for (index, error) in errors.iter().enumerate() {
            let Some(error) = error else { panic!("{index} is no error") };
            assert!(!format!("{error} {error:?}").contains("secret"), "{index}: {error} {error:?}");
        }
    }

    fn data(json: &Value) -> Data {
        let json = RawValue::from_string(json.to_string()).expect("JSON");
        Data::new(Some(&json), 1000)
    }

    #[test]
    fn a_member_that_is_null_is_none_to_a_type_without_null() {
        let data = data(&json!({"theme": null}));
        assert!(matches!(data.get::<String>("theme"), Ok(None)));
        assert!(matches!(data.get::<Value>("theme"), Ok(Some(Value::Null))));
        assert!(matches!(data.get::<Option<u8>>("theme"), Ok(Some(None))));
        let add = |list: &mut Vec<u8>| list.push(1);
        let (next, ()) =
            data.update_key(&data.loaded, "theme", add).unwrap_or_else(|_| unreachable!("a list"));
        assert_eq!(next.get(), r#"{"theme":[1]}"#);
    }

    #[test]
    fn what_is_of_another_type_is_an_error_that_names_the_place_and_nothing_of_the_data() {
        let data = data(&json!({"secret-key": "secret"}));
        let line = line!() + 1;
        let errors = [data.get::<u64>("secret-key").map(drop), data.all::<Vec<u8>>().map(drop)];
        for error in errors.map(|read| read.expect_err("another type")) {
            let log = format!("{error:?}");
            assert!(log.contains(&format!("{}:{line}:", file!())), "{log}");
            assert!(!log.contains("secret"), "{log}");
        }
    }
}
