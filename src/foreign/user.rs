//! Where a record holds its user.

use std::fmt;

use serde_json::{Value, value::RawValue};

use super::{Format, json};
use crate::{
    document,
    session::{User, change::ApplyError},
};

/// A JSON Pointer into a record (RFC 6901), through objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pointer {
    text: String,
    names: Vec<String>,
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pointer {
    /// From its text: `/userId`, `/passport/user`. `None` if it is malformed, or points to the whole record.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_escaped = |part: &&str| part.starts_with(['0', '1']);
        let names = text.strip_prefix('/')?.split('/');
        let names = names.map(|name| {
            let is_right = name.split('~').skip(1).all(|part| is_escaped(&part));
            is_right.then(|| name.replace("~1", "/").replace("~0", "~"))
        });
        Some(Self { text: text.to_owned(), names: names.collect::<Option<_>>()? })
    }

    /// The names on the way.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The member of the record that holds it.
    fn member(&self) -> Self {
        let names: Vec<String> = self.names.iter().take(1).cloned().collect();
        Self { text: String::new(), names }
    }

    /// What is there.
    fn find<'a>(&self, data: &'a RawValue) -> Option<&'a RawValue> {
        self.names.iter().try_fold(data, |value, name| json::member(&json::members(value.get())?, name))
    }

    /// Whether both hold the same there, or both nothing.
    pub(super) fn is_same(&self, one: &RawValue, other: &RawValue) -> bool {
        let value = |data| {
            let found = self.find(data)?;
            Some(document::from_stored(found.get()).map(|(value, _)| value))
        };
        match (value(one), value(other)) {
            (None, None) => true,
            // What cannot be parsed is never the same.
            (Some(Ok(one)), Some(Ok(other))) => one == other,
            _ => false,
        }
    }

    /// Puts `value` there, with the objects that lead there. 422 if something else is on the way.
    fn put(&self, document: &mut Value, value: Value) -> Result<(), ApplyError> {
        let mut place = document;
        for name in &self.names {
            if place.is_null() {
                *place = Value::Object(serde_json::Map::new());
            }
            let Value::Object(members) = place else {
                return Err(ApplyError::Unprocessable(format!(
                    "cookie.user_pointer ({self}) leads through a value that is no object"
                )));
            };
            place = members.entry(name.clone()).or_insert(Value::Null);
        }
        *place = value;
        Ok(())
    }

    /// Takes away what is there.
    fn remove(&self, document: &mut Value) {
        let Some((last, path)) = self.names.split_last() else { return };
        let parent = path.iter().try_fold(document, |value, name| value.as_object_mut()?.get_mut(name));
        parent.and_then(Value::as_object_mut).map(|members| members.remove(last));
    }

    /// Whether the application keeps the user's id alone there, by its name: `/userId`, `/user_id`, `/passport/user`.
    pub(super) fn is_of_id(&self) -> bool {
        let last = self.names.last().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
        last.ends_with("id") || self.names.iter().rev().nth(1).is_some_and(|name| name == "passport")
    }
}

impl Format {
    /// The user whom a record's data names. A string or a number is the id, which is also the name; an object is the user, with
    /// a name and roles if it has them. Whatever else is there is nobody.
    pub(super) fn user(&self, data: &RawValue) -> Option<User> {
        let found = self.user_pointer.as_ref()?.find(data)?;
        let (value, _) = document::from_stored(found.get()).ok()?;
        let id = |value: &Value| match value {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        };
        let user = match &value {
            Value::Object(members) => {
                let id = id(members.get("id")?)?;
                let name = members.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
                let roles =
                    members.get("roles").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let roles = roles.iter().filter_map(Value::as_str).map(String::from).collect();
                User { name: name.unwrap_or(&id).to_owned(), id, roles }
            }
            value => id(value)?.into(),
        };
        user.check("user").is_ok().then_some(user)
    }

    /// The data with this user: as the id alone where the pointer's name says so, otherwise as an object. 422 without
    /// `cookie.user_pointer`.
    pub fn with_user(&self, data: &RawValue, user: &User) -> Result<Box<RawValue>, ApplyError> {
        let pointer = self.user_pointer.as_ref().ok_or_else(no_pointer)?;
        let (mut document, _) = document::from_stored(data.get())?;
        let value = if pointer.is_of_id() {
            Value::String(user.id.clone())
        } else {
            serde_json::to_value(user).map_err(|_| ApplyError::Unreadable)?
        };
        pointer.put(&mut document, value)?;
        RawValue::from_string(document.to_string()).map_err(|_| ApplyError::Unreadable)
    }

    /// 422 if a visitor's change of `before` to `after` touches what the application alone may write: who the user is, and
    /// whatever `cookie.writable` does not name.
    pub fn check_visitors_change(&self, before: &RawValue, after: &RawValue) -> Result<(), ApplyError> {
        let refused =
            |what: &str| Err(ApplyError::Unprocessable(format!("{what}: that is the application's")));
        let is_touched = |pointer: &Pointer| {
            // Without a list also all that stands beside the id: of `/user` with `/user/id`.
            let has_list = self.writable.is_some();
            !pointer.is_same(before, after) || !(has_list || pointer.member().is_same(before, after))
        };
        if self.user_pointer.as_ref().is_some_and(is_touched) {
            return refused("who is logged in cannot be changed here");
        }
        let Some(writable) = &self.writable else { return Ok(()) };
        let (mut before, mut after) =
            (document::from_stored(before.get())?.0, document::from_stored(after.get())?.0);
        for pointer in writable {
            pointer.remove(&mut before);
            pointer.remove(&mut after);
        }
        if before == after { Ok(()) } else { refused("only what cookie.writable names can be changed here") }
    }

    /// 422 if the application's own change of `before` to `after`, made through the gateway, touches who the user is: a login
    /// needs a new id, or whoever knew the old one would be logged in with it. Everything else in its records is the
    /// application's to change.
    pub fn check_applications_change(&self, before: &RawValue, after: &RawValue) -> Result<(), ApplyError> {
        match &self.user_pointer {
            Some(pointer) if !pointer.is_same(before, after) => Err(ApplyError::Unprocessable(
                "who is logged in cannot be changed by X-Session-Patch: a login needs a new id".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// 422 if a session in this format can hold no user.
    pub fn check_holds_users(&self) -> Result<(), ApplyError> {
        self.user_pointer.as_ref().map(drop).ok_or_else(no_pointer)
    }
}

fn no_pointer() -> ApplyError {
    ApplyError::Unprocessable(
        "nobody can log in here: cookie.user_pointer does not say where the application's sessions hold their user"
            .to_owned(),
    )
}
