//! Counters per day, for operators: `stats:<day>`, a hash that the store keeps for 35 days.
//!
//! They are counted in the isolate and written off the path of any request, at most one batch a minute. What an
//! isolate has counted and not yet written is lost with it.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::{
    host::Host,
    isolate::Isolate,
    json::{self, Object},
    store::{Batch, Failure, Store},
    ticket::{Keyring, Verified},
    time::Time,
};

/// Days that are kept and reported.
const DAYS: u64 = 35;
const DAY: Duration = Duration::from_secs(86_400);

/// What stands before a key's fingerprint in the name of its counter.
const KEY: &str = "key:";

/// What is counted by name, whether there were any or not.
const COUNTED: [&str; 7] = [
    "sessions_created",
    "logins",
    "failed_logins",
    "logouts",
    "revocations",
    "rate_limited",
    "passed_uncounted",
];

/// Counts a ticket that came with a request and was good, by the key that signed it, and whose it is.
pub fn count_ticket(isolate: &Isolate, presented: &Verified<'_>, now: Time) {
    isolate.count(&[KEY, presented.key].concat(), now);
    if let Some(user) = presented.ticket.user {
        isolate.see(Base64UrlUnpadded::encode_string(&user));
    }
}

/// Writes what is due. A failure is logged, and what it concerned is counted again the next time.
pub async fn flush<H: Host>(host: &H, isolate: &Isolate, timeout: Duration, key_prefix: &str) {
    let now = host.now();
    let Some(tally) = isolate.take_tally(now) else { return };
    let key = key_of(key_prefix, now);
    let users = isolate.take_users();
    let names: Vec<&str> = users.keys().map(String::as_str).collect();
    let mut batch = tally.iter().fold(Batch::default(), |batch, (name, count)| batch.add(&key, name, *count));
    if !names.is_empty() {
        let users_key = users_key_of(key_prefix, now);
        batch = batch.count_different(&users_key, &names).expire(&users_key, DAY * 36);
    }
    let written =
        Store::new(host, timeout, String::new()).run_all(batch.expire(&key, DAY * 36).as_one()).await;
    if let Err(failure) = written {
        for user in users.into_keys() {
            isolate.see(user);
        }
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
    let batch = days.iter().fold(Batch::default(), |batch, day| {
        batch.hash(&key_of(key_prefix, *day)).different(&users_key_of(key_prefix, *day))
    });
    let mut replies = store.run_all(batch).await?.into_iter();
    let mut reported = Vec::new();
    for day in days {
        let (Some(counts), Some(users)) = (replies.next(), replies.next()) else {
            return Err(Failure::Garbled);
        };
        let (counts, users) = (counts.pairs()?, users.count()?);
        if counts.is_empty() {
            continue;
        }
        let (mut one, mut tickets_by_key) = (Object::default(), Object::default());
        for (name, count) in &counts {
            if let Some(fingerprint) = name.strip_prefix(KEY) {
                tickets_by_key.json(fingerprint, count);
            }
        }
        one.text("day", &day.date()).json("tickets_by_key", &tickets_by_key.end());
        for name in COUNTED {
            let count = counts.iter().find(|(counted, _)| counted == name);
            one.json(name, count.map_or("0", |(_, count)| count));
        }
        reported.push(one.print("distinct_users", users).end());
    }
    let signing_keys = json::list(keyring.fingerprints().iter().map(|key| json::quoted(key)));
    let days = json::list(reported.into_iter());
    Ok(Object::default().json("signing_keys", &signing_keys).json("days", &days).end())
}

/// Where the different users of a day are counted, by a HyperLogLog: within one percent, and without their names.
fn users_key_of(key_prefix: &str, day: Time) -> String {
    format!("{}:users", key_of(key_prefix, day))
}

fn key_of(key_prefix: &str, day: Time) -> String {
    format!("{key_prefix}stats:{}", day.date())
}
