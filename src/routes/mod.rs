//! The routes: docs/api.md's tables. `Allow`, preflights and 404s follow from `Routes::ALL`.

mod account;
mod admin;
mod devices;
mod health;
mod hints;
mod inspect;
mod jwks;
mod link;
mod openapi;
mod operator;
mod profile;
pub(crate) mod provider;
mod session;
mod users;
mod verify;

use std::{marker::PhantomData, pin::Pin};

pub(crate) use self::verify::identity;

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

/// A method, a path below `base_path`, and what answers. A `*` is one segment of the path, a `**` at its end everything that
/// follows: the handler's parameter.
type Route<H> = (Method, &'static str, Handler<H>);

/// The path that proxies ask, as does everything below it.
const VERIFY: &str = "/verify";

/// Where the keys are published with which origins verify who asks.
const PUBLIC_KEYS: &str = "/jwks.json";

/// The operators' page, and its files.
const PAGE: [&str; 3] = ["/admin", "/admin/", "/admin/page/*"];

/// In the table: any method, also those that no other route knows.
const ANY: Method = Method::Other;

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
        (Post, "/reset", |cx| Box::pin(account::reset(cx))),
        (Delete, "/account", |cx| Box::pin(account::delete(cx))),
        (Get, "/profile", |cx| Box::pin(profile::show(cx))),
        (Patch, "/profile", |cx| Box::pin(profile::change(cx))),
        (ANY, VERIFY, |cx| Box::pin(verify::verify(cx))),
        (ANY, "/verify/**", |cx| Box::pin(verify::verify(cx))),
        (Get, "/sessions", |cx| Box::pin(devices::list(cx))),
        (Delete, "/sessions", |cx| Box::pin(devices::end_all(cx))),
        (Delete, "/sessions/*", |cx| Box::pin(devices::end_one(cx))),
        (Post, "/admin/sessions", |cx| Box::pin(admin::create_session(cx))),
        (Get, "/admin/sessions/*", |cx| Box::pin(admin::show_session(cx))),
        (Delete, "/admin/sessions/*", |cx| Box::pin(admin::end_session(cx))),
        (Get, "/admin/users", |cx| Box::pin(users::find(cx))),
        (Post, "/admin/users", |cx| Box::pin(users::create(cx))),
        (Get, "/admin/users/*", |cx| Box::pin(users::show(cx))),
        (Patch, "/admin/users/*", |cx| Box::pin(users::change(cx))),
        (Delete, "/admin/users/*", |cx| Box::pin(users::delete(cx))),
        (Post, "/admin/users/*/reset", |cx| Box::pin(users::begin_reset(cx))),
        (Put, "/admin/users/*/roles", |cx| Box::pin(users::set_roles(cx))),
        (Get, "/admin/users/*/sessions", |cx| Box::pin(users::list_sessions(cx))),
        (Delete, "/admin/users/*/sessions", |cx| Box::pin(users::end_sessions(cx))),
        (Post, "/admin/inspect", |cx| Box::pin(inspect::inspect(cx))),
        (Get, "/admin/stats", |cx| Box::pin(admin::stats(cx))),
        (Get, "/providers", |cx| Box::pin(provider::list(cx))),
        (Get, "/login/*", |cx| Box::pin(provider::log_in(cx))),
        (Get, "/callback/*", |cx| Box::pin(provider::come_back(cx))),
        (Post, "/link/*", |cx| Box::pin(link::begin(cx))),
        (Delete, "/link/*", |cx| Box::pin(link::untie(cx))),
        (Get, PAGE[0], |_| Box::pin(std::future::ready(operator::to_page()))),
        (Get, PAGE[1], |_| Box::pin(std::future::ready(operator::page()))),
        (Get, PAGE[2], |cx| Box::pin(std::future::ready(operator::part(cx)))),
        (Get, "/health", |cx| Box::pin(health::check(cx))),
        (Get, PUBLIC_KEYS, |cx| Box::pin(jwks::show(cx))),
        (Get, "/openapi.json", |cx| Box::pin(std::future::ready(openapi::show(cx)))),
    ];
}

/// The routes of one path.
pub(crate) struct Found<'p, H: 'static> {
    routes: Vec<&'static Route<H>>,
    param: &'p str,
    base_path: &'p str,
    switches: Switches,
}

/// Which routes a deployment has beside those that all have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switches {
    /// The service API: an `ADMIN_TOKEN` is bound.
    pub(crate) has_admin: bool,
    /// The routes of accounts: `accounts.login`.
    pub(crate) has_login: bool,
    /// That which makes one: `accounts.register`.
    pub(crate) has_registration: bool,
    /// The keys with which origins verify who asks: `JWT_KEYS`.
    pub(crate) has_keys: bool,
    /// The routes of logging in with others: `accounts.providers`.
    pub(crate) has_providers: bool,
}

