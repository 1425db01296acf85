//! One reading of a path: what is matched here must be what the origin sees.

use percent_encoding::percent_decode_str;

/// How often an origin and what stands in front of it decode a path, at most.
const DECODINGS: usize = 3;

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
    if path.contains("%00") {
        return Some("a NUL");
    }
    path.split('/').find_map(|segment| hides_dots(segment).then_some("a hidden dot segment"))
}

/// Whether no origin makes another path of it than it is.
pub(super) fn is_plain(path: &str) -> bool {
    !path.contains(['%', ';']) && !path.split('/').any(|segment| segment.ends_with('.'))
}

/// A path as the most lenient of origins reads it: decoded as often as anybody does, without path parameters, with one kind
/// of slash, and without the dots and spaces at a name's end that Windows takes off. Encoded slashes and parameters have
/// their uses, so such a path is refused only where another rule would hold for it.
pub(super) fn plain(path: &str) -> String {
    if is_plain(path) {
        return path.to_owned();
    }
    let mut path = path.to_owned();
    for _ in 0..DECODINGS {
        path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    let path = path.replace('\\', "/");
    let mut names = Vec::new();
    for segment in path.split('/') {
        let name = segment.split(';').next().unwrap_or_default().trim_end_matches(' ');
        match name.trim_end_matches(['.', ' ']) {
            "" if name == ".." => drop(names.pop()),
            "" => {}
            name => names.push(name),
        }
    }
    let slash = if path.ends_with('/') && !names.is_empty() { "/" } else { "" };
    ["/", &names.join("/"), slash].concat()
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
            "/a%00.html",
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

    #[test]
    fn a_path_is_read_as_the_most_lenient_origin_would() {
        for (path, read) in [
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/", "/"),
            ("/a%2fb", "/a/b"),
            ("/a%5Cb", "/a/b"),
            ("/a%252fb", "/a/b"),
            ("/%2561dmin", "/admin"),
            ("/%2fadmin", "/admin"),
            ("/a;x=1/b", "/a/b"),
            ("/a%3bx/b", "/a/b"),
            ("/;x/admin", "/admin"),
            ("/admin;x", "/admin"),
            ("/admin/;x", "/admin"),
            ("/admin./x.", "/admin/x"),
            ("/admin%20/x", "/admin/x"),
            ("/x/%252e%252e/admin", "/admin"),
            ("/%252e%252e/%252e/admin/", "/admin/"),
            ("/x%2f..%20", "/"),
            ("/caf%C3%A9", "/café"),
            ("/caf%c3%a9", "/café"),
            ("/%ff%fe", "/\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(plain(path), read, "{path}");
            if plain(path) != path {
                assert!(!is_plain(path), "{path}");
            }
        }
        for path in ["/", "/app.js", "/a/b", "/.well-known/x"] {
            assert!(is_plain(path), "{path}");
        }
    }
}
