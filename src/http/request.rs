//! A request, as handlers see it. Its headers are read when they are asked for.

use std::{cell::OnceCell, net::IpAddr, ops::Range};

use serde::de::DeserializeOwned;

use super::Problem;
use crate::document;

/// The largest request body that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Up to this size, in bytes, a body is not large: it never waits for others. See [`crate::limit::LargeBodies`].
pub const SMALL_BODY: usize = 16 * 1024;

/// The methods of HTTP that the routes use.
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
    /// From the request line. Methods are case-sensitive (RFC 9110 section 9.1).
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
            Self::Other => "this method",
        }
    }

    /// Whether it promises to change nothing (RFC 9110 section 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

/// The request's headers.
pub trait Headers {
    /// The value of the header with this name, in lower case; `None` when the request has none. Several of one name
    /// are joined by `, ` (Fetch standard).
    fn get(&self, name: &'static str) -> Option<String>;
}

/// Headers out of a list, for tests and for programs without a platform of their own.
impl Headers for &[(&str, &str)] {
    fn get(&self, name: &'static str) -> Option<String> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| (*value).to_owned())
    }
}

impl<const N: usize> Headers for [(&str, &str); N] {
    fn get(&self, name: &'static str) -> Option<String> {
        Headers::get(&self.as_slice(), name)
    }
}

/// The body, read by the platform before the request is answered.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    None,
    /// All of it.
    Bytes(Vec<u8>),
    /// Longer than [`MAX_BODY`]; not read.
    TooLarge,
    /// It broke off before its end, or took too long.
    Incomplete,
    /// There were too many large ones at once; not read.
    NoPlace,
}

/// A request.
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The absolute URL, and where its path and its query are.
    url: String,
    path: Range<usize>,
    query: Range<usize>,
    headers: Box<dyn Headers + 'a>,
    body: Body,
    cookie: OnceCell<String>,
    from_origin: OnceCell<String>,
    acts_for: OnceCell<IpAddr>,
}

impl<'a> Request<'a> {
    /// From its method, its absolute URL in canonical form (WHATWG URL), its headers and its body.
    pub fn new(method: &str, url: impl Into<String>, headers: impl Headers + 'a, body: Body) -> Self {
        let url = url.into();
        let (origin, path, query) = split_url(&url);
        let path = origin.len()..origin.len() + path.len();
        // A question mark before it.
        let query = if query.is_empty() { 0..0 } else { path.end + 1..path.end + 1 + query.len() };
        Self {
            method: Method::parse(method),
            url,
            path,
            query,
            headers: Box::new(headers),
            body,
            cookie: OnceCell::new(),
            from_origin: OnceCell::new(),
            acts_for: OnceCell::new(),
        }
    }

    /// Scheme, host and port of the URL: `https://example.com`.
    pub fn origin(&self) -> &str {
        self.url.get(..self.path.start).unwrap_or_default()
    }

    /// The path as sent, percent-encoded.
    pub fn path(&self) -> &str {
        self.url.get(self.path.clone()).unwrap_or_default()
    }

    /// The query, without its question mark.
    pub fn query(&self) -> &str {
        self.url.get(self.query.clone()).unwrap_or_default()
    }

    /// A header's value; empty when the request has none of this name, which is in lower case.
    pub fn header(&self, name: &'static str) -> String {
        self.headers.get(name).unwrap_or_default()
    }

    /// `Cookie`; empty when there is none.
    pub fn cookie(&self) -> &str {
        self.cookie.get_or_init(|| self.header("cookie"))
    }

    /// `Cookie` as it was sent, whether it is ignored here or not.
    pub fn cookie_as_sent(&self) -> String {
        self.header("cookie")
    }

    /// `Origin`: the origin of the page that makes the request; empty when there is none.
    pub fn from_origin(&self) -> &str {
        self.from_origin.get_or_init(|| self.header("origin"))
    }

