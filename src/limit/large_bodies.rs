//! Large request bodies (more than [`crate::http::SMALL_BODY`]): how many bytes of them an isolate holds at once.
//!
//! Whoever is about to receive a large body asks for a [`Place`], keeps it for as long as the body, and waits in order
//! if there is none. Nobody is woken: who waits asks again, as a Worker must not go on with one request from within
//! another. A place is given back when it is dropped. The future of a request that the platform has cut off is never
//! dropped, so what is too old to be true does not count.

use std::{cell::RefCell, time::Duration};

use super::Subject;
use crate::time::Time;

/// How many bytes there are places for.
const ROOM: usize = 4 * 1024 * 1024;

/// How many of these one address can have, so that nobody keeps all others out.
const ROOM_OF_ONE: usize = ROOM / 2;

/// How many can wait, and how many of them from one address.
const MAX_WAITING: usize = 64;
const MAX_WAITING_OF_ONE: usize = MAX_WAITING / 2;

/// How long one can wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often one who waits asks again.
pub const ASK_EVERY: Duration = Duration::from_millis(10);

/// Longer than any request takes.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// The places of one isolate.
#[derive(Debug, Default)]
pub struct LargeBodies {
    /// In the order in which they were asked for.
    entries: RefCell<Vec<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    bytes: usize,
    client: Subject,
    /// When it was asked for or, once it was, given.
    since: Time,
    is_given: bool,
}

/// A place, or one's position among those who wait for one.
#[derive(Debug)]
pub struct Place<'a> {
    bodies: &'a LargeBodies,
    number: u64,
}

impl LargeBodies {
    /// Asks for a place. `None` if too many wait already.
    pub fn ask(&self, bytes: usize, client: Subject, now: Time) -> Option<Place<'_>> {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|entry| !entry.is_lost(now));
        let waiting = || entries.iter().filter(|entry| !entry.is_given);
        if waiting().count() >= MAX_WAITING
            || waiting().filter(|entry| entry.is_of(client)).count() >= MAX_WAITING_OF_ONE
        {
            return None;
        }
        let number = entries.last().map_or(0, |last| last.number + 1);
        entries.push(Entry { number, bytes, client, since: now, is_given: false });
        Some(Place { bodies: self, number })
    }
}

impl Place<'_> {
    /// Whether the body may be received.
    pub fn is_given(&self, now: Time) -> bool {
        let mut entries = self.bodies.entries.borrow_mut();
        entries.retain(|entry| entry.number == self.number || !entry.is_lost(now));
        let is_next = next_ones(&entries, None).contains(&self.number);
        match entries.iter_mut().find(|entry| entry.number == self.number) {
            Some(entry) if !entry.is_given && is_next => {
                (entry.is_given, entry.since) = (true, now);
                true
            }
            Some(entry) => entry.is_given,
            None => false,
        }
    }

    /// Whether somebody waits who could have this place.
    pub fn is_wanted(&self, now: Time) -> bool {
        let mut entries = self.bodies.entries.borrow_mut();
        entries.retain(|entry| entry.number == self.number || !entry.is_lost(now));
        !next_ones(&entries, Some(self.number)).is_empty()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.bodies.entries.borrow_mut().retain(|entry| entry.number != self.number);
    }
}

impl Entry {
    fn is_lost(&self, now: Time) -> bool {
        let longest = if self.is_given { LONGEST_REQUEST } else { LONGEST_WAIT * 2 };
        now - self.since > longest
    }

    /// Requests from an unknown address do not come through Cloudflare: they may be from anyone.
    fn is_of(&self, client: Subject) -> bool {
        self.client == client && client != Subject::Unknown
    }
}

