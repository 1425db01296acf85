//! The settings of `[vars.CLOAKROOM.gateway]`.

use serde_json::Value;

use super::{Entry, Gateway, Kind, Origin, Require, Rule, path};
use crate::{fields::Table, http::cors::is_safe_origin, limit::Pattern, session::user};

/// Reads the table. `None` without an origin: then there is no gateway. `has_binding`: whether `ORIGIN` is bound.
pub(crate) fn settings(table: &mut Table<'_>, base_path: &str, has_binding: bool) -> Option<Gateway> {
    let mut inner = table.table("gateway");
    let origin = inner.text("origin", "");
    let public = inner.list("public", &[]);
    let mut entries = rules(&mut inner, base_path);
    for text in public {
        match pattern(&text, base_path) {
            Ok(pattern) if entries.iter().any(|entry| entry.pattern == pattern) => {
                inner.fault("public", "a rule has the same path: which one is meant?");
            }
            Ok(pattern) => entries.push(Entry { pattern, kind: Kind::Public }),
            Err(what) => inner.fault("public", what),
        }
    }
    entries.sort_by_key(|entry| entry.pattern.rank());
    let has_identity = inner.choice("identity", &[("headers", true), ("none", false)], true);
    let timeout = inner.duration("timeout", "30s");
    let origin = match origin.as_str() {
        "" => None,
        "binding" => Some(Origin::Binding),
        url => Some(Origin::Url(url.trim_end_matches('/').to_owned())),
    };
    match &origin {
        Some(Origin::Binding) if !has_binding => {
            inner.fault("origin", "\"binding\" needs a service binding named ORIGIN");
        }
        Some(Origin::Url(url)) if !is_safe_origin(url) => {
            inner.fault("origin", "an origin like \"https://app.internal.example\" (http:// for this machine alone), or \"binding\"");
        }
        None if !entries.is_empty() => {
            inner.fault("origin", "is missing: rules and public paths mean nothing without it")
        }
        _ => {}
    }
    if base_path.is_empty() && origin.is_some() {
        inner.fault("origin", "needs a base_path like \"/auth\": nothing else would be left for the origin");
    }
    table.include(inner);
    Some(Gateway { origin: origin?, entries, has_identity, timeout })
}

fn rules(table: &mut Table<'_>, base_path: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let rules = match table.get("rules").map(Value::as_array) {
        None => return entries,
        Some(Some(rules)) => rules,
        Some(None) => {
            table.fault("rules", "a list of tables, [[vars.CLOAKROOM.gateway.rules]]");
            return entries;
        }
    };
    for (index, rule) in rules.iter().enumerate() {
        let mut rule = Table::new(&format!("CLOAKROOM.gateway.rules[{index}]"), Some(rule));
        let pattern = pattern(&rule.text("path", ""), base_path);
        let require = require(&rule.text("require", ""));
        let on_refused = rule.text("on_refused", "401");
        let redirect = on_refused.strip_prefix("redirect:").map(String::from);
        if require.is_none() {
            rule.fault("require", "one of \"user\", \"fresh\", \"role:NAME\", \"none\"");
        }
        if on_refused != "401" && !redirect.as_deref().is_some_and(is_own_path) {
            rule.fault(
                "on_refused",
                "\"401\", or \"redirect:\" and a path of this site like \"redirect:/login\"",
            );
        }
        match pattern {
            Err(what) => rule.fault("path", what),
            Ok(pattern) if entries.iter().any(|entry| entry.pattern == pattern) => {
                rule.fault("path", "stands here twice: which rule is meant?");
            }
            Ok(pattern) => {
                let require = require.unwrap_or(Require::User);
                entries.push(Entry { pattern, kind: Kind::Rule(Rule { require, redirect }) });
            }
        }
        table.include(rule);
    }
    entries
}

fn require(text: &str) -> Option<Require> {
    match text {
        "none" => Some(Require::Nothing),
        "user" => Some(Require::User),
        "fresh" => Some(Require::Fresh),
        _ => {
            let role = text.strip_prefix("role:")?;
            user::check_roles("role", &[role.to_owned()]).ok()?;
            Some(Require::Role(role.to_owned()))
        }
    }
}

/// A pattern that can match something which is passed on.
fn pattern(text: &str, base_path: &str) -> Result<Pattern, &'static str> {
    let pattern = Pattern::parse(text, "").map_err(|(_, what)| what)?;
    let path = text.strip_suffix('*').unwrap_or(text);
    // `/auth*` also matches `/authors`.
    let is_own = |rest: Option<&str>| {
        rest.is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && path == text))
    };
    if path::ambiguity(path).is_some() || path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("can never match: such paths are refused, or arrive in another form");
    }
    if !base_path.is_empty() && is_own(path.strip_prefix(base_path)) {
        return Err("can never match: below base_path are the Worker's own routes");
    }
    Ok(pattern)
}

/// Whether it is a path of this site, to which a browser can be sent.
fn is_own_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>#".contains(&byte))
}
