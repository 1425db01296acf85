//! What the origin is told in headers, and what is kept from it.

use super::{Gateway, Identity};
use crate::{
    app::App,
    config::Config,
    host::Host,
    http::{Problem, Request},
    routes,
    session::Session,
};

/// A request that is passed on.
#[derive(Debug, Default)]
pub struct Pass {
    /// The headers that the origin gets in place of the visitor's; `None`: without one of that name.
    pub headers: Vec<(&'static str, Option<String>)>,
    /// The headers that the answer depends on, if it depends on the session: caches must know.
    pub vary: Option<&'static str>,
}

/// Headers that concern one connection alone (RFC 9110 section 7.6.1), in requests and answers. `Upgrade`, which a WebSocket
/// needs, is the platform's to say.
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Headers that only the Worker may say: the visitor's never reach the origin. Beside them all whose names begin with one of
/// [`BEGINNINGS`], in any spelling: see [`is_ours`].
const NOT_PASSED: [&str; 13] = [
    "forwarded",
    "forwarded-for",
    "x-real-ip",
    "true-client-ip",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "x-host",
    "x-rewrite-url",
    "session-client-address",
    "session-token",
    "session-transport",
];

/// What proxies tell the origin: who asks, from where, for which path and host. `x-original-url` is the path for some
/// frameworks, whatever the request line says; `x-forwarded-user` is the user behind some other proxies.
const BEGINNINGS: [&str; 3] = ["x-session-", "x-forwarded", "x-original-"];

/// Whether the visitor's header of this name, in lower case, is kept from the origin. Some origins read `_` as `-`.
pub fn is_ours(name: &str) -> bool {
    let name = name.replace('_', "-");
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || NOT_PASSED.contains(&name.as_str())
        || is_of_connection(&name)
}

/// Whether the header of this name, in lower case, concerns one connection alone: neither side is told the other's.
pub fn is_of_connection(name: &str) -> bool {
    OF_CONNECTION.contains(&name)
}

/// Whether the header of this name, in lower case, is between the origin and us alone.
pub fn is_session_header(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-session-") || name == "session-token"
}

impl Pass {
    /// With where the request comes from, and without what is ours alone.
    pub(super) fn new(request: &Request<'_>, config: &Config) -> Self {
        let (scheme, host) = request.origin().split_once("://").unwrap_or_default();
        let address = Some(request.client_address()).filter(|address| !address.is_empty());
        let mut headers = vec![
            ("x-forwarded-proto", Some(scheme.to_owned())),
            ("x-forwarded-host", Some(host.to_owned())),
            ("x-forwarded-for", address.clone()),
            ("x-real-ip", address.clone()),
            ("true-client-ip", address),
        ];
        // A ticket or the admin token.
        let is_ours = request.bearer().is_some_and(|bearer| config.is_own_bearer(&bearer));
        if is_ours {
            headers.push(("authorization", None));
        }
        if let Some(cookie) = config.without_own_cookies(&request.cookie_as_sent()) {
            headers.push(("cookie", Some(cookie).filter(|cookie| !cookie.is_empty())));
        }
        Self { headers, ..Self::default() }
    }

    /// With who asks.
    pub(super) fn with_identity(mut self, identity: Vec<(&'static str, String)>) -> Self {
        self.headers.extend(identity.into_iter().map(|(name, value)| (name, Some(value))));
        self
    }
}

impl<H: Host> App<H> {
    /// The headers that tell the origin who asks; none without a user. Errors: it cannot be signed.
    pub(super) async fn identity(
        &self,
        gateway: &Gateway,
        request: &Request<'_>,
        session: &Session,
    ) -> Result<Vec<(&'static str, String)>, Problem> {
        let Some(user) = &session.record.user else { return Ok(Vec::new()) };
        let mut headers = match gateway.identity {
            Identity::Headers | Identity::Both => routes::identity(user, session),
            Identity::Jwt | Identity::Nothing => Vec::new(),
        };
        if gateway.signs() {
            let audience = gateway.audience.as_deref().unwrap_or(request.origin());
            headers.push(("X-Session-Jwt", self.token(request.origin(), audience, user, session).await?));
        }
        Ok(headers)
    }
}