    /// Hides the cookies from whatever asks later. Call it before anything has.
    pub(crate) fn ignore_cookie(&self) {
        // It fails if they were read already.
        drop(self.cookie.set(String::new()));
    }

    /// The value of the one parameter that a route knows, percent-encoded; `None` without a query. Another query is refused:
    /// ignoring a misspelt one could do more than was asked for. `example` is what may be sent.
    pub fn only_param(&self, name: &str, example: &str) -> Result<Option<&str>, Problem> {
        if self.query().is_empty() {
            return Ok(None);
        }
        let value = self.query().strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        match value.filter(|value| !value.is_empty() && !value.contains(['&', '='])) {
            Some(value) => Ok(Some(value)),
            None => Err(unknown_query(example)),
        }
    }

    /// The client's address: of whom the caller acts for, or else `CF-Connecting-IP`, which Cloudflare sets and a client
    /// cannot. Empty if it is not known.
    pub fn client_address(&self) -> String {
        self.acts_for().unwrap_or_else(|| self.header("cf-connecting-ip"))
    }

    /// `Session-Client-Address`: the address of the client whom a back end says it acts for. `None` if it says nothing.
    /// Errors: several, or no address. It means nothing unless the caller has proved to be a back end of ours.
    pub fn claimed_client_address(&self) -> Option<Result<IpAddr, Problem>> {
        let claimed = self.headers.get("session-client-address")?;
        Some(parse_address(&claimed).ok_or_else(|| {
            let detail =
                "Session-Client-Address must be one IPv4 or IPv6 address, like 203.0.113.7, without a port";
            Problem::bad_request(detail)
        }))
    }

    /// The address of the client whom the caller acts for, if it does.
    pub(crate) fn acts_for(&self) -> Option<String> {
        self.acts_for.get().map(IpAddr::to_string)
    }

    /// The caller acts for the client with this address.
    pub(crate) fn act_for(&self, client: IpAddr) {
        self.acts_for.get_or_init(|| client);
    }

    /// The credentials of `Authorization: Bearer` (RFC 6750 section 2.1); `None` if there are none, or of another scheme.
    pub fn bearer(&self) -> Option<String> {
        let authorization = self.headers.get("authorization")?;
        let (scheme, credentials) = authorization.split_once(' ')?;
        let credentials = credentials.trim_matches(' ');
        let is_bearer = scheme.eq_ignore_ascii_case("bearer") && !credentials.is_empty();
        is_bearer.then(|| credentials.to_owned())
    }

    /// Whether it is of a client without a cookie jar that wants its ticket in `Session-Token`: `Session-Transport: bearer`, and
    /// nothing that only a browser or a cookie jar sends.
    pub(crate) fn wants_bearer(&self) -> bool {
        let is_absent = |name| self.headers.get(name).is_none();
        self.header("session-transport").eq_ignore_ascii_case("bearer")
            && ["cookie", "origin", "sec-fetch-site"].into_iter().all(is_absent)
    }

    /// Refuses a body that no route could read: compressed, too large, incomplete.
    pub(crate) fn check_body(&self) -> Result<(), Problem> {
        if matches!(self.body, Body::None) {
            return Ok(());
        }
        let encoding = self.header("content-encoding");
        let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
        if !encoding.split(',').all(|coding| is_plain(coding.trim())) {
            let detail = "compressed bodies are not read: send it without Content-Encoding";
            return Err(Problem::unsupported_media_type(detail).with_header("Accept-Encoding", "identity"));
        }
        self.body().map(drop)
    }

    /// The body's bytes. Errors: too large, incomplete.
    pub fn body(&self) -> Result<&[u8], Problem> {
        match &self.body {
            Body::None => Ok(&[]),
            Body::Bytes(bytes) => Ok(bytes),
            Body::TooLarge => {
                Err(Problem::too_large(format!("the request body is too large: at most {MAX_BODY} bytes")))
            }
            Body::Incomplete => Err(Problem::bad_request("the request body ended before its end")),
            Body::NoPlace => {
                let detail = format!(
                    "too many large request bodies at once, or this one came too slowly while others waited; try again in 1 \
                     s, or send at most {SMALL_BODY} bytes"
                );
                Err(Problem::rate_limited(detail, 1))
            }
        }
    }

