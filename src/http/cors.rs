//! Cross-origin resource sharing (Fetch standard): allowed origins may call with credentials.

use super::{Method, Request, Response};

/// How long a browser may remember the answer to a preflight, in seconds; Chromium's own limit.
const MAX_AGE: &str = "7200";

/// The request headers that routes read and that a page must ask for.
const REQUEST_HEADERS: &str = "Content-Type, If-Match, If-None-Match";

/// The response headers that a page may read, beside those that it always may.
const RESPONSE_HEADERS: &str = "Accept-Encoding, Accept-Patch, Allow, ETag, RateLimit, RateLimit-Policy, Retry-After, \
                                WWW-Authenticate";

/// Which pages of other origins may call, and with which headers.
#[derive(Debug)]
pub struct Policy {
    origins: Vec<AllowedOrigin>,
    /// The value of `Access-Control-Allow-Headers`.
    request_headers: String,
}

impl Policy {
    /// From `cors.origins` and `cors.headers`; the latter are field names.
    pub fn new(origins: Vec<AllowedOrigin>, headers: &[String]) -> Self {
        let names = [REQUEST_HEADERS].into_iter().chain(headers.iter().map(String::as_str));
        Self { origins, request_headers: names.collect::<Vec<_>>().join(", ") }
    }

    /// Whether the page that makes the request is of an allowed origin.
    pub fn allows(&self, request: &Request<'_>) -> bool {
        // The header is not read where nothing is allowed.
        self.origins.iter().any(|origin| origin.matches(request.from_origin()))
    }

    /// Answers a preflight; [`Policy::expose`] adds the permission itself. `methods` are the path's. The answer to an
    /// origin that is not allowed says nothing, which is how the standard says no.
    pub fn preflight(&self, request: &Request<'_>, methods: String) -> Response {
        let response = Response::no_content()
            .header("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
        if !self.allows(request) {
            return response;
        }
        response
            .header("Access-Control-Allow-Methods", methods)
            .header("Access-Control-Allow-Headers", self.request_headers.clone())
            .header("Access-Control-Max-Age", MAX_AGE)
    }

    /// Lets an allowed origin's page read the response. Caches learn that it depends on the origin.
    pub fn expose(&self, response: Response, request: &Request<'_>) -> Response {
        if self.origins.is_empty() {
            return response;
        }
        let response = response.header("Vary", "Origin");
        if !self.allows(request) {
            return response;
        }
        response
            .header("Access-Control-Allow-Origin", request.from_origin().to_owned())
            .header("Access-Control-Allow-Credentials", "true")
            .header("Access-Control-Expose-Headers", RESPONSE_HEADERS)
    }
}

/// Whether the request is a preflight.
pub fn is_preflight(request: &Request<'_>) -> bool {
    request.method == Method::Options
        && !request.from_origin().is_empty()
        && !request.header("access-control-request-method").is_empty()
}

/// An origin as the log shows it. It is whatever a stranger has sent, so it is cut, and what no origin has is replaced.
pub fn printable(origin: &str) -> String {
    const LONGEST: usize = 100;
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || "-._:/[]".contains(*character);
    let shown =
        origin.chars().take(LONGEST).map(|character| if is_plain(&character) { character } else { '?' });
    shown.chain(origin.chars().nth(LONGEST).map(|_| '…')).collect()
}

/// An entry of `cors.origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// This origin alone.
    Exact(String),
    /// A pattern like `https://*.preview.example.com`, whose `*` is exactly one label of the host.
    OneLabel {
        /// What stands before the `*`: `https://`.
        before: String,
        /// What stands behind it: `.preview.example.com`.
        after: String,
    },
}

