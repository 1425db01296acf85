//! An application's own limits, counted in a store in memory.

use std::{cell::Cell, rc::Rc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    http::Response,
    isolate::Isolate,
    store::{
        Batch, Failure, Store,
        fake::{FakeHost, Fault, Network, interleave, run},
    },
};

const TIMEOUT: Duration = Duration::from_secs(2);
const ALICE: Subject = Subject::Session([1; 6]);

/// The store and the limits of one request.
fn request<'a>(host: &'a FakeHost, isolate: &'a Isolate) -> CountingStore<'a, FakeHost> {
    let limiter = RateLimiter::new(&isolate.limits, "");
    CountingStore::new(Store::new(host, TIMEOUT, String::new()), limiter, false)
}

fn quota(text: &str) -> Quota {
    text.parse().expect("a quota")
}

fn name(text: &str) -> OwnName {
    text.parse().expect("a name")
}

/// Asks the limit "search" of 10 in a minute.
async fn ask(store: &CountingStore<'_, FakeHost>, cost: u32) -> Result<OwnState, Failure> {
    let asked = store.limiter.add_own(name("search"), quota("10/1m"), ALICE, cost);
    store.count().await?;
    Ok(store.limiter.state(asked).expect("counted"))
}

struct Stage {
    network: Rc<Network>,
    host: FakeHost,
    isolate: Isolate,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let network = Network::new(seed);
        Self { host: FakeHost(Rc::clone(&network)), isolate: Isolate::default(), network }
    }

    /// Asks in a request of its own; what remains, and whether it was refused.
    fn ask(&self, cost: u32) -> (u32, bool) {
        let state = run(&self.network, ask(&request(&self.host, &self.isolate), cost)).expect("an answer");
        (state.remaining, state.is_refused)
    }

    fn correct(&self) {
        run(&self.network, apply_corrections(&self.host, &self.isolate.limits, TIMEOUT));
    }

    /// The sum of the counters whose names begin so.
    fn sum(&self, prefix: &str) -> u32 {
        let keys = self.network.keys();
        let counters = keys.iter().filter(|(key, _)| key.starts_with(prefix));
        counters.map(|(key, _)| self.network.get(key).expect("a key").parse::<u32>().expect("a number")).sum()
    }
}

#[test]
fn a_cost_is_taken_all_or_not_at_all_and_leaves_what_it_did_not_take_to_cheaper_requests() {
    let stage = Stage::new(1);
    assert_eq!(stage.ask(6), (4, false));
    assert_eq!(stage.ask(5), (4, true));
    stage.correct();
    assert_eq!(stage.sum("limit:own:search:"), 6);
    let calls = stage.network.calls.get();
    assert_eq!(stage.ask(5), (0, true), "known to be refused, and not what is left");
    assert_eq!(stage.network.calls.get(), calls);
    assert_eq!(stage.ask(1), (3, false));
    assert_eq!(stage.ask(3), (0, false));
    assert_eq!(stage.ask(1), (0, true));
    let calls = stage.network.calls.get();
    for (cost, is_refused) in [(1, true), (2, true), (10, true), (0, false)] {
        assert_eq!(stage.ask(cost), (0, is_refused), "{cost}");
    }
    assert_eq!(stage.network.calls.get(), calls, "nobody who is known to be over a limit asks the store");
}

#[test]
fn a_cheap_request_that_is_refused_because_of_a_costly_one_is_refused_for_a_moment_only() {
    let (stage, other) = (Stage::new(1), Isolate::default());
    assert_eq!(stage.ask(6), (4, false));
    assert_eq!(stage.ask(9), (4, true));
    let from_other = |cost| run(&stage.network, ask(&request(&stage.host, &other), cost)).expect("an answer");
    assert!(from_other(1).is_refused, "the nine are not given back yet");
    stage.correct();
    run(&stage.network, apply_corrections(&stage.host, &other.limits, TIMEOUT));
    stage.network.advance(Duration::from_secs(1));
    assert_eq!((from_other(1).remaining, from_other(0).remaining), (3, 3));
}

#[test]
fn a_look_takes_nothing_and_costs_no_command_of_its_own() {
    let stage = Stage::new(1);
    assert_eq!(stage.ask(0), (10, false));
    assert_eq!(stage.network.keys(), []);
    assert_eq!(stage.ask(3), (7, false));
    stage.network.commands.take();
    assert_eq!(stage.ask(0), (7, false));
    let commands = stage.network.commands.take();
    assert_eq!(
        commands.iter().map(|words| (words[0].as_str(), words.len())).collect::<Vec<_>>(),
        [("MGET", 4)]
    );
    assert_eq!(stage.ask(7), (0, false));
    let other = Isolate::default();
    let store = request(&stage.host, &other);
    let state = run(&stage.network, ask(&store, 0)).expect("an answer");
    assert!((state.remaining, state.is_refused) == (0, false) && !state.reset.is_zero());
    assert!(store.check().is_ok());
}

