//! What the operator's log says: each line is one JSON object that names its event. docs/operations.md lists the events.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::{http::Code, json};

/// What has happened. The names are fixed: alerts depend on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "docs/operations.md describes them")]
pub enum Event {
    // Settings and secrets
    Misconfigured,
    SettingNoticed,
    PlatformLimitIgnored,
    UnknownSecret,
    JwtKeyUnusable,
    // The store
    StoreFailed,
    RequestUncounted,
    ScriptRefused,
    FamilyNotWritten,
    StatsNotWritten,
    LimitCorrectionFailed,
    LimitCorrectionsDropped,
    CacheFailed,
    // Sessions and accounts
    ReuseDetected,
    RecordUnreadable,
    RecordTooLarge,
    DataLeftBehind,
    OriginRefused,
    // Other services
    BreachCheckFailed,
    ProviderFailed,
    EventNotDelivered,
    EventDropped,
    PlatformLimitFailed,
    // The gateway
    GatewayRefused,
    GatewayAnswerBad,
    SessionChangeFailed,
    SessionChangeIgnored,
    SigningFailed,
    // Mistakes in a Worker's own code, and in ours
    SessionDropped,
    HandlerMistaken,
    ResponseRefused,
    Panicked,
    /// Written by entry.js.
    InstanceReplaced,
}

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody did not get what they were due.
    Error,
    /// Somebody should look at it, some time.
    Warn,
    /// It is as the settings have it.
    Info,
}

impl Event {
    /// How much it matters: always the same for an event.
    pub fn level(self) -> Level {
        match self {
            Self::Misconfigured
            | Self::JwtKeyUnusable
            | Self::StoreFailed
            | Self::RecordUnreadable
            | Self::EventNotDelivered
            | Self::EventDropped
            | Self::GatewayAnswerBad
            | Self::SessionChangeFailed
            | Self::SigningFailed
            | Self::SessionDropped
            | Self::HandlerMistaken
            | Self::ResponseRefused
            | Self::Panicked
            | Self::InstanceReplaced => Level::Error,
            Self::SettingNoticed
            | Self::PlatformLimitIgnored
            | Self::UnknownSecret
            | Self::RequestUncounted
            | Self::FamilyNotWritten
            | Self::StatsNotWritten
            | Self::ScriptRefused
            | Self::LimitCorrectionFailed
            | Self::LimitCorrectionsDropped
            | Self::CacheFailed
            | Self::ReuseDetected
            | Self::RecordTooLarge
            | Self::DataLeftBehind
            | Self::BreachCheckFailed
            | Self::ProviderFailed
            | Self::PlatformLimitFailed
            | Self::SessionChangeIgnored => Level::Warn,
            Self::OriginRefused | Self::GatewayRefused => Level::Info,
        }
    }
}

/// A line. It never holds a secret, an id, session data, a path or a name. Displayed, it is the JSON; a field without a value is
/// left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// What has happened.
    pub event: Event,
    /// Its [`Event::level`].
    pub level: Level,
    /// The same as a sentence, for people, with what to do.
    pub message: String,
    /// The public name of the session that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The request's method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// The pattern of the request's route, below `base_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'static str>,
    /// The pattern of the gateway's rule, as the settings have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What that rule requires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require: Option<String>,
    /// The name of the limit that has refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The names of the origin's headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<&'static str>,
    /// The type of the event for the operator's back end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
}

impl Line {
    /// Of this event. `message` has no full stop.
    pub fn new(event: Event, message: impl Into<String>) -> Self {
        Self {
            event,
            level: event.level(),
            message: message.into(),
            handle: None,
            status: None,
            code: None,
            method: None,
            route: None,
            rule: None,
            require: None,
            limit: None,
            headers: Vec::new(),
            r#type: None,
        }
    }

    /// The same about the session of this handle.
    pub fn about(self, handle: impl Display) -> Self {
        Self { handle: Some(handle.to_string()), ..self }
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&json::to_string(self))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_json_without_the_fields_that_have_no_value() {
        let line = Line::new(Event::ReuseDetected, "one\n\"line\"").about("handle");
        let json = r#"{"event":"reuse_detected","level":"warn","message":"one\n\"line\"","handle":"handle"}"#;
        assert_eq!(line.to_string(), json);
    }

    #[test]
    fn the_table_of_the_documentation_has_each_event_with_its_level_and_no_other() {
        let documented: BTreeMap<_, _> = include_str!("../docs/operations.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .filter_map(|(event, rest)| Some((event, rest.split_once(" | ")?.0)))
            .filter(|(_, level)| ["error", "warn", "info"].contains(level))
            .collect();
        let schema = serde_json::to_value(schemars::schema_for!(Event)).unwrap();
        let mut names = Vec::new();
        collect_names(&schema, &mut names);
        let known: BTreeMap<_, _> = names
            .iter()
            .map(|name| {
                let event: Event = serde_json::from_value(json!(name)).unwrap();
                (&**name, serde_json::to_value(event.level()).unwrap())
            })
            .collect();
        let documented: BTreeMap<_, _> =
            documented.into_iter().map(|(event, level)| (event, json!(level))).collect();
        assert_eq!(documented, known);
    }

    /// Those of an enum's variants, with and without a description.
    fn collect_names(schema: &Value, names: &mut Vec<String>) {
        let known = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
        names.extend(known.filter_map(Value::as_str).map(ToOwned::to_owned));
        for part in schema["oneOf"].as_array().into_iter().flatten() {
            collect_names(part, names);
        }
    }
}
