//! The cross-site check: no page of another site can make a visitor's browser change anything here.
//!
//! The algorithm of Go's `http.CrossOriginProtection`: the headers that browsers add decide, there is no token.

use super::{Method, Problem, Request, cors};

/// Refuses a state-changing request made by a page of another site, unless its origin is allowed.
pub fn check(request: &Request<'_>, allowed: &cors::Policy) -> Result<(), Problem> {
    // 1. Safe methods change nothing.
    if request.method.is_safe() { Ok(()) } else { check_change(request, allowed) }
}

/// The same for a request that changes something, whatever its method.
pub fn check_change(request: &Request<'_>, allowed: &cors::Policy) -> Result<(), Problem> {
    if is_same_site(request) || allowed.allows(request) {
        return Ok(());
    }
    let detail =
        "this request was made by a page of another origin; add that origin to cors.origins to allow it";
    Err(Problem::cross_site(detail))
}

/// Whether a page of another site makes the visitor's browser send a safe request, as with an image. It is answered as one
/// without a cookie and counts for nobody's limit: else that page could use up its visitors' limits. A navigation, such as
/// a link, is the visitor's own.
pub fn is_foreign_read(request: &Request<'_>, allowed: &cors::Policy) -> bool {
    // OPTIONS is answered without a cookie and a limit, whoever asks.
    matches!(request.method, Method::Get | Method::Head) && is_foreign_look(request, allowed)
}

/// Whether a page of another site makes the visitor's browser send a request that is passed on to an application: it asks
/// for nobody. A WebSocket is safe by its method alone: it can change everything, no preflight comes before it, and some
/// browsers say by `Origin` alone whose page opens it.
pub fn is_foreign(request: &Request<'_>, allowed: &cors::Policy, is_upgrade: bool) -> bool {
    if request.method.is_safe() && !is_upgrade {
        return is_foreign_look(request, allowed);
    }
    !is_same_site(request) && !allowed.allows(request)
}

fn is_foreign_look(request: &Request<'_>, allowed: &cors::Policy) -> bool {
    request.header("sec-fetch-site") == "cross-site"
        && request.header("sec-fetch-mode") != "navigate"
        && !allowed.allows(request)
}

fn is_same_site(request: &Request<'_>) -> bool {
    match request.header("sec-fetch-site").as_str() {
        // 2. Browsers since 2023 say it. "same-site" is another host of the same domain: not ours.
        "same-origin" | "none" => true,
        // 3. Older browsers send the page's origin; programs that are no browsers send neither header.
        "" => request.from_origin().is_empty() || request.from_origin() == request.origin(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Body, Code};

    const SELF: &str = "https://a.example";
    const ALLOWED: &str = "https://front.example";

    fn policy() -> cors::Policy {
        cors::Policy::new(vec![cors::AllowedOrigin::parse(ALLOWED).expect("an origin")], &[])
    }

    #[test]
    fn only_other_sites_pages_are_refused() {
        let cases = [
            // method, Sec-Fetch-Site, Origin, passes
            ("GET", "cross-site", "https://evil.example", true),
            ("HEAD", "cross-site", "", true),
            ("OPTIONS", "same-site", "", true),
            ("POST", "same-origin", SELF, true),
            ("POST", "none", "", true),
            ("POST", "same-site", "https://b.a.example", false),
            ("POST", "cross-site", "https://evil.example", false),
            ("POST", "cross-site", "", false),
            ("POST", "cross-site", SELF, false),
            ("POST", "Same-Origin", SELF, false),
            ("PATCH", "cross-site", ALLOWED, true),
            ("DELETE", "", "", true),
            ("DELETE", "", SELF, true),
            ("DELETE", "", "http://a.example", false),
            ("DELETE", "", "https://a.example:8443", false),
            ("DELETE", "", "https://a.example.evil.example", false),
            ("DELETE", "", "null", false),
            ("DELETE", "", ALLOWED, true),
            ("BREW", "cross-site", "", false),
        ];
        for (method, site, from, passes) in cases {
            let headers = [("origin", from), ("sec-fetch-site", site)];
            let request = Request::new(method, "https://a.example/auth/session", headers, Body::None);
            let code = check(&request, &policy()).err().map(|problem| problem.code);
            assert_eq!(code, (!passes).then_some(Code::CrossSite), "{method} {site} {from}");
        }
    }

    #[test]
    fn a_websocket_is_taken_for_a_change_where_it_is_passed_on() {
        let cases = [
            // method, becomes a WebSocket, Sec-Fetch-Site, Origin, is foreign
            ("GET", true, "", "https://evil.example", true),
            ("GET", true, "", "null", true),
            ("GET", true, "same-site", "https://b.a.example", true),
            ("GET", true, "cross-site", "https://evil.example", true),
            ("GET", true, "", SELF, false),
            ("GET", true, "", "", false),
            ("GET", true, "", ALLOWED, false),
            ("GET", true, "same-origin", SELF, false),
            ("GET", false, "", "https://evil.example", false),
            ("GET", false, "cross-site", "", true),
            ("OPTIONS", false, "cross-site", "https://evil.example", true),
            ("OPTIONS", false, "same-origin", SELF, false),
            ("POST", false, "", "https://evil.example", true),
            ("POST", false, "", SELF, false),
        ];
        for (method, is_upgrade, site, from, is_foreign) in cases {
            let headers = [("origin", from), ("sec-fetch-site", site)];
            let request = Request::new(method, "https://a.example/socket", headers, Body::None);
            let found = super::is_foreign(&request, &policy(), is_upgrade);
            assert_eq!(found, is_foreign, "{method} {is_upgrade} {site} {from}");
        }
    }

    #[test]
    fn a_safe_request_of_another_site_s_page_is_foreign_unless_it_is_a_navigation() {
        let cases = [
            // method, Sec-Fetch-Site, Sec-Fetch-Mode, Origin, is foreign
            ("GET", "cross-site", "no-cors", "", true),
            ("GET", "cross-site", "cors", "https://evil.example", true),
            ("GET", "cross-site", "cors", "null", true),
            ("HEAD", "cross-site", "websocket", "", true),
            ("GET", "cross-site", "", "", true),
            ("GET", "cross-site", "Navigate", "", true),
            ("GET", "cross-site", "navigate", "", false),
            ("GET", "cross-site", "cors", ALLOWED, false),
            ("GET", "cross-site", "no-cors", ALLOWED, false),
            ("GET", "same-site", "no-cors", "", false),
            ("GET", "same-origin", "cors", SELF, false),
            ("GET", "none", "navigate", "", false),
            ("GET", "", "", "https://evil.example", false),
            ("POST", "cross-site", "cors", "https://evil.example", false),
        ];
        for (method, site, mode, from, is_foreign) in cases {
            let headers = [("origin", from), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            let request = Request::new(method, "https://a.example/auth/session", headers, Body::None);
            assert_eq!(is_foreign_read(&request, &policy()), is_foreign, "{method} {site} {mode} {from}");
        }
    }
}
