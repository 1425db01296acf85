//! Rate limits: exact sliding windows, counted in the first call that a request makes to the store.
//!
//! A [`Policy`] is a quota with a name; a [`RateLimiter`] holds those that apply to one request; a `Window` judges; the
//! [`CountingStore`] counts. What an isolate remembers, its [`Memory`], saves calls for callers known to be over a limit.
//! An application's own limits ([`RateLimiter::add_own`]) are counted in the same way, but refuse no request: it asks them.
//! [`LargeBodies`] limits something else: how many bytes of request bodies an isolate holds at once.

mod counting_store;
mod fields;
mod large_bodies;
mod memory;
mod own_name;
mod quota;
mod rate_limiter;
mod route;
mod script;
mod subject;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use self::script::{Counting, counted, counted_by_rank};
pub use self::{
    counting_store::CountingStore,
    large_bodies::{ASK_EVERY, LONGEST_WAIT, LargeBodies, Place},
    memory::{Memory, apply_corrections},
    own_name::OwnName,
    quota::Quota,
    rate_limiter::{Asked, OwnState, RateLimiter, Refusal},
    route::{By, Pattern},
    subject::Subject,
};

use crate::{
    http::{Problem, Request},
    ticket::{Ticket, UserTag},
};

/// The limits of one deployment.
#[derive(Debug, Default)]
pub struct Limits {
    /// Per session.
    pub session: Option<Quota>,
    /// Per logged-in user.
    pub user: Option<Quota>,
    /// Per client address, also without a session.
    pub ip: Option<Quota>,
    /// Sessions begun per client address.
    pub mint: Option<Quota>,
    /// Failed logins per account, and ten times as many per address.
    pub login: Option<Quota>,
    /// For some paths, the most specific first.
    pub routes: Vec<RouteLimit>,
    /// Whether requests pass uncounted when the store fails.
    pub fails_open: bool,
}

/// A limit for the requests that a pattern matches.
#[derive(Debug)]
pub struct RouteLimit {
    /// Which requests.
    pub pattern: Pattern,
    /// The pattern, as it is written in keys and fields.
    pub name: String,
    /// How many.
    pub quota: Quota,
    /// Whose requests are counted together.
    pub by: By,
}

impl Limits {
    /// Adds the limits that apply to a request, by its ticket, its address and its path.
    pub fn apply(&self, limiter: &RateLimiter<'_>, request: &Request<'_>, ticket: Option<&Ticket>) {
        if self.ip.is_some() {
            limiter.add("ip", self.ip, Subject::address(&request.client_address()));
        }
        self.apply_address_route(limiter, request);
        self.apply_ticket(limiter, request, ticket);
    }

    /// Adds the limit of the request's path alone.
    pub fn apply_route(&self, limiter: &RateLimiter<'_>, request: &Request<'_>, ticket: Option<&Ticket>) {
        self.apply_address_route(limiter, request);
        self.apply_ticket_route(limiter, request, ticket);
    }

    /// The same for a request that another site's page makes the visitor's browser send, or that says so: it uses up nobody's
    /// limit, and is not without one.
    pub fn apply_foreign_route(&self, limiter: &RateLimiter<'_>, request: &Request<'_>) {
        if let Some(route) = self.route(request) {
            let subject = Subject::foreign(&request.client_address());
            limiter.add(route.name.clone(), Some(route.quota), subject);
        }
    }

    fn apply_address_route(&self, limiter: &RateLimiter<'_>, request: &Request<'_>) {
        if let Some(route) = self.route(request).filter(|route| route.by == By::Ip) {
            limiter.add(route.name.clone(), Some(route.quota), Subject::address(&request.client_address()));
        }
    }

    /// Adds those that depend on the user of an application's session, once it was read.
    pub fn apply_user(
        &self,
        limiter: &RateLimiter<'_>,
        request: &Request<'_>,
        ticket: &Ticket,
        user: Option<UserTag>,
    ) {
        let user = user.map(Subject::User);
        if let Some(user) = user {
            limiter.add("user", self.user, user);
        }
        if let Some(route) = self.route(request).filter(|route| route.by == By::User) {
            let subject = user.unwrap_or(Subject::Session(ticket.family.origin()));
            limiter.add(route.name.clone(), Some(route.quota), subject);
        }
    }