#[test]
fn a_cost_over_the_quota_is_always_refused_and_says_why() {
    let stage = Stage::new(1);
    let store = request(&stage.host, &stage.isolate);
    let state = run(&stage.network, ask(&store, 11)).expect("an answer");
    let expected =
        OwnState { quota: quota("10/1m"), remaining: 0, reset: Duration::from_secs(60), is_refused: true };
    assert_eq!(state, expected);
    assert_eq!(stage.network.calls.get(), 0);
    assert_eq!(store.limiter.write_fields(Response::new(200)).headers, [], "what remains is not known");
    assert_eq!(stage.ask(10), (0, false));
}

#[test]
fn a_refusal_says_which_limit_and_what_it_had_room_for() {
    for (cost, detail) in [
        (1, "the limit \"search\" of 10 in 60 s is reached; try again in"),
        (2, "the limit \"search\" of 10 in 60 s has no room for a cost of 2; try again in"),
        (11, "the limit \"search\" of 10 in 60 s is lower than the cost of this request, 11: ask for less"),
    ] {
        let stage = Stage::new(1);
        stage.ask(10);
        let store = request(&stage.host, &stage.isolate);
        let asked = store.limiter.add_own(name("search"), quota("10/1m"), ALICE, cost);
        run(&stage.network, store.count()).expect("an answer");
        let problem = crate::http::Problem::from(store.limiter.check_asked(asked).expect_err("refused"));
        assert!(problem.detail.starts_with(detail), "{}", problem.detail);
    }
}

#[test]
fn an_own_limit_that_refuses_gives_nothing_else_back_and_stops_no_other_call() {
    let stage = Stage::new(1);
    stage.ask(10);
    let store = request(&stage.host, &stage.isolate);
    store.limiter.add("ip", Some(quota("5/1m")), Subject::address("203.0.113.5"));
    store.limiter.add("session", Some(quota("5/1m")), ALICE);
    run(&stage.network, async {
        store.count().await.expect("an answer");
        assert!(ask(&store, 1).await.expect("an answer").is_refused);
        store.limiter.add("mint", Some(quota("5/1m")), Subject::address("203.0.113.5"));
        let [read] = store.run(Batch::default().get(["a"])).await.expect("not withheld");
        assert_eq!(read.values(1), Ok(vec![None]));
        let [written] = store.run(Batch::default().create("a", "1", TIMEOUT)).await.expect("not withheld");
        assert_eq!(written.is_ok(), Ok(true));
    });
    stage.correct();
    assert!(store.check().is_ok());
    for (counter, count) in
        [("limit:ip:", 1), ("limit:session:", 1), ("limit:mint:", 1), ("limit:own:search:", 10)]
    {
        assert_eq!(stage.sum(counter), count, "{counter}");
    }
}

#[test]
fn an_own_limit_that_is_counted_with_the_request_refuses_it_not_and_is_given_back_with_it() {
    for (ip, counts) in [("5/1m", [1, 1]), ("1/1m", [1, 0])] {
        let stage = Stage::new(1);
        let count_both = || {
            let store = request(&stage.host, &stage.isolate);
            store.limiter.add("ip", Some(quota(ip)), Subject::Unknown);
            store.limiter.add_own(name("search"), quota("10/1m"), ALICE, 1);
            run(&stage.network, async {
                store.count().await.and_then(|()| store.check().map_err(|_| Failure::RateLimited))
            })
        };
        if ip == "1/1m" {
            let store = request(&stage.host, &stage.isolate);
            store.limiter.add("ip", Some(quota(ip)), Subject::Unknown);
            run(&stage.network, store.count()).expect("counted");
        }
        assert_eq!(count_both().is_ok(), counts[1] == 1);
        stage.correct();
        assert_eq!([stage.sum("limit:ip:"), stage.sum("limit:own:")], counts);
    }
}

#[test]
fn no_own_limit_shares_a_counter_or_a_state_with_one_of_ours() {
    let stage = Stage::new(1);
    let store = request(&stage.host, &stage.isolate);
    store.limiter.add("search", Some(quota("10/1m")), ALICE);
    run(&stage.network, store.count()).expect("counted");
    let asked = store.limiter.add_own(name("search"), quota("10/1m"), ALICE, 1);
    assert_eq!((store.limiter.state(asked), store.limiter.check_asked(asked).is_ok()), (None, true));
    run(&stage.network, store.count()).expect("counted");
    store.limiter.withdraw("search");
    store.limiter.withdraw_ticket();
    assert_eq!(store.limiter.state(asked).map(|state| state.remaining), Some(9));
    stage.correct();
    assert_eq!(stage.sum("limit:own:search:AQEBAQEB:"), 1);
}

#[test]
fn a_limit_asked_twice_counts_twice_and_is_shown_once_with_its_latest_state() {
    let stage = Stage::new(1);
    let store = request(&stage.host, &stage.isolate);
    run(&stage.network, async {
        store.limiter.add_own(name("search"), quota("10/1m"), Subject::named("all"), 1);
        for cost in [1, 4, 0] {
            ask(&store, cost).await.expect("an answer");
        }
    });
    let response = store.limiter.write_fields(Response::new(200));
    let [(_, policies), (_, limits)] = &response.headers[..] else { unreachable!("two fields") };
    assert_eq!(policies, "\"search\";q=10;w=60");
    assert!(limits.starts_with("\"search\";r=5;t="), "{limits}");
}

