//! Counters per day, for operators: `stats:<day>`, a hash that the store keeps for 36 days.
//!
//! They are counted in the isolate and written outside of any request, at most once a minute. What an isolate has counted
//! and not yet written is lost with it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    base64url,
    events::LOST,
    host::Host,
    http::Response,
    isolate::Isolate,
    limit::CountingStore,
    log::{self, Line},
    session::Lifetimes,
    store::{Batch, Failure, Store},
    ticket::{Keyring, Verified},
    time::Time,
};

/// Days that are reported.
const DAYS: u32 = 35;
const DAY: Duration = Duration::from_secs(86_400);
/// How long a day's counters are kept.
const TTL: Duration = Duration::from_secs(36 * 86_400);

/// Prepended to a key's fingerprint in the name of its counter.
const KEY: &str = "key:";

/// The answer: the fingerprints of `SESSION_SECRET`, in its order, and the days with any counts, the newest first. A
/// secret whose key has not occurred for as long as the longest session lasts can be dropped.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Report {
    signing_keys: Vec<String>,
    longest_session_seconds: u64,
    days: Vec<Day>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Day {
    #[cfg_attr(test, schemars(extend("format" = "date")))]
    day: String,
    tickets_by_key: BTreeMap<String, u64>,
    sessions_created: u64,
    logins: u64,
    failed_logins: u64,
    logouts: u64,
    revocations: u64,
    rate_limited: u64,
    passed_uncounted: u64,
    events_lost: u64,
    gateway_refused: u64,
    distinct_users: i64,
}

/// Counts a verified ticket, by the key that signed it and by its user.
pub fn count_ticket(isolate: &Isolate, presented: &Verified<'_>, now: Time) {
    isolate.count(&[KEY, presented.key].concat(), now);
    if let Some(user) = presented.ticket.user {
        isolate.count_user(user);
    }
}

/// Writes the counts that are due. If that fails, they are written the next time.
pub async fn write<H: Host>(host: &H, isolate: &Isolate, timeout: Duration, key_prefix: &str) {
    let now = host.now();
    let Some(counts) = isolate.take_due_counts(now) else { return };
    let users = isolate.take_users();
    let (key, users_key) = (counts_key(key_prefix, now), users_key(key_prefix, now));
    let mut batch = Batch::default();
    for (what, count) in &counts {
        batch = batch.hash_add(&key, what, *count);
    }
    if !users.is_empty() {
        let names = users.iter().map(|user| base64url::encode(user));
        batch = batch.count_distinct(&users_key, names).expire(&users_key, TTL);
    }
    batch = batch.expire(&key, TTL).atomic();
    if let Err(failure) = Store::new(host, timeout, String::new()).run_all(batch).await {
        let message = format!("the counters of the day could not be written: {failure}");
        host.log(&Line::new(log::Event::StatsNotWritten, message));
        users.into_iter().for_each(|user| isolate.count_user(user));
        // An answer that was lost counts as a failure: a counter may be a little high, as it may be a little low.
        isolate.restore_counts(&counts, now);
    }
}

/// The report of all days.
pub async fn report<H: Host>(
    now: Time,
    store: &CountingStore<'_, H>,
    keyring: &Keyring,
    lifetimes: &Lifetimes,
    key_prefix: &str,
) -> Result<Response, Failure> {
    let days: Vec<Time> = (0..DAYS).map(|back| now - DAY * back).collect();
    let batch = days.iter().fold(Batch::default(), |batch, day| {
        batch.hash(counts_key(key_prefix, *day)).distinct(users_key(key_prefix, *day))
    });
    let mut replies = store.run_all(batch).await?.into_iter();
    let longest_session_seconds = lifetimes.absolute.max(lifetimes.remember).as_secs();
    let mut report =
        Report { signing_keys: keyring.fingerprints(), longest_session_seconds, days: Vec::new() };
    for day in days {
        let (Some(counts), Some(users)) = (replies.next(), replies.next()) else {
            return Err(Failure::Garbled);
        };
        let (counts, distinct_users) = (counts.pairs()?, users.integer()?);
        if counts.is_empty() {
            continue;
        }
        let (mut tickets_by_key, mut by_name) = (BTreeMap::new(), BTreeMap::new());
        for (name, count) in &counts {
            let count = count.parse().unwrap_or(0);
            match name.strip_prefix(KEY) {
                Some(key) => tickets_by_key.insert(key.to_owned(), count),
                None => by_name.insert(name.clone(), count),
            };
        }
        let count = |name| by_name.get(name).copied().unwrap_or(0);
        report.days.push(Day {
            day: day.date(),
            tickets_by_key,
            sessions_created: count("sessions_created"),
            logins: count("logins"),
            failed_logins: count("failed_logins"),
            logouts: count("logouts"),
            revocations: count("revocations"),
            rate_limited: count("rate_limited"),
            passed_uncounted: count("passed_uncounted"),
            events_lost: count(LOST),
            gateway_refused: count("gateway_refused"),
            distinct_users,
        });
    }
    Ok(Response::json(&report))
}

/// Where the distinct users of a day are counted, in a HyperLogLog: within one percent, and without their names.
fn users_key(key_prefix: &str, day: Time) -> String {
    format!("{}:users", counts_key(key_prefix, day))
}

fn counts_key(key_prefix: &str, day: Time) -> String {
    format!("{key_prefix}stats:{}", day.date())
}
