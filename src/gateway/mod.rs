//! The gateway: what is outside of `base_path` is passed on to an origin, once it is known who asks and that they may.
//!
//! Pure, as the rest: [`crate::app::App::admit`] decides, and says what the origin is told beside the request, which the
//! platform passes on ([`crate::platform`]). What the origin's answer says about the session
//! [`crate::app::App::carry_out`] does, before that answer is passed on. Bodies never come here.

mod admit;
mod changes;
mod headers;
pub(crate) mod jwt;
mod path;
mod settings;

use std::time::Duration;

pub(crate) use self::settings::settings;
pub use self::{
    admit::Admission,
    changes::{Added, Changes, Visitor},
    headers::{Pass, is_of_connection, is_ours, is_session_header},
};
use crate::{http::Method, limit::Pattern, provider::Provider};

/// The gateway of a deployment.
#[derive(Debug)]
pub struct Gateway {
    /// Where requests go.
    pub origin: Origin,
    /// What is passed on without looking at the session, and what the others need; the most specific first.
    entries: Vec<Entry>,
    /// How the origin is told who asks.
    identity: Identity,
    /// For whom the signed identity is; `None`: for the Worker's own origin, which is what an application behind a binding sees.
    audience: Option<String>,
    /// How long the origin may take until the first byte of its answer.
    pub timeout: Duration,
}

/// Where requests go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// To this scheme, host and port.
    Url(String),
    /// To the service binding `ORIGIN`.
    Binding,
}

/// Whether every server reads a path as it stands.
pub(crate) fn is_unambiguous(path: &str) -> bool {
    path::ambiguity(path).is_none()
}

/// How the origin is told who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Identity {
    /// Not at all.
    Nothing,
    /// In a header for each thing.
    Headers,
    /// Signed, in one header.
    Jwt,
    /// Both ways.
    Both,
}

/// What holds for some paths.
#[derive(Debug)]
struct Entry {
    pattern: Pattern,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Passed on without looking at the session.
    Public,
    Rule(Rule),
}

/// Who may ask for some paths.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    require: Require,
    /// The path that a navigation is sent to when nobody is logged in, or not recently enough.
    redirect: Option<String>,
}

/// What a rule demands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Require {
    /// Nothing: an exception below another rule.
    Nothing,
    /// A user.
    User,
    /// A user whose login was recent.
    Fresh,
    /// A user with this role.
    Role(String),
}

impl Gateway {
    /// What is wrong with the rules that send visitors straight to a provider. `keeps_sessions`: whether a visitor who comes from
    /// another site has their session.
    pub(crate) fn provider_faults(
        &self,
        base_path: &str,
        providers: &[Provider],
        keeps_sessions: bool,
    ) -> Vec<String> {
        let rules = self.entries.iter().filter_map(Entry::rule);
        let fault = |rule: &Rule| {
            let id = rule.provider(base_path)?;
            let provider = providers.iter().find(|provider| provider.id == id);
            let redirect = rule.redirect.as_deref().unwrap_or_default();
            let what = match provider {
                None => "there is no such provider in accounts.providers",
                Some(provider) if redirect.contains("fresh=1") && !provider.can_renew() => {
                    "fresh=1 needs OpenID Connect, and this provider speaks OAuth 2.0 alone: leave it out"
                }
                Some(_) if !keeps_sessions => {
                    "needs cookie.same_site = \"Lax\": who comes back from a provider has no \"Strict\" cookie, and would be \
                     sent there again and again"
                }
                Some(_) => return None,
            };
            Some(format!("CLOAKROOM.gateway.rules: on_refused = \"redirect:{redirect}\": {what}"))
        };
        rules.filter_map(fault).collect()
    }
}

impl Rule {
    /// The provider that a refused visitor is sent straight to, as `/auth/login/google`, if to one: its id.
    fn provider(&self, base_path: &str) -> Option<&str> {
        let path = self.redirect.as_deref()?.split('?').next()?;
        path.strip_prefix(base_path)?.strip_prefix("/login/")
    }
}

impl Entry {
    /// The rule, unless the path is public.
    fn rule(&self) -> Option<&Rule> {
        match &self.kind {
            Kind::Public => None,
            Kind::Rule(rule) => Some(rule),
        }
    }
}

impl Gateway {
    /// Whether the origin is told who asks.
    fn has_identity(&self) -> bool {
        self.identity != Identity::Nothing
    }

    /// Whether the origin is told in a way that it can verify.
    pub(crate) fn signs(&self) -> bool {
        matches!(self.identity, Identity::Jwt | Identity::Both)
    }

    /// What holds for a path.
    fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.pattern.matches(Method::Get, path))
    }

    /// Whether the same holds for a path as for what the most lenient of origins makes of it.
    fn is_same_entry(&self, path: &str) -> bool {
        let plain = path::plain(path);
        let position =
            |is_one: &dyn Fn(&Pattern) -> bool| self.entries.iter().position(|entry| is_one(&entry.pattern));
        position(&|pattern| pattern.matches(Method::Get, path))
            == position(&|pattern| pattern.read_as(path::plain).matches(Method::Get, &plain))
    }
}
