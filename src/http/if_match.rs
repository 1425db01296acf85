//! `If-Match` (RFC 9110 section 13.1.1).

/// The condition of a request. Tags are compared strongly: a weak one never matches.
#[derive(Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// No condition.
    None,
    /// `*`: there must be a current state.
    Any,
    /// One of these tags, quotes included.
    OneOf(Vec<String>),
}

impl IfMatch {
    /// From the header's value; empty when there is none.
    pub fn parse(header: &str) -> Self {
        match header.trim() {
            "" => Self::None,
            "*" => Self::Any,
            // Our own tags hold no commas, so splitting others' at theirs does no harm.
            tags => Self::OneOf(tags.split(',').map(|tag| tag.trim().to_owned()).collect()),
        }
    }

    /// Whether the condition holds for the current state's `etag`; `None` when there is no state.
    pub fn holds(&self, etag: Option<&str>) -> bool {
        match (self, etag) {
            (Self::None, _) | (Self::Any, Some(_)) => true,
            (Self::OneOf(tags), Some(etag)) => tags.iter().any(|tag| tag == etag),
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_by_strong_comparison() {
        let holds = |header, etag| IfMatch::parse(header).holds(etag);
        let current = Some("\"a\"");
        for header in ["", "*", "\"a\"", " \"b\" , \"a\" "] {
            assert!(holds(header, current), "{header}");
        }
        for header in ["\"b\"", "W/\"a\"", "a", ","] {
            assert!(!holds(header, current), "{header}");
        }
        assert!(holds("", None));
        assert!(!holds("*", None) && !holds("\"a\"", None));
    }
}
