//! One reading of a path: what is matched here must be what the origin sees.

/// Why a path is refused: an origin could read it as another one. `None` if every origin reads it as it stands. `path` is
/// canonical as to WHATWG URL: dot segments are gone, backslashes are slashes.
pub(super) fn ambiguity(path: &str) -> Option<&'static str> {
    if path.contains('\\') {
        return Some("a backslash");
    }
    let inner = path.get(1..).unwrap_or_default();
    if inner.starts_with('/') || inner.contains("//") {
        return Some("a doubled slash");
    }
    if has_needless_encoding(path) {
        return Some("a percent-encoded letter, digit or one of -._~");
    }
    path.split('/').find_map(|segment| hides_dots(segment).then_some("a hidden dot segment"))
}

/// Whether a character that needs no percent-encoding has one (RFC 3986 section 2.3), or an encoding is broken.
fn has_needless_encoding(path: &str) -> bool {
    path.split('%').skip(1).any(|rest| {
        let byte = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    })
}

/// Whether a segment has a dot segment in it for origins that decode slashes (`..%2f`), or that take path parameters off
/// (`..;x`).
fn hides_dots(segment: &str) -> bool {
    let lower = segment.to_ascii_lowercase().replace("%5c", "%2f");
    lower.split("%2f").any(|part| {
        let name = part.split([';']).next().unwrap_or_default().split("%3b").next().unwrap_or_default();
        matches!(name, "." | "..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_origins_read_differently_are_refused() {
        for path in [
            "//a",
            "/a//b",
            "/a//",
            "/%61dmin",
            "/a%2e",
            "/%2E%2E/x",
            "/a%7Eb",
            "/a\\b",
            "/..;/admin",
            "/a/..;x=1/b",
            "/.;/a",
            "/..%2fadmin",
            "/a%2f..",
            "/a%2F..%2Fb",
            "/..%5cadmin",
            "/a/.%2fb",
            "/..%3b/admin",
            "/a%",
            "/a%zz",
        ] {
            assert!(ambiguity(path).is_some(), "{path}");
        }
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.html",
            "/a%20b",
            "/a%2fb",
            "/%C3%A9",
            "/a;x=1",
            "/...",
            "/a..b",
            "/.well-known/x",
            "/A",
        ] {
            assert_eq!(ambiguity(path), None, "{path}");
        }
    }
}
