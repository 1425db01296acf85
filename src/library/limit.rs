//! A rate limit of an application's own.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use super::{Error, Session};
use crate::limit::{OwnName, Quota, Subject};

/// A limit that is about to be asked: await it. See [`Session::limit`].
#[must_use = "it is asked when it is awaited"]
pub struct Limit<'s> {
    session: &'s Session,
    /// Errors: a mistake in the handler.
    policy: Result<(OwnName, Quota), &'static str>,
    subject: Subject,
    cost: u32,
}

/// What is left of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// The most in one window.
    pub limit: u32,
    /// What is left now.
    pub remaining: u32,
    /// How long until there is more.
    pub reset: Duration,
}

impl<'s> Limit<'s> {
    pub(super) fn new(session: &'s Session, name: &str, quota: &str) -> Self {
        const FORM: &str =
            "a limit is COUNT/WINDOW, like \"20/1m\", with a count from 1 and a window from 1s to 31d";
        let policy = name.parse().and_then(|name| Ok((name, quota.parse().map_err(|_| FORM)?)));
        Self { subject: session.subject(), session, policy, cost: 1 }
    }

    /// Takes so much of the quota, all or nothing: 1 if this is not called. 0 only looks; more than the quota is always refused.
    pub fn cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    /// Only looks at what is left: takes nothing, and is never refused.
    pub fn peek(self) -> Self {
        self.cost(0)
    }

    /// Counts all sessions of the user together; without a user it is by session.
    pub fn by_user(self) -> Self {
        let subject = self.session.user().map(|user| Subject::User(user.tag()));
        Self { subject: subject.unwrap_or(self.subject), ..self }
    }

    /// Counts all requests from the client's address together; of IPv6 the /64 network.
    pub fn by_address(self) -> Self {
        Self { subject: self.session.address(), ..self }
    }

    /// Counts all requests together that say this: a tenant, an API key. It is stored as a hash.
    pub fn by(self, text: &str) -> Self {
        Self { subject: Subject::named(text), ..self }
    }

    async fn ask(self) -> Result<Allowance, Error> {
        let mistake = |fault| Error::mistake(format!("Session::limit: {fault}"));
        let (name, quota) = self.policy.map_err(mistake)?;
        self.session.ask_limit(name, quota, self.subject, self.cost).await
    }
}

impl<'s> IntoFuture for Limit<'s> {
    type Output = Result<Allowance, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + 's>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}