impl Switches {
    /// Why a route is not there that is none of the service API.
    fn why_off(self, pattern: &str) -> &'static str {
        match pattern {
            PUBLIC_KEYS => "nothing is signed here (JWT_KEYS)",
            "/link/*" if self.has_providers => "users have no passwords here (accounts.login)",
            "/login/*" | "/callback/*" | "/link/*" => "there is no such provider here (accounts.providers)",
            _ if self.has_login => "registration is closed here (accounts.register)",
            _ => "users have no passwords here (accounts.login)",
        }
    }

    fn is_on(self, pattern: &str) -> bool {
        match pattern {
            "/register" => self.has_login && self.has_registration,
            "/login" | "/reauthenticate" | "/password" | "/reset" | "/account" | "/profile" => self.has_login,
            PUBLIC_KEYS => self.has_keys,
            "/login/*" | "/callback/*" => self.has_providers,
            "/link/*" => self.has_providers && self.has_login,
            pattern => self.has_admin || !is_admin(pattern),
        }
    }
}

/// Finds the routes of a path. 404 if there are none; of those that are switched off it is said that they are, but not of the
/// service API.
#[inline(never)] // inlined, it and its caller are larger by some KB
pub(crate) fn find<'p, H: Host>(
    path: &'p str,
    base_path: &'p str,
    switches: Switches,
) -> Result<Found<'p, H>, Problem> {
    let all_routes = || Routes::<H>::ALL.iter();
    let all = || all_routes().filter(|(_, pattern, _)| switches.is_on(pattern));
    let below = path.strip_prefix(base_path).unwrap_or_default();
    let (routes, params): (Vec<_>, Vec<_>) =
        all().filter_map(|route| Some((route, matches(route.1, below)?))).unzip();
    match params.first() {
        Some(param) => Ok(Found { routes, param, base_path, switches }),
        None => {
            let is_off = |pattern: &str| !is_admin(pattern) && matches(pattern, below).is_some();
            if let Some((_, pattern, _)) = all_routes().find(|route| is_off(route.1)) {
                return Err(not_found(Some(switches.why_off(pattern).to_owned())));
            }
            let pattern =
                |path: &str| all().map(|route| route.1).find(|pattern| matches(pattern, path).is_some());
            Err(not_found(hints::for_path(path, base_path, &pattern)))
        }
    }
}

/// Whether a path is [`VERIFY`] or below it.
pub(crate) fn is_verify(path: &str, base_path: &str) -> bool {
    let rest = path.strip_prefix(base_path).and_then(|below| below.strip_prefix(VERIFY));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl<'p, H: Host> Found<'p, H> {
    /// The handler for a method, and the path's parameter. 405 if there is none.
    pub(crate) fn handler(&self, method: Method) -> Result<(Handler<H>, &'p str), Problem> {
        // HEAD is GET without the body (RFC 9110 section 9.3.2); the platform drops it.
        let wanted = if method == Method::Head { Get } else { method };
        let route = self.routes.iter().find(|(own, ..)| *own == wanted || *own == ANY);
        let (.., handler) = route.ok_or_else(|| self.method_not_allowed(method))?;
        Ok((*handler, self.param))
    }

    /// Whether the path belongs to the service API.
    pub(crate) fn is_admin(&self) -> bool {
        self.routes.iter().any(|(_, pattern, _)| is_admin(pattern))
    }

    /// Whether what is answered to a safe method is the same for everybody: nobody's session or limits matter.
    pub(crate) fn is_public(&self, method: Method) -> bool {
        let is_public = |pattern| pattern == PUBLIC_KEYS || PAGE.contains(&pattern);
        method.is_safe() && self.routes.iter().any(|(_, pattern, _)| is_public(*pattern))
    }

    /// The methods of this path, as in `Allow`.
    pub(crate) fn allowed(&self) -> String {
        let names = self.routes.iter().flat_map(|(method, ..)| match method {
            Get => vec!["GET", "HEAD"],
            method => vec![method.name()],
        });
        names.collect::<Vec<_>>().join(", ")
    }

    /// The answer to `OPTIONS` that is no preflight (RFC 9110 section 9.3.7).
    pub(crate) fn options(&self) -> Response {
        Response::no_content().header("Allow", self.allowed())
    }

    /// What the path matches, below the base path.
    pub(crate) fn pattern(&self) -> &'static str {
        self.routes.first().map_or("", |route| route.1)
    }

    fn method_not_allowed(&self, method: Method) -> Problem {
        let hint = hints::for_method(method, self.pattern(), self.base_path, self.switches);
        Problem::method_not_allowed(method.name(), self.allowed(), hint)
    }
}

