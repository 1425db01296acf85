//! The cache in front of a store in memory.

use std::{cell::Cell, collections::VecDeque, pin::Pin, rc::Rc};

use proptest::prelude::*;

use super::*;
use crate::store::fake::{FakeHost, Fault, HASH, Network, interleave, run};

const TTL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);
const KEY: &str = "app:cache:k";

/// Some isolates in front of one store.
struct Stage {
    network: Rc<Network>,
    host: FakeHost,
    isolates: Vec<Isolate>,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let network = Network::new(seed);
        let isolates = (0..3).map(|_| Isolate::default()).collect();
        Self { host: FakeHost(Rc::clone(&network)), isolates, network }
    }

    fn cache_of(&self, isolate: usize) -> Cache<'_, FakeHost> {
        Cache::new(&self.host, &self.isolates[isolate], TIMEOUT, "app:")
    }

    fn cache(&self) -> Cache<'_, FakeHost> {
        self.cache_of(0)
    }

    /// What the cache gives for the key `k`, and whether it was computed.
    fn get<T: Serialize + DeserializeOwned>(
        &self,
        cache: &Cache<'_, FakeHost>,
        computed: Result<T, &'static str>,
    ) -> (Result<T, &'static str>, bool) {
        let is_computed = Cell::new(false);
        let value = run(
            &self.network,
            cache.get_or_compute("k", TTL, || async {
                is_computed.set(true);
                computed
            }),
        );
        (value, is_computed.get())
    }

    fn fail_next(&self, faults: impl Into<VecDeque<Option<Fault>>>) {
        self.network.script.replace(faults.into());
    }

    /// The names of the commands made since this was last asked, and how many calls.
    fn costs(&self) -> (usize, Vec<String>) {
        let commands = self.network.commands.take().into_iter().map(|mut words| words.remove(0)).collect();
        (self.network.calls.replace(0), commands)
    }
}

#[test]
fn a_value_is_computed_in_three_calls_and_read_in_one() {
    let stage = Stage::new(1);
    assert_eq!(stage.get(&stage.cache(), Ok("a".to_owned())), (Ok("a".to_owned()), true));
    assert_eq!(stage.costs(), (3, ["MGET", "SET", "MGET", "SET"].map(str::to_owned).into()));
    assert_eq!(stage.get(&stage.cache_of(1), Ok("b".to_owned())), (Ok("a".to_owned()), false));
    assert_eq!(stage.costs(), (1, vec!["MGET".to_owned()]));
    let (key, ttl) = stage.network.keys().remove(0);
    assert_eq!(key, KEY);
    assert!(ttl.is_some_and(|ttl| ttl > TTL && ttl <= TTL * 2));
    stage.network.advance(TTL);
    assert_eq!(stage.get(&stage.cache(), Ok("c".to_owned())), (Ok("c".to_owned()), true));
    assert_eq!(stage.costs().0, 3);
    assert!(stage.network.log.borrow().is_empty());
}

/// Made with `openssl rand -base64 32`.
const KEYS: [&str; 2] =
    ["q4LT/Ib+31SPZv0CVhgyLYe05/ii2Fof6T+KQai7Lic=", "gdgcUFfg/gicr0fPJsEBCcbA0T5bH5hxAAv0ho5V2JU="];

#[test]
fn with_keys_a_value_is_sealed_and_under_an_unknown_key_it_is_as_good_as_none() {
    let stage = Stage::new(1);
    let [old, new] = KEYS.map(|key| EncryptionKeys::parse(key, &[]).expect("a key"));
    let both = EncryptionKeys::parse(&KEYS.join(","), &[]).expect("two keys");
    assert_eq!(
        stage.get(&stage.cache().encryption(&old), Ok("4111".to_owned())),
        (Ok("4111".to_owned()), true)
    );
    assert_eq!(stage.costs().0, 3);
    let stored = stage.network.get(KEY).expect("an entry");
    assert!(!stored.contains("4111") && !stored.contains("value"), "{stored}");
    // Every key opens, for one call.
    assert_eq!(
        stage.get(&stage.cache_of(1).encryption(&both), Ok("b".to_owned())),
        (Ok("4111".to_owned()), false)
    );
    assert_eq!(stage.costs().0, 1);
    // Another key's, a moved one, and with no keys: computed again.
    assert_eq!(stage.get(&stage.cache().encryption(&new), Ok("c".to_owned())), (Ok("c".to_owned()), true));
    assert_eq!(stage.get(&stage.cache(), Ok("d".to_owned())), (Ok("d".to_owned()), true));
    // What was stored without keys is read with them.
    assert_eq!(stage.get(&stage.cache().encryption(&new), Ok("e".to_owned())), (Ok("d".to_owned()), false));
    assert!(stage.network.log.borrow().is_empty());
}

