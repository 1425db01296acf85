//! Rate limits: exact sliding windows, counted in the store call that reads the session.
//!
//! A [`Policy`] says how much of what; a [`Meter`] counts one request by those that apply to it; a
//! `Window` judges. What an isolate remembers, its [`Memory`], spares the store those it knows to be
//! over a limit.

mod fields;
mod memory;
mod meter;
mod quota;
mod route;
mod subject;
mod window;

pub use self::{
    memory::{Memory, tidy},
    meter::{Meter, Refusal},
    quota::Quota,
    route::{By, Pattern},
    subject::Subject,
};

use crate::{
    http::{Code, Problem, Request},
    ticket::Ticket,
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
    /// Which.
    pub pattern: Pattern,
    /// The pattern, as it stands in keys and fields.
    pub name: String,
    /// How many.
    pub quota: Quota,
    /// Of whom.
    pub by: By,
}

impl Limits {
    /// Says by which limits a request counts: what it carries, and where it comes from and goes to.
    pub fn apply<'a>(&'a self, meter: &mut Meter<'a>, request: &Request<'_>, ticket: Option<&Ticket>) {
        let address = || Subject::address(request.address);
        let session = ticket.map(|ticket| Subject::Session(ticket.lineage.family));
        let user = ticket.and_then(|ticket| ticket.user).map(Subject::User);
        if self.ip.is_some() {
            meter.add("ip", self.ip, address());
        }
        if let Some(session) = session {
            meter.add("session", self.session, session);
        }
        if let Some(user) = user {
            meter.add("user", self.user, user);
        }
        let route = self.routes.iter().find(|route| route.pattern.matches(request.method, request.path));
        if let Some(RouteLimit { name, quota, by, .. }) = route {
            let subject = match by {
                By::Session => session,
                By::User => user.or(session),
                By::Ip => None,
            };
            meter.add(name, Some(*quota), subject.unwrap_or_else(address));
        }
    }
}

impl Limits {
    /// An attempt to log in as `account` reserves one of its budget, and of the address's, which is ten times as large. A
    /// known device has a budget of its own instead.
    pub fn apply_login(
        &self,
        meter: &mut Meter<'_>,
        account: Subject,
        device: Option<Subject>,
        address: Subject,
    ) {
        match device {
            Some(device) => meter.add("login", self.login, device),
            None => {
                meter.add("login", self.login, account);
                meter.add("login-address", self.login.map(|quota| quota.times(10)), address);
            }
        }
    }
}

/// Cloudflare's own limit does not say how long it takes; its longest window is a minute.
pub fn over_the_edge_limit() -> Problem {
    let detail = "there are too many requests from this address; try again in 60 s";
    Problem::new(Code::RateLimited, detail).with_header("Retry-After", "60")
}

/// One limit as callers know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy<'a> {
    /// `session`, `user`, `ip`, `mint`, or a route's pattern.
    pub name: &'a str,
    /// How much.
    pub quota: Quota,
}
