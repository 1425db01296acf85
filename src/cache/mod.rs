//! A cache in the store: values that are slow or costly to compute, shared by all isolates.
//!
//! Of all who ask for a key at a time, one computes; the others get the value before, if there is one that is not too old,
//! or wait. A store that fails costs the caching and nothing else.
//!
//! All about a key is one JSON text under that key, and is changed by compare-and-set alone, as sessions are: the value,
//! until when it is fresh and until when it is given at all, and who is computing the next one. Whoever computes has put a
//! token of its own there, and writes its value only if what stands there is still that. So a computation that began before
//! [`Cache::forget`] writes nothing, and so does one that has been given up for dead.

use std::{borrow::Cow, fmt::Display, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use crate::{
    base64url,
    encryption::EncryptionKeys,
    host::{Host, random},
    isolate::Isolate,
    json::{self, Version},
    log::{self, Line},
    store::{Batch, Failure, KnownError, Reply, Store},
    time::Time,
};

/// Longer keys are stored by their hash.
const MAX_KEY: usize = 200;

/// How large a value can be, as JSON.
const MAX_VALUE: usize = 1024 * 1024;

/// Larger values are not given while the next one is computed: each change would send them twice.
const MAX_KEPT: usize = 256 * 1024;

/// The first pause of one who waits; each is twice as long as the one before, up to 64 times this.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A cache in the store, for values that serde can write as JSON and read again.
///
/// Everything that a value depends on belongs into its key. **If it belongs to one user, the key must name that user**, by
/// the id and not by what a visitor may choose: with the key `"cart"` everybody gets the cart of whoever came first.
/// Values are stored as JSON, sealed if `SESSION_ENCRYPTION_KEY` is set, under `cache:<key>` behind `key_prefix`; keys stay
/// readable, those of over 200 bytes are stored by their hash.
///
/// ```
/// # use std::time::Duration;
/// # struct Unavailable;
/// # async fn fetch_prices(_: &str) -> Result<Vec<u32>, Unavailable> { Ok(Vec::new()) }
/// use cloakroom::{cache::Cache, host::Host};
///
/// async fn prices(cache: &Cache<'_, impl Host>, currency: &str) -> Result<Vec<u32>, Unavailable> {
///     let key = format!("prices:{currency}");
///     cache.get_or_compute(&key, Duration::from_secs(60), || fetch_prices(currency)).await
/// }
/// ```
#[must_use]
pub struct Cache<'a, H> {
    host: &'a H,
    isolate: &'a Isolate,
    store: Store<'a, H>,
    key_prefix: &'a str,
    encryption: Option<&'a EncryptionKeys>,
    stale_for: Option<Duration>,
    negative_ttl: Option<Duration>,
    wait: Duration,
    compute_timeout: Duration,
}

/// All that is stored under one key.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Entry {
    v: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    computing: Option<Lock>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    json: Box<RawValue>,
    fresh_until: Time,
    stale_until: Time,
}

/// Somebody is computing the next value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    /// Nobody else's.
    token: String,
    until: Time,
}

/// The right to compute and to write the value.
struct Held {
    /// What was stored with it.
    text: String,
    /// The value before.
    stale: Option<Value>,
    /// Whether it may not have been stored, or not yet.
    is_in_doubt: bool,
}

/// What there is to do about a value.
enum Found {
    /// It was read.
    Value,
    /// Compute it, and write it.
    Lock(Held),
    /// Compute it, and keep it to oneself: somebody else takes longer to compute than one can wait.
    Busy,
}

/// Why a value is not stored.
enum Unstorable {
    NoJson,
    TooLarge,
}

impl<'a, H: Host> Cache<'a, H> {
    /// The cache in the store behind `host`. `timeout`: for each call to the store. `key_prefix`: stands before each key.
    /// What is written through it is also what is read through it; another `Cache` may read from a replica that is a
    /// moment behind.
    pub fn new(host: &'a H, isolate: &'a Isolate, timeout: Duration, key_prefix: &'a str) -> Self {
        Self {
            host,
            isolate,
            store: Store::new(host, timeout, String::new()),
            key_prefix,
            encryption: None,
            stale_for: None,
            negative_ttl: None,
            wait: Duration::from_secs(5),
            compute_timeout: Duration::from_secs(30),
        }
    }

