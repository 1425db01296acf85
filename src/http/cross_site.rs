//! The cross-site check: no page of another site can make a visitor's browser change anything here.
//!
//! The algorithm of Go's `http.CrossOriginProtection`: the headers that browsers add decide, there is no token.

use super::{Problem, Request, cors};

/// Refuses a state-changing request made by a page of another site, unless its origin is among `allowed`.
pub fn check(request: &Request<'_>, allowed: &[String]) -> Result<(), Problem> {
    // 1. Safe methods change nothing.
    if request.method.is_safe() || is_same_site(request) || cors::is_allowed(request, allowed) {
        return Ok(());
    }
    let detail =
        "this request was made by a page of another origin; add that origin to cors.origins to allow it";
    Err(Problem::cross_site(detail))
}

fn is_same_site(request: &Request<'_>) -> bool {
    match request.header("sec-fetch-site").as_str() {
        // 2. Browsers since 2023 say it. "same-site" is another host of the same domain: not ours.
        "same-origin" | "none" => true,
        // 3. Older browsers send the page's origin; programs that are no browsers send neither header.
        "" => request.from_origin().is_empty() || request.from_origin() == request.origin,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Body, Code};

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
            let headers = [("origin", from), ("sec-fetch-site", site)];
            let request = Request::new(method, "https://a.example/auth/session", &headers, &Body::None);
            let code = check(&request, &[ALLOWED.to_owned()]).err().map(|problem| problem.code);
            assert_eq!(code, (!passes).then_some(Code::CrossSite), "{method} {site} {from}");
        }
    }
}