    /// Adds those that depend on the ticket. Without one, requests that are limited by session or user count by address,
    /// so that nobody gains by dropping the cookie.
    pub fn apply_ticket(&self, limiter: &RateLimiter<'_>, request: &Request<'_>, ticket: Option<&Ticket>) {
        let session = ticket.map(|ticket| Subject::Session(ticket.family.origin()));
        let user = ticket.and_then(|ticket| ticket.user).map(Subject::User);
        if let Some(session) = session {
            limiter.add("session", self.session, session);
        }
        if let Some(user) = user {
            limiter.add("user", self.user, user);
        }
        self.apply_ticket_route(limiter, request, ticket);
    }

    fn apply_ticket_route(&self, limiter: &RateLimiter<'_>, request: &Request<'_>, ticket: Option<&Ticket>) {
        let session = ticket.map(|ticket| Subject::Session(ticket.family.origin()));
        let user = ticket.and_then(|ticket| ticket.user).map(Subject::User);
        // Whose an application's session is shows when it was read: see `apply_user`.
        let is_known = |by: By| by != By::User || ticket.is_none_or(|ticket| ticket.foreign.is_none());
        if let Some(RouteLimit { name, quota, by, .. }) =
            self.route(request).filter(|route| route.by != By::Ip && is_known(route.by))
        {
            let subject = if *by == By::User { user.or(session) } else { session };
            let subject = subject.unwrap_or_else(|| Subject::address(&request.client_address()));
            limiter.add(name.clone(), Some(*quota), subject);
        }
    }

    /// Whether a request that is counted by this ticket can only be counted once its session was read: by the user, whom only
    /// the record of another application's session names.
    pub fn needs_user(&self, request: &Request<'_>, ticket: Option<&Ticket>) -> bool {
        self.route_by(request) == Some(By::User) && ticket.is_some_and(|ticket| ticket.foreign.is_some())
    }

    /// Whose requests are counted together by the limit of the request's path, if that has one.
    pub fn route_by(&self, request: &Request<'_>) -> Option<By> {
        self.route(request).map(|route| route.by)
    }

    /// Whether the request has the same limit of its own, or none, if its path is read in another way.
    pub fn is_same_route(&self, request: &Request<'_>, read: impl Fn(&str) -> String) -> bool {
        let path = read(request.path());
        let position =
            |is_one: &dyn Fn(&Pattern) -> bool| self.routes.iter().position(|route| is_one(&route.pattern));
        position(&|pattern| pattern.matches(request.method, request.path()))
            == position(&|pattern| pattern.read_as(&read).matches(request.method, &path))
    }

    /// The limit of the most specific pattern that the request matches.
    fn route(&self, request: &Request<'_>) -> Option<&RouteLimit> {
        self.routes.iter().find(|route| route.pattern.matches(request.method, request.path()))
    }

    /// Adds the limits of an attempt to log in: that of `who` tries, which is the account or, for its owner, a known device
    /// or a live session; and, ten times as large, the address's.
    pub fn apply_login(&self, limiter: &RateLimiter<'_>, who: Subject, address: Subject) {
        limiter.add(LOGIN, self.login, who);
        self.apply_login_address(limiter, address);
    }

    /// Adds that of the address alone: of an attempt that names no account.
    pub fn apply_login_address(&self, limiter: &RateLimiter<'_>, address: Subject) {
        limiter.add(LOGIN_ADDRESS, self.login.map(|quota| quota.times(10)), address);
    }

    /// The device is not known after all: the attempt counts as the account's instead.
    pub fn apply_login_to_account(&self, limiter: &RateLimiter<'_>, account: Subject) {
        limiter.withdraw(LOGIN);
        limiter.add(LOGIN, self.login, account);
    }
}

const LOGIN: &str = "login";
const LOGIN_ADDRESS: &str = "login-address";

/// The limits that [`Limits::apply_login`] adds, which count failures: a success gives back what the attempt took.
pub const LOGIN_LIMITS: &[&str] = &[LOGIN, LOGIN_ADDRESS];

/// Over the platform's own limit. It does not say for how long; its longest window is a minute.
pub fn over_platform_limit() -> Problem {
    Problem::rate_limited("too many requests from this address; try again in 60 s", 60)
}

/// One limit, as callers know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy<'a> {
    /// `session`, `user`, `ip`, `mint`, `login`, `login-address`, a route's pattern, or the name of an application's own.
    pub name: &'a str,
    /// How much.
    pub quota: Quota,
}
