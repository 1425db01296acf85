//! Counters per day, for operators: `stats:<day>`, a hash that the store keeps for 35 days.
//!
//! They are counted in the isolate and written off the path of any request, at most one batch a minute. What an
//! isolate has counted and not yet written is lost with it.

use std::time::Duration;

use crate::{
    host::Host,
    isolate::Isolate,
    json::{self, Object},
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
    let mut reported = Vec::new();
    for (day, reply) in days.into_iter().zip(replies) {
        let (mut tickets_by_key, mut counts) = (Object::default(), Vec::new());
        for (name, count) in reply.pairs()? {
            let count: u64 = count.parse().unwrap_or(0);
            match name.strip_prefix(KEY) {
                Some(fingerprint) => {
                    tickets_by_key.print(fingerprint, &count);
                }
                None => counts.push((name, count)),
            }
        }
        if tickets_by_key.is_empty() && counts.is_empty() {
            continue;
        }
        let mut one = Object::default();
        one.text("day", &day.date()).json("tickets_by_key", &tickets_by_key.end());
        for (name, count) in counts {
            one.print(&name, &count);
        }
        reported.push(one.end());
    }
    let signing_keys = json::list(keyring.fingerprints().iter().map(|key| json::quoted(key)));
    let days = json::list(reported.into_iter());
    Ok(Object::default().json("signing_keys", &signing_keys).json("days", &days).end())
}

fn key_of(key_prefix: &str, day: Time) -> String {
    format!("{key_prefix}stats:{}", day.date())
}