impl AllowedOrigin {
    /// Reads an entry; says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const ORIGIN: &str = "exact origins like \"https://www.example.com\" (lower case, the port if it is unusual, nothing \
                              behind it), or patterns like \"https://*.preview.example.com\"; \"*\" alone is refused";
        const PATTERN: &str = "a pattern has one \"*\", which is the whole first label of the host: \
                               \"https://*.preview.example.com\"";
        const SHARED: &str = "this pattern lets strangers in, as anyone can get a name that it matches; use a domain whose \
                              names you alone make, like \"https://*.preview.example.com\"";
        match text.split_once('*') {
            None if is_origin(text) => Ok(Self::Exact(text.to_owned())),
            None | Some(("", _)) => Err(ORIGIN),
            Some((before, after)) if !before.ends_with("://") || after.contains('*') => Err(PATTERN),
            Some((_, "")) => Err(SHARED),
            Some((before, after)) => {
                let domain = after.strip_prefix('.').ok_or(PATTERN)?;
                if !is_origin(&[before, domain].concat()) {
                    return Err(ORIGIN);
                }
                if is_shared(domain.split(':').next().unwrap_or_default()) {
                    return Err(SHARED);
                }
                Ok(Self::OneLabel { before: before.to_owned(), after: after.to_owned() })
            }
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(own) => origin == own,
            Self::OneLabel { before, after } => {
                let label = origin.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                label.is_some_and(is_label)
            }
        }
    }
}

/// Whether this is one label of a host, as browsers write it.
fn is_label(text: &str) -> bool {
    let is_label_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(is_label_byte)
}

/// An origin as browsers write it: lower case, nothing behind the port.
pub fn is_origin(text: &str) -> bool {
    let (host, usual_port) = match text.split_once("://") {
        Some(("https", host)) => (host, ":443"),
        Some(("http", host)) => (host, ":80"),
        _ => return false,
    };
    let is_host_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    let behind_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    let has_good_port = behind_address
        .split_once(':')
        .is_none_or(|(_, port)| !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok());
    !host.is_empty() && !host.ends_with(usual_port) && host.bytes().all(is_host_byte) && has_good_port
}

/// Whether what is nobody else's business, such as secrets and who a visitor is, may be sent to this origin: over TLS, or to
/// this machine.
pub(crate) fn is_safe_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host));
    let is_local = host.is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    is_origin(text) && (text.starts_with("https://") || is_local)
}

/// Domains of well-known hosts under which anyone can have a name. The Public Suffix List has thousands; as a part of the
/// Worker it would weigh more than the rest.
const HOSTS: &str = "amplifyapp.com appspot.com azurestaticapps.net azurewebsites.net cloudfront.net deno.dev firebaseapp.com \
    fly.dev github.io gitlab.io herokuapp.com netlify.app ngrok.app ngrok.io ngrok-free.app onrender.com pages.dev \
    railway.app replit.app run.app surge.sh trycloudflare.com vercel.app web.app workers.dev";

