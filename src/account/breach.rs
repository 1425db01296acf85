//! Whether a password is known from a breach, asked of a service without telling it the password: a range query by
//! k-anonymity. Have I Been Pwned has the form: <https://haveibeenpwned.com/API/v3#PwnedPasswords>.

use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::{
    host::{Document, Host, Query},
    http::cors::is_safe_origin,
    isolate::Isolate,
    log::{self, Line},
};

/// How long a visitor waits for the service.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The longest answer that is read. Those of Have I Been Pwned have some 40 KB.
const MAX_ANSWER: usize = 256 * 1024;

/// How many hexadecimal digits of the hash the service learns. About a thousand passwords share them.
const PREFIX: usize = 5;

/// A service that knows breached passwords.
#[derive(Debug)]
pub struct BreachCheck {
    /// What stands before the digits.
    url: String,
}

impl BreachCheck {
    /// From the setting, which is not empty. The error says what it takes.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WHAT: &str = "the URL before the digits, like \"https://api.pwnedpasswords.com/range/\" (http:// for this machine \
            alone), or \"\" for none";
        let start = text.find("://").map_or(0, |at| at + 3);
        let end = text.get(start..).and_then(|rest| rest.find('/')).map_or(text.len(), |at| start + at);
        let (origin, path) = text.split_at_checked(end).ok_or(WHAT)?;
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\\\"<>".contains(&byte));
        if !is_safe_origin(origin) || !is_plain {
            return Err(WHAT);
        }
        let separator = if path.ends_with(['/', '=']) { "" } else { "/" };
        Ok(Self { url: [text, separator].concat() })
    }

    /// Whether the service knows the password. If it does not answer as it should, the password passes; the operator is told
    /// once, and again if it fails after it had worked.
    pub async fn is_breached(&self, password: &str, host: &impl Host, isolate: &Isolate) -> bool {
        let hash = hash(password);
        let Some((prefix, suffix)) = hash.split_at_checked(PREFIX) else { return false };
        let answer = host
            .ask(Query {
                url: [&self.url, prefix].concat(),
                // The length of an answer tells nothing either.
                headers: vec![("Add-Padding", "true".to_owned())],
                form: None,
                timeout: TIMEOUT,
                max_bytes: MAX_ANSWER,
            })
            .await;
        let outcome = match answer {
            Err(_) => Err("it did not answer within a second"),
            Ok(Document { status: 200, text: Some(text), .. }) => find(&text, suffix),
            Ok(Document { status: 200, text: None, .. }) => Err("its answer is too long"),
            Ok(_) => Err("it answered with another status than 200"),
        };
        let fault = outcome.as_ref().err();
        if let (true, Some(fault)) = (isolate.breach_check_fails(fault.is_some()), fault) {
            let message =
                format!("password.breach_check: {fault}; until it works, passwords are accepted without it");
            host.log(&Line::new(log::Event::BreachCheckFailed, message));
        }
        outcome.unwrap_or(false)
    }
}

/// SHA-1 in hexadecimal digits. It protects nothing here: it is what such services know passwords by.
fn hash(password: &str) -> String {
    Sha1::digest(password).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whether the rest of a hash is among the lines `REST:COUNT` of an answer. A count of 0 is padding. Errors: it has other
/// lines.
fn find(answer: &str, suffix: &str) -> Result<bool, &'static str> {
    const FAULT: &str = "its answer has another form than SUFFIX:COUNT in each line";
    let mut is_found = false;
    for line in answer.trim_start_matches('\u{feff}').lines().filter(|line| !line.is_empty()) {
        let (rest, count) = line.split_once(':').ok_or(FAULT)?;
        let is_rest = rest.len() == suffix.len() && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_rest || count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FAULT);
        }
        is_found |= rest.eq_ignore_ascii_case(suffix) && count.bytes().any(|digit| digit != b'0');
    }
    Ok(is_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-1 of "password", as of `printf password | sha1sum`.
    const SUFFIX: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    #[test]
    fn the_service_learns_five_digits_of_the_hash() {
        assert_eq!(hash("password").split_at(PREFIX), ("5BAA6", SUFFIX));
    }

    #[test]
    fn a_password_is_known_by_its_line_and_padding_says_nothing() {
        let other = "0".repeat(35);
        for (answer, expected) in [
            (format!("{SUFFIX}:3"), Some(true)),
            (format!("{other}:7\r\n{SUFFIX}:10434004\r\n"), Some(true)),
            (format!("{}:1\n", SUFFIX.to_lowercase()), Some(true)),
            (format!("{SUFFIX}:99999999999999999999999999"), Some(true)),
            (format!("{SUFFIX}:0\r\n{SUFFIX}:2"), Some(true)),
            (format!("{SUFFIX}:0"), Some(false)),
            (format!("{SUFFIX}:000"), Some(false)),
            (format!("{other}:7"), Some(false)),
            (String::new(), Some(false)),
            (SUFFIX.to_owned(), None),
            (format!("{SUFFIX}:"), None),
            (format!("{SUFFIX}:-1"), None),
            (format!("{SUFFIX}: 1"), None),
            (format!("5BAA6{SUFFIX}:1"), None),
            (format!("{}:1", "g".repeat(35)), None),
            (format!("{SUFFIX}:1\n<html>"), None),
            ("<html>\n<title>Too many requests</title>".to_owned(), None),
            (r#"{"error":"no"}"#.to_owned(), None),
        ] {
            assert_eq!(find(&answer, SUFFIX).ok(), expected, "{answer}");
        }
    }

    #[test]
    fn the_setting_is_a_url_to_which_digits_can_be_appended() {
        for (text, url) in [
            ("https://api.pwnedpasswords.com/range/", "https://api.pwnedpasswords.com/range/"),
            ("https://api.pwnedpasswords.com/range", "https://api.pwnedpasswords.com/range/"),
            ("https://pwned.example", "https://pwned.example/"),
            ("https://pwned.example/look?prefix=", "https://pwned.example/look?prefix="),
            ("http://127.0.0.1:8080/range/", "http://127.0.0.1:8080/range/"),
            ("http://[::1]:8080", "http://[::1]:8080/"),
        ] {
            assert_eq!(BreachCheck::parse(text).map(|check| check.url).as_deref(), Ok(url));
        }
        for text in [
            "http://pwned.example/range/",
            "pwned.example",
            "https://",
            "https:///range/",
            "https://user:secret@pwned.example/range/",
            "https://pwned.example/range/#",
            "https://pwned.example/a b/",
            "ftp://pwned.example/",
            "://",
            "/range/",
        ] {
            assert!(BreachCheck::parse(text).is_err(), "{text}");
        }
    }
}