    /// What values are sealed with before they are stored, and opened. By default nothing.
    pub fn encryption(self, keys: &'a EncryptionKeys) -> Self {
        Self { encryption: Some(keys), ..self }
    }

    /// How long a value that is no longer fresh is given to others while one computes the next. By default as long as it
    /// was fresh. Values of over 256 KiB are not.
    pub fn stale_for(self, duration: Duration) -> Self {
        Self { stale_for: Some(duration), ..self }
    }

    /// How long a value that is `null` in JSON is fresh: `None`, for what does not exist. By default as long as any other.
    pub fn negative_ttl(self, duration: Duration) -> Self {
        Self { negative_ttl: Some(duration), ..self }
    }

    /// How long one waits for another's computation if there is no value to give meanwhile, and then computes, too. By
    /// default 5 seconds.
    pub fn wait(self, duration: Duration) -> Self {
        Self { wait: duration, ..self }
    }

    /// After how long a computation counts as dead, so that another may begin. Its value is not stored any more: longer
    /// than computing takes. By default 30 seconds.
    pub fn compute_timeout(self, duration: Duration) -> Self {
        Self { compute_timeout: duration, ..self }
    }

    /// The value of `key`, at most `ttl` old; if there is none, computes and stores it. Between `ttl` and
    /// [`Self::stale_for`] later, one who asks computes, and others get the old value. `compute` is called once or not at
    /// all; it must not ask for the same key.
    ///
    /// Errors: those of `compute`, which are not stored: the next one who asks computes again. If the store fails, the
    /// value is computed, and the log says so, once a minute.
    ///
    /// Calls to the store: 1 for a fresh value (`MGET`); 3 when it computes (`MGET`; `SET` and `MGET`; `SET`); 1 or 2 for
    /// others while one computes and there is an old value, else 1 or 2 and one for each time that they look again (`MGET`,
    /// after 10 ms and then less and less often). A computation that fails takes 3 as well. If the first call fails there
    /// is no other.
    pub async fn get_or_compute<T, E>(
        &self,
        key: &str,
        ttl: Duration,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let key = self.key(key);
        let mut value = None;
        let mut read = |json: &str| {
            value = serde_json::from_str(json).ok();
            value.is_some()
        };
        let found = self.find(&key, &mut read).await;
        if let (Ok(Found::Value), Some(value)) = (&found, value) {
            return Ok(value);
        }
        let outcome = compute().await;
        match found {
            Ok(Found::Lock(held)) => {
                let json = outcome.as_ref().ok().map(to_raw_value);
                self.finish(&key, ttl, held, json.map(|json| json.map_err(|_| Unstorable::NoJson))).await;
            }
            Ok(Found::Value | Found::Busy) => {}
            Err(failure) => {
                self.tell(&format_args!("a value was computed, because the store failed: {failure}"))
            }
        }
        outcome
    }

    /// Forgets the value of `key`: whoever asks from now on gets one whose computation began later. One call (`DEL`).
    /// Errors: the store failed, and the value may or may not be forgotten. Elsewhere in the world a replica may give it
    /// for a moment more.
    pub async fn forget(&self, key: &str) -> Result<(), Failure> {
        let replies = self.store.run_all(Batch::default().delete([self.key(key)])).await?;
        // Of one key there is one or none.
        match replies.first().ok_or(Failure::Garbled)?.integer()? {
            0 | 1 => Ok(()),
            _ => Err(Failure::Garbled),
        }
    }

