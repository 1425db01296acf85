//! A response as plain values.

use std::borrow::Cow;

/// A response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, in order; a name may stand twice.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body; empty for none.
    pub body: String,
}

impl Response {
    /// A response with no headers and no body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// JSON, status 200.
    pub fn json(body: String) -> Self {
        Self::new(200).body("application/json", body)
    }

    /// With a body.
    pub fn body(mut self, media_type: &'static str, body: String) -> Self {
        self.body = body;
        self.header("Content-Type", media_type)
    }

    /// As every response leaves: for nobody but the one who asked.
    pub fn not_for_caches(self) -> Self {
        self.header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff")
    }

    /// With a header more. A value that could end the header's line is left out: nothing of ours has one.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        if value.bytes().all(|byte| byte >= b' ' && byte != 0x7f) {
            self.headers.push((name, value));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_line_break_never_becomes_a_header() {
        for value in ["a\r\nSet-Cookie: x", "a\nb", "a\0"] {
            assert!(Response::new(200).header("X", value).headers.is_empty());
        }
    }
}