#[test]
fn limits_that_one_request_asks_at_once_are_judged_each_by_its_own_counts() {
    for seed in 0..50 {
        let stage = Stage::new(seed);
        let store = request(&stage.host, &stage.isolate);
        let passed = Cell::new(0);
        let ask = |subject: &'static str, expected: u32| {
            let (store, passed) = (&store, &passed);
            Box::pin(async move {
                let asked =
                    store.limiter.add_own(name("search"), quota("10/1m"), Subject::named(subject), expected);
                store.count().await.expect("an answer");
                let state = store.limiter.state(asked).expect("counted");
                assert_eq!(state.is_refused, store.limiter.check_asked(asked).is_err());
                passed.set(passed.get() + if state.is_refused { 0 } else { expected });
            }) as _
        };
        // Of Ada's only one fits, beside all of Bob's.
        let asked = vec![ask("ada", 6), ask("bob", 1), ask("ada", 6), ask("bob", 2), ask("ada", 11)];
        interleave(&stage.network, asked);
        assert_eq!(passed.get(), 9, "{seed}");
        stage.correct();
        assert_eq!(stage.sum("limit:own:"), 9, "{seed}");
    }
}

#[test]
fn a_quota_that_refuses_says_nothing_of_a_larger_one_of_the_same_name() {
    let stage = Stage::new(1);
    stage.ask(10);
    assert_eq!(stage.ask(1), (0, true));
    stage.correct();
    let store = request(&stage.host, &stage.isolate);
    let asked = store.limiter.add_own(name("search"), quota("100/1m"), ALICE, 1);
    run(&stage.network, store.count()).expect("counted");
    assert_eq!(
        store.limiter.state(asked).map(|state| (state.remaining, state.is_refused)),
        Some((89, false))
    );
}

#[test]
fn a_cost_counted_in_the_wrong_window_is_given_back_there_and_does_not_count_twice() {
    for is_ahead in [true, false] {
        let stage = Stage::new(1);
        let minute = Duration::from_secs(60);
        if is_ahead {
            stage.network.ahead.set(minute);
        } else {
            stage.network.behind.set(minute);
        }
        assert_eq!(stage.ask(6), (4, false), "{is_ahead}");
        assert_eq!(stage.sum("limit:own:"), 12, "the store's clock shows another window");
        stage.correct();
        assert_eq!(stage.sum("limit:own:"), 6);
    }
}

proptest! {
    /// From several isolates at once, in any order, whatever goes wrong.
    #[test]
    fn never_more_than_the_quota_passes_and_all_that_is_refused_is_given_back(
        seed: u64, costs in prop::collection::vec(0_u32..7, 1..40), faults in 0_u64..30, has_faults: bool,
    ) {
        let network = Network::new(seed);
        network.fault_percent.set(if has_faults { faults } else { 0 });
        let host = FakeHost(Rc::clone(&network));
        let isolates: Vec<Isolate> = (0..3).map(|_| Isolate::default()).collect();
        let passed = Cell::new(0);
        let began = network.now.get();
        interleave(&network, costs.iter().enumerate().map(|(index, cost)| {
            let store = request(&host, &isolates[index % 3]);
            let passed = &passed;
            Box::pin(async move {
                if let Ok(state) = ask(&store, *cost).await && !state.is_refused {
                    passed.set(passed.get() + *cost);
                }
            }) as _
        }).collect());
        // In this time it is one window, or what is left of the one before hardly matters.
        prop_assume!(network.now.get() - began < Duration::from_secs(50));
        prop_assert!(passed.get() <= 10, "{} passed", passed.get());
        network.fault_percent.set(0);
        for isolate in &isolates {
            network.advance(Duration::from_secs(6));
            run(&network, apply_corrections(&host, &isolate.limits, TIMEOUT));
        }
        let keys = network.keys();
        prop_assert!(keys.iter().all(|(_, ttl)| ttl.is_some()), "{keys:?}");
        if !has_faults {
            let counted: u32 = keys.iter().map(|(key, _)| network.get(key).expect("a key").parse::<u32>().expect("a number")).sum();
            prop_assert_eq!(counted, passed.get());
        }
    }
}

#[test]
fn a_limit_that_could_not_be_counted_is_an_error_or_without_a_state() {
    for fails_open in [false, true] {
        let stage = Stage::new(1);
        let store = Store::new(&stage.host, TIMEOUT, String::new());
        let store = CountingStore::new(store, RateLimiter::new(&stage.isolate.limits, ""), fails_open);
        stage.network.script.borrow_mut().push_back(Some(Fault::Dropped));
        let asked = store.limiter.add_own(name("search"), quota("10/1m"), ALICE, 1);
        let outcome = run(&stage.network, store.count());
        assert_eq!(outcome, if fails_open { Ok(()) } else { Err(Failure::Unreachable) });
        assert_eq!(store.limiter.state(asked), None);
    }
}
