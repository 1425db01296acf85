//! The settings of `[vars.CLOAKROOM.gateway]`.

use std::time::Duration;

use super::{Entry, Gateway, Identity, Kind, Origin, Require, Rule, path};
use crate::{
    fields::Table,
    http::{Method, cors::is_safe_origin},
    limit::Pattern,
    session::user,
};

/// The longest time that an origin may be given. The platform's timers end at 24 days, and are over at once beyond.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// Reads the table. `None` without an origin: then there is no gateway. `has_binding`: whether `ORIGIN` is bound.
pub(crate) fn settings(table: &mut Table<'_>, base_path: &str, has_binding: bool) -> Option<Gateway> {
    let mut inner = table.table("gateway");
    let origin = inner.text("origin", "");
    let public = inner.list("public", &[]);
    let mut entries = rules(&mut inner, base_path);
    for text in public {
        match pattern(&text, base_path) {
            Ok(pattern) if entries.iter().any(|(_, entry)| entry.pattern == pattern) => {
                inner.fault("public", "a rule has the same path: which one is meant?");
            }
            Ok(pattern) => entries.push((None, Entry { pattern, kind: Kind::Public })),
            Err(what) => inner.fault("public", what),
        }
    }
    entries.sort_by_key(|(_, entry)| entry.pattern.rank());
    for (redirecting, refusing) in loops(&entries, base_path) {
        let what = format!(
            "leads to a path under rules[{refusing}], which refuses the same visitor again: add the path to public, or a rule \
             for it with require = \"none\""
        );
        inner.fault(&format!("rules[{redirecting}].on_refused"), &what);
    }
    let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
    let identity = [
        ("headers", Identity::Headers),
        ("jwt", Identity::Jwt),
        ("both", Identity::Both),
        ("none", Identity::Nothing),
    ];
    let identity = inner.choice("identity", &identity, Identity::Headers);
    let audience = inner.text("audience", "");
    let timeout = inner.duration("timeout", "30s");
    if timeout > LONGEST_TIMEOUT {
        inner.fault("timeout", "at most \"1h\": a visitor is waiting");
    }
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
    let origin = origin?;
    let audience = match &origin {
        _ if !audience.is_empty() => Some(audience),
        Origin::Url(url) => Some(url.clone()),
        Origin::Binding => None,
    };
    Some(Gateway { origin, entries, identity, audience, timeout })
}

/// The rules, with their indices.
fn rules(table: &mut Table<'_>, base_path: &str) -> Vec<(Option<usize>, Entry)> {
    const WHAT: &str = "a list of tables, [[vars.CLOAKROOM.gateway.rules]]";
    let mut entries: Vec<(Option<usize>, Entry)> = Vec::new();
    table.tables("rules", None, WHAT, |index, rule| {
        let pattern = pattern(&rule.text("path", ""), base_path);
        let require = require(&rule.text("require", ""));
        let on_refused = rule.text("on_refused", "401");
        let redirect = on_refused.strip_prefix("redirect:").filter(|path| is_own_path(path));
        let redirect = redirect.map(String::from);
        if require.is_none() {
            rule.fault("require", "one of \"user\", \"fresh\", \"role:NAME\", \"none\"");
        }
        if on_refused != "401" && redirect.is_none() {
            rule.fault(
                "on_refused",
                "\"401\", or \"redirect:\" and a path of this site like \"redirect:/login\"",
            );
        }
        match pattern {
            Err(what) => rule.fault("path", what),
            Ok(pattern) if entries.iter().any(|(_, entry)| entry.pattern == pattern) => {
                rule.fault("path", "stands here twice: which rule is meant?");
            }
            Ok(pattern) => {
                let kind = Kind::Rule(Rule { require: require.unwrap_or(Require::User), redirect });
                entries.push((Some(index), Entry { pattern, kind }));
            }
        }
    });
    entries
}

/// The rules that send visitors to where they are refused again, and by which rule. `entries`: the most specific first.
fn loops(entries: &[(Option<usize>, Entry)], base_path: &str) -> Vec<(usize, usize)> {
    let redirecting = entries.iter().filter_map(|(index, entry)| {
        let (index, rule) = ((*index)?, entry.rule()?);
        let target = rule.redirect.as_deref()?;
        let is_lost = match rule.require {
            // Who has logged in too long ago; nobody may have to log in on the way, if that leads on.
            Require::Fresh => {
                follow(entries, base_path, target, &|require| *require == Require::Fresh) != Way::Passes
                    || follow(entries, base_path, target, &|require| *require != Require::Nothing)
                        == Way::Loops
            }
            _ => follow(entries, base_path, target, &|require| *require != Require::Nothing) != Way::Passes,
        };
        let (refusing, _) = refusal(entries, base_path, target, &|require| *require != Require::Nothing)?;
        is_lost.then_some((index, refusing))
    });
    let mut loops: Vec<_> = redirecting.collect();
    loops.sort_unstable();
    loops
}

/// Where a visitor comes out who follows redirects.
#[derive(PartialEq, Eq)]
enum Way {
    Passes,
    Refused,
    Loops,
}

/// Follows redirects from a target. `refuses`: which rules refuse the visitor.
fn follow(
    entries: &[(Option<usize>, Entry)],
    base_path: &str,
    target: &str,
    refuses: &dyn Fn(&Require) -> bool,
) -> Way {
    let mut target = target.to_owned();
    for _ in entries {
        let Some((_, rule)) = refusal(entries, base_path, &target, refuses) else { return Way::Passes };
        let Some(next) = &rule.redirect else { return Way::Refused };
        target.clone_from(next);
    }
    Way::Loops
}

