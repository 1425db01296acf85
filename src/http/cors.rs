//! Cross-origin resource sharing (Fetch standard): allowed origins may call with credentials.

use super::{Method, Request, Response};

/// How long a browser may remember the answer to a preflight, in seconds; Chromium's own limit.
const MAX_AGE: &str = "7200";

/// Whether the request is a preflight.
pub fn is_preflight(request: &Request<'_>) -> bool {
    request.method == Method::Options
        && !request.from_origin().is_empty()
        && !request.header("access-control-request-method").is_empty()
}

/// Answers a preflight; [`expose`] adds the permission itself. `methods` are the path's. The answer to an origin that
/// is not allowed says nothing, which is how the standard says no.
pub fn preflight(request: &Request<'_>, methods: String, allowed: &[String]) -> Response {
    let response = Response::no_content()
        .header("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
    if !is_allowed(request, allowed) {
        return response;
    }
    response
        .header("Access-Control-Allow-Methods", methods)
        .header("Access-Control-Allow-Headers", "Content-Type, If-Match")
        .header("Access-Control-Max-Age", MAX_AGE)
}

/// Lets an allowed origin's page read the response. Caches learn that it depends on the origin.
pub fn expose(response: Response, request: &Request<'_>, allowed: &[String]) -> Response {
    if allowed.is_empty() {
        return response;
    }
    let response = response.header("Vary", "Origin");
    if !is_allowed(request, allowed) {
        return response;
    }
    response
        .header("Access-Control-Allow-Origin", request.from_origin().to_owned())
        .header("Access-Control-Allow-Credentials", "true")
        .header("Access-Control-Expose-Headers", "ETag, RateLimit, RateLimit-Policy, Retry-After")
}

/// Whether the page that makes the request is of one of the origins in `cors.origins`.
pub fn is_allowed(request: &Request<'_>, allowed: &[String]) -> bool {
    !allowed.is_empty() && allowed.iter().any(|origin| origin == request.from_origin())
}
