//! How long a session lasts. Pure arithmetic; the store's time to live enforces it.

use std::time::Duration;

use crate::{ticket::Ticket, time::Time};

/// The lifetimes of `[vars.CLOAKROOM.session]`.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// A session ends after this long unused.
    pub idle: Duration,
    /// And this long after login, however busy.
    pub absolute: Duration,
    /// Both, for a "remember me" session.
    pub remember: Duration,
    /// At most one renewal of the time to live in this time.
    pub touch_every: Duration,
}

impl Lifetimes {
    /// Longer than any session lasts.
    pub fn longest(&self) -> Duration {
        self.absolute.max(self.remember) + Duration::from_secs(3600)
    }

    /// The absolute end of a session that begins now.
    pub fn end(&self, remember: bool, now: Time) -> Time {
        now + if remember { self.remember } else { self.absolute }
    }

    /// The time to live for a session that is used now.
    pub fn ttl(&self, ends: Time, remember: bool, now: Time) -> Duration {
        (ends - now).min(self.idle_for(remember))
    }

    /// Whether the time to live is to be renewed: the ticket says when that was last done.
    pub fn touch_due(&self, ticket: &Ticket, now: Time) -> bool {
        // With a short idle time, "once in touch_every" alone would end a session in use.
        now - ticket.issued >= self.touch_every.min(self.idle_for(ticket.remember) / 2)
    }

    /// When the session ends if it is not used any more.
    pub fn idle_end(&self, ticket: &Ticket) -> Time {
        // Its record says how long it lasts.
        if ticket.foreign.is_some() {
            return ticket.ends;
        }
        (ticket.issued + self.idle_for(ticket.remember)).min(ticket.ends)
    }

    fn idle_for(&self, remember: bool) -> Duration {
        if remember { self.remember } else { self.idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Family, Id};

    const MINUTE: u64 = 60_000;
    const NOW: Time = Time(1_767_225_600_000);

    fn lifetimes() -> Lifetimes {
        let minutes = |minutes| Duration::from_millis(minutes * MINUTE);
        Lifetimes {
            idle: minutes(30),
            absolute: minutes(600),
            remember: minutes(9000),
            touch_every: minutes(5),
        }
    }

    fn ticket(remember: bool, ends_in: u64) -> Ticket {
        let ends = Time(NOW.0 + ends_in * MINUTE);
        let (id, family) = (Id::from_bytes([0; 32]), Family([0; 9]));
        Ticket { id, issued: NOW, ends, remember, user: None, family, generation: 0, foreign: None }
    }

    #[test]
    fn a_session_ends_at_the_earlier_of_its_idle_and_its_absolute_end() {
        let idle_end = |ticket| (lifetimes().idle_end(&ticket) - NOW).as_secs() / 60;
        assert_eq!(idle_end(ticket(false, 600)), 30);
        assert_eq!(idle_end(ticket(false, 10)), 10);
        assert_eq!(idle_end(ticket(true, 9000)), 9000);
        let ttl = |ends_in, remember| lifetimes().ttl(Time(NOW.0 + ends_in), remember, NOW).as_millis();
        assert_eq!(ttl(600 * MINUTE, false), u128::from(30 * MINUTE));
        assert_eq!(ttl(10, false), 10);
        assert_eq!(ttl(600 * MINUTE, true), u128::from(600 * MINUTE));
    }

    #[test]
    fn a_touch_is_due_once_in_touch_every_and_always_before_the_idle_end() {
        let due = |lifetimes: Lifetimes, after| lifetimes.touch_due(&ticket(false, 600), Time(NOW.0 + after));
        assert!(!due(lifetimes(), 5 * MINUTE - 1));
        assert!(due(lifetimes(), 5 * MINUTE));
        let short = Lifetimes { idle: Duration::from_millis(MINUTE), ..lifetimes() };
        assert!(!due(short, MINUTE / 2 - 1));
        assert!(due(short, MINUTE / 2));
    }

    #[test]
    fn a_ticket_from_an_isolate_whose_clock_is_ahead_is_not_due() {
        assert!(!lifetimes().touch_due(&ticket(false, 600), Time(NOW.0 - 2000)));
    }
}