/// The rule that refuses the visitor at a path, and its index.
fn refusal<'e>(
    entries: &'e [(Option<usize>, Entry)],
    base_path: &str,
    target: &str,
    refuses: &dyn Fn(&Require) -> bool,
) -> Option<(usize, &'e Rule)> {
    let path = target.split('?').next().unwrap_or_default();
    let (index, entry) = entries.iter().find(|(_, entry)| entry.pattern.matches(Method::Get, path))?;
    let rule = entry.rule().filter(|rule| refuses(&rule.require) && !is_below(path, base_path))?;
    Some(((*index)?, rule))
}

/// Whether a path is one of the Worker's own.
fn is_below(path: &str, base_path: &str) -> bool {
    path.strip_prefix(base_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    if !is_plain(path) {
        return Err("can never match: such paths are refused, or arrive in another form");
    }
    if !base_path.is_empty() && is_own(path.strip_prefix(base_path)) {
        return Err("can never match: below base_path are the Worker's own routes");
    }
    Ok(pattern)
}

/// Whether a path arrives as it stands here: browsers resolve dot segments, and others are refused.
fn is_plain(path: &str) -> bool {
    path::ambiguity(path).is_none() && !path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether it is a path of this site, to which a browser can be sent.
fn is_own_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>#".contains(&byte))
        && path.split('?').next().is_some_and(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is wrong with these rules, with these public paths.
    fn faults(rules: &Value, public: &[&str]) -> Vec<String> {
        let gateway = json!({"gateway": {"origin": "https://a.example", "rules": rules, "public": public}});
        let mut table = Table::new("CLOAKROOM", Some(&gateway));
        settings(&mut table, "/auth", false);
        table.finish()
    }

    fn rule(path: &str, require: &str, target: &str) -> Value {
        json!({"path": path, "require": require, "on_refused": format!("redirect:{target}")})
    }

    #[test]
    fn a_redirect_to_where_the_same_visitor_is_refused_again_is_a_fault_that_names_both_rules() {
        let open = json!({"path": "/login", "require": "none"});
        let help = json!({"path": "/dash*", "require": "user"});
        for (rules, public, at_fault) in [
            (json!([rule("/*", "user", "/login")]), &[][..], Some((0, 0))),
            (json!([rule("/*", "user", "/login?why=x")]), &[], Some((0, 0))),
            (json!([rule("/*", "user", "/login")]), &["/login"], None),
            (json!([rule("/*", "user", "/login"), open]), &[], None),
            // Exact: another path, and not below it.
            (json!([rule("/*", "user", "/login/"), open]), &[], Some((0, 0))),
            (json!([rule("/*", "user", "/login/"), open]), &["/login/*"], None),
            (json!([help, rule("/a", "role:x", "/dashboard")]), &[], Some((1, 0))),
            (json!([help, rule("/a", "fresh", "/das")]), &[], None),
            // The most specific wins, wherever it stands.
            (
                json!([rule("/a*", "user", "/ab/login"), json!({"path": "/ab*", "require": "user"})]),
                &[],
                Some((0, 1)),
            ),
            // A redirect that leads on to where the visitor is let in.
            (json!([rule("/a*", "user", "/ab/login"), rule("/ab*", "user", "/in")]), &[], None),
            (json!([rule("/billing", "fresh", "/confirm"), rule("/confirm", "user", "/login")]), &[], None),
            (
                json!([
                    rule("/billing", "fresh", "/confirm"),
                    json!({"path": "/confirm", "require": "user"})
                ]),
                &[],
                None,
            ),
            (
                json!([rule("/billing", "fresh", "/confirm"), rule("/confirm", "user", "/confirm?again")]),
                &[],
                Some((0, 1)),
            ),
            (json!([rule("/a*", "user", "/ab/login")]), &["/ab*"], None),
            // The Worker's own routes are under no rule.
            (json!([rule("/*", "user", "/auth/login/idp")]), &[], None),
            (json!([rule("/*", "user", "/authors")]), &[], Some((0, 0))),
        ] {
            let faults: Vec<String> = faults(&rules, public).into_iter().take(1).collect();
            let expected = at_fault.map(|(redirecting, refusing)| {
                format!(
                    "CLOAKROOM.gateway.rules[{redirecting}].on_refused: leads to a path under rules[{refusing}], which refuses \
                     the same visitor again: add the path to public, or a rule for it with require = \"none\""
                )
            });
            assert_eq!(faults, Vec::from_iter(expected), "{rules} {public:?}");
        }
    }

    #[test]
    fn the_origins_time_is_one_that_can_be_kept() {
        for (timeout, is_good) in [("1h", true), ("30s", true), ("61m", false), ("30d", false)] {
            let gateway = json!({"gateway": {"origin": "https://a.example", "timeout": timeout}});
            let mut table = Table::new("CLOAKROOM", Some(&gateway));
            settings(&mut table, "/auth", false);
            let fault = "CLOAKROOM.gateway.timeout: at most \"1h\": a visitor is waiting".to_owned();
            assert_eq!(table.finish(), Vec::from_iter((!is_good).then_some(fault)), "{timeout}");
        }
    }

    #[test]
    fn a_redirect_leads_to_a_path_that_arrives_as_it_stands_there() {
        for target in
            ["/x/../login", "/./login", "/a//b", "/%6cogin", "//evil.example", "/a/..%2fb", "login", "/a#b"]
        {
            let faults = faults(&json!([rule("/a*", "user", target)]), &[]);
            assert_eq!(faults.len(), 1, "{target}: {faults:?}");
            assert!(faults.concat().contains("rules[0].on_refused: \"401\", or"), "{target}: {faults:?}");
        }
    }
}
