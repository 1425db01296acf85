//! What a 404 or 405 adds for somebody who was nearly right. It shows paths of the table, and nothing of the request's.

use super::Switches;
use crate::http::Method::{self, Delete, Get, Head, Patch, Post, Put};

/// Longer paths are not looked at.
const LONGEST: usize = 200;

/// By a path's pattern and methods that it does not have: what to do instead, and the path where.
const INSTEAD: &[(&str, &[Method], &str, &str)] = &[
    (
        "/session",
        &[Post, Put, Patch],
        "a session begins with the first change of its data, PATCH ",
        "/session/data",
    ),
    ("/session/data", &[Get, Head], "to read it, GET ", "/session"),
    ("/session/data", &[Delete], "to remove a member, PATCH it with null; to log out, DELETE ", "/session"),
    (
        "/sessions",
        &[Post, Put, Patch],
        "a session begins with the first change of its data, PATCH ",
        "/session/data",
    ),
    ("/sessions/*", &[Get, Head], "to list all, GET ", "/sessions"),
    ("/login", &[Get, Head], "this is no page; to see who is logged in, GET ", "/session"),
    ("/login", &[Delete], "to log out, POST ", "/logout"),
    ("/logout", &[Get, Head], "a link cannot log out; send POST ", "/logout"),
    ("/link/*", &[Get, Head], "this is no page; to see what is tied, GET ", "/providers"),
    ("/reset", &[Get, Head], "this is no page; yours sends token and new password, POST ", "/reset"),
    ("/admin/users", &[Put, Patch, Delete], "to change an account, by its id, PATCH ", "/admin/users/{id}"),
    ("/admin/users/*", &[Post, Put], "to make an account, POST ", "/admin/users"),
    (
        "/admin/users/*/reset",
        &[Get, Head, Put, Patch],
        "each POST makes a token; it is used by POST ",
        "/reset",
    ),
    ("/account", &[Post, Put], "to make an account, POST ", "/register"),
    ("/account", &[Get, Head, Patch], "the user's own data is at ", "/profile"),
];

/// What to do instead of a method that the path with this pattern does not have, at a path that this deployment has.
pub(super) fn for_method(
    method: Method,
    pattern: &str,
    base_path: &str,
    switches: Switches,
) -> Option<String> {
    let (.., what, path) = INSTEAD.iter().find(|(own, methods, _, path)| {
        *own == pattern && methods.contains(&method) && switches.is_on(path)
    })?;
    Some([what, base_path, path].concat())
}

/// Which route somebody meant who asked for a path that is none. `find` gives the pattern of the route at a path below
/// `base_path`.
pub(super) fn for_path(
    path: &str,
    base_path: &str,
    find: &dyn Fn(&str) -> Option<&'static str>,
) -> Option<String> {
    if path.len() > LONGEST {
        return None;
    }
    // 1. Without what is often too much: capitals, doubled slashes, one at the end.
    let mut tidy = String::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        tidy.push('/');
        tidy.push_str(segment);
    }
    tidy.make_ascii_lowercase();
    // 2. Below the base path, or as if it were.
    let below = tidy.strip_prefix(&base_path.to_ascii_lowercase()).unwrap_or(&tidy);
    if below.is_empty() {
        return Some(["the routes are below it, such as ", base_path, "/session"].concat());
    }
    // 3. The pattern, as docs/api.md has it.
    let pattern = find(below)?;
    let pattern = pattern.strip_suffix("/**").unwrap_or(pattern);
    let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
    let param = match before {
        _ if before == pattern => "",
        _ if before.ends_with("/sessions/") => "{handle}",
        "/login/" | "/callback/" | "/link/" => "{provider}",
        _ => "{id}",
    };
    Some(["did you mean ", base_path, before, param, after, "?"].concat())
}
