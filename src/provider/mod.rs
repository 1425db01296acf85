//! Logging in with others: OpenID Connect Core 1.0, and plain OAuth 2.0 (RFC 6749) as RFC 9700 wants it.
//!
//! A login is a round trip. [`Pending`] is what has to be remembered meanwhile, in a cookie of the visitor's; [`Client`] asks
//! the provider; [`Identity`] is who it says that the visitor is. Nothing here knows of sessions.

mod client;
mod id_token;
mod jose;
mod logout_token;
mod memory;
mod pending;
mod settings;
mod web;

use std::fmt;

pub(crate) use self::{
    client::Client,
    memory::Memory,
    pending::{LIFETIME, MAX_ROUTE, Pending, SLOTS},
    settings::settings,
    web::{Params, append_param, check_return_to},
};
use crate::{base64url, session::User, time::Time};

/// Where visitors can log in.
pub struct Provider {
    /// Its name in paths and user ids: lower-case letters, digits, dashes.
    pub id: String,
    /// Its name for people.
    pub name: String,
    client_id: String,
    client_secret: String,
    /// Separated by spaces, as they are sent.
    scopes: String,
    /// More parameters of the request to log in.
    params: Vec<(String, String)>,
    kind: Kind,
}

/// What it speaks.
#[derive(Debug)]
enum Kind {
    /// OpenID Connect; everything else is discovered.
    OpenId { issuer: String },
    /// OAuth 2.0, with a document that says who has logged in.
    OAuth2 {
        authorize_url: String,
        token_url: String,
        user_url: String,
        /// JSON Pointers (RFC 6901) into that document.
        subject: String,
        name: String,
    },
}

/// Shows nothing of the secret.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({}, {:?})", self.id, self.kind)
    }
}

/// The longest name of a provider, in characters.
const MAX_PROVIDER_ID: usize = 32;

/// The longest `sub`, in bytes (OpenID Connect Core section 2).
const MAX_SUBJECT: usize = 255;

impl Provider {
    /// Whether it can be asked to let a visitor log in anew, and says when they did.
    pub(crate) fn can_renew(&self) -> bool {
        matches!(self.kind, Kind::OpenId { .. })
    }

    /// What names a session at the provider here: nobody can tell its `sid` from that.
    fn session_name(&self, sid: &str) -> String {
        self.name_of("session", sid)
    }

    /// What names a logout token of the provider's, by its `jti`.
    pub(crate) fn token_name(&self, jti: &str) -> String {
        self.name_of("token", jti)
    }

    /// The same for what it does to a tied account.
    pub(crate) fn account_token_name(&self, jti: &str) -> String {
        self.name_of("account-token", jti)
    }

    fn name_of(&self, what: &str, value: &str) -> String {
        use sha2::{Digest, Sha256};
        let text = ["cloakroom provider ", what, " v1 ", &self.id, " ", value].concat();
        base64url::encode(Sha256::digest(text).get(..18).unwrap_or_default())
    }

    /// Whether it says who the user with this id is.
    pub(crate) fn is_of(&self, user_id: &str) -> bool {
        user_id.strip_prefix(&*self.id).is_some_and(|rest| rest.starts_with([':', '~']))
    }

    /// The user whom the provider calls `subject`: never anybody else's id, as no account's has a colon or a tilde. A subject
    /// that would make the id longer than ids are is hashed. `None` if it can be no subject.
    pub(crate) fn user(&self, subject: &str, name: Option<&str>) -> Option<User> {
        use sha2::{Digest, Sha256};
        if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
            return None;
        }
        let plain = [&*self.id, ":", subject].concat();
        let id = match plain.len() {
            0..=255 => plain,
            _ => [&*self.id, "~", &base64url::encode(&Sha256::digest(subject))].concat(),
        };
        let name: String =
            name.unwrap_or(subject).chars().filter(|character| !character.is_control()).collect();
        let end =
            (0..=name.len().min(crate::session::user::MAX_NAME)).rev().find(|at| name.is_char_boundary(*at));
        let name = name.get(..end.unwrap_or(0)).unwrap_or_default().trim();
        let name = if name.is_empty() { subject } else { name };
        Some(User { id, name: name.to_owned(), roles: Vec::new() })
    }
}

