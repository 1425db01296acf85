//! The settings of the applications' formats, from the table `cookie` and the secret `FORMAT_SECRETS`.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{civil::Date, tz::Offset};
use serde_json::Value;

use super::{Application, Attributes, Format, Formats, Pointer, Serializer};
use crate::{fields::Table, ticket::cookie, time::Time};

/// What the settings are read beside.
pub(crate) struct Environment<'e> {
    /// `FORMAT_SECRETS`, if it is bound.
    pub(crate) format_secrets: Option<&'e Value>,
    /// The secrets of `SESSION_SECRET`.
    pub(crate) signing: &'e [&'e str],
    /// The settings of our own cookie.
    pub(crate) cookie: &'e cookie::Settings,
}

/// A format that visitors' old cookies may have (`cookie.accept`).
#[derive(Debug)]
pub struct Accepted {
    /// Its cookie.
    pub cookie: cookie::Cookie,
    /// The format.
    pub format: Format,
    /// From when on it means nothing any more.
    pub until: Option<Time>,
}

/// The settings that only a format of another application has.
const FORMAT_ONLY: [&str; 7] =
    ["record_prefix", "record_ttl", "user_pointer", "writable", "touch", "signer", "serializer"];

/// What keys of ours begin with, beside those of sessions.
const OWN_KEYS: [&str; 9] =
    ["account:", "user:", "family:", "foreign:", "taken:", "limit:", "stats:", "cache:", "tower:"];

/// Which application's format `format` names; `None` for our own.
pub(crate) fn application(table: &mut Table<'_>) -> Option<Application> {
    let known =
        [("cloakroom", None), ("express", Some(Application::Express)), ("flask", Some(Application::Flask))];
    table.choice("format", &known, None)
}

impl Application {
    /// As it is written in settings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Express => "express",
            Self::Flask => "flask",
        }
    }

    /// The name of its cookie unless it is told otherwise.
    pub(crate) fn cookie_name(self) -> &'static str {
        match self {
            Self::Express => "connect.sid",
            Self::Flask => "session",
        }
    }
}

/// The format of the deployment's own cookie, and the formats it accepts beside its own.
pub(crate) fn settings(
    table: &mut Table<'_>,
    application: Option<Application>,
    environment: &Environment<'_>,
    faults: &mut Vec<String>,
) -> Formats {
    if let Some(application) = application {
        let is_empty = |accept: &Value| accept.as_array().is_some_and(Vec::is_empty);
        if table.get("accept").is_some_and(|accept| !is_empty(accept)) {
            table.fault(
                "accept",
                "only beside format = \"cloakroom\", whose sessions take the place of the others",
            );
        }
        let own = Some(format(table, application, environment, faults));
        return Formats { own, accepted: Vec::new() };
    }
    for name in FORMAT_ONLY {
        if table.get(name).is_some() {
            table.fault(
                name,
                "only with format = \"express\" or \"flask\", or inside a table of cookie.accept",
            );
        }
    }
    Formats { own: None, accepted: accepted(table, environment, faults) }
}

/// The settings of one format.
fn format(
    table: &mut Table<'_>,
    application: Application,
    environment: &Environment<'_>,
    faults: &mut Vec<String>,
) -> Format {
    let prefix = match application {
        Application::Express => "sess:",
        Application::Flask => "session:",
    };
    let record_prefix = table.text("record_prefix", prefix);
    if OWN_KEYS.iter().any(|own| {
        !record_prefix.is_empty() && (own.starts_with(&record_prefix) || record_prefix.starts_with(own))
    }) {
        table.fault("record_prefix", "the Worker's own keys begin so: give the application's another prefix");
    }
    let signer_is_off =
        application == Application::Flask && !table.get("signer").and_then(Value::as_bool).unwrap_or(false);
    if signer_is_off && "sess:".starts_with(&record_prefix) {
        table.fault(
            "record_prefix",
            "without a signer anyone could name the Worker's own sessions: give it another prefix",
        );
    }
    let record_ttl = table.duration_or_seconds("record_ttl", "24h");
    if record_ttl > cookie::LONGEST && record_ttl != Duration::MAX {
        table.fault("record_ttl", "at most \"400d\", or 34560000 seconds");
    }
    let user_pointer = table.text("user_pointer", "");
    let user_pointer =
        if user_pointer.is_empty() { None } else { pointer(table, "user_pointer", &user_pointer) };
    let writable = table.get("writable").map(|_| table.list("writable", &[]));
    let writable =
        writable.map(|list| list.iter().filter_map(|text| pointer(table, "writable", text)).collect());
    let is_index = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    if writable.iter().flatten().any(|pointer: &Pointer| pointer.names().iter().any(is_index)) {
        table.fault("writable", "names members of objects: of a list, name the whole");
    }
    let touches = table.flag("touch", true);
    let (mut is_signed, mut serializer) = (true, Serializer::MessagePack);
    if application == Application::Flask {
        is_signed = table.flag("signer", false);
        let serializers = [("msgpack", Serializer::MessagePack), ("json", Serializer::Json)];
        serializer = table.choice("serializer", &serializers, serializer);
    } else {
        for name in ["signer", "serializer"] {
            if table.get(name).is_some() {
                table.fault(name, "only with format = \"flask\"");
            }
        }
    }
    let cookie = environment.cookie;
    Format {
        application,
        record_prefix,
        record_ttl,
        secrets: if is_signed { secrets(environment, faults) } else { Vec::new() },
        serializer,
        user_pointer,
        writable,
        touches,
        attributes: Attributes {
            secure: cookie.secure,
            domain: cookie.domain.clone(),
            path: cookie.path.clone(),
            same_site: cookie.same_site,
            partitioned: cookie.partitioned,
        },
    }
}