#[test]
fn while_one_computes_others_get_the_old_value_or_wait_for_the_new_one() {
    for has_old in [true, false] {
        let stage = Stage::new(1);
        if has_old {
            let _stored = stage.get(&stage.cache(), Ok(1));
            stage.network.advance(TTL);
        }
        let computations = Cell::new(0);
        let got = (0..3).map(|_| Cell::new(0)).collect::<Vec<_>>();
        let caches: Vec<_> = (0..3).map(|isolate| stage.cache_of(isolate)).collect();
        let requests = caches.iter().zip(&got).map(|(cache, got)| {
            let (host, computations) = (&stage.host, &computations);
            Box::pin(async move {
                let compute = || async {
                    computations.set(computations.get() + 1);
                    host.sleep(SECOND).await;
                    Ok::<_, ()>(2)
                };
                got.set(cache.get_or_compute("k", TTL, compute).await.expect("a value"));
            }) as Pin<Box<dyn Future<Output = ()>>>
        });
        interleave(&stage.network, requests.collect());
        assert_eq!(computations.get(), 1);
        let mut got: Vec<_> = got.iter().map(Cell::get).collect();
        got.sort_unstable();
        assert_eq!(got, if has_old { [1, 1, 2] } else { [2, 2, 2] });
    }
}

#[test]
fn nothing_is_a_value_too_and_may_live_shorter() {
    let stage = Stage::new(1);
    let cache = || stage.cache().negative_ttl(SECOND * 5);
    assert_eq!(stage.get(&cache(), Ok(None::<u32>)), (Ok(None), true));
    assert_eq!(stage.get(&cache(), Ok(Some(1))), (Ok(None), false));
    stage.network.advance(SECOND * 5);
    assert_eq!(stage.get(&cache(), Ok(Some(1))), (Ok(Some(1)), true));
    stage.network.advance(SECOND * 30);
    assert_eq!(stage.get(&cache(), Ok(None)), (Ok(Some(1)), false));
}

#[test]
fn a_computation_that_fails_tells_its_caller_and_changes_nothing() {
    let stage = Stage::new(1);
    assert_eq!(stage.get(&stage.cache(), Err::<u32, _>("no")), (Err("no"), true));
    assert_eq!(stage.network.keys(), []);
    let _stored = stage.get(&stage.cache(), Ok(1));
    stage.network.advance(TTL);
    let before = stage.network.get(KEY);
    stage.costs();
    assert_eq!(stage.get(&stage.cache(), Err::<u32, _>("no")), (Err("no"), true));
    assert_eq!(stage.costs().0, 3);
    assert_eq!(stage.network.get(KEY), before, "the old value is there as before");
    let ttl = stage.network.keys()[0].1.expect("a time to live");
    assert!(ttl <= TTL, "and lives no longer: {ttl:?}");
}

#[test]
fn what_cannot_be_read_is_overwritten() {
    let fresh = r#"{"v":1,"value":{"json":"text","fresh_until":9999999999999,"stale_until":9999999999999}}"#;
    for stored in [
        "",
        "garbage",
        "7",
        "{}",
        "null",
        fresh,
        &fresh.replace("\"v\":1", "\"v\":2"),
        &fresh.replace("value", "valve"),
    ] {
        let stage = Stage::new(1);
        stage.network.set(KEY, stored, None);
        assert_eq!(stage.get(&stage.cache(), Ok(7)), (Ok(7), true), "{stored}");
        assert_eq!(stage.get(&stage.cache(), Ok(8)), (Ok(7), false), "{stored}");
    }
}