/// Whether strangers can have names under this domain, as far as its looks tell: a top-level domain, one like `co.uk`, one of
/// [`HOSTS`]; or whether it is none, but an address.
fn is_shared(domain: &str) -> bool {
    let is_one_of = |list: &str, text: &str| list.split(' ').any(|one| one == text);
    const KINDS: &str = "ac co com edu gob gouv gov govt gv id ltd me mil ne net nom or org plc";
    let Some((before, top)) = domain.rsplit_once('.') else { return true };
    let is_like_co_uk = top.len() == 2 && is_one_of(KINDS, before);
    let is_address = top.bytes().all(|byte| byte.is_ascii_digit());
    is_like_co_uk || is_address || domain.split('.').any(|label| !is_label(label)) || is_one_of(HOSTS, domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origins_port_is_one_that_there_is() {
        for origin in ["https://a.example", "https://a.example:8443", "http://[::1]", "http://[::1]:65535"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "https://a.example:",
            "https://a.example:0",
            "https://a.example:08443",
            "https://a.example:65536",
            "https://a.example:99999",
            "https://a.example:x",
            "https://a.example:1:2",
            "http://[::1]:",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    fn fault(text: &str) -> &'static str {
        AllowedOrigin::parse(text).expect_err(text)
    }

    #[test]
    fn an_origin_in_the_log_is_short_and_plain() {
        for (origin, shown) in [
            ("https://www.example.com:8443", "https://www.example.com:8443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("null", "null"),
            ("a\r\nb \u{1b}[31m\u{202e}ä", "a??b??[31m??"),
        ] {
            assert_eq!(printable(origin), shown);
        }
        assert_eq!(printable(&"x".repeat(5000)), format!("{}…", "x".repeat(100)));
    }

    #[test]
    fn an_exact_origin_matches_itself_alone() {
        let origin = AllowedOrigin::parse("https://front.example:8443").expect("an origin");
        assert!(origin.matches("https://front.example:8443"));
        for other in [
            "https://front.example",
            "http://front.example:8443",
            "https://Front.example:8443",
            "https://front.example:8443/",
            "https://a.front.example:8443",
            "null",
            "",
        ] {
            assert!(!origin.matches(other), "{other}");
        }
    }

    #[test]
    fn a_pattern_matches_exactly_one_label() {
        for (pattern, origin, is_match) in [
            ("https://*.preview.example.com", "https://pr-17.preview.example.com", true),
            ("https://*.preview.example.com", "https://a_b.preview.example.com", true),
            ("https://*.preview.example.com", "https://xn--bcher-kva.preview.example.com", true),
            ("https://*.preview.example.com", "https://preview.example.com", false),
            ("https://*.preview.example.com", "https://.preview.example.com", false),
            ("https://*.preview.example.com", "https://a.b.preview.example.com", false),
            ("https://*.preview.example.com", "https://*.preview.example.com", false),
            ("https://*.preview.example.com", "http://a.preview.example.com", false),
            ("https://*.preview.example.com", "https://a.preview.example.com:8443", false),
            ("https://*.preview.example.com", "https://a.preview.example.com.evil.example", false),
            ("https://*.preview.example.com", "https://evil.example/.preview.example.com", false),
            ("https://*.preview.example.com", "https://evil.example?.preview.example.com", false),
            ("https://*.preview.example.com", "https://evil.example#.preview.example.com", false),
            ("https://*.preview.example.com", "https://user@a.preview.example.com", false),
            ("https://*.preview.example.com", "https://evil.example, https://a.preview.example.com", false),
            ("https://*.preview.example.com", "https://A.preview.example.com", false),
            ("https://*.preview.example.com", "https://a.preview.EXAMPLE.com", false),
            ("https://*.preview.example.com", "https://apreview.example.com", false),
            ("https://*.preview.example.com", "https://ä.preview.example.com", false),
            ("https://*.preview.example.com", "null", false),
            ("https://*.preview.example.com", "", false),
            ("https://*.example.com:8443", "https://a.example.com:8443", true),
            ("https://*.example.com:8443", "https://a.example.com", false),
            ("http://*.test.localhost:3000", "http://a.test.localhost:3000", true),
        ] {
            assert_eq!(
                AllowedOrigin::parse(pattern).expect(pattern).matches(origin),
                is_match,
                "{pattern} {origin}"
            );
        }
        let long = format!("https://{}.example.com", "a".repeat(64));
        assert!(!AllowedOrigin::parse("https://*.example.com").expect("a pattern").matches(&long));
    }

    #[test]
    fn what_could_let_strangers_in_is_refused_with_what_to_write_instead() {
        for text in [
            "*",
            "",
            "null",
            "*.example.com",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
        ] {
            assert!(fault(text).starts_with("exact origins like"), "{text}");
        }
        for text in [
            "https://*.example.com/",
            "https://*.example.com:443",
            "https://*.Example.com",
            "ftp://*.example.com",
        ] {
            assert!(fault(text).starts_with("exact origins like"), "{text}");
        }
        for text in [
            "https://a*.example.com",
            "https://*a.example.com",
            "https://www.*.example.com",
            "https://*.*.example.com",
            "https://*:8443",
            "https://a.*",
        ] {
            assert!(fault(text).starts_with("a pattern has one"), "{text}");
        }
        for text in [
            "https://*",
            "https://*.com",
            "https://*.co.uk",
            "https://*.com.au",
            "https://*.co.uk:8443",
            "https://*.github.io",
            "https://*.pages.dev",
            "https://*.0.0.1",
            "http://*.localhost",
            "https://*.example..com",
            "https://*.example.",
        ] {
            assert!(fault(text).starts_with("this pattern lets strangers in"), "{text}");
        }
        for text in
            ["https://*.site.pages.dev", "https://*.example.co.uk", "https://*.at.example", "https://*.t.co"]
        {
            assert!(AllowedOrigin::parse(text).is_ok(), "{text}");
        }
    }
}
