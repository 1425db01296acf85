//! For tests: a store in memory, and isolates that call it over a network whose order, time and faults the test decides.
//!
//! Nothing waits in real time. A [`FakeHost`] is pending where a real one waits, and [`interleave`] polls all requests in an
//! order drawn from a [`Dice`].

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    host::{Answer, Call, Host, Post, Unreachable},
    log::Line,
    time::Time,
};

/// Repeatable chance (SplitMix64).
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// From 0 to below `sides`.
    pub(crate) fn roll(&self, sides: u64) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It does not arrive.
    Dropped,
    /// It is made, and its answer is lost.
    AnswerLost,
    /// It is made at some later time, when its sender has given up.
    Late,
    /// The store answers with status 500.
    Status500,
    /// Something answers that is not the store.
    Garbage,
    /// The store answers in its format, but with nonsense.
    Nonsense,
    /// Every command is answered with an error.
    Error,
}

pub(crate) const FAULTS: [Fault; 7] = [
    Fault::Dropped,
    Fault::AnswerLost,
    Fault::Late,
    Fault::Status500,
    Fault::Garbage,
    Fault::Nonsense,
    Fault::Error,
];

/// A value that is no string, which `MGET` does not show.
pub(crate) const HASH: &str = "(a hash)";

/// The store and the network in front of it.
pub(crate) struct Network {
    pub(crate) now: Cell<Time>,
    pub(crate) dice: Dice,
    /// How far the store's clock is ahead of the isolates'.
    pub(crate) ahead: Cell<Duration>,
    /// Or behind.
    pub(crate) behind: Cell<Duration>,
    /// Whether what is late arrives only when the test says so.
    pub(crate) holds_late: Cell<bool>,
    /// In how many of a hundred calls there is a fault.
    pub(crate) fault_percent: Cell<u64>,
    /// What happens to the next calls; then chance decides.
    pub(crate) script: RefCell<VecDeque<Option<Fault>>>,
    /// Every command that was made.
    pub(crate) commands: RefCell<Vec<Vec<String>>>,
    pub(crate) calls: Cell<usize>,
    pub(crate) log: RefCell<Vec<String>>,
    data: RefCell<BTreeMap<String, (String, Option<Time>)>>,
    late: RefCell<Vec<Value>>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(Time(1_767_225_610_000)),
            dice: Dice::new(seed),
            ahead: Cell::default(),
            behind: Cell::default(),
            holds_late: Cell::default(),
            fault_percent: Cell::default(),
            script: RefCell::default(),
            commands: RefCell::default(),
            calls: Cell::default(),
            log: RefCell::default(),
            data: RefCell::default(),
            late: RefCell::default(),
        })
    }

    pub(crate) fn advance(&self, duration: Duration) {
        self.now.set(self.now.get() + duration);
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let data = self.data.borrow();
        let (value, ends) = data.get(key)?;
        ends.is_none_or(|ends| self.now.get() < ends).then(|| value.clone())
    }

    pub(crate) fn set(&self, key: &str, value: &str, ttl: Option<Duration>) {
        let ends = ttl.map(|ttl| self.now.get() + ttl);
        self.data.borrow_mut().insert(key.to_owned(), (value.to_owned(), ends));
    }

    /// Every key, with how long it lives; `None` if it does for ever.
    pub(crate) fn keys(&self) -> Vec<(String, Option<Duration>)> {
        let now = self.now.get();
        let data = self.data.borrow();
        let live = data.iter().filter(|(_, (_, ends))| ends.is_none_or(|ends| now < ends));
        live.map(|(key, (_, ends))| (key.clone(), ends.map(|ends| ends - now))).collect()
    }

    fn next_fault(&self) -> Option<Fault> {
        if let Some(fault) = self.script.borrow_mut().pop_front() {
            return fault;
        }
        let is_fault = self.dice.roll(100) < self.fault_percent.get();
        is_fault.then(|| FAULTS[usize::try_from(self.dice.roll(FAULTS.len() as u64)).expect("small")])
    }

    /// What arrives late, arrives.
    pub(crate) fn deliver_late(&self) {
        for batch in self.late.take() {
            drop(self.run(&batch));
        }
    }

    fn run(&self, batch: &Value) -> Value {
        let commands = batch.as_array().expect("a list of commands");
        commands.iter().map(|command| json!({ "result": self.command(command) })).collect()
    }

    fn command(&self, command: &Value) -> Value {
        let words: Vec<&str> = command
            .as_array()
            .expect("a command")
            .iter()
            .map(|word| word.as_str().expect("a word"))
            .collect();
        self.commands.borrow_mut().push(words.iter().map(|word| (*word).to_owned()).collect());
        let add = |key: &str, count: i64| {
            let sum = self.get(key).map_or(0, |old| old.parse::<i64>().expect("a number")) + count;
            let ends =
                self.data.borrow().get(key).filter(|_| self.get(key).is_some()).and_then(|(_, ends)| *ends);
            self.data.borrow_mut().insert(key.to_owned(), (sum.to_string(), ends));
            json!(sum)
        };
        match words.as_slice() {
            ["MGET", keys @ ..] => {
                keys.iter().map(|key| json!(self.get(key).filter(|value| value != HASH))).collect()
            }
            ["GETEX", key] => json!(self.get(key)),
            ["DEL", keys @ ..] => {
                let live: Vec<_> = keys.iter().filter(|key| self.get(key).is_some()).collect();
                live.iter().for_each(|key| drop(self.data.borrow_mut().remove(**key)));
                json!(live.len())
            }
            ["DELEX", key, "IFEQ", old] => {
                let is_same = self.get(key).as_deref() == Some(old);
                if is_same {
                    self.data.borrow_mut().remove(*key);
                }
                json!(i32::from(is_same))
            }
            ["SET", key, value, rest @ ..] => {
                let (may_set, rest) = match rest {
                    ["NX", rest @ ..] => (self.get(key).is_none(), rest),
                    ["IFEQ", old, rest @ ..] => (self.get(key).as_deref() == Some(old), rest),
                    rest => (true, rest),
                };
                let ["PX", ttl] = rest else { unreachable!("no expiry: {words:?}") };
                if may_set {
                    self.set(key, value, Some(Duration::from_millis(ttl.parse().expect("a number"))));
                }
                if may_set { json!("OK") } else { Value::Null }
            }
            ["INCR", key] => add(key, 1),
            ["INCRBY", key, count] => add(key, count.parse().expect("a number")),
            ["DECRBY", key, count] => add(key, -count.parse::<i64>().expect("a number")),
            ["PEXPIRE", key, ttl, "NX"] => {
                let has_none = self.keys().contains(&((*key).to_owned(), None));
                if has_none {
                    let value = self.get(key).expect("a key");
                    self.set(key, &value, Some(Duration::from_millis(ttl.parse().expect("a number"))));
                }
                json!(i32::from(has_none))
            }
            ["TIME"] => {
                let now = (self.now.get() + self.ahead.get() - self.behind.get()).0;
                json!([(now / 1000).to_string(), (now % 1000 * 1000).to_string()])
            }
            // The scripts that are called by their names.
            ["EVALSHA", _, count, rest @ ..] => {
                let (keys, arguments) = rest.split_at(count.parse().expect("a number"));
                self.exchange(keys, arguments)
            }
            _ => unreachable!("not a command of this store: {words:?}"),
        }
    }

    /// These scripts in other words: `session/exchange.rs` has the real ones, which differ in how many arguments they have.
    fn exchange(&self, keys: &[&str], arguments: &[&str]) -> Value {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let index = |text: &str| text.parse::<usize>().expect("a number");
        let (own, limits) = keys.split_at(index(arguments[0]));
        let is_creation = own.len() == 1;
        let lengths = if is_creation { [3, 3] } else { [4, 9] };
        let is_by_rank = arguments.len() == lengths[0] + 2 * limits.len();
        let (arguments, terms) = arguments.split_at(lengths[usize::from(!is_by_rank)]);
        let count = |key: &str| self.get(key).map_or(0, |count| number(&count));
        // 1. The limits, which refuse together or count together.
        let (mut counts, mut counted) = (Vec::new(), Vec::new());
        for (keys, terms) in
            limits.chunks(if is_by_rank { 1 } else { 3 }).zip(terms.chunks(if is_by_rank { 2 } else { 4 }))
        {
            let (key, most) = if is_by_rank {
                counts.push(count(keys[0]));
                (keys[0], number(terms[0]))
            } else {
                let [limit, length, left] = [0, 1, 2].map(|index| number(terms[index]));
                let previous = count(keys[0]);
                counts.extend([previous, count(keys[1]) + count(keys[2])]);
                (keys[1], limit - previous.min(limit) * left / length)
            };
            if counts.last().is_some_and(|before| before + 1 > most) {
                return json!([-1]);
            }
            counted.push((key, terms.last().map(|ttl| Duration::from_millis(number(ttl)))));
        }
        for (key, ttl) in counted {
            match self.get(key) {
                None => self.set(key, "1", ttl),
                Some(_) => drop(self.command(&json!(["INCR", key]))),
            }
        }
        if is_creation {
            let created = self.command(&json!(["SET", own[0], arguments[1], "NX", "PX", arguments[2]]));
            return json!([i32::from(created == json!("OK")), counts]);
        }
        // 2. What is known, and what is kept of it.
        let is = |key: Option<&&str>, known: &str| {
            key.is_none_or(|key| self.get(key).unwrap_or_default() == *known)
        };
        let next = self.get(own[0]).and_then(|stored| {
            if is_by_rank {
                let is_known = stored == arguments[2] && is(own.get(2), arguments[1]);
                return is_known.then(|| arguments[3].to_owned());
            }
            let is_known = super::sha1(&stored) == arguments[3]
                && is(own.get(1), arguments[1])
                && is(own.get(2), arguments[2]);
            let kept = stored.get(index(arguments[5]) - 1..index(arguments[6])).unwrap_or_default();
            is_known.then(|| [arguments[4], kept, arguments[7], &stored[index(arguments[8]) - 1..]].concat())
        });
        let Some(next) = next else {
            return json!([0, counts, own.iter().map(|key| self.get(key)).collect::<Vec<_>>()]);
        };
        let ends = self.data.borrow()[own[0]].1;
        self.data.borrow_mut().insert(own[0].to_owned(), (next, ends));
        json!([1, counts])
    }
}