#[test]
fn another_application_s_key_is_left_alone() {
    let stage = Stage::new(1);
    stage.network.set(KEY, HASH, None);
    assert_eq!(stage.get(&stage.cache(), Ok(7)), (Ok(7), true));
    assert_eq!(stage.costs().0, 2);
    assert_eq!(stage.network.get(KEY).as_deref(), Some(HASH));
    assert!(stage.network.log.borrow()[0].contains("another application uses a key of ours"));
}

#[test]
fn a_store_that_fails_costs_the_caching_and_is_told_of_once_a_minute_without_key_or_value() {
    for (index, fault) in crate::store::fake::FAULTS.into_iter().enumerate() {
        for call in 0..3 {
            let stage = Stage::new(index as u64);
            // A read is repeated.
            let faults: Vec<_> = (0..call).map(|_| None).chain([Some(fault); 10]).collect();
            for _ in 0..3 {
                stage.fail_next(faults.clone());
                assert_eq!(stage.get(&stage.cache(), Ok("value".to_owned())).0, Ok("value".to_owned()));
                stage.network.set(KEY, "garbage", None);
            }
            let log = stage.network.log.take();
            assert_eq!(log.len(), 1, "{fault:?} in call {call}: {log:?}");
            assert!(log[0].starts_with("cache: ") && !log[0].contains("value\"") && !log[0].contains(KEY));
        }
    }
}

#[test]
fn who_forgets_sees_nothing_older_again() {
    let stage = Stage::new(1);
    let cache = stage.cache();
    let computed = run(
        &stage.network,
        cache.get_or_compute("k", TTL, async || {
            stage.cache_of(1).forget("k").await.map(|()| "old".to_owned())
        }),
    );
    assert_eq!(computed, Ok("old".to_owned()));
    assert_eq!(stage.network.keys(), [], "a computation that began before stores nothing");
    let _stored = stage.get(&cache, Ok("newer".to_owned()));
    assert_eq!(run(&stage.network, cache.forget("k")), Ok(()));
    assert_eq!(stage.get(&cache, Ok("newest".to_owned())), (Ok("newest".to_owned()), true));
    stage.fail_next([Some(Fault::Dropped)]);
    assert_eq!(run(&stage.network, cache.forget("k")), Err(Failure::Unreachable));
}

#[test]
fn a_lock_that_arrives_after_a_forget_lets_no_old_value_in() {
    let stage = Stage::new(1);
    let cache = stage.cache();
    stage.network.holds_late.set(true);
    stage.fail_next([None, Some(Fault::Late)]);
    let computed = run(
        &stage.network,
        cache.get_or_compute("k", TTL, async || {
            stage.cache_of(1).forget("k").await?;
            stage.network.deliver_late();
            Ok::<_, Failure>("old".to_owned())
        }),
    );
    assert_eq!(computed, Ok("old".to_owned()));
    assert_eq!(stage.network.keys(), []);
}

#[test]
fn who_has_waited_long_enough_computes_and_stores_nothing() {
    let stage = Stage::new(1);
    let lock = Lock { token: "somebody's".to_owned(), until: stage.network.now.get() + SECOND * 30 };
    let lock = json::to_string(&Entry { computing: Some(lock), ..Entry::default() });
    stage.network.set(KEY, &lock, Some(SECOND * 30));
    let began = stage.network.now.get();
    assert_eq!(stage.get(&stage.cache(), Ok(1)), (Ok(1), true));
    let waited = stage.network.now.get() - began;
    assert!(waited >= SECOND * 5 && waited < SECOND * 6, "{waited:?}");
    assert!(stage.costs().0 < 30, "it looks less and less often");
    assert_eq!(stage.network.get(KEY), Some(lock));
    assert_eq!(stage.get(&stage.cache().wait(Duration::ZERO), Ok(2)), (Ok(2), true));
    assert_eq!(stage.costs().0, 1);
}

