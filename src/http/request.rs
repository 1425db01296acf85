//! A request as plain values.

use super::{Code, Problem};

/// The largest request body that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// The methods of HTTP that this Worker tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "RFC 9110 documents them")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

impl Method {
    /// From the request line.
    pub fn parse(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "another method",
        }
    }

    /// Whether it promises to change nothing (RFC 9110 section 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

/// The body, read before the request came here.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    None,
    /// All of it.
    Bytes(Vec<u8>),
    /// More than [`MAX_BODY`]; not read.
    TooLarge,
}

/// The headers a request is read for; see [`Request::parse`].
pub const HEADERS: [&str; 6] =
    ["cookie", "origin", "sec-fetch-site", "content-type", "if-match", "access-control-request-method"];

/// A request. A header that is absent is empty.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Scheme, host and port: `https://example.com`.
    pub origin: &'a str,
    /// The path as sent, percent-encoded.
    pub path: &'a str,
    /// `Cookie`.
    pub cookie: &'a str,
    /// `Origin`: the page that makes the request.
    pub from_origin: &'a str,
    /// `Sec-Fetch-Site`.
    pub sec_fetch_site: &'a str,
    /// `Content-Type`.
    pub content_type: &'a str,
    /// `If-Match`.
    pub if_match: &'a str,
    /// `Access-Control-Request-Method`: makes an OPTIONS request a preflight.
    pub preflight_for: &'a str,
    /// The body.
    pub body: &'a Body,
}

impl<'a> Request<'a> {
    /// From the method, the absolute URL and the values of [`HEADERS`], a line each (neither can hold a line
    /// break), and the body. What is missing is empty.
    pub fn parse(head: &'a str, body: &'a Body) -> Self {
        let mut lines = head.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let method = Method::parse(next());
        let (origin, path) = split_url(next());
        Self {
            method,
            origin,
            path,
            cookie: next(),
            from_origin: next(),
            sec_fetch_site: next(),
            content_type: next(),
            if_match: next(),
            preflight_for: next(),
            body,
        }
    }

    /// The body's bytes; refuses one that is too large.
    pub fn body(&self) -> Result<&'a [u8], Problem> {
        match self.body {
            Body::None => Ok(&[]),
            Body::Bytes(bytes) => Ok(bytes),
            Body::TooLarge => {
                Err(Problem::new(Code::TooLarge, format!("a request body has at most {MAX_BODY} bytes")))
            }
        }
    }
}

/// The origin and the path of an absolute URL as the platform writes it: in its canonical form (WHATWG URL).
fn split_url(url: &str) -> (&str, &str) {
    let authority = url.find("://").map_or(0, |index| index + 3);
    let rest = url.get(authority..).unwrap_or_default();
    let path = authority + rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (origin, rest) = url.split_at_checked(path).unwrap_or((url, ""));
    (origin, rest.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_request() {
        let head = "PATCH\nhttps://a.example:8443/auth/x?y=/z#w\na=b\nhttps://o.example\ncross-site\ntext/plain\n\"e\"\nPUT";
        let request = Request::parse(head, &Body::None);
        assert_eq!(request.method, Method::Patch);
        assert_eq!((request.origin, request.path), ("https://a.example:8443", "/auth/x"));
        assert_eq!(
            (request.cookie, request.from_origin, request.sec_fetch_site),
            ("a=b", "https://o.example", "cross-site")
        );
        assert_eq!(
            (request.content_type, request.if_match, request.preflight_for),
            ("text/plain", "\"e\"", "PUT")
        );
    }

    #[test]
    fn whatever_is_missing_is_empty() {
        let request = Request::parse("", &Body::None);
        assert_eq!(
            (request.method, request.origin, request.path, request.cookie),
            (Method::Other, "", "", "")
        );
        assert_eq!(Request::parse("GET\nhttp://a?b", &Body::None).path, "");
    }
}
