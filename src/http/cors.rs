//! Cross-origin resource sharing (the Fetch standard): allowed origins may call with credentials.

use super::{Method, Request, Response};

/// How long a browser may remember a preflight, in seconds; Chromium's own limit.
const MAX_AGE: &str = "7200";

/// Answers a preflight; [`expose`] adds the permission itself. `methods` are the path's. To an origin that is not
/// allowed the answer says nothing, which is how the standard says no.
pub fn preflight(request: &Request<'_>, methods: &'static str, allowed: &[String]) -> Option<Response> {
    if request.method != Method::Options || request.preflight_for.is_empty() || request.from_origin.is_empty()
    {
        return None;
    }
    let response =
        Response::new(204).header("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
    Some(if is_allowed(request, allowed) {
        response
            .header("Access-Control-Allow-Methods", methods)
            .header("Access-Control-Allow-Headers", "Content-Type, If-Match")
            .header("Access-Control-Max-Age", MAX_AGE)
    } else {
        response
    })
}

/// Lets an allowed origin's page read the response. Caches learn that it depends on the origin.
pub fn expose(response: Response, request: &Request<'_>, allowed: &[String]) -> Response {
    let response = if allowed.is_empty() { response } else { response.header("Vary", "Origin") };
    if is_allowed(request, allowed) {
        response
            .header("Access-Control-Allow-Origin", request.from_origin.to_owned())
            .header("Access-Control-Allow-Credentials", "true")
            .header("Access-Control-Expose-Headers", "ETag, RateLimit, RateLimit-Policy, Retry-After")
    } else {
        response
    }
}

fn is_allowed(request: &Request<'_>, allowed: &[String]) -> bool {
    allowed.iter().any(|origin| origin == request.from_origin)
}
