//! The tickets that came with a request, and which of them counts.

use std::cell::Cell;

use super::Context;
use crate::{
    app::App,
    foreign::Accepted,
    host::Host,
    http::Request,
    log::{self, Line},
    session::OldCookie,
    ticket::{Rejected, Ticket, Verified},
    time::Time,
};

/// How many dead tickets of one request are looked at: each costs a call, until this isolate knows that it is dead.
pub(crate) const MAX_DEAD_TICKETS: usize = 8;

/// What the request's cookies hold, or its `Authorization`. There may be several cookies of our name: of another path, or set by
/// another host of the domain.
#[derive(Default)]
pub(super) struct Tickets<'a> {
    /// The verified tickets that may lead to a session, the latest first.
    pub(super) verified: Vec<Verified<'a>>,
    /// Whether there are others, which do not.
    pub(super) has_useless: bool,
    /// Whether one is under an unknown key.
    pub(super) has_unknown_key: bool,
    /// Whether an old cookie is.
    has_unknown_old: bool,
    /// Cookies of an application that is being replaced (`cookie.accept`). They count after all tickets.
    old: Vec<OldCookie<'a>>,
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

    /// What the request is counted by: the ticket that counts or, without one, what stands for an old cookie.
    pub(crate) fn counted_ticket(&self) -> Option<&Ticket> {
        let presented = self.presented().map(|presented| &presented.ticket);
        presented.or_else(|| self.tickets.old.first().map(|old| &old.name))
    }

    /// The tickets that came along, as many as are looked at.
    pub(super) fn carried_tickets(&self) -> Vec<Ticket> {
        self.tickets.verified.iter().take(MAX_DEAD_TICKETS).map(|verified| verified.ticket.clone()).collect()
    }

    /// Those of them that have turned out to be dead.
    pub(super) fn dead_tickets(&self) -> Vec<Ticket> {
        self.tickets
            .verified
            .iter()
            .take(self.tickets.current.get())
            .map(|verified| verified.ticket.clone())
            .collect()
    }

    /// The old cookies lead nowhere: they use up nobody's limit.
    pub(super) fn dismiss_old_cookies(&self) {
        self.store.limiter.withdraw_ticket();
        self.app.config.limits.apply_ticket(&self.store.limiter, &self.request, None);
    }

    /// The old cookies that came along.
    pub(super) fn old_cookies(&self) -> &[OldCookie<'a>] {
        &self.tickets.old
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
        self.store.limiter.withdraw_ticket();
        self.app.config.limits.apply_ticket(&self.store.limiter, &self.request, self.counted_ticket());
    }

    /// This request has ended the session of the ticket that counts, and stays counted for it. The next ticket is looked at.
    pub fn pass_ticket(&self) {
        self.tickets.passed.set(self.tickets.passed.get() + 1);
        self.tickets.current.set(self.tickets.current.get() + 1);
    }
}

/// The tickets that came with the request: without those that are known to be dead.
pub(super) fn find_tickets<'a, H: Host>(
    app: &'a App<H>,
    request: &Request<'_>,
    is_bearer: bool,
) -> Tickets<'a> {
    let mut tickets = Tickets::default();
    if is_bearer {
        // Whatever is no ticket is for somebody else.
        let bearer = request.bearer().filter(|text| Ticket::has_form(text));
        tickets.add(app, bearer.iter().map(String::as_str));
    } else {
        let (cookie, header) = (&app.config.cookie, request.cookie());
        tickets.add(app, cookie.values(header));
        tickets.add(app, cookie.values_of_joined_lines(header));
        let now = app.host.now();
        for accepted in app.config.session.formats.accepted_at(now) {
            let opened = accepted.cookie.values(header).map(|value| open_old(accepted, value, now));
            let old = opened.inspect(|old| tickets.has_unknown_old |= old.is_none()).flatten();
            tickets.old.extend(old.take(MAX_DEAD_TICKETS));
        }
    }
    if (tickets.has_unknown_key || tickets.has_unknown_old) && app.isolate.is_first_unknown_key() {
        let is_foreign = tickets.has_unknown_old || app.config.session.formats.own().is_some();
        let secrets = if is_foreign { "FORMAT_SECRETS" } else { "SESSION_SECRET" };
        let message = format!(
            "a ticket is signed with a secret that {secrets} does not hold: if one is being replaced, add the new one behind \
             the old one in every isolate first, and only then put it in front"
        );
        app.host.log(&Line::new(log::Event::UnknownSecret, message));
    }
    tickets
}

/// A cookie of an application that is being replaced; `None` if no secret of that one signed it.
pub(crate) fn open_old<'a>(accepted: &'a Accepted, value: &str, now: Time) -> Option<OldCookie<'a>> {
    let name = accepted.format.open(value, now)?;
    let sid = name.foreign.clone()?;
    Some(OldCookie { format: &accepted.format, sid, name })
}

impl<'a> Tickets<'a> {
    /// Adds the tickets of these values, behind those that are there, the latest first.
    fn add<'v, H: Host>(&mut self, app: &'a App<H>, values: impl Iterator<Item = &'v str>) {
        let (now, first) = (app.host.now(), self.verified.len());
        for value in values {
            match app.config.open_ticket(value, now) {
                Ok(found) if app.isolate.is_dead(&found.ticket.id.handle()) => self.has_useless = true,
                Ok(found) => {
                    let is_later = |other: &Verified<'_>| other.ticket.issued >= found.ticket.issued;
                    let added = self.verified.get(first..).unwrap_or_default();
                    self.verified.insert(first + added.partition_point(is_later), found);
                }
                Err(Rejected::UnknownKey) => self.has_unknown_key = true,
                Err(_) => self.has_useless = true,
            }
        }
    }
}
