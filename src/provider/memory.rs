//! What an isolate remembers of providers: what they say about themselves, and their keys, as long as they allow it.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use super::{client::Endpoints, jose::Key};
use crate::time::Time;

/// How long a document is kept: at least and at most, whatever its `Cache-Control` says, and if it says nothing.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const USUAL: Duration = Duration::from_secs(3600);

/// How long nothing is asked of a provider whose documents could not be had.
const PAUSE: Duration = Duration::from_secs(5);

/// How often keys are looked for that are not among those it published before.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The memory, by the names of providers, of which the settings have a few.
#[derive(Debug, Default)]
pub(crate) struct Memory(RefCell<BTreeMap<String, Known>>);

#[derive(Debug, Default)]
struct Known {
    endpoints: Option<Kept<Endpoints>>,
    keys: Option<Kept<Vec<Key>>>,
    failed: Option<Time>,
}

#[derive(Debug)]
struct Kept<T> {
    value: Rc<T>,
    fetched: Time,
    until: Time,
}

impl<T> Kept<T> {
    fn new(value: Rc<T>, cache_control: &str, now: Time) -> Option<Self> {
        Some(Self { value, fetched: now, until: now + lifetime(cache_control) })
    }
}

impl Memory {
    /// Whether its documents could not be had a moment ago.
    pub(super) fn is_down(&self, provider: &str, now: Time) -> bool {
        let known = self.0.borrow();
        known.get(provider).and_then(|known| known.failed).is_some_and(|failed| now - failed < PAUSE)
    }

    /// They could not be had.
    pub(super) fn failed(&self, provider: &str, now: Time) {
        self.change(provider, |known| known.failed = Some(now));
    }

    pub(super) fn endpoints(&self, provider: &str, now: Time) -> Option<Rc<Endpoints>> {
        let known = self.0.borrow();
        let kept = known.get(provider)?.endpoints.as_ref()?;
        (now < kept.until).then(|| Rc::clone(&kept.value))
    }

    pub(super) fn keep_endpoints(
        &self,
        provider: &str,
        value: &Rc<Endpoints>,
        cache_control: &str,
        now: Time,
    ) {
        let kept = Kept::new(Rc::clone(value), cache_control, now);
        self.change(provider, |known| (known.endpoints, known.failed) = (kept, None));
    }

    /// The keys, and whether others may be looked for already.
    pub(super) fn keys(&self, provider: &str, now: Time) -> Option<(Rc<Vec<Key>>, bool)> {
        let known = self.0.borrow();
        let kept = known.get(provider)?.keys.as_ref()?;
        (now < kept.until).then(|| (Rc::clone(&kept.value), now - kept.fetched >= LOOK_AGAIN))
    }

    pub(super) fn keep_keys(&self, provider: &str, value: &Rc<Vec<Key>>, cache_control: &str, now: Time) {
        let kept = Kept::new(Rc::clone(value), cache_control, now);
        self.change(provider, |known| (known.keys, known.failed) = (kept, None));
    }

    fn change(&self, provider: &str, change: impl FnOnce(&mut Known)) {
        let mut all = self.0.borrow_mut();
        change(all.entry(provider.to_owned()).or_default());
    }
}

/// How long a document is kept that came with this `Cache-Control` (RFC 9111 section 5.2.2).
fn lifetime(cache_control: &str) -> Duration {
    let directives = || cache_control.split(',').map(|directive| directive.trim().to_ascii_lowercase());
    if directives().any(|directive| directive == "no-store" || directive.starts_with("no-cache")) {
        return SHORTEST;
    }
    let max_age =
        directives().find_map(|directive| directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    max_age.map_or(USUAL, Duration::from_secs).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_kept_as_long_as_its_cache_control_says_within_bounds() {
        for (cache_control, seconds) in [
            ("", 3600),
            ("public, max-age=21600", 21_600),
            ("Max-Age=\"300\"", 300),
            ("max-age=0", 60),
            ("no-store, max-age=9000", 60),
            ("no-cache", 60),
            ("max-age=31536000, immutable", 86_400),
            ("max-age=x", 3600),
            ("s-maxage=5", 3600),
        ] {
            assert_eq!(lifetime(cache_control), Duration::from_secs(seconds), "{cache_control}");
        }
    }

    #[test]
    fn other_keys_are_looked_for_every_half_minute_at_most() {
        let (memory, now) = (Memory::default(), Time(1_767_225_600_000));
        memory.keep_keys("acme", &Rc::new(Vec::new()), "max-age=600", now);
        let may_look =
            |after| memory.keys("acme", now + Duration::from_secs(after)).map(|(_, may_look)| may_look);
        assert_eq!(
            [may_look(0), may_look(29), may_look(30), may_look(600)],
            [Some(false), Some(false), Some(true), None]
        );
    }

    #[test]
    fn a_description_is_read_again_once_it_is_too_old() {
        let (memory, now) = (Memory::default(), Time(1_767_225_600_000));
        memory.keep_endpoints("acme", &Rc::new(Endpoints::of_nobody()), "max-age=600", now);
        let has = |after| memory.endpoints("acme", now + Duration::from_secs(after)).is_some();
        assert_eq!([has(0), has(599), has(600)], [true, true, false]);
    }

    #[test]
    fn a_provider_that_answers_again_is_not_down_any_more() {
        let now = Time(1_767_225_600_000);
        for keep in [
            (|memory: &Memory, now| memory.keep_endpoints("acme", &Rc::new(Endpoints::of_nobody()), "", now))
                as fn(&Memory, Time),
            |memory, now| memory.keep_keys("acme", &Rc::new(Vec::new()), "", now),
        ] {
            let memory = Memory::default();
            memory.failed("acme", now);
            keep(&memory, now);
            assert!(!memory.is_down("acme", now));
        }
    }

    #[test]
    fn a_provider_that_is_down_is_left_alone_for_a_moment() {
        let (memory, now) = (Memory::default(), Time(1_767_225_600_000));
        assert!(!memory.is_down("acme", now));
        memory.failed("acme", now);
        assert!(memory.is_down("acme", now + Duration::from_secs(4)) && !memory.is_down("other", now));
        assert!(!memory.is_down("acme", now + Duration::from_secs(5)));
    }
}