fn pointer(table: &mut Table<'_>, name: &str, text: &str) -> Option<Pointer> {
    let pointer = Pointer::parse(text);
    if pointer.is_none() {
        table.fault(name, "a JSON Pointer to a member of a record, like \"/userId\" (RFC 6901)");
    }
    pointer
}

/// The formats of `cookie.accept`, each by its name or as a table.
fn accepted(table: &mut Table<'_>, environment: &Environment<'_>, faults: &mut Vec<String>) -> Vec<Accepted> {
    const WHAT: &str = "a list like [\"express\"] or [{ format = \"express\", user_pointer = \"/userId\", until = \"2027-01-01\" }]";
    let mut accepted: Vec<Accepted> = Vec::new();
    table.tables("accept", Some("format"), WHAT, |_, inner| {
        let known = [("express", Some(Application::Express)), ("flask", Some(Application::Flask))];
        let Some(application) = inner.choice("format", &known, None) else {
            // Either a fault already, or missing.
            if !inner.has_faults() {
                inner.fault("format", "one of \"express\", \"flask\"");
            }
            inner.skip_rest();
            return;
        };
        let name = inner.text("name", application.cookie_name());
        let until = until(inner);
        for name in ["writable", "touch"] {
            if inner.get(name).is_some() {
                inner.fault(
                    name,
                    "means nothing here: a session that is taken over is one of the Worker's own",
                );
            }
        }
        let format = format(inner, application, environment, faults);
        // Only to be removed, at a logout: it has the attributes of ours but for its name.
        let settings = cookie::Settings { name: name.clone(), ..environment.cookie.clone() };
        inner.faults(settings.faults());
        if name == environment.cookie.name || accepted.iter().any(|other| other.cookie.name() == name) {
            inner.fault("name", "another cookie of this deployment has this name: which one is meant?");
        }
        accepted.push(Accepted { cookie: cookie::Cookie::new(settings), format, until });
    });
    accepted
}

/// The beginning of that day, in UTC.
fn until(table: &mut Table<'_>) -> Option<Time> {
    let text = table.text("until", "");
    if text.is_empty() {
        return None;
    }
    let until = midnight(&text);
    if until.is_none() {
        table.fault(
            "until",
            "a date like \"2027-01-01\": from its beginning on (UTC), the old cookie means nothing",
        );
    }
    until
}

/// The beginning of a date like `2027-01-01`.
fn midnight(date: &str) -> Option<Time> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let date = Date::new(year, month, day).ok().filter(|_| parts.next().is_none())?;
    let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    u64::try_from(midnight.as_millisecond()).ok().map(Time)
}

/// The application's secrets. They may be as short as they are there.
fn secrets(environment: &Environment<'_>, faults: &mut Vec<String>) -> Vec<Vec<u8>> {
    let Some(bound) = environment.format_secrets else {
        return environment.signing.iter().map(|secret| secret.as_bytes().to_vec()).collect();
    };
    // A text, or bytes that are none: Flask's own documentation shows such a key.
    let secret = |secret: &Value| match secret.get("base64") {
        Some(bytes) => STANDARD.decode(bytes.as_str()?).ok(),
        None => secret.as_str().map(|text| text.as_bytes().to_vec()),
    };
    let parsed = bound.as_str().map(|text| serde_json::from_str(text).unwrap_or_default());
    let secrets = parsed.as_ref().unwrap_or(bound).as_array();
    let secrets: Option<Vec<_>> = secrets.and_then(|secrets| secrets.iter().map(secret).collect());
    let secrets = secrets.filter(|secrets| !secrets.is_empty() && !secrets.iter().any(Vec::is_empty));
    if secrets.is_none() {
        let fault = "FORMAT_SECRETS must be a JSON array of the application's secrets, like [\"newest\", \"older\"] or, for \
                     bytes, [{\"base64\": \"…\"}]: the first signs";
        if !faults.iter().any(|known| known == fault) {
            faults.push(fault.to_owned());
        }
    }
    secrets.unwrap_or_default()
}

/// What an operator should know about sessions in another application's format, a sentence each.
pub(crate) fn notices(formats: &Formats) -> Vec<String> {
    const SHORT: usize = 32;
    let mut notices = Vec::new();
    if let Some(format) = formats.own() {
        notices.push(format!(
            "cookie.format = \"{}\": weaker than the native format, as docs/interop.md says. Ids stand in plain in the store's \
             keys, and do not change by themselves; the application writes whole records; there is no list of a user's \
             sessions; {}",
            format.application.name(),
            match (&format.writable, &format.user_pointer) {
                (Some(_), _) => "visitors may change what cookie.writable names",
                (None, Some(_)) => {
                    "visitors may change every member of their record but the user's: set cookie.writable to those they need"
                }
                (None, None) => {
                    "visitors may change every member of their record, also the one that says who they are: set \
                     cookie.user_pointer, and cookie.writable to those they need"
                }
            }
        ));
    }
    for Accepted { cookie, format, .. } in
        formats.accepted().iter().filter(|accepted| !accepted.format.has_user_pointer())
    {
        notices.push(format!(
            "cookie.accept: {} ({}) has no user_pointer: whoever is logged in there is taken over as nobody, and stays so",
            cookie.name(),
            format.application.name(),
        ));
    }
    let all = formats.own().into_iter().chain(formats.accepted().iter().map(|accepted| &accepted.format));
    if all.flat_map(|format| &format.secrets).any(|secret| secret.len() < SHORT) {
        notices.push(format!(
            "FORMAT_SECRETS holds a secret of less than {SHORT} characters: whoever guesses it can forge the application's \
             cookies"
        ));
    }
    notices
}
