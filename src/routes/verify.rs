//! Forward-auth: a proxy asks who is logged in. Of the request it asks about, which the proxy may pass on as it is (method,
//! path, query, body, headers of the visitor's browser), only the cookie matters.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::VERIFY;
use crate::{
    context::{Context, decode, no_user},
    host::Host,
    http::{Problem, Response},
    session::{Session, User},
};

/// `/auth/verify`, `?role=NAME`, and `/auth/verify/…`, by any method. Never rotates, and no cookie comes with the answer, which
/// the visitor does not see.
///
/// The longer paths are for proxies that append the path and the query of the visitor's request, as Envoy does: that query
/// asks for nothing here. But `/auth/verify/?role=NAME` does, which an operator may mean; of a visitor it can only be
/// stricter.
pub(super) async fn verify<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let below =
        cx.request.path().strip_prefix(&*cx.app.config.base_path).and_then(|path| path.strip_prefix(VERIFY));
    let role = match (below, cx.request.only_param("role", "role=NAME")) {
        (Some(""), role) => role?,
        (Some("/"), Ok(role)) => role,
        _ => None,
    };
    let role = role.map(decode).transpose()?;
    let session = cx.load().await?.ok_or_else(Problem::no_session)?;
    let user = session.record.user.as_ref().ok_or_else(no_user)?;
    if role.is_some_and(|role| !user.roles.contains(&role)) {
        return Err(Problem::forbidden());
    }
    let headers = identity(user, &session).into_iter();
    Ok(headers.fold(Response::new(200), |response, (name, value)| response.header(name, value)))
}

/// The user, in headers. One without a value is left out.
pub(crate) fn identity(user: &User, session: &Session) -> Vec<(&'static str, String)> {
    let roles: Vec<String> = user.roles.iter().map(|role| encode(role)).collect();
    let authenticated_at = session.record.authenticated_at.map(|time| time.rfc3339()).unwrap_or_default();
    let headers = [
        ("X-Session-User", encode(&user.id)),
        ("X-Session-Name", encode(&user.name)),
        ("X-Session-Roles", roles.join(",")),
        ("X-Session-Handle", session.ticket.id.handle().to_string()),
        ("X-Session-Authenticated-At", authenticated_at),
    ];
    headers.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// What is not encoded: RFC 3986's unreserved characters. Nothing else can end a header or a list.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encoded UTF-8.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}