#[test]
fn a_computation_that_takes_too_long_gives_way_to_another_and_stores_nothing() {
    let stage = Stage::new(1);
    let (one, other) = (stage.cache().compute_timeout(SECOND), stage.cache_of(1).wait(SECOND * 3));
    let computed = run(
        &stage.network,
        one.get_or_compute("k", TTL, async || {
            let newer = other.get_or_compute("k", TTL, async || Ok::<_, ()>("newer".to_owned())).await;
            assert_eq!(newer, Ok("newer".to_owned()));
            Ok::<_, ()>("late".to_owned())
        }),
    );
    assert_eq!(computed, Ok("late".to_owned()));
    assert_eq!(stage.get(&other, Err("none")), (Ok("newer".to_owned()), false));
}

#[test]
fn what_is_too_large_or_no_json_is_returned_and_not_stored() {
    let stage = Stage::new(1);
    let large = "x".repeat(MAX_VALUE);
    for _ in 0..2 {
        assert_eq!(stage.get(&stage.cache(), Ok(large.clone())), (Ok(large.clone()), true));
    }
    assert_eq!(stage.network.keys(), []);
    let log = stage.network.log.take();
    assert!(log.len() == 1 && log[0].contains("larger than 1048576 bytes"), "{log:?}");
    let fits = "x".repeat(MAX_VALUE - 2);
    let _stored = stage.get(&stage.cache(), Ok(fits.clone()));
    assert!(!stage.get(&stage.cache(), Ok(fits)).1);
    stage.network.advance(TTL + SECOND * 5);
    let no_json = std::collections::BTreeMap::from([(vec![1], 1)]);
    assert_eq!(stage.get(&stage.cache_of(1), Ok(no_json.clone())), (Ok(no_json), true));
    assert!(stage.network.log.take()[0].contains("serde_json cannot write it"));
}

#[test]
fn any_text_is_a_key_and_no_two_are_the_same() {
    let stage = Stage::new(1);
    let cache = stage.cache();
    let long = "k".repeat(201);
    let hash = cache.key(&long);
    assert!(hash.starts_with("app:cache-sha256:") && hash.len() == "app:cache-sha256:".len() + 43);
    let short = hash.strip_prefix("app:").expect("a prefix");
    let keys = ["", "k", " ", "\"\n\0", "é", "__proto__", short, long.as_str(), &long[1..], &"l".repeat(201)];
    for (number, key) in keys.iter().enumerate() {
        let value = run(&stage.network, cache.get_or_compute(key, TTL, async || Ok::<_, ()>(number)));
        assert_eq!(value, Ok(number), "{key}");
    }
    assert_eq!(stage.network.keys().len(), keys.len());
}

#[test]
fn a_value_may_live_for_ever_or_not_at_all() {
    let stage = Stage::new(1);
    let get =
        |ttl, value| run(&stage.network, stage.cache().get_or_compute("k", ttl, async || Ok::<_, ()>(value)));
    assert_eq!(get(Duration::ZERO, 1), Ok(1));
    assert_eq!(get(Duration::MAX, 2), Ok(2));
    stage.network.advance(TTL * 1_000_000);
    assert_eq!(get(Duration::MAX, 3), Ok(2));
}

/// What a request of a random history does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Asks; if it has to compute, that takes so long, and succeeds or not.
    Get { isolate: usize, after: u64, takes: u64, succeeds: bool },
    /// What the value is computed from changes, and the cache is told.
    Forget { isolate: usize, after: u64 },
}

fn acts(with_forget: bool) -> impl Strategy<Value = Vec<Act>> {
    let get = (0_usize..3, 0_u64..400_000, 0_u64..3000, prop::bool::weighted(0.8))
        .prop_map(|(isolate, after, takes, succeeds)| Act::Get { isolate, after, takes, succeeds });
    let forget = (0_usize..3, 0_u64..400_000).prop_map(|(isolate, after)| Act::Forget { isolate, after });
    let act = if with_forget { prop_oneof![4 => get, 1 => forget].boxed() } else { get.boxed() };
    // All within a short time, so that they meet, or spread over several lives of a value.
    (prop::collection::vec(act, 1..16), prop_oneof![Just(500_u64), Just(10_000), Just(400_000)]).prop_map(
        |(mut acts, span)| {
            for act in &mut acts {
                let (Act::Get { after, .. } | Act::Forget { after, .. }) = act;
                *after %= span;
            }
            acts
        },
    )
}

