//! A response as plain values.

use std::borrow::Cow;

use serde::Serialize;

/// How long caches may keep what is the same for everybody.
pub(crate) const CACHEABLE: &str = "public, max-age=3600";

/// A response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, in order; a name may occur twice.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body; empty for none.
    pub body: String,
}

impl Response {
    /// A response with no headers and no body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::with_capacity(12), body: String::new() }
    }

    /// 204: done, and nothing to say.
    pub fn no_content() -> Self {
        Self::new(204)
    }

    /// 200 with a value as JSON.
    pub fn json(value: &impl Serialize) -> Self {
        // Fails only for maps whose keys are no strings, which no answer has.
        let body = serde_json::to_string(value).unwrap_or_default();
        Self { body, ..Self::new(200) }.header("Content-Type", "application/json")
    }

    /// The same with another status.
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The same with another media type.
    pub fn media_type(mut self, media_type: &'static str) -> Self {
        self.headers.retain(|(name, _)| *name != "Content-Type");
        self.header("Content-Type", media_type)
    }

    /// As every response of ours leaves: no cache may keep it, no proxy change it, no browser guess its type.
    pub fn uncacheable(self) -> Self {
        self.header("Cache-Control", "no-store, no-transform").header("X-Content-Type-Options", "nosniff")
    }

    /// As what is the same for everybody leaves: any cache may keep it for an hour.
    pub fn cacheable(self) -> Self {
        self.header("Cache-Control", CACHEABLE).header("X-Content-Type-Options", "nosniff")
    }

    /// Whether it is [`Response::cacheable`].
    pub fn is_cacheable(&self) -> bool {
        self.headers.iter().any(|(name, value)| *name == "Cache-Control" && value == CACHEABLE)
    }

    /// The same without this header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| *own != name);
        self
    }

    /// The same with one header more. A value that could end the header's line is left out: none of ours does.
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
