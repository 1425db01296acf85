//! Whose requests are counted together.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use sha2::{Digest, Sha256};

use crate::{base64url, id::Origin, ticket::UserTag};

/// Who has a quota. Prints as in the counter's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A session, through all its rotations and renewed logins.
    Session(Origin),
    /// A user.
    User(UserTag),
    /// An account, by its name, whether it exists or not.
    Account([u8; 16]),
    /// A device from which an account was logged in to before: the account, its password then, and one of its slots.
    Device([u8; 16], [u8; 12], u8),
    /// A client's address; of IPv6 the /64 network, which is what one subscriber has.
    Address(IpAddr),
    /// Whatever an application counts by, from [`Subject::named`].
    Named([u8; 16]),
    /// The address of a client whose browser is made to ask by pages of other sites.
    Foreign(IpAddr),
    /// All clients whose address is not known: their requests do not come through Cloudflare.
    Unknown,
}

impl Subject {
    /// From the client's address.
    pub fn address(text: &str) -> Self {
        let Ok(address) = text.parse::<IpAddr>() else { return Self::Unknown };
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
            address => address,
        })
    }

    /// The same for requests that pages of other sites make the client's browser send: they use up nobody's limit.
    pub fn foreign(text: &str) -> Self {
        match Self::address(text) {
            Self::Address(address) => Self::Foreign(address),
            other => other,
        }
    }

    /// From an application's own text, of any length. Only its hash is kept.
    pub fn named(text: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(text).into();
        let [name @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = hash;
        Self::Named(name)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(origin) => base64url::write(origin, f),
            Self::User(tag) | Self::Account(tag) => base64url::write(tag, f),
            Self::Device(account, password, slot) => {
                base64url::write(account, f)?;
                f.write_str(".")?;
                base64url::write(password, f)?;
                write!(f, ".{slot}")
            }
            Self::Address(address) => address.fmt(f),
            // Never that of a user or a session, whatever the text is.
            Self::Named(name) => {
                f.write_str("text.")?;
                base64url::write(name, f)
            }
            Self::Foreign(address) => write!(f, "cross-site.{address}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_s_text_is_a_subject_by_its_hash() {
        let alice = Subject::named("alice@example.com");
        assert_eq!(alice.to_string(), "text._42YGfwOEr8NJIkuRZh-JA");
        assert_ne!(alice, Subject::named("alice@example.com "));
        for text in ["", "unknown", "203.0.113.5", &"long".repeat(10_000)] {
            assert_eq!(Subject::named(text).to_string().len(), "text.".len() + 22, "{text}");
        }
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_subject() {
        for (one, other, is_same) in [
            ("203.0.113.5", "203.0.113.5", true),
            ("203.0.113.5", "203.0.113.6", false),
            ("::ffff:203.0.113.5", "203.0.113.5", true),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("", "garbage", true),
        ] {
            assert_eq!(Subject::address(one) == Subject::address(other), is_same, "{one} {other}");
        }
        assert_eq!(Subject::address("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::");
    }
}