    /// The body, from JSON. Errors: not JSON (its `Content-Type`, its syntax), or another shape than `T`'s.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let content_type = self.header("content-type");
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Problem::unsupported_media_type("send Content-Type: application/json"));
        }
        document::read(self.body()?)
    }
}

/// 400: a route that knows one query got another one.
pub fn unknown_query(example: &str) -> Problem {
    Problem::bad_request(format!("unknown query; the only one here is ?{example}"))
}

/// The path of a URL, as [`Request::path`] has it.
pub fn path_of(url: &str) -> &str {
    split_url(url).1
}

/// The path and the query of a URL, as they go into a request line.
pub(crate) fn target_of(url: &str) -> &str {
    let (origin, ..) = split_url(url);
    url.get(origin.len()..).unwrap_or_default().split('#').next().unwrap_or_default()
}

/// An IPv4 or IPv6 address as a back end writes it: alone, without port, brackets or zone.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn split_url(url: &str) -> (&str, &str, &str) {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    let path = url.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |at| host + at);
    let (origin, rest) = url.split_at_checked(path).unwrap_or((url, ""));
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    (origin, path, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_origin_path_and_query() {
        for (url, parts) in [
            ("https://a.example:8443/auth/x?y=/z#w", ("https://a.example:8443", "/auth/x", "y=/z")),
            ("http://a/", ("http://a", "/", "")),
            ("http://a?b", ("http://a", "", "b")),
            ("", ("", "", "")),
        ] {
            assert_eq!(split_url(url), parts, "{url}");
        }
    }

    #[test]
    fn a_missing_header_is_empty() {
        let headers = [("Cookie", "a=b")];
        let request = Request::new("PATCH", "https://a.example/", headers, Body::None);
        assert_eq!((request.method, request.cookie(), request.from_origin()), (Method::Patch, "a=b", ""));
        assert_eq!(request.body(), Ok(&[][..]));
    }

    #[test]
    fn bearer_credentials_are_read_from_that_scheme_alone() {
        for (authorization, credentials) in [
            ("Bearer abc", Some("abc")),
            ("bEARER  abc ", Some("abc")),
            ("Bearer a, Bearer b", Some("a, Bearer b")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            let headers = [("Authorization", authorization)];
            let request = Request::new("GET", "https://a.example/", headers, Body::None);
            assert_eq!(request.bearer().as_deref(), credentials, "{authorization}");
        }
        assert_eq!(Request::new("GET", "https://a.example/", [("Cookie", "")], Body::None).bearer(), None);
    }

    #[test]
    fn a_claimed_address_is_one_address_or_an_error() {
        let claimed = |value| {
            let headers = [("Session-Client-Address", value), ("CF-Connecting-IP", "192.0.2.1")];
            let request = Request::new("GET", "https://a.example/", headers, Body::None);
            let claimed = request.claimed_client_address()?;
            assert_eq!(request.client_address(), "192.0.2.1", "a claim alone changes nothing");
            let address = claimed.ok()?;
            request.act_for(address);
            Some(request.client_address())
        };
        for address in ["203.0.113.7", "2001:db8::1", "::ffff:203.0.113.7"] {
            assert_eq!(claimed(address).as_deref(), Some(address));
        }
        for wrong in [
            "",
            "203.0.113.7, 203.0.113.8",
            "203.0.113.7:80",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "203.0.113.007",
            "x",
        ] {
            assert_eq!(claimed(wrong), None, "{wrong}");
        }
        let headers = [("CF-Connecting-IP", "192.0.2.1")];
        let request = Request::new("GET", "https://a.example/", headers, Body::None);
        assert!(request.claimed_client_address().is_none());
    }
}
