//! Records of express-session: `{"cookie":{…},…fields}`.

use std::time::Duration;

use serde_json::{Value, value::RawValue};

use super::{Attributes, Record, Unreadable, json, merge::merge};
use crate::{
    document,
    session::change::ApplyError,
    ticket::cookie::SameSite,
    time::{Time, milliseconds},
};

/// The member that is express-session's own.
const COOKIE: &str = "cookie";
const MAX_AGE: &str = "originalMaxAge";
const EXPIRES: &str = "expires";

/// Ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads a record. `ttl`: how long it lasts unused unless it says that itself.
pub(super) fn read(stored: &[u8], ttl: Duration) -> Result<Record, Unreadable> {
    let text = std::str::from_utf8(stored).map_err(|_| NOT_EXPRESS)?;
    let members = json::members(text).ok_or(NOT_EXPRESS)?;
    // express-session cannot work without it.
    let cookie = json::member(&members, COOKIE).ok_or(NOT_EXPRESS)?;
    let cookie = json::members(cookie.get()).ok_or(NOT_EXPRESS)?;
    let max_age = max_age(&cookie);
    let expires = json::member(&cookie, EXPIRES).is_some_and(|expires| expires.get().starts_with('"'));
    let fields =
        members.iter().filter(|(name, _)| name != COOKIE).map(|(name, value)| (name.as_str(), *value));
    Ok(Record {
        data: json::object(fields).ok_or(NOT_EXPRESS)?,
        lifetime: max_age.unwrap_or(ttl),
        is_persistent: max_age.is_some() || expires,
        has_user: true,
    })
}

const NOT_EXPRESS: Unreadable = Unreadable(
    "it is no record of express-session, {\"cookie\":{…},…}: check cookie.record_prefix, and that connect-redis writes JSON",
);

/// What express-session does not take over from a record: names of its `Session` objects.
const RESERVED: [&str; 21] = [
    COOKIE,
    "id",
    "req",
    "touch",
    "resetMaxAge",
    "save",
    "reload",
    "destroy",
    "regenerate",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

/// The record of this data, with the cookie of the one `before`.
pub(super) fn write(
    before: Option<&[u8]>,
    data: &RawValue,
    attributes: &Attributes,
    remember: Option<Duration>,
    now: Time,
) -> Result<Vec<u8>, ApplyError> {
    let text = before.and_then(|before| std::str::from_utf8(before).ok());
    let members = text.and_then(json::members).unwrap_or_default();
    let (cookie, old): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| name == COOKIE);
    let old = json::object(old.iter().map(|(name, value)| (name.as_str(), *value)));
    let fields = merge(old.ok_or(ApplyError::Unreadable)?, document::from_stored(data.get())?.0)?;
    let fields = json::members(fields.get()).ok_or(ApplyError::Unreadable)?;
    // Those that are there already are the application's business.
    let is_old = |name: &str| name != COOKIE && members.iter().any(|(other, _)| other == name);
    let reserved = fields.iter().find(|(name, _)| RESERVED.contains(&name.as_str()) && !is_old(name));
    if let Some((name, _)) = reserved {
        return Err(ApplyError::Unprocessable(format!(
            "\"{name}\" is a name of express-session's own: the session's data cannot have it"
        )));
    }
    let cookie = match cookie.last().filter(|_| remember.is_none()) {
        Some((_, cookie)) => renewed(cookie, now)?,
        None => attributes.cookie(remember, now)?,
    };
    let fields = fields.iter().map(|(name, value)| (name.as_str(), *value));
    let record =
        json::object(std::iter::once((COOKIE, &*cookie)).chain(fields)).ok_or(ApplyError::Unreadable)?;
    Ok(Box::<str>::from(record).into_string().into_bytes())
}

/// The cookie of a record that is written now. Like express-session itself it begins `originalMaxAge` anew: if `expires` stood in
/// the past, a save by the application would delete the record.
fn renewed(cookie: &RawValue, now: Time) -> Result<Box<RawValue>, ApplyError> {
    let mut members = json::members(cookie.get()).ok_or(ApplyError::Unreadable)?;
    let expires = max_age(&members).map(|max_age| (now + max_age).rfc3339_milliseconds());
    let expires = expires.and_then(|expires| RawValue::from_string(json::to_string(&expires)).ok());
    if let Some(expires) = &expires {
        let old = members.iter_mut().filter(|(name, value)| name == EXPIRES && value.get().starts_with('"'));
        old.for_each(|(_, value)| *value = expires);
    }
    json::object(members.iter().map(|(name, value)| (name.as_str(), *value))).ok_or(ApplyError::Unreadable)
}

/// `originalMaxAge`, if it is a lifetime.
fn max_age(cookie: &[(String, &RawValue)]) -> Option<Duration> {
    let milliseconds: f64 = serde_json::from_str(json::member(cookie, MAX_AGE)?.get()).ok()?;
    let lifetime = Duration::try_from_secs_f64(milliseconds / 1000.0).ok()?;
    // Longer ones the store's clock cannot hold.
    Some(lifetime.min(LONGEST)).filter(|lifetime| !lifetime.is_zero())
}

impl Attributes {
    /// As express-session writes them: what is not set is left out.
    fn cookie(&self, remember: Option<Duration>, now: Time) -> Result<Box<RawValue>, ApplyError> {
        let mut members = vec![
            (MAX_AGE, remember.map_or(Value::Null, |lifetime| milliseconds(lifetime).into())),
            (
                EXPIRES,
                remember.map_or(Value::Null, |lifetime| (now + lifetime).rfc3339_milliseconds().into()),
            ),
        ];
        if self.secure {
            members.push(("secure", true.into()));
        }
        members.push(("httpOnly", true.into()));
        if !self.domain.is_empty() {
            members.push(("domain", self.domain.clone().into()));
        }
        members.push(("path", self.path.clone().into()));
        let same_site = match self.same_site {
            SameSite::Strict => "strict",
            SameSite::Lax => "lax",
            SameSite::None => "none",
        };
        members.push(("sameSite", same_site.into()));
        if self.partitioned {
            members.push(("partitioned", true.into()));
        }
        let members: Vec<(&str, Box<RawValue>)> = members
            .into_iter()
            .filter_map(|(name, value)| Some((name, RawValue::from_string(value.to_string()).ok()?)))
            .collect();
        json::object(members.iter().map(|(name, value)| (*name, &**value))).ok_or(ApplyError::Unreadable)
    }
}