/// Who has logged in at a provider.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user.
    pub(crate) user: User,
    /// When they proved who they are, if the provider says so.
    pub(crate) auth_time: Option<Time>,
    /// The name of the session at the provider, if it tells one from another.
    pub(crate) session: Option<String>,
}

/// Why a visitor has not logged in. What it says to the operator names no value of the provider's or the visitor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// They do not want to, or may not.
    AccessDenied,
    /// The provider would have to ask them, and was told not to.
    LoginRequired,
    /// It is down, does not answer in time, or what it says about itself is of no use.
    Unavailable(&'static str),
    /// This browser has not begun this login, or too long ago, or it is over.
    InvalidState,
    /// What the provider says proves nothing.
    InvalidResponse(&'static str),
    /// Who they are there is tied to another account, or the account to somebody else there.
    AlreadyLinked,
    /// The login to the account was too long ago to tie anything to it.
    NotFresh,
}

impl Failure {
    /// As `login_error` has it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::LoginRequired => "login_required",
            Self::Unavailable(_) => "provider_unavailable",
            Self::InvalidState => "invalid_state",
            Self::InvalidResponse(_) => "invalid_response",
            Self::AlreadyLinked => "already_linked",
            Self::NotFresh => "reauthentication_required",
        }
    }

    /// What the operator should know.
    pub(crate) fn why(self) -> Option<&'static str> {
        match self {
            Self::Unavailable(why) | Self::InvalidResponse(why) => Some(why),
            _ => None,
        }
    }

    /// From the `error` that a provider sends the visitor back with (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6).
    pub(crate) fn from_error(error: &str) -> Self {
        match error {
            "access_denied" => Self::AccessDenied,
            "login_required" | "interaction_required" | "consent_required" | "account_selection_required" => {
                Self::LoginRequired
            }
            "server_error" | "temporarily_unavailable" => {
                Self::Unavailable("it sent the visitor back with server_error or temporarily_unavailable")
            }
            "invalid_scope" => Self::InvalidResponse("it refuses the scopes: change accounts.providers"),
            "unauthorized_client" => Self::InvalidResponse(
                "it does not let this client log visitors in: look at its settings there",
            ),
            _ => Self::InvalidResponse("it refused the request to log in"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn provider() -> Provider {
        Provider {
            id: "acme".to_owned(),
            name: "Acme".to_owned(),
            client_id: "client".to_owned(),
            client_secret: "a secret: 1+1".to_owned(),
            scopes: "openid profile".to_owned(),
            params: Vec::new(),
            kind: Kind::OpenId { issuer: "https://acme.example".to_owned() },
        }
    }

    #[test]
    fn the_client_secret_is_not_printed() {
        assert!(!format!("{:?}", provider()).contains("secret"));
    }

    #[test]
    fn a_user_is_the_provider_and_the_subject_and_never_another_s() {
        let id = |subject: &str| provider().user(subject, None).map(|user| user.id);
        assert_eq!(id("1234").as_deref(), Some("acme:1234"));
        assert_eq!(id("a:b c|é").as_deref(), Some("acme:a:b c|é"));
        assert_eq!(id(&"x".repeat(250)).map(|id| id.len()), Some(255));
        let (long, other) = (id(&"x".repeat(251)), id(&"x".repeat(252)));
        assert!(long.as_ref().is_some_and(|id| id.starts_with("acme~") && id.len() < 60) && long != other);
        for subject in ["", "a\nb", "a\0", "\u{7f}", &"x".repeat(256)] {
            assert_eq!(id(subject), None, "{subject:?}");
        }
    }

    #[test]
    fn a_session_at_a_provider_has_a_name_of_its_own_that_does_not_tell_its_sid() {
        let mut other = provider();
        other.id = "acme-2".to_owned();
        let names = [
            provider().session_name("08a5019c"),
            provider().session_name("08a5019d"),
            provider().token_name("08a5019c"),
            provider().account_token_name("08a5019c"),
            other.session_name("08a5019c"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() == 24 && !name.contains("08a5019"), "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_for_people_and_short_enough() {
        let name = |name| provider().user("1234", Some(name)).map(|user| user.name);
        for (given, shown) in [("Ada", "Ada"), (" Ada\n ", "Ada"), ("", "1234"), ("\t", "1234")] {
            assert_eq!(name(given).as_deref(), Some(shown));
        }
        let long = "é".repeat(200);
        assert_eq!(name(&long), Some("é".repeat(128)));
    }
}
