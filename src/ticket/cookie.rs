//! The cookie that carries the ticket: its attributes, its two headers.

use std::time::Duration;

/// What browsers shorten every cookie's lifetime to (RFC 6265bis section 5.5).
pub(crate) const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// The header lines of one cookie, built once from validated settings (see [`crate::config`]).
#[derive(Debug)]
pub struct Cookie {
    name: String,
    attributes: String,
}

/// `SameSite` (RFC 6265bis).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SameSite {
    /// Sent on this site's own requests only.
    Strict,
    /// Sent also when a link leads here.
    Lax,
    /// Sent always; needs `Secure`.
    None,
}

/// What the operator chose. The ticket's cookie is always `HttpOnly`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cookie's name.
    pub name: String,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Secure`.
    pub secure: bool,
    /// `Domain`; empty: this host only.
    pub domain: String,
    /// `Path`.
    pub path: String,
    /// `Partitioned` (CHIPS).
    pub partitioned: bool,
}

impl Settings {
    /// The attributes that contradict each other or would make a browser drop the cookie, one sentence each.
    pub fn faults(&self) -> Vec<String> {
        let prefixed = |prefix: &str| {
            self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        // In any case of letters, as browsers compare them (RFC 6265bis section 5.7). `__Http-` asks for `HttpOnly`, too,
        // which our cookies always have.
        let is_host = prefixed("__Host-");
        let is_secure = prefixed("__Secure-") || prefixed("__Http-");
        let rules = [
            (
                !is_token(&self.name),
                "name: a cookie's name is letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 token)",
            ),
            (is_host && !self.secure, "name: browsers drop a __Host- cookie without secure = true"),
            (
                is_host && !self.domain.is_empty(),
                "name: browsers drop a __Host- cookie with a domain; leave domain empty",
            ),
            (is_host && self.path != "/", "name: browsers drop a __Host- cookie whose path is not \"/\""),
            (
                is_secure && !self.secure,
                "name: browsers drop a __Secure- or __Http- cookie without secure = true",
            ),
            (self.same_site == SameSite::None && !self.secure, "same_site: \"None\" needs secure = true"),
            (self.partitioned && !self.secure, "partitioned: needs secure = true"),
            (!is_domain(&self.domain), "domain: a host name like \"example.com\", or empty"),
            (
                !is_path(&self.path),
                "path: starts with \"/\" and has no spaces, semicolons or control characters",
            ),
        ];
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, fault)| fault.to_owned()).collect()
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_domain(domain: &str) -> bool {
    domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')
}

impl Cookie {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The header lines for these settings.
    pub fn new(settings: Settings) -> Self {
        let Settings { name, same_site, secure, domain, path, partitioned } = settings;
        let mut attributes = format!("; Path={path}");
        if !domain.is_empty() {
            attributes += &format!("; Domain={domain}");
        }
        attributes += "; HttpOnly";
        if secure {
            attributes += "; Secure";
        }
        attributes += match same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        };
        if partitioned {
            attributes += "; Partitioned";
        }
        Self { name, attributes }
    }

    /// `Set-Cookie` with a value. With a lifetime the cookie is persistent, else it ends with the browser's session.
    pub fn set(&self, value: &str, lifetime: Option<Duration>) -> String {
        let Self { name, attributes } = self;
        match lifetime {
            None => format!("{name}={value}{attributes}"),
            Some(lifetime) => format!("{name}={value}{attributes}; Max-Age={}", lifetime.as_secs()),
        }
    }

    /// `Set-Cookie` that removes the cookie. It repeats the attributes: they say which cookie is meant.
    pub fn remove(&self) -> String {
        self.set("", Some(Duration::ZERO))
    }

    /// The values that a `Cookie` header gives this cookie; several when another site's or path's cookie has the same name
    /// (cookie tossing). A name is matched byte for byte; a value loses the quotes around it.
    ///
    /// Proxies and the Fetch standard join several `Cookie` lines by `, `: see [`Self::values_of_joined_lines`].
    pub fn values<'h>(&self, header: &'h str) -> impl Iterator<Item = &'h str> {
        header.split(';').filter_map(|pair| self.value(pair))
    }

    /// The values that are found by splitting at `, ` only. The value of a cookie of another host can look like that, too:
    /// they count after the others.
    pub fn values_of_joined_lines<'h>(&self, header: &'h str) -> impl Iterator<Item = &'h str> {
        let joined = header.split(';').filter(|pair| pair.contains(", "));
        joined.flat_map(|pair| pair.split(", ")).filter_map(|pair| self.value(pair))
    }

    fn value<'h>(&self, pair: &'h str) -> Option<&'h str> {
        strip_blanks(pair).strip_prefix(self.name.as_str())?.strip_prefix('=').map(unquoted)
    }
}

/// A cookie's value without the quotes around it.
pub(crate) fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Browsers strip spaces and tabs around a cookie, and nothing else: a cookie whose name begins with another blank is not
/// under the rules of `__Host-` (RFC 6265bis section 5.6).
fn strip_blanks(pair: &str) -> &str {
    pair.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: "__Host-session".into(),
            same_site: SameSite::Lax,
            secure: true,
            domain: String::new(),
            path: "/".into(),
            partitioned: false,
        }
    }

    #[test]
    fn the_default_cookie_has_every_protection() {
        let cookie = Cookie::new(settings());
        assert_eq!(cookie.set("v", None), "__Host-session=v; Path=/; HttpOnly; Secure; SameSite=Lax");
        let day = Duration::from_secs(86_400);
        assert_eq!(
            cookie.set("v", Some(day)),
            "__Host-session=v; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=86400"
        );
    }

    #[test]
    fn a_removal_repeats_the_attributes() {
        let cookie = Cookie::new(Settings {
            name: "sid".into(),
            same_site: SameSite::None,
            domain: "example.com".into(),
            path: "/app".into(),
            partitioned: true,
            ..settings()
        });
        assert_eq!(
            cookie.remove(),
            "sid=; Path=/app; Domain=example.com; HttpOnly; Secure; SameSite=None; Partitioned; Max-Age=0"
        );
    }

    #[test]
    fn attributes_that_browsers_would_drop_are_faults() {
        type Spoil = fn(&mut Settings);
        let faulty: [(&str, Spoil); 14] = [
            ("name", |s| s.name = "a b".into()),
            ("name", |s| s.name = String::new()),
            ("name", |s| s.secure = false),
            ("name", |s| s.domain = "example.com".into()),
            ("name", |s| s.path = "/app".into()),
            ("name", |s| (s.name, s.secure) = ("__SECURE-sid".into(), false)),
            ("name", |s| (s.name, s.secure) = ("__Http-sid".into(), false)),
            ("name", |s| (s.name, s.path) = ("__Host-Http-sid".into(), "/app".into())),
            ("name", |s| (s.name, s.domain) = ("__hOsT-hTtP-sid".into(), "example.com".into())),
            ("same_site", |s| (s.name, s.secure, s.same_site) = ("sid".into(), false, SameSite::None)),
            ("partitioned", |s| (s.name, s.secure, s.partitioned) = ("sid".into(), false, true)),
            ("domain", |s| (s.name, s.domain) = ("sid".into(), "a; Secure".into())),
            ("path", |s| (s.name, s.path) = ("sid".into(), "/a;b".into())),
            ("path", |s| (s.name, s.path) = ("sid".into(), "a\nSet-Cookie: x".into())),
        ];
        assert!(settings().faults().is_empty());
        for (index, (field, change)) in faulty.into_iter().enumerate() {
            let mut settings = settings();
            change(&mut settings);
            let faults = settings.faults();
            assert_eq!(faults.len(), 1, "{index}: {faults:?}");
            assert!(faults.iter().all(|fault| fault.starts_with(field)), "{index}: {faults:?}");
        }
    }

    #[test]
    fn values_are_found_among_other_cookies_by_their_exact_name() {
        let cookie = Cookie::new(settings());
        let values = |header| cookie.values(header).collect::<Vec<_>>();
        assert_eq!(values("__Host-session=a"), ["a"]);
        assert_eq!(values("x=1; __Host-session=a;__Host-session=b=c ; y"), ["a", "b=c"]);
        assert_eq!(values("X__Host-session=a; __Host-session2=b; __host-session=c; __Host-session"), [""; 0]);
        assert_eq!(values(""), [""; 0]);
    }

    #[test]
    fn only_spaces_and_tabs_are_stripped() {
        let cookie = Cookie::new(settings());
        let values = |header: &str| cookie.values(header).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(values("x=1;\t __Host-session=a \t; y"), ["a"]);
        let blanks = ['\u{b}', '\u{c}', '\u{85}', '\u{a0}', '\u{2000}', '\u{2028}', '\u{3000}', '\u{feff}'];
        for blank in blanks {
            for header in [format!("{blank}__Host-session=a"), format!("x=1; {blank}__Host-session=a")] {
                assert_eq!(values(&header), [""; 0], "{}", header.escape_unicode());
            }
            assert_eq!(values(&format!("__Host-session=a{blank}")), [format!("a{blank}")]);
        }
    }

    #[test]
    fn a_quoted_value_is_unquoted_and_joined_lines_are_several() {
        let cookie = Cookie::new(settings());
        let values = |header| cookie.values(header).collect::<Vec<_>>();
        assert_eq!(values("__Host-session=\"a\""), ["a"]);
        assert_eq!(values("__Host-session=\"a; __Host-session=b\""), ["\"a", "b\""]);
        let joined = |header| cookie.values_of_joined_lines(header).collect::<Vec<_>>();
        assert_eq!(joined("x=1, __Host-session=a"), ["a"]);
        assert_eq!(joined("__Host-session=a, x=1; y=2"), ["a"]);
        assert_eq!(joined("x=1, __Host-session=a; __Host-session=b"), ["a"]);
        assert_eq!(joined("__Host-session=a,x=1; y=2"), [""; 0]);
    }
}
