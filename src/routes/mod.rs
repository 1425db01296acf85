//! The routes: CONTRACT.md's tables. `Allow`, preflights and 404s follow from [`Routes::ALL`].

mod account;
mod admin;
mod devices;
mod health;
mod profile;
mod session;
mod verify;

use std::{marker::PhantomData, pin::Pin};

use crate::{
    context::Context,
    host::Host,
    http::{
        Method::{self, Delete, Get, Patch, Post, Put},
        Problem, Response,
    },
};

/// What answers a request.
pub(crate) type Handler<H> = for<'c> fn(&'c Context<'_, H>) -> Answer<'c>;

/// The answer, when it is ready.
pub(crate) type Answer<'c> = Pin<Box<dyn Future<Output = Result<Response, Problem>> + 'c>>;

/// A method, a path below `base_path`, and what answers. A `*` is one segment of the path: the handler's parameter.
type Route<H> = (Method, &'static str, Handler<H>);

/// The path that proxies ask.
pub(crate) const VERIFY: &str = "/verify";

struct Routes<H>(PhantomData<H>);

impl<H: Host> Routes<H> {
    const ALL: &'static [Route<H>] = &[
        (Get, "/session", |cx| Box::pin(session::show(cx))),
        (Delete, "/session", |cx| Box::pin(session::log_out(cx))),
        (Patch, "/session/data", |cx| Box::pin(session::change(cx))),
        (Post, "/session/rotate", |cx| Box::pin(session::rotate(cx))),
        (Post, "/register", |cx| Box::pin(account::register(cx))),
        (Post, "/login", |cx| Box::pin(account::log_in(cx))),
        (Post, "/logout", |cx| Box::pin(session::log_out(cx))),
        (Post, "/reauthenticate", |cx| Box::pin(account::reauthenticate(cx))),
        (Post, "/password", |cx| Box::pin(account::change_password(cx))),
        (Delete, "/account", |cx| Box::pin(account::delete(cx))),
        (Get, "/profile", |cx| Box::pin(profile::show(cx))),
        (Patch, "/profile", |cx| Box::pin(profile::change(cx))),
        (Get, VERIFY, |cx| Box::pin(verify::verify(cx))),
        (Get, "/sessions", |cx| Box::pin(devices::list(cx))),
        (Delete, "/sessions", |cx| Box::pin(devices::end_all(cx))),
        (Delete, "/sessions/*", |cx| Box::pin(devices::end_one(cx))),
        (Post, "/admin/sessions", |cx| Box::pin(admin::create_session(cx))),
        (Get, "/admin/sessions/*", |cx| Box::pin(admin::show_session(cx))),
        (Delete, "/admin/sessions/*", |cx| Box::pin(admin::end_session(cx))),
        (Get, "/admin/users/*/sessions", |cx| Box::pin(admin::list_sessions(cx))),
        (Delete, "/admin/users/*/sessions", |cx| Box::pin(admin::end_sessions(cx))),
        (Put, "/admin/users/*/roles", |cx| Box::pin(admin::set_roles(cx))),
        (Get, "/admin/stats", |cx| Box::pin(admin::stats(cx))),
        (Get, "/health", |cx| Box::pin(health::check(cx))),
    ];
}

/// The routes of one path.
pub(crate) struct Found<'p, H: 'static> {
    routes: Vec<&'static Route<H>>,
    param: &'p str,
}

/// Finds the routes of a path. 404 if there are none.
pub(crate) fn find<'p, H: Host>(path: &'p str, base_path: &str) -> Result<Found<'p, H>, Problem> {
    let below = path.strip_prefix(base_path).ok_or_else(nothing_here)?;
    let matching = Routes::ALL.iter().filter_map(|route| Some((route, matches(route.1, below)?)));
    let (routes, params): (Vec<_>, Vec<_>) = matching.unzip();
    let param = params.first().copied().ok_or_else(nothing_here)?;
    Ok(Found { routes, param })
}

impl<'p, H: Host> Found<'p, H> {
    /// The handler for a method, and the path's parameter. 405 if there is none.
    pub(crate) fn handler(&self, method: Method) -> Result<(Handler<H>, &'p str), Problem> {
        // HEAD is GET without the body (RFC 9110 section 9.3.2); the platform drops it.
        let wanted = if method == Method::Head { Get } else { method };
        let route = self.routes.iter().find(|(method, ..)| *method == wanted);
        let (.., handler) =
            route.ok_or_else(|| Problem::method_not_allowed(method.name(), self.allowed()))?;
        Ok((*handler, self.param))
    }

    /// Whether the path belongs to the service API.
    pub(crate) fn is_admin(&self) -> bool {
        self.routes.iter().any(|(_, path, _)| path.starts_with("/admin/"))
    }

    /// The methods of this path, as in `Allow`.
    pub(crate) fn allowed(&self) -> String {
        let names = self.routes.iter().flat_map(|(method, ..)| match method {
            Get => vec!["GET", "HEAD"],
            method => vec![method.name()],
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// The parameter of a path that a route's pattern matches; empty if the pattern has none.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == path).then_some("");
    };
    let param = path.strip_prefix(before)?.strip_suffix(after)?;
    (!param.is_empty() && !param.contains('/')).then_some(param)
}

/// 404.
pub(crate) fn nothing_here() -> Problem {
    Problem::not_found("there is nothing at this path")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Machine;

    fn allowed(path: &str) -> Option<String> {
        find::<Machine>(path, "/auth").ok().map(|found| found.allowed())
    }

    #[test]
    fn the_methods_of_a_path_follow_from_the_table() {
        assert_eq!(allowed("/auth/session").as_deref(), Some("GET, HEAD, DELETE"));
        assert_eq!(allowed("/auth/session/data").as_deref(), Some("PATCH"));
        assert_eq!(allowed("/auth/admin/users/a%2Fb/sessions").as_deref(), Some("GET, HEAD, DELETE"));
        for path in ["/auth", "/auth/", "/auth/session/", "/session", "/auth/sessions/", "/auth/sessions/a/b"]
        {
            assert_eq!(allowed(path), None, "{path}");
        }
    }

    #[test]
    fn a_segment_of_the_path_is_the_handler_s_parameter() {
        assert_eq!(matches("/users/*/roles", "/users/a%20b/roles"), Some("a%20b"));
        assert_eq!(matches("/users/*/roles", "/users//roles"), None);
        assert_eq!(matches("/users", "/users"), Some(""));
    }
}
