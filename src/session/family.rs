//! The family of a session's ids: every rotation adds one. Its head knows the newest id, and how older ones lead to it.
//!
//! An id stays good until its successor has been presented, and [`GRACE`] longer: so nobody is logged out by an answer that
//! was lost, or by an outage after a rotation. Used later it is a sign of a copy (OWASP Session Management, session ID
//! renewal; the rule is SuperTokens').

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    id::{Generation, Handle, Nonce, next_generation},
    json::{self, Version},
    ticket::Ticket,
    time::Time,
};

/// How long an id still leads to its successor after that was first presented: requests with the old one are under way.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// The newest id of a family: `family:<name>`, as JSON. It exists once there was a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyHead {
    v: Version,
    /// The newest id's position.
    pub generation: Generation,
    /// Its handle.
    pub to: Handle,
    /// The handle of the id before it. (Not in heads of 0.1.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Handle>,
    /// The last rotations, the newest at the end. Those whose grace is over are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    successors: Vec<Successor>,
}

/// A rotation: the position of the new id, the nonce that gives it together with the old one, and when that was.
pub(super) type Rotation = (Generation, Nonce, Time);

/// One rotation, as the head keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Successor {
    /// The nonce that gives the new id together with the old one, and when that was. `None` if the head was not written at
    /// the time: then only the redirect knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<(Nonce, Time)>,
    /// When the new id was first presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Time>,
}

/// What the head of its family knows of a ticket's id.
#[derive(Debug, PartialEq, Eq)]
pub enum Position {
    /// It is the newest, or newer than the head.
    Newest,
    /// It leads to this ticket, whose id is the newest.
    Old(Ticket),
    /// It may still be used, and only the redirect knows where it leads.
    OldUnknown,
    /// It may not be used any more.
    GraceOver,
}

impl FamilyHead {
    /// The head after the rotation from `from` to `newest`, whose redirect holds `nonce`. `current`: what the store has;
    /// `None` if that knows the rotation already.
    pub fn rotated(current: Option<&Self>, from: Handle, nonce: Nonce, newest: &Ticket) -> Option<Self> {
        let now = newest.issued;
        let mut successors = match current {
            Some(current) if current.generation > newest.generation => return None,
            Some(current) if current.generation == newest.generation => {
                // The newest id was presented before this was written.
                let mut successors = current.successors.clone();
                let known = successors.pop().filter(|last| last.rotation.is_none())?;
                successors.push(Successor { rotation: Some((nonce, now)), ..known });
                return Some(Self { from: Some(from), successors, ..current.clone() });
            }
            // The id before this one was presented, or there would be no rotation.
            _ => Self::presented_until(current, newest.generation.saturating_sub(1), now),
        };
        successors.retain(|successor| successor.seen.is_none_or(|seen| now < seen + GRACE));
        successors.push(Successor { rotation: Some((nonce, now)), seen: None });
        let (generation, to) = (newest.generation, newest.id.handle());
        Some(Self { v: Version, generation, to, from: Some(from), successors })
    }

    /// The head of a family whose newest id is presented; `current`: what the store has, if that knows something older.
    pub fn presented(current: Option<&Self>, newest: &Ticket, now: Time) -> Self {
        let successors = Self::presented_until(current, newest.generation, now);
        Self { v: Version, generation: newest.generation, to: newest.id.handle(), from: None, successors }
    }

    /// The head with rotations that it does not know, to the newest id. `None` if it knows them already.
    pub fn with_rotations(
        current: Option<&Self>,
        newest: &Ticket,
        rotations: &[Rotation],
        now: Time,
    ) -> Option<Self> {
        let mut next = match current {
            Some(current) if current.generation > newest.generation => return None,
            Some(current) if current.generation == newest.generation => current.clone(),
            older => {
                let mut next = Self::presented(older, newest, now);
                // Older ids were presented, or there would be no rotation; the newest perhaps not.
                next.successors.last_mut()?.seen = None;
                next
            }
        };
        for (generation, nonce, at) in rotations {
            let index = next.index_after(generation.saturating_sub(1));
            let Some(successor) = index.and_then(|index| next.successors.get_mut(index)) else { continue };
            successor.rotation = successor.rotation.or(Some((*nonce, *at)));
        }
        (current != Some(&next)).then_some(next)
    }

