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
