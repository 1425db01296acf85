//! A request as plain values.

use serde_json::Value;

use super::{Code, Problem};
use crate::json;

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
pub const HEADERS: [&str; 9] = [
    "cookie",
    "origin",
    "sec-fetch-site",
    "content-type",
    "if-match",
    "access-control-request-method",
    "authorization",
    "user-agent",
    "cf-connecting-ip",
];

/// A request. A header that is absent is empty.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Scheme, host and port: `https://example.com`.
    pub origin: &'a str,
    /// The path as sent, percent-encoded.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: &'a str,
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
    /// `Authorization`.
    pub authorization: &'a str,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// `CF-Connecting-IP`: the client's address, which Cloudflare sets and nobody else can.
    pub address: &'a str,
    /// The body.
    pub body: &'a Body,
    /// Whether it is over a limit that was counted before it came here.
    pub is_over: bool,
}

impl<'a> Request<'a> {
    /// From the method, the absolute URL and the values of [`HEADERS`], a line each (neither can hold a line
    /// break), and the body. What is missing is empty.
    pub fn parse(head: &'a str, body: &'a Body) -> Self {
        let mut lines = head.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let method = Method::parse(next());
        let (origin, path, query) = split_url(next());
        Self {
            method,
            origin,
            path,
            query,
            cookie: next(),
            from_origin: next(),
            sec_fetch_site: next(),
            content_type: next(),
            if_match: next(),
            preflight_for: next(),
            authorization: next(),
            user_agent: next(),
            address: next(),
            body,
            is_over: false,
        }
    }

    /// The body as JSON; refuses anything else.
    pub fn json(&self) -> Result<Value, Problem> {
        let media_type = self.content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(Code::UnsupportedMediaType, "the body is application/json"));
        }
        json::document(self.body()?).map_err(|error| {
            Problem::new(Code::BadRequest, format!("the body is not well-formed JSON: {error}"))
        })
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

/// The origin, the path and the query of an absolute URL as the platform writes it: in its canonical form (WHATWG URL).
fn split_url(url: &str) -> (&str, &str, &str) {
    let authority = url.find(':').map_or(0, |colon| colon + "://".len());
    let rest = url.get(authority..).unwrap_or_default();
    let path = authority + rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (origin, rest) = url.split_at_checked(path).unwrap_or((url, ""));
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    (origin, path, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_request() {
        let head = "PATCH\nhttps://a.example:8443/auth/x?y=/z#w\na=b\nhttps://o.example\ncross-site\ntext/plain\n\"e\"\nPUT";
        let request = Request::parse(head, &Body::None);
        assert_eq!(request.method, Method::Patch);
        let url = (request.origin, request.path, request.query);
        assert_eq!(url, ("https://a.example:8443", "/auth/x", "y=/z"));
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