fn is_admin(pattern: &str) -> bool {
    pattern == PAGE[0] || pattern.starts_with("/admin/")
}

/// The parameter of a path that a route's pattern matches; empty if the pattern has none.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    if let Some(before) = pattern.strip_suffix("**") {
        return path.strip_prefix(before);
    }
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == path).then_some("");
    };
    let param = path.strip_prefix(before)?.strip_suffix(after)?;
    (!param.is_empty() && !param.contains('/')).then_some(param)
}

/// 404 without a hint.
pub(crate) fn nothing_here() -> Problem {
    not_found(None)
}

fn not_found(hint: Option<String>) -> Problem {
    const DETAIL: &str = "there is nothing at this path";
    match hint {
        Some(hint) => Problem::not_found(format!("{DETAIL}: {hint}")),
        None => Problem::not_found(DETAIL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Machine;

    const ALL: Switches = Switches {
        has_admin: true,
        has_login: true,
        has_registration: true,
        has_keys: true,
        has_providers: true,
    };

    fn find(path: &str) -> Result<Found<'_, Machine>, Problem> {
        super::find(path, "/auth", ALL)
    }

    fn allowed(path: &str) -> Option<String> {
        find(path).ok().map(|found| found.allowed())
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
    fn without_an_admin_token_the_service_api_is_not_there() {
        for path in [
            "/auth/admin/stats",
            "/auth/admin/stats/",
            "/admin/stats",
            "/auth/admin",
            "/auth/admin/",
            "/auth/admin/page/app.js",
        ] {
            assert_eq!(
                super::find::<Machine>(path, "/auth", Switches { has_admin: false, ..ALL }).err(),
                Some(nothing_here()),
                "{path}"
            );
        }
        assert!(find("/auth/admin/stats").is_ok());
    }

    #[test]
    fn what_is_the_same_for_everybody_is_to_be_looked_at_alone() {
        for (path, is_public) in [
            ("/auth/jwks.json", true),
            ("/auth/admin", true),
            ("/auth/admin/", true),
            ("/auth/admin/page/app.js", true),
            ("/auth/admin/stats", false),
            ("/auth/admin/users/page", false),
            ("/auth/session", false),
        ] {
            let found = find(path).ok();
            let answers =
                |method| found.as_ref().is_some_and(|found: &Found<'_, Machine>| found.is_public(method));
            assert_eq!([Get, Method::Head, Post].map(answers), [is_public, is_public, false], "{path}");
        }
    }

    #[test]
    fn what_a_deployment_has_switched_off_is_not_there() {
        let closed = Switches { has_registration: false, ..ALL };
        let no_login = Switches { has_login: false, ..ALL };
        for (path, is_there_without_registration, is_there_without_login) in [
            ("/auth/register", false, false),
            ("/auth/login", true, false),
            ("/auth/reauthenticate", true, false),
            ("/auth/password", true, false),
            ("/auth/reset", true, false),
            ("/auth/account", true, false),
            ("/auth/profile", true, false),
            ("/auth/link/acme", true, false),
            ("/auth/logout", true, true),
            ("/auth/sessions", true, true),
            ("/auth/verify", true, true),
            ("/auth/admin/users", true, true),
        ] {
            let is_there = |switches| super::find::<Machine>(path, "/auth", switches).is_ok();
            assert_eq!(is_there(closed), is_there_without_registration, "{path}");
            assert_eq!(is_there(no_login), is_there_without_login, "{path}");
        }
    }

    #[test]
    fn without_keys_none_are_published_and_no_hint_leads_there() {
        let without = Switches { has_keys: false, ..ALL };
        for (path, hint) in [
            ("/auth/jwks.json", Some("nothing is signed here (JWT_KEYS)".to_owned())),
            ("/auth/jwks.json/", None),
            ("/jwks.json", None),
        ] {
            assert_eq!(super::find::<Machine>(path, "/auth", without).err(), Some(not_found(hint)), "{path}");
        }
        let found = find("/auth/jwks.json").expect("keys");
        assert_eq!(found.allowed(), "GET, HEAD");
        let is_public = |method| found.is_public(Method::parse(method));
        assert!(is_public("GET") && is_public("HEAD") && !is_public("POST") && !is_public("BREW"));
        assert!(!find("/auth/health").expect("a route").is_public(Get));
    }

    #[test]
    fn a_segment_of_the_path_is_the_handler_s_parameter() {
        assert_eq!(matches("/users/*/roles", "/users/a%20b/roles"), Some("a%20b"));
        assert_eq!(matches("/users/*/roles", "/users//roles"), None);
        assert_eq!(matches("/users", "/users"), Some(""));
        assert_eq!(matches("/verify/**", "/verify/a//b"), Some("a//b"));
        assert_eq!(matches("/verify/**", "/verify/"), Some(""));
        assert_eq!(matches("/verify/**", "/verify"), None);
    }

    #[test]
    fn verify_has_every_method_and_every_path_below_it() {
        for path in ["/auth/verify", "/auth/verify/", "/auth/verify/a/b", "/auth/verify//"] {
            let found = find(path).expect(path);
            for method in ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND", "BREW"] {
                assert!(found.handler(Method::parse(method)).is_ok(), "{method} {path}");
            }
            assert!(is_verify(path, "/auth"), "{path}");
        }
        for path in ["/auth/verifyx", "/verify", "/auth/session", "/auth"] {
            assert!(!is_verify(path, "/auth"), "{path}");
        }
        assert!(is_verify("/verify/x", ""));
    }

    #[test]
    fn a_path_that_is_nearly_right_gets_a_hint() {
        let session = "did you mean /auth/session?";
        for (path, hint) in [
            ("/auth/session/", session),
            ("/auth//session", session),
            ("/AUTH/Session", session),
            ("/session", session),
            ("/session/", session),
            ("/auth/auth/session", ""),
            ("/auth", "the routes are below it, such as /auth/session"),
            ("/auth/", "the routes are below it, such as /auth/session"),
            ("/", "the routes are below it, such as /auth/session"),
            ("/sessions/AAAA", "did you mean /auth/sessions/{handle}?"),
            ("/admin/users/a/roles/", "did you mean /auth/admin/users/{id}/roles?"),
            ("/admin/sessions/AAAA", "did you mean /auth/admin/sessions/{handle}?"),
            ("/verify/some/page", "did you mean /auth/verify?"),
            ("/auth/nowhere", ""),
            ("/.env", ""),
        ] {
            let detail = find(path).err().map(|problem| problem.into_details().detail.into_owned());
            let separator = if hint.is_empty() { "" } else { ": " };
            assert_eq!(detail, Some(format!("there is nothing at this path{separator}{hint}")), "{path}");
        }
        let bare = super::find::<Machine>("/auth/session", "", ALL)
            .err()
            .map(|problem| problem.into_details().detail);
        assert_eq!(bare.as_deref(), Some("there is nothing at this path"));
    }

    #[test]
    fn a_method_that_is_nearly_right_gets_a_hint_to_a_route_that_exists() {
        for (method, path, hint) in [
            (
                Post,
                "/auth/session",
                "; a session begins with the first change of its data, PATCH /auth/session/data",
            ),
            (
                Put,
                "/auth/session",
                "; a session begins with the first change of its data, PATCH /auth/session/data",
            ),
            (Get, "/auth/session/data", "; to read it, GET /auth/session"),
            (Get, "/auth/sessions/AAAA", "; to list all, GET /auth/sessions"),
            (Get, "/auth/reset", "; this is no page; yours sends token and new password, POST /auth/reset"),
            (Delete, "/auth/admin/users", "; to change an account, by its id, PATCH /auth/admin/users/{id}"),
            (Post, "/auth/admin/users/u", "; to make an account, POST /auth/admin/users"),
            (Get, "/auth/admin/users/u/reset", "; each POST makes a token; it is used by POST /auth/reset"),
            (Post, "/auth/health", ""),
        ] {
            let found = find(path).expect(path);
            let (name, allowed) = (method.name(), found.allowed());
            let detail = format!("{name} is not allowed here; allowed: {allowed}{hint}");
            let problem = found.handler(method).err().map(Problem::into_details);
            let problem = problem.map(|details| (details.detail, details.header));
            assert_eq!(problem, Some((detail.into(), Some(("Allow", allowed.into())))));
        }
        // No hint leads to what this deployment has switched off.
        let closed = Switches { has_registration: false, ..ALL };
        let no_login = Switches { has_login: false, ..ALL };
        for (method, path, switches, hint) in [
            (Post, "/auth/account", closed, "POST /auth/register"),
            (Get, "/auth/admin/users/u/reset", no_login, "POST /auth/reset"),
        ] {
            let details = |switches| {
                let found = super::find::<Machine>(path, "/auth", switches).ok()?;
                found.handler(method).err().map(|problem| problem.into_details().detail)
            };
            assert!(details(ALL).is_some_and(|detail| detail.contains(hint)), "{path}");
            assert!(details(switches).is_some_and(|detail| !detail.contains(hint)), "{path}");
        }
    }
}
