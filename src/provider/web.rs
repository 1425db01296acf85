//! URLs and queries: what is read from them, and what is put into them.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{gateway, http::cors::is_safe_origin};

/// Everything but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The longest path that a visitor is sent back to, in bytes: it stands in a cookie meanwhile.
const MAX_RETURN_TO: usize = 512;

/// The parameters of a query (`application/x-www-form-urlencoded`).
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// `None` if it is not UTF-8, or has a parameter twice: which one is meant?
    pub(crate) fn parse(query: &str) -> Option<Self> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8().ok().map(String::from)
        };
        let mut params = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // In a map: anybody can send 256 KiB of parameters.
            if params.insert(decode(name)?, decode(value)?).is_some() {
                return None;
            }
        }
        Some(Self(params))
    }

    /// A parameter's value. One without a value is as one that is not there (RFC 6749 section 3.1).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &**value).filter(|value| !value.is_empty())
    }

    /// Whether all of them are of these.
    pub(crate) fn are_all_of(&self, names: &[&str]) -> bool {
        self.0.keys().all(|name| names.contains(&&**name))
    }
}

/// Parameters as a query or the body of a form has them.
pub(super) fn encode_form<'p>(params: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let pairs = params.into_iter().map(|(name, value)| [encode(name), encode(value)].join("="));
    pairs.collect::<Vec<_>>().join("&")
}

/// A text as a part of a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A URL or a path with one parameter more, in front of its fragment.
pub(crate) fn append_param(url: &str, name: &str, value: &str) -> String {
    append_query(url, &encode_form([(name, value)]))
}

/// The same with a whole query.
pub(super) fn append_query(url: &str, query: &str) -> String {
    let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let separator = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    [url, separator, query, fragment].concat()
}

/// Whether secrets may be sent to this URL, and visitors to it: over TLS or to this machine, without user and fragment.
pub(super) fn is_safe_url(url: &str) -> bool {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(start..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| start + at);
    let Some((origin, rest)) = url.split_at_checked(end) else { return false };
    is_safe_origin(origin) && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\\\"<>".contains(&byte))
}

/// Where a visitor is sent back to: a path of this origin, with its query and fragment. `Err`: what it takes.
pub(crate) fn check_return_to(target: &str) -> Result<(), &'static str> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Browsers take a backslash for a slash, drop tabs and line breaks, and read two slashes as the beginning of a host. A quotation
    // mark, which they encode everywhere, would take two bytes in the cookie that remembers this.
    let is_path = target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"".contains(&byte))
        && gateway::is_unambiguous(path);
    if !is_path {
        Err("return_to must be a path of this site, like /account?tab=1, percent-encoded")
    } else if target.len() > MAX_RETURN_TO {
        Err("return_to must have at most 512 characters: remember more of it in the page, under a short name")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_each_parameter_once() {
        let params = Params::parse("code=a%2Fb+c&state=&iss=https%3A%2F%2Fa.example&x").expect("a query");
        assert_eq!(params.get("code"), Some("a/b c"));
        assert_eq!(params.get("iss"), Some("https://a.example"));
        assert_eq!((params.get("state"), params.get("x"), params.get("y")), (None, None, None));
        assert!(params.are_all_of(&["code", "state", "iss", "x"]) && !params.are_all_of(&["code"]));
        for query in ["code=a&code=b", "code=a&code", "code=%ff", "co%64e=a&code=b"] {
            assert!(Params::parse(query).is_none(), "{query}");
        }
    }

    #[test]
    fn parameters_are_not_compared_with_all_others() {
        // One by one this would be ten thousand million comparisons.
        let pair = |number| format!("{number}=&");
        let query: String = (0..150_000).map(pair).collect();
        assert!(Params::parse(&query).is_some_and(|params| !params.are_all_of(&["1"])));
        assert!(Params::parse(&(query + "7=x")).is_none());
    }

    #[test]
    fn a_parameter_is_appended_where_it_is_read() {
        for (url, appended) in [
            ("/", "/?a=b%20%26"),
            ("/x?", "/x?a=b%20%26"),
            ("/x?y=1", "/x?y=1&a=b%20%26"),
            ("/x#y?z", "/x?a=b%20%26#y?z"),
            ("https://a.example/login?p=1", "https://a.example/login?p=1&a=b%20%26"),
        ] {
            assert_eq!(append_param(url, "a", "b &"), appended);
        }
    }

    #[test]
    fn a_url_that_may_have_secrets_is_over_tls_or_of_this_machine() {
        for url in
            ["https://a.example", "https://a.example/t?p=1", "http://127.0.0.1:8080/t", "http://localhost/t"]
        {
            assert!(is_safe_url(url), "{url}");
        }
        for url in [
            "",
            "a.example/t",
            "http://a.example/t",
            "https://user@a.example/t",
            "https://a.example\\@b.example/t",
            "https://a.example/t#x",
            "https://a.example/a b",
            "javascript:alert(1)",
            "http://localhost@evil.example/",
            "http://localhost.evil.example/",
        ] {
            assert!(!is_safe_url(url), "{url}");
        }
    }

    #[test]
    fn visitors_are_sent_back_to_paths_of_this_origin_alone() {
        for path in [
            "/",
            "/a/b",
            "/a?b=//c&d=%2F%2F",
            "/a#/b",
            "/caf%C3%A9",
            "/a?x=%61",
            &format!("/{}", "a".repeat(511)),
        ] {
            assert_eq!(check_return_to(path), Ok(()), "{path}");
        }
        for path in [
            "",
            "a",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            " /a",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "/a/..//evil.example",
            "/..;/evil",
            "/%2e%2e//evil.example",
            "/a\\b",
            "/a?b=\\c",
            "/a#\\c",
            "/é",
            "/a b",
            "/a\r\nSet-Cookie: x=y",
            "/a?b=\"",
            "/a#\"",
            "?a",
            "#a",
            &format!("/{}", "a".repeat(512)),
        ] {
            assert!(check_return_to(path).is_err(), "{path:?}");
        }
    }
}
