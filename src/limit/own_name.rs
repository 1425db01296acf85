//! The name of an application's own limit.

use std::str::FromStr;

/// Names of ours. An application's limit of the same name would be taken for it in the fields of responses.
const RESERVED: [&str; 7] = ["session", "user", "ip", "mint", "login", "login-address", "rotate"];

const MAX_LENGTH: usize = 64;

/// The name of an application's own limit, in keys and in fields of responses: 1 to 64 letters, digits, `-`, `_`, `.`, `/`,
/// a letter or digit first, so that it is no path of `limits.routes`, and none that this crate uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnName(String);

impl From<OwnName> for String {
    fn from(OwnName(name): OwnName) -> Self {
        name
    }
}

/// Errors: what is wrong, for whoever wrote the name.
impl FromStr for OwnName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "the name of a limit is 1 to 64 ASCII letters, digits, \"-\", \"_\", \".\" or \"/\", and begins \
                            with a letter or a digit, like \"search\" or \"mail/invite\"";
        const TAKEN: &str = "session, user, ip, mint, login, login-address and rotate are limits of Cloakroom itself: give \
                             the limit another name";
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if name.len() > MAX_LENGTH
            || !name.starts_with(|first: char| first.is_ascii_alphanumeric())
            || !name.bytes().all(is_allowed)
        {
            return Err(FORM);
        }
        if RESERVED.contains(&name) { Err(TAKEN) } else { Ok(Self(name.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain_and_none_of_ours() {
        let longest = "n".repeat(MAX_LENGTH);
        for name in ["search", "mail/invite", "2fa.sms_v-1", "Session", "session2", "own", longest.as_str()] {
            assert_eq!(name.parse::<OwnName>().map(String::from).as_deref(), Ok(name));
        }
        let too_long = "n".repeat(MAX_LENGTH + 1);
        for name in [
            "",
            "/search",
            "-a",
            ".a",
            "a b",
            "a:b",
            "a\"b",
            "a\\b",
            "a*",
            "é",
            "a\n",
            "a,b",
            too_long.as_str(),
        ] {
            let refused = name.parse::<OwnName>().expect_err(name);
            assert!(refused.contains("letters, digits"), "{name}");
        }
        for name in RESERVED {
            let refused = name.parse::<OwnName>().expect_err(name);
            assert!(refused.contains(name) && refused.contains("another name"), "{name}");
        }
    }
}
