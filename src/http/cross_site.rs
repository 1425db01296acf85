//! The cross-site check: no page of another site makes a visitor's browser change anything here.
//!
//! The algorithm of Go's `http.CrossOriginProtection`: what browsers say of a request decides, there is no token.

use super::{Code, Problem, Request};

/// Refuses a state-changing request that another site's page makes, unless its origin is among the allowed.
pub fn check(request: &Request<'_>, allowed: &[String]) -> Result<(), Problem> {
    if is_same_site(request) || allowed.iter().any(|origin| origin == request.from_origin) {
        return Ok(());
    }
    let detail =
        "this request was made by a page of another origin; list that origin in cors.origins to allow it";
    Err(Problem::new(Code::CrossSite, detail))
}

fn is_same_site(request: &Request<'_>) -> bool {
    // 1. Nothing changes.
    if request.method.is_safe() {
        return true;
    }
    match request.sec_fetch_site {
        // 2. Browsers since 2023 say it plainly. "same-site" is another host of the domain, and not ours.
        "same-origin" | "none" => true,
        // 3. Older ones name the page's origin; programs that are no browsers send neither header.
        "" => request.from_origin.is_empty() || request.from_origin == request.origin,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Body, Method};

    #[test]
    fn only_other_sites_pages_are_refused() {
        const SELF: &str = "https://a.example";
        const ALLOWED: &str = "https://front.example";
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
            let head = format!("{method}\n{SELF}/auth/session\n\n{from}\n{site}");
            let outcome = check(&Request::parse(&head, &Body::None), &[ALLOWED.to_owned()]);
            assert_eq!(outcome.is_ok(), passes, "{method} {site} {from}");
        }
        assert_eq!(Method::parse("BREW"), Method::Other);
    }
}