    /// Looks for the value until it can be read, or is to be computed. `read` says whether it can read a value, and keeps
    /// it.
    async fn find(&self, key: &str, read: &mut dyn FnMut(&str) -> bool) -> Result<Found, Failure> {
        let (began, mut waited, mut pauses, mut has_lost) = (self.host.now(), Duration::ZERO, 0, false);
        let mut stored = self.read(key).await?;
        loop {
            let now = self.host.now();
            let Entry { value, computing, .. } = self.open(key, stored.as_deref());
            let is_computing = computing.is_some_and(|lock| now < lock.until);
            // 1. A value that can be given. What cannot be read is as good as none.
            let value = value.filter(|value| now < value.stale_until && read(value.json.get()));
            if value.as_ref().is_some_and(|value| is_computing || now < value.fresh_until) {
                return Ok(Found::Value);
            }
            // 2. Somebody else computes it, or was a moment faster: look again, a little later.
            if is_computing || has_lost {
                let left = self.wait.saturating_sub(waited.max(now - began));
                if left.is_zero() {
                    return Ok(Found::Busy);
                }
                let pause = self.pause(&mut pauses).min(left);
                self.host.sleep(pause).await;
                waited += pause;
                has_lost = false;
                stored = self.read(key).await?;
                continue;
            }
            // 3. Nobody does.
            match self.lock(key, stored.as_deref(), value).await? {
                Ok(held) => return Ok(Found::Lock(held)),
                // With what was read still there it should have been made: nothing can be learned by trying again.
                Err(newest) if newest == stored => {
                    return Err(Failure::Refused(KnownError::parse("WRONGTYPE")));
                }
                Err(newest) => (stored, has_lost) = (newest, true),
            }
        }
    }

    /// What is stored now.
    async fn read(&self, key: &str) -> Result<Option<String>, Failure> {
        let replies = self.store.run_all(Batch::default().get([key])).await?;
        only_value(replies.into_iter().next())
    }

    /// Puts a lock in the place of what was read; if that has changed, tells what is there now.
    async fn lock(
        &self,
        key: &str,
        stored: Option<&str>,
        stale: Option<Value>,
    ) -> Result<Result<Held, Option<String>>, Failure> {
        let now = self.host.now();
        let token = base64url::encode(&random::<16>(self.host));
        let stale = stale.filter(|value| value.json.get().len() <= MAX_KEPT);
        // As long as either of them is of use.
        let left = stale.as_ref().map_or(Duration::ZERO, |value| value.stale_until - now);
        let ttl = left.max(self.compute_timeout);
        let lock = Lock { token, until: now + self.compute_timeout };
        let entry = Entry { v: Version, value: stale, computing: Some(lock) };
        let text = self.seal(key, &entry);
        let batch = match stored {
            None => Batch::default().create(key, &text, ttl),
            Some(old) => Batch::default().replace(key, old, &text, Some(ttl)),
        };
        let outcome = self.store.run_all(batch.get([key]).atomic()).await;
        let held = |text, is_in_doubt| Held { text, stale: entry.value, is_in_doubt };
        let mut replies = match outcome {
            Ok(replies) => replies.into_iter(),
            Err(failure) if failure.is_in_doubt() => {
                self.tell(&format_args!(
                    "a value is computed and not stored, because the store failed: {failure}"
                ));
                return Ok(Ok(held(text, true)));
            }
            Err(failure) => return Err(failure),
        };
        let is_made = replies.next().ok_or(Failure::Garbled)?.is_ok()?;
        let newest = only_value(replies.next())?;
        Ok(if is_made { Ok(held(text, false)) } else { Err(newest) })
    }