/// Those waiting that there is room for, in order; `without` one of the places. None comes before another that it keeps
/// waiting; who waits because of other requests of the same address keeps nobody waiting.
fn next_ones(entries: &[Entry], without: Option<u64>) -> Vec<u64> {
    let others = || entries.iter().filter(|entry| Some(entry.number) != without);
    let mut given: Vec<&Entry> = others().filter(|entry| entry.is_given).collect();
    let mut next = Vec::new();
    for entry in others().filter(|entry| !entry.is_given) {
        let sum = |is_counted: &dyn Fn(&Entry) -> bool| {
            given.iter().filter(|given| is_counted(given)).map(|given| given.bytes).sum::<usize>()
        };
        if sum(&|_| true) + entry.bytes > ROOM {
            break;
        }
        if sum(&|given| given.is_of(entry.client)) + entry.bytes > ROOM_OF_ONE {
            continue;
        }
        given.push(entry);
        next.push(entry.number);
    }
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::{MAX_BODY, SMALL_BODY};

    const NOW: Time = Time(1_767_225_600_000);
    const LARGEST: usize = MAX_BODY;
    /// How many of the largest bodies there is room for.
    const ALL: usize = ROOM / LARGEST;

    fn client(number: usize) -> Subject {
        Subject::address(&format!("203.0.113.{number}"))
    }

    fn ask(bodies: &LargeBodies, bytes: usize, client: Subject) -> Place<'_> {
        bodies.ask(bytes, client, NOW).expect("few wait")
    }

    /// Asked for and given.
    fn take(bodies: &LargeBodies, bytes: usize, client: Subject) -> Place<'_> {
        let place = ask(bodies, bytes, client);
        assert!(place.is_given(NOW));
        place
    }

    #[test]
    fn places_are_given_in_order_and_come_back_when_they_are_dropped() {
        let bodies = LargeBodies::default();
        let mut given: Vec<_> = (0..ALL).map(|number| take(&bodies, LARGEST, client(number))).collect();
        let (first, second) = (ask(&bodies, LARGEST, client(101)), ask(&bodies, SMALL_BODY, client(102)));
        assert!(!second.is_given(NOW) && !first.is_given(NOW));
        drop(given.pop());
        // The second would fit too, but not beside the first.
        assert!(!second.is_given(NOW) && first.is_given(NOW));
        drop(given.pop());
        assert!(second.is_given(NOW));
    }

    #[test]
    fn who_gives_up_waiting_keeps_nobody_waiting() {
        let bodies = LargeBodies::default();
        let mut given: Vec<_> = (0..ALL).map(|number| take(&bodies, LARGEST, client(number))).collect();
        let (first, second) = (ask(&bodies, LARGEST, client(101)), ask(&bodies, LARGEST, client(102)));
        drop(given.pop());
        assert!(!second.is_given(NOW));
        drop(first);
        assert!(second.is_given(NOW));
    }

    #[test]
    fn one_address_has_at_most_half_and_keeps_nobody_else_waiting() {
        let bodies = LargeBodies::default();
        let one = client(1);
        let given: Vec<_> = (0..ALL / 2).map(|_| take(&bodies, LARGEST, one)).collect();
        let waiting: Vec<_> = (0..MAX_WAITING_OF_ONE).map(|_| ask(&bodies, LARGEST, one)).collect();
        assert!(bodies.ask(LARGEST, one, NOW).is_none());
        let others: Vec<_> =
            (0..ALL / 2).map(|number| take(&bodies, LARGEST, client(100 + number))).collect();
        assert!(waiting.iter().all(|place| !place.is_given(NOW)));
        drop(others);
        assert!(waiting.iter().all(|place| !place.is_given(NOW)));
        drop(given);
        assert!(waiting[0].is_given(NOW));
    }

    #[test]
    fn clients_of_unknown_address_are_not_one() {
        let bodies = LargeBodies::default();
        let places: Vec<_> = (0..ALL).map(|_| take(&bodies, LARGEST, Subject::Unknown)).collect();
        assert_eq!(places.len(), ALL);
    }

    #[test]
    fn when_too_many_wait_the_next_is_refused() {
        let bodies = LargeBodies::default();
        let _given: Vec<_> = (0..ALL).map(|number| take(&bodies, LARGEST, client(number))).collect();
        let mut waiting: Vec<_> =
            (0..MAX_WAITING).map(|number| ask(&bodies, LARGEST, client(100 + number))).collect();
        assert!(bodies.ask(LARGEST, client(99), NOW).is_none());
        waiting.pop();
        assert!(bodies.ask(LARGEST, client(99), NOW).is_some());
    }

    #[test]
    fn a_place_is_wanted_if_one_who_waits_could_have_it() {
        let bodies = LargeBodies::default();
        let of_one: Vec<_> = (0..ALL / 2).map(|_| take(&bodies, LARGEST, client(1))).collect();
        let other = take(&bodies, LARGEST, client(2));
        assert!(!other.is_wanted(NOW));
        let _waiting = ask(&bodies, LARGEST, client(1));
        assert!(of_one[0].is_wanted(NOW));
        assert!(!other.is_wanted(NOW), "it waits for those of its own address");
    }

    #[test]
    fn what_was_cut_off_is_forgotten() {
        let bodies = LargeBodies::default();
        for number in 0..ALL {
            std::mem::forget(take(&bodies, LARGEST, client(number)));
        }
        std::mem::forget(ask(&bodies, LARGEST, client(101)));
        let place = ask(&bodies, LARGEST, client(102));
        let later = NOW + LONGEST_WAIT;
        assert!(!place.is_given(later) && !place.is_given(NOW + LONGEST_REQUEST));
        assert!(place.is_given(NOW + LONGEST_REQUEST + Duration::from_millis(1)));
    }

    proptest! {
        #[test]
        fn there_is_never_more_than_there_is_room_for_and_everybody_gets_a_turn(
            asked in prop::collection::vec((SMALL_BODY..=LARGEST, 1..4_usize), 1..60),
            order: u64,
        ) {
            let bodies = LargeBodies::default();
            let places = asked.iter().map(|(bytes, number)| bodies.ask(*bytes, client(*number), NOW));
            let mut places: Vec<_> = places.flatten().collect();
            let mut turn = order;
            while !places.is_empty() {
                for place in &places {
                    place.is_given(NOW);
                }
                let held = |of: Option<Subject>| -> usize {
                    let entries = bodies.entries.borrow();
                    let given = entries.iter().filter(|entry| entry.is_given);
                    given.filter(|entry| of.is_none_or(|of| entry.is_of(of))).map(|entry| entry.bytes).sum()
                };
                prop_assert!(held(None) <= ROOM);
                prop_assert!((1..4).all(|number| held(Some(client(number))) <= ROOM_OF_ONE));
                let given: Vec<_> = (0..places.len()).filter(|at| places[*at].is_given(NOW)).collect();
                prop_assert!(!given.is_empty(), "nobody can go on");
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(turn >> 33).unwrap() % given.len();
                drop(places.swap_remove(given[at]));
            }
        }
    }
}