    /// The rotations up to this position, whose id is presented now: those that the head does not know, too.
    fn presented_until(current: Option<&Self>, generation: Generation, now: Time) -> Vec<Successor> {
        /// As many as there can be within the grace.
        const MAX_UNKNOWN: Generation = 8;
        let known = current.map_or(0, |current| current.generation);
        let mut successors = current.map_or_else(Vec::new, |current| current.seen(now).successors);
        for _ in 0..generation.saturating_sub(known).min(MAX_UNKNOWN) {
            successors.push(Successor { rotation: None, seen: Some(now) });
        }
        successors
    }

    /// The same head, whose newest id was presented now for the first time.
    pub fn seen(&self, now: Time) -> Self {
        let mut next = self.clone();
        match next.successors.last_mut() {
            None => next.successors.push(Successor { rotation: None, seen: Some(now) }),
            Some(newest) => newest.seen = newest.seen.or(Some(now)),
        }
        next
    }

    /// Whether the newest id is known to have been presented.
    pub fn is_seen(&self) -> bool {
        self.successors.last().is_some_and(|newest| newest.seen.is_some())
    }

    /// Where a ticket's id stands.
    pub fn position(&self, ticket: &Ticket, now: Time) -> Position {
        if ticket.generation >= self.generation {
            return Position::Newest;
        }
        if self.is_grace_over(ticket.generation, now) {
            return Position::GraceOver;
        }
        let mut newest = Ticket { generation: self.generation, ..ticket.clone() };
        for successor in self.successors_of(ticket.generation) {
            let Some((nonce, at)) = &successor.rotation else { return Position::OldUnknown };
            (newest.id, newest.issued) = (newest.id.successor(nonce), *at);
        }
        if newest.id.handle() == self.to { Position::Old(newest) } else { Position::OldUnknown }
    }

    /// Whether the grace of the id at this position runs, or is over: its successor was presented.
    pub fn is_grace_running(&self, generation: Generation) -> bool {
        self.successor_seen(generation).is_some()
    }

    /// Whether the id at this position may not be used any more: its successor was presented long enough ago.
    pub fn is_grace_over(&self, generation: Generation, now: Time) -> bool {
        self.successor_seen(generation).is_some_and(|seen| seen + GRACE <= now)
    }

    /// When the successor of the id at this position was first presented, if it was.
    fn successor_seen(&self, generation: Generation) -> Option<Time> {
        match self.successors_of(generation).first() {
            Some(successor) => successor.seen,
            // It is left out, or has a successor itself: long ago. (The heads of 0.1 hold no rotations.)
            None => (next_generation(generation) < self.generation).then_some(Time(0)),
        }
    }

    /// The rotations from this position on; none if the first of them is not known any more.
    fn successors_of(&self, generation: Generation) -> &[Successor] {
        self.index_after(generation).and_then(|start| self.successors.get(start..)).unwrap_or_default()
    }

