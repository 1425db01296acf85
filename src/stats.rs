//! Counters per day, for operators: `stats:<day>`, a hash that the store keeps for 35 days.
//!
//! They are counted in the isolate and written off the path of any request, at most one batch a minute. What an
//! isolate has counted and not yet written is lost with it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    host::Host,
    isolate::Isolate,
    store::{Batch, Failure, Store},
    ticket::Keyring,
    time::Time,
};

/// Days that are kept and reported.
const DAYS: u64 = 35;
const DAY: Duration = Duration::from_secs(86_400);

/// What stands before a key's fingerprint in the name of its counter.
const KEY: &str = "key:";

/// Counts a ticket that came with a request and was good, by the key that signed it.
pub fn count_ticket(isolate: &Isolate, fingerprint: &str, now: Time) {
    isolate.count(format!("{KEY}{fingerprint}"), now);
}

/// Writes what is due. A failure is logged, and what it concerned is counted again the next time.
pub async fn flush<H: Host>(host: &H, isolate: &Isolate, timeout: Duration, key_prefix: &str) {
    let now = host.now();
    let Some(tally) = isolate.take_tally(now) else { return };
    let key = key_of(key_prefix, now);
    let batch = tally.iter().fold(Batch::default(), |batch, (name, count)| batch.add(&key, name, *count));
    let written =
        Store::new(host, timeout, String::new()).run_all(batch.expire(&key, DAY * 36).as_one()).await;
    if let Err(failure) = written {
        // Lost answers count as not written: a counter may be a little high, as it may be a little low.
        host.log(&format_args!("the counters could not be written: {failure}"));
        isolate.recount(tally, now);
    }
}

/// `{"signing_keys": […], "days": […]}`: the fingerprints of `SESSION_SECRET`, in its order, and the days with
/// anything to tell, the newest first. A secret whose key is not seen any more can be dropped.
pub async fn report<H: Host>(
    host: &H,
    store: &Store<'_, H>,
    keyring: &Keyring,
    key_prefix: &str,
) -> Result<String, Failure> {
    let now = host.now();
    let days: Vec<Time> = (0..DAYS).map(|back| now - DAY * u32::try_from(back).unwrap_or(0)).collect();
    let batch = days.iter().fold(Batch::default(), |batch, day| batch.hash(&key_of(key_prefix, *day)));
    let replies = store.run_all(batch).await?;
    if replies.len() != days.len() {
        return Err(Failure::Garbled);
    }
    let mut report = Report { signing_keys: keyring.fingerprints(), days: Vec::new() };
    for (day, reply) in days.into_iter().zip(replies) {
        let mut one = Day { day: day.date(), tickets_by_key: BTreeMap::new(), counts: BTreeMap::new() };
        for (name, count) in reply.pairs()? {
            let count = count.parse().unwrap_or(0);
            match name.strip_prefix(KEY) {
                Some(fingerprint) => one.tickets_by_key.insert(fingerprint.to_owned(), count),
                None => one.counts.insert(name, count),
            };
        }
        if !(one.tickets_by_key.is_empty() && one.counts.is_empty()) {
            report.days.push(one);
        }
    }
    // Strings and numbers always have a JSON form.
    Ok(serde_json::to_string(&report).unwrap_or_default())
}

#[derive(Serialize)]
struct Report {
    signing_keys: Vec<String>,
    days: Vec<Day>,
}

#[derive(Serialize)]
struct Day {
    day: String,
    tickets_by_key: BTreeMap<String, u64>,
    #[serde(flatten)]
    counts: BTreeMap<String, u64>,
}

fn key_of(key_prefix: &str, day: Time) -> String {
    format!("{key_prefix}stats:{}", day.date())
}