/// The machine of an isolate in front of that network.
#[derive(Clone)]
pub(crate) struct FakeHost(pub(crate) Rc<Network>);

impl Host for FakeHost {
    fn now(&self) -> Time {
        self.0.now.get()
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill_with(|| u8::try_from(self.0.dice.roll(256)).expect("a byte"));
    }
    fn nfkc(&self, text: &str) -> String {
        text.to_owned()
    }
    fn lower_case(&self, text: &str) -> String {
        text.to_lowercase()
    }
    fn is_mark(&self, _: char) -> bool {
        false
    }
    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        std::future::poll_fn(|_| if self.now() < until { Poll::Pending } else { Poll::Ready(()) }).await;
    }
    async fn send(&self, call: Call) -> Result<Answer, Unreachable> {
        let network = &self.0;
        let batch: Value = serde_json::from_str(&call.body).expect("JSON");
        network.calls.set(network.calls.get() + 1);
        pause().await;
        let answer =
            |status, body: &dyn Display| Answer { status, body: body.to_string(), sync_token: String::new() };
        let fault = network.next_fault();
        let answer = match fault {
            None => Ok(answer(200, &network.run(&batch))),
            Some(Fault::Status500) => Ok(answer(500, &"oops")),
            Some(Fault::Garbage) => Ok(answer(200, &"<html>")),
            Some(Fault::Nonsense) => {
                Ok(answer(200, &json!(vec![json!({ "result": 7 }); batch.as_array().map_or(0, Vec::len)])))
            }
            Some(Fault::Error) => Ok(answer(
                200,
                &json!(vec![
                    json!({ "error": "ERR DB capacity quota exceeded" });
                    batch.as_array().map_or(0, Vec::len)
                ]),
            )),
            Some(Fault::Dropped) => Err(Unreachable),
            Some(Fault::AnswerLost) => {
                drop(network.run(&batch));
                Err(Unreachable)
            }
            Some(Fault::Late) => {
                network.late.borrow_mut().push(batch);
                Err(Unreachable)
            }
        };
        if answer.is_err() {
            self.sleep(call.timeout).await;
        }
        pause().await;
        answer
    }
    async fn post(&self, _: Post<'_>) -> Result<u16, Unreachable> {
        Err(Unreachable)
    }
    fn has_platform_limit(&self) -> bool {
        false
    }
    async fn is_over_platform_limit(&self, _: &str) -> bool {
        false
    }
    async fn sign(&self, _: &crate::host::SigningKey, _: &str) -> Result<Vec<u8>, crate::host::Unsigned> {
        Err(crate::host::Unsigned)
    }
    fn log(&self, line: &Line) {
        self.0.log.borrow_mut().push(line.message.clone());
    }
}

/// Lets others go first, if chance wants it.
async fn pause() {
    let mut is_first = true;
    std::future::poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) })
        .await;
}

/// Runs a future to its end, alone; the clock goes on while it waits.
pub(crate) fn run<T>(network: &Network, future: impl Future<Output = T>) -> T {
    let mut result = None;
    interleave(network, vec![Box::pin(async { result = Some(future.await) })]);
    result.expect("it has ended")
}

/// Polls all futures to their ends, in an order of chance, and lets the clock go on.
pub(crate) fn interleave<'a>(network: &Network, mut futures: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>) {
    let mut steps = 0;
    while !futures.is_empty() {
        steps += 1;
        assert!(steps < 1_000_000, "some never end");
        let index = usize::try_from(network.dice.roll(futures.len() as u64)).expect("small");
        if futures[index].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            drop(futures.swap_remove(index));
        }
        if network.dice.roll(4) == 0 {
            network.advance(Duration::from_millis(network.dice.roll(20)));
        }
        if network.dice.roll(50) == 0 && !network.holds_late.get() {
            network.deliver_late();
        }
    }
    network.deliver_late();
}
