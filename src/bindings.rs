//! The Worker's bindings: which are settings, and which others may be misspelt ones. Of those, which may be of any kind,
//! only names are looked at.

use serde_json::{Map, Value};

use crate::spelling;

/// The bindings that are settings.
const SETTINGS: [&str; 9] = [
    TABLE,
    "SESSION_SECRET",
    "ADMIN_TOKEN",
    "FORMAT_SECRETS",
    "EVENTS_SECRET",
    "SESSION_ENCRYPTION_KEY",
    "JWT_KEYS",
    "UPSTASH_REDIS_REST_URL",
    "UPSTASH_REDIS_REST_TOKEN",
];

/// The binding that holds all settings but the secrets.
const TABLE: &str = "CLOAKROOM";

/// Whether a binding is a setting.
pub(crate) fn is_setting(name: &str) -> bool {
    let is_secret = |name: &str| name.starts_with("PROVIDER_") && name.ends_with("_SECRET");
    SETTINGS.contains(&name) || is_secret(name)
}

/// Where the secret of a provider is bound.
pub(crate) fn provider_secret(id: &str) -> String {
    ["PROVIDER_", &id.to_ascii_uppercase().replace('-', "_"), "_SECRET"].concat()
}

/// Whether another binding may be meant to be this one, which is not bound: a sentence for the operator.
pub(crate) fn misspelt(environment: &Value, name: &str) -> Option<String> {
    let bindings = environment.as_object().filter(|bindings| !bindings.contains_key(name))?;
    let other = spelling::closest(name, others(bindings).map(|(other, _)| other))?;
    Some(format!("\"{other}\" is bound, which is no setting: did you mean {name}?"))
}

/// What is said of a deployment without a table.
pub(crate) struct Defaults {
    /// Where the settings may be instead; empty if nothing looks like them.
    hint: String,
}

impl Defaults {
    /// `None` if there is a table. `known`: the names of its fields.
    pub(crate) fn new(environment: &Value, known: &[&str]) -> Option<Self> {
        let empty = Map::new();
        let bindings = environment.as_object().unwrap_or(&empty);
        if bindings.contains_key(TABLE) {
            return None;
        }
        let is_known = |name: &str| known.contains(&name);
        // 1. Under a misspelt name.
        let misspelt = misspelt(environment, TABLE).map(|other| format!("; {other}"));
        // 2. Under another name: a table that holds nothing but settings.
        let is_table = |value: &Value| {
            let fields = value.as_object().filter(|fields| !fields.is_empty());
            fields.is_some_and(|fields| fields.keys().all(|name| is_known(name)))
        };
        let table = || {
            let (name, _) = others(bindings).find(|(_, value)| is_table(value))?;
            Some(format!("; \"{name}\" is bound, which holds such settings: rename it to {TABLE}"))
        };
        // 3. Outside of any table.
        let field = || {
            let (name, _) = others(bindings).find(|(name, _)| is_known(name))?;
            Some(format!("; \"{name}\" is bound by itself: move it into that table"))
        };
        Some(Self { hint: misspelt.or_else(table).or_else(field).unwrap_or_default() })
    }

    /// Whether something else looks like the settings.
    pub(crate) fn has_hint(&self) -> bool {
        !self.hint.is_empty()
    }

    /// A sentence for the operator.
    pub(crate) fn notice(&self) -> String {
        let hint = &self.hint;
        format!(
            "{TABLE} is not bound: every setting has its default. Settings stand in [vars.{TABLE}] of wrangler.toml, \
             for `--env NAME` in [env.NAME.vars.{TABLE}]{hint}"
        )
    }
}

/// The bindings that are no settings.
fn others(bindings: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let named = bindings.iter().map(|(name, value)| (name.as_str(), value));
    named.filter(|(name, _)| !is_setting(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_without_a_table_is_told_what_may_be_meant() {
        for (environment, hint) in [
            (json!({}), ""),
            (json!({"DB": null, "ASSETS": null, "LABELS": {"a": null}, "EMPTY": {}}), ""),
            (
                json!({"CLOAKROM": {"limits": null}}),
                "\"CLOAKROM\" is bound, which is no setting: did you mean CLOAKROOM?",
            ),
            (
                json!({"cloakroom": null}),
                "\"cloakroom\" is bound, which is no setting: did you mean CLOAKROOM?",
            ),
            (
                json!({"AUTH": {"session": null, "limits": null}}),
                "\"AUTH\" is bound, which holds such settings: rename it to CLOAKROOM",
            ),
            (json!({"AUTH": {"session": null, "colour": null}}), ""),
            (json!({"limits": {"ip": null}}), "\"limits\" is bound by itself: move it into that table"),
        ] {
            let defaults = Defaults::new(&environment, &["session", "limits"]).expect("no table");
            assert_eq!(defaults.has_hint(), !hint.is_empty(), "{environment}");
            assert!(defaults.notice().ends_with(hint), "{environment}: {}", defaults.notice());
        }
        assert!(Defaults::new(&json!({"CLOAKROOM": {}, "CLOAKROM": {}}), &[]).is_none());
    }

    #[test]
    fn a_setting_that_is_bound_is_not_misspelt_and_no_misspelling_of_another() {
        let environment = json!({"ADMIN_TOKEN": "", "ADMIN_TOKENS": null, "UPSTASH_REDIS_REST_TOKEN": ""});
        assert_eq!(misspelt(&environment, "ADMIN_TOKEN"), None);
        assert_eq!(misspelt(&environment, "UPSTASH_REDIS_REST_URL"), None);
    }
}
