//! Preconditions: `If-Match` and `If-None-Match` (RFC 9110 section 13).
//!
//! Both compare with the current state's ETag, which is strong. `If-Match` compares strongly, so a tag that a proxy has
//! made weak (`W/"…"`) or given a suffix (`"…-gzip"`) never matches; `If-None-Match` weakly, so of these the weak one does.

use std::fmt;

use super::{Request, Response};

/// The conditions of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// A condition that does not hold: 412. Its text is for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// `If-Match` names another state.
    Changed,
    /// `If-Match` has the current tag, made weak.
    Weakened,
    /// `If-Match`, and there is no state at all.
    Missing,
    /// `If-None-Match: *`, and there is a state.
    Exists,
    /// `If-None-Match` names the current state.
    Unchanged,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => {
                "If-Match does not match the current ETag: read it again, then repeat the change"
            }
            Self::Weakened => {
                "If-Match compares strong ETags only, and this one is weak (W/): a proxy has changed it, \
                 usually by compressing the answer"
            }
            Self::Missing => "there is nothing yet that If-Match could match: leave it out to create it",
            Self::Exists => "If-None-Match: * asks that nothing is there yet, but something is",
            Self::Unchanged => "If-None-Match names the current ETag",
        })
    }
}

impl std::error::Error for Failed {}

impl Preconditions {
    /// Of this request.
    pub fn of(request: &Request<'_>) -> Self {
        Self {
            if_match: Tags::parse(&request.header("if-match")),
            if_none_match: Tags::parse(&request.header("if-none-match")),
        }
    }

    /// Whether a change may be made to the state with this ETag; `None` when there is no state (section 13.2.2).
    pub fn check(&self, etag: Option<&str>) -> Result<(), Failed> {
        self.check_if_match(etag)?;
        match (&self.if_none_match, etag) {
            (Some(tags), Some(etag)) if tags.match_weakly(etag) => {
                Err(if tags.has_any { Failed::Exists } else { Failed::Unchanged })
            }
            _ => Ok(()),
        }
    }

    /// The answer to a read: 304 without a body if `If-None-Match` names the ETag of `response`, which has none when
    /// there is no state. What else a 304 has to repeat stands on every answer.
    pub fn answer(&self, response: Response) -> Result<Response, Failed> {
        let etag = response.headers.iter().find(|(name, _)| *name == "ETag").map(|(_, value)| value.clone());
        match self.check(etag.as_deref()) {
            Ok(()) => Ok(response),
            Err(Failed::Exists | Failed::Unchanged) => {
                Ok(etag.into_iter().fold(Response::new(304), |response, etag| response.header("ETag", etag)))
            }
            Err(failed) => Err(failed),
        }
    }

    fn check_if_match(&self, etag: Option<&str>) -> Result<(), Failed> {
        match (&self.if_match, etag) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Failed::Missing),
            (Some(tags), Some(etag)) if tags.match_strongly(etag) => Ok(()),
            (Some(tags), Some(etag)) if tags.match_weakly(etag) => Err(Failed::Weakened),
            (Some(_), Some(_)) => Err(Failed::Changed),
        }
    }
}

/// The value of one of the two headers.
#[derive(Debug, PartialEq, Eq)]
struct Tags {
    /// `*`: any state.
    has_any: bool,
    /// Quotes and `W/` included.
    tags: Vec<String>,
}

impl Tags {
    /// `None` when the header is not there or empty. A `*` among others counts, too: a client that says "only if there is
    /// nothing" twice still means it.
    fn parse(header: &str) -> Option<Self> {
        if header.trim().is_empty() {
            return None;
        }
        // Our own tags hold no commas, so splitting others' at theirs does no harm.
        let tags: Vec<String> = header.split(',').map(|tag| tag.trim().to_owned()).collect();
        Some(Self { has_any: tags.iter().any(|tag| tag == "*"), tags })
    }

    fn match_strongly(&self, etag: &str) -> bool {
        self.has_any || self.tags.iter().any(|tag| tag == etag)
    }

    fn match_weakly(&self, etag: &str) -> bool {
        let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == etag;
        self.has_any || self.tags.iter().any(|tag| opaque(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Body;

    const CURRENT: &str = "\"a\"";

    fn preconditions(if_match: &str, if_none_match: &str) -> Preconditions {
        let headers = [("if-match", if_match), ("if-none-match", if_none_match)];
        Preconditions::of(&Request::new("PATCH", "https://a.example/", headers, Body::None))
    }

    #[test]
    fn if_match_compares_strongly() {
        for (header, outcome) in [
            ("", Ok(())),
            ("*", Ok(())),
            (CURRENT, Ok(())),
            (" \"b\" , \"a\" ", Ok(())),
            ("\"b\"", Err(Failed::Changed)),
            ("\"a-gzip\"", Err(Failed::Changed)),
            ("a", Err(Failed::Changed)),
            (",", Err(Failed::Changed)),
            ("W/\"a\"", Err(Failed::Weakened)),
            ("\"b\", W/\"a\"", Err(Failed::Weakened)),
            ("w/\"a\"", Err(Failed::Changed)),
        ] {
            assert_eq!(preconditions(header, "").check(Some(CURRENT)), outcome, "{header}");
            let without = if header.is_empty() { Ok(()) } else { Err(Failed::Missing) };
            assert_eq!(preconditions(header, "").check(None), without, "{header}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (header, outcome) in [
            ("", Ok(())),
            ("*", Err(Failed::Exists)),
            ("*, *", Err(Failed::Exists)),
            (CURRENT, Err(Failed::Unchanged)),
            ("W/\"a\"", Err(Failed::Unchanged)),
            ("\"b\",W/\"a\"", Err(Failed::Unchanged)),
            ("\"b\"", Ok(())),
            ("\"a-gzip\"", Ok(())),
            ("\"*\"", Ok(())),
            ("a", Ok(())),
        ] {
            assert_eq!(preconditions("", header).check(Some(CURRENT)), outcome, "{header}");
            assert_eq!(preconditions("", header).check(None), Ok(()), "{header}");
        }
    }

    #[test]
    fn a_read_is_answered_304_only_after_if_match_holds() {
        let answer = |if_match, if_none_match, etag: Option<&'static str>| {
            let response = Response { body: "{}".to_owned(), ..Response::new(200) };
            let response = etag.into_iter().fold(response, |response, etag| response.header("ETag", etag));
            preconditions(if_match, if_none_match).answer(response).map(|response| response.status)
        };
        for (if_match, if_none_match, status) in [
            ("", "", Ok(200)),
            ("", CURRENT, Ok(304)),
            ("", "*", Ok(304)),
            ("", "\"b\"", Ok(200)),
            (CURRENT, CURRENT, Ok(304)),
            (CURRENT, "\"b\"", Ok(200)),
            ("\"b\"", CURRENT, Err(Failed::Changed)),
        ] {
            assert_eq!(answer(if_match, if_none_match, Some(CURRENT)), status, "{if_match} {if_none_match}");
        }
        assert_eq!(answer("", "*", None), Ok(200));
        assert_eq!(answer("*", "", None), Err(Failed::Missing));
    }

    #[test]
    fn a_304_has_the_etag_and_no_body() {
        let response = Response::json(&"x").header("ETag", CURRENT);
        let response = preconditions("", CURRENT).answer(response).expect("an answer");
        assert_eq!(response, Response::new(304).header("ETag", CURRENT));
    }
}