/// A value, and what is known of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Made {
    /// The version of what it was computed from.
    from: u64,
    at: Time,
}

/// What the requests of a history have in common.
#[derive(Default)]
struct History {
    version: Cell<u64>,
    /// The newest version that all were told to forget the ones before.
    forgotten: Cell<u64>,
    running: Cell<u32>,
    most_running: Cell<u32>,
    computed: Cell<u32>,
    faults: Cell<Option<&'static str>>,
}

const HISTORY_TTL: Duration = Duration::from_secs(20);
const HISTORY_STALE: Duration = Duration::from_secs(10);

impl History {
    async fn act(&self, stage: &Stage, act: Act, wait: Duration) {
        let host = &stage.host;
        match act {
            Act::Get { isolate, after, takes, succeeds } => {
                host.sleep(Duration::from_millis(after)).await;
                let cache = stage.cache_of(isolate).stale_for(HISTORY_STALE).wait(wait);
                let (began, forgotten) = (host.now(), self.forgotten.get());
                let is_own = Cell::new(false);
                let compute = || async {
                    is_own.set(true);
                    let from = self.version.get();
                    self.running.set(self.running.get() + 1);
                    self.most_running.set(self.most_running.get().max(self.running.get()));
                    self.computed.set(self.computed.get() + 1);
                    host.sleep(Duration::from_millis(takes)).await;
                    self.running.set(self.running.get() - 1);
                    if succeeds { Ok(Made { from, at: host.now() }) } else { Err(()) }
                };
                match cache.get_or_compute("k", HISTORY_TTL, compute).await {
                    Ok(made) if made.from < forgotten => self.faults.set(Some("a forgotten value came back")),
                    // The store's answer may be on its way for a moment.
                    Ok(made) if made.at + HISTORY_TTL + HISTORY_STALE + SECOND < began => {
                        self.faults.set(Some("a value was too old"));
                    }
                    Err(()) if succeeds || !is_own.get() => self.faults.set(Some("another's error")),
                    Ok(_) | Err(()) => {}
                }
            }
            Act::Forget { isolate, after } => {
                host.sleep(Duration::from_millis(after)).await;
                self.version.set(self.version.get() + 1);
                let version = self.version.get();
                if stage.cache_of(isolate).forget("k").await.is_ok() {
                    self.forgotten.set(self.forgotten.get().max(version));
                }
            }
        }
    }

    fn play(stage: &Stage, acts: &[Act], wait: Duration) -> Self {
        let history = Self::default();
        let requests = acts
            .iter()
            .map(|act| Box::pin(history.act(stage, *act, wait)) as Pin<Box<dyn Future<Output = ()>>>);
        interleave(&stage.network, requests.collect());
        history
    }
}

proptest! {
    #[test]
    fn one_computes_at_a_time_while_nothing_fails(seed: u64, acts in acts(false)) {
        let stage = Stage::new(seed);
        let history = History::play(&stage, &acts, SECOND * 3600);
        prop_assert!(history.most_running.get() <= 1, "{} at once", history.most_running.get());
        prop_assert_eq!(history.faults.get(), None);
    }

    #[test]
    fn whatever_fails_no_request_does_and_nothing_forgotten_or_too_old_is_given(
        seed: u64, acts in acts(true), faults in prop_oneof![Just(0_u64), 1_u64..50, Just(100)],
    ) {
        let stage = Stage::new(seed);
        stage.network.fault_percent.set(faults);
        let history = History::play(&stage, &acts, SECOND * 5);
        prop_assert_eq!(history.faults.get(), None);
        // Nothing stays for ever, and the next one who asks is given something.
        prop_assert!(stage.network.keys().iter().all(|(_, ttl)| ttl.is_some()));
        stage.network.fault_percent.set(0);
        stage.network.advance(TTL);
        let made = Made { from: history.version.get(), at: stage.network.now.get() };
        prop_assert!(stage.get(&stage.cache(), Ok(made)).0.is_ok());
        prop_assert!(!stage.get(&stage.cache(), Ok(made)).1);
    }
}