    /// Stores a value that was computed, and gives the lock back. `json`: none if the computation failed. Nothing is
    /// repeated: what is lost is computed again.
    async fn finish(
        &self,
        key: &str,
        ttl: Duration,
        held: Held,
        json: Option<Result<Box<RawValue>, Unstorable>>,
    ) {
        let json = json.map(|json| json.and_then(storable)).transpose().unwrap_or_else(|unstorable| {
            self.tell(&unstorable);
            None
        });
        // A lock that arrives late may stand there since a `forget` that came after the computation began.
        let Some(json) = json.filter(|_| !held.is_in_doubt) else { return self.release(key, held).await };
        let fresh_for = self.negative_ttl.filter(|_| json.get() == "null").unwrap_or(ttl);
        let fresh_until = self.host.now() + fresh_for;
        let stale_for = self.stale_for.unwrap_or(fresh_for);
        let value = Value { json, fresh_until, stale_until: fresh_until + stale_for };
        let text = self.seal(key, &Entry { value: Some(value), ..Entry::default() });
        let ttl = fresh_for.saturating_add(stale_for);
        let batch = Batch::default().replace(key, &held.text, &text, Some(ttl));
        let stored = self.store.run_all(batch).await;
        // Not stored if the lock is gone: the key was forgotten, or another has taken over.
        let stored = stored.and_then(|replies| replies.first().ok_or(Failure::Garbled)?.is_ok());
        if let Err(failure) = stored {
            self.tell(&format_args!("a value could not be stored: {failure}"));
            if !failure.is_in_doubt() {
                self.release(key, held).await;
            }
        }
    }

    /// Puts the old value back in the place of the lock, or deletes it, so that another can compute.
    async fn release(&self, key: &str, Held { text, stale, .. }: Held) {
        let now = self.host.now();
        let stale = stale.filter(|value| now < value.stale_until);
        let left = stale.as_ref().map(|value| value.stale_until - now);
        let old = self.seal(key, &Entry { value: stale, ..Entry::default() });
        let batch = match left {
            Some(left) => Batch::default().replace(key, &text, &old, Some(left)),
            None => Batch::default().delete_if(key, &text),
        };
        if let Err(failure) = self.store.run_all(batch).await {
            self.tell(&format_args!(
                "others wait for a computation that has failed, because the store did: {failure}"
            ));
        }
    }

    /// A random time, longer with every pause.
    fn pause(&self, pauses: &mut u32) -> Duration {
        let longest = FIRST_PAUSE * (1 << *pauses);
        *pauses = (*pauses + 1).min(6);
        let [jitter] = random(self.host);
        longest / 2 + longest * u32::from(jitter) / 512
    }

    /// Short keys as they are. A long one cannot be mistaken for a short one.
    fn key(&self, key: &str) -> String {
        if key.len() <= MAX_KEY {
            return [self.key_prefix, "cache:", key].concat();
        }
        [self.key_prefix, "cache-sha256:", &base64url::encode(&Sha256::digest(key))].concat()
    }

    /// The stored form of an entry.
    fn seal(&self, key: &str, entry: &Entry) -> String {
        let text = json::to_string(entry);
        match self.encryption {
            Some(keys) => keys.seal(key, text, self.host),
            None => text,
        }
    }

    /// What cannot be read is as good as nothing: a cache may lose anything.
    fn open(&self, key: &str, stored: Option<&str>) -> Entry {
        let json = stored.and_then(|stored| match self.encryption {
            Some(keys) => keys.open(key, stored).ok(),
            None => Some(Cow::Borrowed(stored)),
        });
        json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
    }

    /// Tells the operator, now and then.
    fn tell(&self, line: &dyn Display) {
        if self.isolate.is_cache_log_due(self.host.now()) {
            self.host.log(&Line::new(log::Event::CacheFailed, format!("cache: {line}")));
        }
    }
}

impl Display for Unstorable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoJson => f.write_str("a value was not stored: serde_json cannot write it"),
            Self::TooLarge => {
                write!(f, "a value was not stored: as JSON it is larger than {MAX_VALUE} bytes")
            }
        }
    }
}

fn storable(json: Box<RawValue>) -> Result<Box<RawValue>, Unstorable> {
    if json.get().len() <= MAX_VALUE { Ok(json) } else { Err(Unstorable::TooLarge) }
}

/// The reply to `MGET` with one key.
fn only_value(reply: Option<Reply>) -> Result<Option<String>, Failure> {
    Ok(reply.ok_or(Failure::Garbled)?.values(1)?.pop().flatten())
}

#[cfg(test)]
mod tests;