    /// Where the rotation from the id at this position stands.
    fn index_after(&self, generation: Generation) -> Option<usize> {
        let behind = usize::try_from(self.generation.saturating_sub(generation)).unwrap_or(usize::MAX);
        self.successors.len().checked_sub(behind)
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// Parses what the store holds; `None` if it cannot be read.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Family, Id};

    const NOW: Time = Time(1_767_225_600_000);

    fn ticket() -> Ticket {
        let (id, family) = (Id::from_bytes([1; 32]), Family([7; 9]));
        let ends = NOW + Duration::from_secs(86_400);
        Ticket { id, issued: NOW, ends, remember: false, user: None, family, generation: 0, foreign: None }
    }

    /// Rotates `ticket` at `now`; the nonce is made of its generation.
    fn rotate(head: Option<&FamilyHead>, ticket: &Ticket, now: Time) -> (FamilyHead, Ticket) {
        let generation = next_generation(ticket.generation);
        let nonce = Nonce([u8::try_from(generation % 256).expect("a byte"); 12]);
        let newest = Ticket { id: ticket.id.successor(&nonce), issued: now, generation, ..ticket.clone() };
        (FamilyHead::rotated(head, ticket.id.handle(), nonce, &newest).expect("a new head"), newest)
    }

    #[test]
    fn an_old_id_is_good_until_its_successor_was_presented_and_thirty_seconds_longer() {
        let old = ticket();
        let (head, newest) = rotate(None, &old, NOW);
        let later = |seconds| NOW + Duration::from_secs(seconds);
        let lead = |head: &FamilyHead, now| match head.position(&old, now) {
            Position::Old(ticket) => Some(ticket.id.handle()),
            _ => None,
        };
        assert_eq!(head.position(&newest, NOW), Position::Newest);
        assert_eq!(lead(&head, later(80_000)), Some(newest.id.handle()));
        let head = FamilyHead::parse(&head.seen(later(1000)).to_json()).expect("a head");
        assert_eq!(head.seen(later(2000)), head, "the first time counts");
        assert_eq!(lead(&head, later(1029)), Some(newest.id.handle()));
        assert_eq!(head.position(&old, later(1030)), Position::GraceOver);
    }

    #[test]
    fn every_id_whose_grace_is_not_over_leads_to_the_newest_and_older_ones_to_none() {
        let mut tickets = vec![ticket()];
        let mut head = None;
        for step in 0..100 {
            let (next, newest) =
                rotate(head.as_ref(), &tickets[step], NOW + Duration::from_secs(step as u64 * 10));
            tickets.push(newest);
            head = Some(next);
        }
        let (head, now) = (head.expect("rotated"), NOW + Duration::from_secs(990));
        let newest = tickets.pop().expect("the newest");
        assert!(head.successors.len() <= 4, "{}", head.successors.len());
        for (generation, old) in tickets.iter().enumerate() {
            // The successor of generation n was presented when it was rotated, ten seconds after n was.
            let is_good = generation >= 96;
            let wanted = if is_good { Position::Old(newest.clone()) } else { Position::GraceOver };
            assert_eq!(head.position(old, now), wanted, "{generation}");
        }
    }

    #[test]
    fn a_head_that_was_not_written_makes_nobody_a_thief() {
        let first = ticket();
        let (_, second) = rotate(None, &first, NOW);
        // Presented.
        let head = FamilyHead::presented(None, &second, NOW);
        assert_eq!(head.position(&first, NOW), Position::OldUnknown);
        assert_eq!(head.position(&first, NOW + GRACE), Position::GraceOver);
        // Presented, and then written all the same.
        let late = FamilyHead::rotated(Some(&head), first.id.handle(), Nonce([1; 12]), &second)
            .expect("more is known");
        assert!(matches!(late.position(&first, NOW), Position::Old(ticket) if ticket.id == second.id));
        assert_eq!(late.position(&first, NOW + GRACE), Position::GraceOver);
        assert_eq!(FamilyHead::rotated(Some(&late), first.id.handle(), Nonce([1; 12]), &second), None);
        // Or rotated again.
        let (head, third) = rotate(None, &second, NOW);
        assert_eq!(head.position(&first, NOW), Position::OldUnknown);
        assert_eq!(head.position(&first, NOW + GRACE), Position::GraceOver);
        assert!(
            matches!(head.position(&second, NOW + GRACE), Position::Old(ticket) if ticket.id == third.id)
        );
    }

    #[test]
    fn rotations_that_only_redirects_knew_are_filled_in() {
        let first = ticket();
        let (_, second) = rotate(None, &first, NOW);
        let (head, third) = rotate(None, &second, NOW);
        assert_eq!(head.position(&first, NOW), Position::OldUnknown);
        let known = [(1, Nonce([1; 12]), NOW), (2, Nonce([2; 12]), NOW)];
        for current in [None, Some(&head)] {
            let head = FamilyHead::with_rotations(current, &third, &known, NOW).expect("more is known");
            assert_eq!(head.position(&first, NOW), Position::Old(third.clone()));
            assert_eq!(head.position(&first, NOW + GRACE), Position::GraceOver);
            assert!(
                matches!(head.position(&second, NOW + GRACE), Position::Old(_)),
                "the newest was not seen"
            );
            assert_eq!(FamilyHead::with_rotations(Some(&head), &third, &known, NOW), None);
        }
    }

    #[test]
    fn heads_of_0_1_are_read_and_written_back_to_the_letter() {
        let frozen = r#"{"v":1,"generation":2,"to":"W5mFHxzQHphIkp8jCPn54IoR"}"#;
        let head = FamilyHead::parse(frozen).expect("a head");
        assert_eq!(head.to_json(), frozen);
        let at = |generation| head.position(&Ticket { generation, ..ticket() }, NOW);
        assert_eq!([at(2), at(1), at(0)], [Position::Newest, Position::OldUnknown, Position::GraceOver]);
        assert!(!head.is_seen() && head.seen(NOW).is_seen());
    }
}
