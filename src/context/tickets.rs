//! The tickets that came with a request, and which of them counts.

use std::cell::Cell;

use super::Context;
use crate::{
    app::App,
    host::Host,
    http::Request,
    ticket::{Rejected, Ticket, Verified},
    time::Time,
};

/// How many dead tickets of one request are looked at: each costs a call, until this isolate knows that it is dead.
const MAX_DEAD_TICKETS: usize = 8;

/// What the request's cookies hold. There may be several of our name: of another path, or set by another host of the domain.
#[derive(Default)]
pub(super) struct Tickets<'a> {
    /// The verified tickets that may lead to a session, the latest first.
    pub(super) verified: Vec<Verified<'a>>,
    /// Whether there are others, which do not.
    pub(super) has_useless: bool,
    /// Whether one is under an unknown key.
    pub(super) has_unknown_key: bool,
    /// Which of the tickets counts: those before it have turned out to be dead.
    current: Cell<usize>,
    /// How many of those before it have led to sessions, which the request has ended.
    passed: Cell<usize>,
}

impl<'a, H: Host> Context<'a, H> {
    /// The ticket that counts, if there is one.
    pub fn presented(&self) -> Option<&Verified<'a>> {
        let dead = self.tickets.current.get() - self.tickets.passed.get();
        self.tickets.verified.get(self.tickets.current.get()).filter(|_| dead < MAX_DEAD_TICKETS)
    }

    /// Whether there are tickets that are not looked at: behind too many dead ones.
    pub(super) fn has_unread_tickets(&self) -> bool {
        self.presented().is_none() && self.tickets.current.get() < self.tickets.verified.len()
    }

    /// The session of the ticket that counts has ended: it uses up nobody's limit, and the next one counts.
    pub fn dismiss_ticket(&self) {
        self.tickets.current.set(self.tickets.current.get() + 1);
        if self.tickets.passed.get() > 0 {
            return;
        }
        let ticket = self.presented().map(|presented| &presented.ticket);
        self.store.limiter.withdraw_ticket();
        self.app.config.limits.apply_ticket(&self.store.limiter, &self.request, ticket);
    }

    /// This request has ended the session of the ticket that counts, and stays counted for it. The next ticket is looked at.
    pub fn pass_ticket(&self) {
        self.tickets.passed.set(self.tickets.passed.get() + 1);
        self.tickets.current.set(self.tickets.current.get() + 1);
    }
}

/// The tickets that came with the request: without those that are known to be dead.
pub(super) fn find_tickets<'a, H: Host>(app: &'a App<H>, request: &Request<'_>, now: Time) -> Tickets<'a> {
    let (mut tickets, cookie, header) = (Tickets::default(), &app.config.cookie, request.cookie());
    let values: [Vec<_>; 2] =
        [cookie.values(header).collect(), cookie.values_of_joined_lines(header).collect()];
    for values in values {
        let mut latest_first = Vec::new();
        for value in values {
            match Ticket::open(value, &app.config.keyring, now) {
                Ok(found) if app.isolate.is_dead(&found.ticket.id.handle()) => tickets.has_useless = true,
                Ok(found) => {
                    let is_later = |other: &Verified<'_>| other.ticket.issued >= found.ticket.issued;
                    latest_first.insert(latest_first.partition_point(is_later), found);
                }
                Err(Rejected::UnknownKey) => tickets.has_unknown_key = true,
                Err(_) => tickets.has_useless = true,
            }
        }
        tickets.verified.append(&mut latest_first);
    }
    if tickets.has_unknown_key && app.isolate.is_first_unknown_key() {
        app.host.log(&"a ticket is signed with a secret that SESSION_SECRET does not hold: if one is being replaced, add the \
            new one behind the old one in every isolate first, and only then put it in front");
    }
    tickets
}
