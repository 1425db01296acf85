//! Which requests a limit of `limits.routes` is for.

use std::cmp::Reverse;

use crate::http::Method;

/// Whose requests are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The session; without one the address, so that nobody gains by dropping the cookie.
    Session,
    /// The user; without one the session, then the address.
    User,
    /// The client's address.
    Ip,
}

/// A path, or with `*` at its end the paths that begin with it, and perhaps a method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    path: String,
    is_prefix: bool,
    method: Option<Method>,
}

impl Pattern {
    /// Reads a pattern; says what is wrong with it.
    pub fn parse(path: &str, method: &str) -> Result<Self, (&'static str, &'static str)> {
        const PATH: &str = "a path like \"/api/search\", or \"/api/*\" for all that begin with \"/api/\"; no other \"*\", and no query";
        const METHOD: &str = "a method like \"GET\", or \"\" for all";
        let (path, is_prefix) = path.strip_suffix('*').map_or((path, false), |path| (path, true));
        let is_plain =
            path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()+,;=:@".contains(&byte));
        if !path.starts_with('/') || !is_plain {
            return Err(("path", PATH));
        }
        let method = match method {
            "" => None,
            name => match Method::parse(name) {
                Method::Other => return Err(("method", METHOD)),
                method => Some(method),
            },
        };
        Ok(Self { path: path.to_owned(), is_prefix, method })
    }

    /// Whether the request is one of those.
    pub fn matches(&self, method: Method, path: &str) -> bool {
        // HEAD is GET without the body (RFC 9110 section 9.3.2), and not a way around a limit on it.
        let is_method =
            self.method.is_none_or(|own| own == method || (own == Method::Get && method == Method::Head));
        is_method && if self.is_prefix { path.starts_with(&self.path) } else { path == self.path }
    }

    /// The same for paths that are read in another way.
    pub fn read_as(&self, read: impl Fn(&str) -> String) -> Self {
        Self { path: read(&self.path), ..self.clone() }
    }

    /// Sorts the most specific first: exact paths, then the longest beginnings; of the same, those with a method.
    pub fn rank(&self) -> impl Ord + use<> {
        (self.is_prefix, Reverse(self.path.len()), self.method.is_none())
    }

    /// Its name in keys and fields: `GET /api/search*`.
    pub fn name(&self) -> String {
        let (method, space) = self.method.map_or(("", ""), |method| (method.name(), " "));
        format!("{method}{space}{}{}", self.path, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str, method: &str) -> Pattern {
        Pattern::parse(path, method).expect("a pattern")
    }

    #[test]
    fn bad_patterns_are_refused() {
        for path in ["", "x", "*", "/a*b", "/a**", "/a?b", "/a b", "/a\"", "/ä", "https://a/b"] {
            assert_eq!(Pattern::parse(path, "").map_err(|(field, _)| field), Err("path"), "{path}");
        }
        for method in ["get", "GET,POST", "FETCH"] {
            assert_eq!(Pattern::parse("/a", method).map_err(|(field, _)| field), Err("method"), "{method}");
        }
    }

    #[test]
    fn a_pattern_matches_its_path_and_its_method() {
        for (path, method, request, is_match) in [
            ("/a", "", (Method::Post, "/a"), true),
            ("/a", "", (Method::Post, "/a/"), false),
            ("/a*", "", (Method::Post, "/abc"), true),
            ("/a/*", "", (Method::Post, "/a"), false),
            ("/*", "", (Method::Get, "/"), true),
            ("/a", "GET", (Method::Get, "/a"), true),
            ("/a", "GET", (Method::Head, "/a"), true),
            ("/a", "GET", (Method::Post, "/a"), false),
        ] {
            assert_eq!(
                pattern(path, method).matches(request.0, request.1),
                is_match,
                "{path} {method} {request:?}"
            );
        }
    }

    #[test]
    fn the_most_specific_comes_first() {
        let mut patterns =
            [("/*", "GET"), ("/api/*", ""), ("/api/search", ""), ("/api/*", "GET"), ("/api/s*", "")]
                .map(|(path, method)| pattern(path, method));
        patterns.sort_by_key(Pattern::rank);
        assert_eq!(
            patterns.map(|one| one.name()),
            ["/api/search", "/api/s*", "GET /api/*", "/api/*", "GET /*"]
        );
    }
}
