//! The four verbs of a `SessionStore`, for any machine.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tower_sessions_core::{
    session::{Id, Record},
    session_store::{Error, Result},
};

use crate::{
    app::App,
    base64url,
    encryption::Unopened,
    host::Host,
    log::{self, Line},
    store::{self, Batch, Failure, Reply},
    time::Time,
};

/// How many random ids are tried. More than one is only needed if randomness is broken.
const MAX_ATTEMPTS: u32 = 3;

/// A record as it is stored: without its id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<Data> {
    /// Seconds since 1970, and nanoseconds. (What `time` itself writes depends on its features.)
    expires: (i64, u32),
    data: Data,
}

/// Stores a new record. It gets another id if there is a record with its own.
pub(super) async fn create<H: Host>(app: &App<H>, record: &mut Record) -> Result<()> {
    let (json, ttl) = (encode(app, record)?, time_left(app, record));
    for _ in 0..MAX_ATTEMPTS {
        let key = key(app, &record.id);
        let stored = app.config.session.encryption.seal(&key, json.clone(), &app.host);
        let reply = run(app, Batch::default().create(&key, &stored, ttl)).await?;
        if reply.is_ok().map_err(|failure| backend(app, failure))? {
            return Ok(());
        }
        record.id = Id::default();
    }
    Err(logged(app, log::Event::StoreFailed, Error::Backend, "random session ids repeat themselves"))
}

/// Overwrites a record that exists. That there is none, because it was deleted or has expired, is no error, as in
/// tower-sessions' own store on Redis: the session has ended, and the visitor's next request finds none.
pub(super) async fn save<H: Host>(app: &App<H>, record: &Record) -> Result<()> {
    let (json, ttl) = (encode(app, record)?, time_left(app, record));
    let key = key(app, &record.id);
    let stored = app.config.session.encryption.seal(&key, json, &app.host);
    let reply = run(app, Batch::default().overwrite(&key, &stored, Some(ttl))).await?;
    reply.is_ok().map(drop).map_err(|failure| backend(app, failure))
}

/// The record; `None` if there is none or if it has expired.
pub(super) async fn load<H: Host>(app: &App<H>, id: &Id) -> Result<Option<Record>> {
    let key = key(app, id);
    let reply = run(app, Batch::default().get_from_primary(&key)).await?;
    let Some(stored) = reply.value().map_err(|failure| backend(app, failure))? else { return Ok(None) };
    let unreadable = |why: &str| {
        let text = format!("a record of tower-sessions in the store cannot be read{why}");
        logged(app, log::Event::RecordUnreadable, Error::Decode, &text)
    };
    let json = app.config.session.encryption.open(&key, &stored);
    let json = json.map_err(|Unopened(why)| unreadable(&format!(": {why}")))?;
    let record = decode(*id, &json).ok_or_else(|| unreadable(""))?;
    Ok((to_time(record.expiry_date) > app.host.now()).then_some(record))
}

/// Deletes the record, if there is one.
pub(super) async fn delete<H: Host>(app: &App<H>, id: &Id) -> Result<()> {
    let reply = run(app, Batch::default().delete([key(app, id)])).await?;
    reply.integer().map(drop).map_err(|failure| backend(app, failure))
}

/// One-way, so that the store does not hold what is in the cookie. An id has 128 random bits.
fn key<H>(app: &App<H>, Id(id): &Id) -> String {
    let hash =
        Sha256::new().chain_update(b"cloakroom tower-sessions v1").chain_update(id.to_le_bytes()).finalize();
    [&app.config.session.key_prefix, "tower:", &base64url::encode(&hash)].concat()
}

fn encode<H: Host>(app: &App<H>, Record { data, expiry_date, .. }: &Record) -> Result<String> {
    let expires = (expiry_date.unix_timestamp(), expiry_date.nanosecond());
    let json = serde_json::to_string(&Stored { expires, data }).map_err(|_| {
        logged(
            app,
            log::Event::HandlerMistaken,
            Error::Encode,
            "a record of tower-sessions cannot be written as JSON",
        )
    })?;
    let max_bytes = app.config.session.max_bytes;
    if json.len() <= max_bytes {
        return Ok(json);
    }
    let text = format!(
        "a record of tower-sessions has {} bytes of JSON; the limit is {max_bytes} (session.max_bytes)",
        json.len()
    );
    Err(logged(app, log::Event::HandlerMistaken, Error::Encode, &text))
}

fn decode(id: Id, json: &str) -> Option<Record> {
    let Stored { expires: (seconds, nanoseconds), data } =
        serde_json::from_str::<Stored<HashMap<String, Value>>>(json).ok()?;
    let expiry_date =
        OffsetDateTime::from_unix_timestamp(seconds).ok()?.replace_nanosecond(nanoseconds).ok()?;
    Some(Record { id, data, expiry_date })
}

/// How long the record is to be kept; zero if it has expired.
fn time_left<H: Host>(app: &App<H>, record: &Record) -> std::time::Duration {
    to_time(record.expiry_date) - app.host.now()
}

/// Before 1970: 1970.
fn to_time(date: OffsetDateTime) -> Time {
    let milliseconds = date.unix_timestamp_nanos().div_euclid(1_000_000);
    Time(u64::try_from(milliseconds.max(0)).unwrap_or(u64::MAX))
}

async fn run<H: Host>(app: &App<H>, batch: Batch<'_>) -> Result<Reply> {
    let store = store::Store::new(&app.host, app.config.store_timeout, String::new());
    let replies = store.run_all(batch).await.map_err(|failure| backend(app, failure))?;
    replies.into_iter().next().ok_or_else(|| backend(app, Failure::Garbled))
}

fn backend<H: Host>(app: &App<H>, failure: Failure) -> Error {
    logged(app, log::Event::StoreFailed, Error::Backend, &format!("the store failed: {failure}"))
}

/// Middleware swallows errors: the operator learns of each from the log.
fn logged<H: Host>(app: &App<H>, event: log::Event, kind: fn(String) -> Error, text: &str) -> Error {
    app.host.log(&Line::new(event, text));
    kind(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        pin::pin,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use proptest::{collection::hash_map, prelude::*};
    use serde_json::json;

    use super::*;
    use crate::{
        config::Config,
        host::{Answer, Call, Post, Unreachable, tests::Machine},
    };

    /// A machine whose store answers what it was told to, the last of it again and again.
    struct Scripted {
        answers: RefCell<Vec<&'static str>>,
        calls: RefCell<Vec<Value>>,
        log: RefCell<String>,
    }

    impl Host for Scripted {
        fn now(&self) -> Time {
            Machine.now()
        }
        fn fill_random(&self, bytes: &mut [u8]) {
            Machine.fill_random(bytes);
        }
        fn nfkc(&self, text: &str) -> String {
            Machine.nfkc(text)
        }
        fn lower_case(&self, text: &str) -> String {
            Machine.lower_case(text)
        }
        fn is_mark(&self, character: char) -> bool {
            Machine.is_mark(character)
        }
        async fn sleep(&self, _: Duration) {}
        async fn send(&self, call: Call) -> std::result::Result<Answer, Unreachable> {
            self.calls.borrow_mut().push(serde_json::from_str(&call.body).expect("JSON"));
            let mut answers = self.answers.borrow_mut();
            let body = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
            if body.is_empty() {
                return Err(Unreachable);
            }
            let status = if body.starts_with('[') { 200 } else { 401 };
            Ok(Answer { status, body: body.to_owned(), sync_token: String::new() })
        }
        async fn post(&self, _: Post<'_>) -> std::result::Result<u16, Unreachable> {
            Err(Unreachable)
        }
        fn has_platform_limit(&self) -> bool {
            false
        }
        async fn is_over_platform_limit(&self, _: &str) -> bool {
            false
        }
        async fn sign(
            &self,
            _: &crate::host::SigningKey,
            _: &str,
        ) -> std::result::Result<Vec<u8>, crate::host::Unsigned> {
            Err(crate::host::Unsigned)
        }
        fn log(&self, line: &Line) {
            self.log.borrow_mut().push_str(&line.message);
        }
    }

    const NULL: &str = r#"[{"result":null}]"#;
    const OK: &str = r#"[{"result":"OK"}]"#;

    fn app(answers: &[&'static str]) -> App<Scripted> {
        app_with(answers, json!({}))
    }

    /// With more of the environment.
    fn app_with(answers: &[&'static str], more: Value) -> App<Scripted> {
        let mut config = json!({
            "SESSION_SECRET": "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e",
            "UPSTASH_REDIS_REST_URL": "https://store.example",
            "UPSTASH_REDIS_REST_TOKEN": "token",
            "CLOAKROOM": {"key_prefix": "shop:", "session": {"max_bytes": 1000}},
        });
        if let Value::Object(more) = more {
            config.as_object_mut().expect("an object").extend(more);
        }
        let config = Config::from_json(&config.to_string()).expect("a configuration");
        let answers = RefCell::new(answers.to_vec());
        let app = App::new(config, Scripted { answers, calls: RefCell::default(), log: RefCell::default() });
        app.host.log.take();
        app
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("this machine never waits"),
        }
    }

    /// Valid for `seconds`, with a secret in it.
    fn record(seconds: i64) -> Record {
        let now = i64::try_from(Machine.now().0 / 1000).expect("a date");
        let expiry_date = OffsetDateTime::from_unix_timestamp(now + seconds).expect("a date");
        let expiry_date = expiry_date.replace_nanosecond(123_456_789).expect("a date");
        Record { id: Id(7), data: HashMap::from([("card".to_owned(), json!("4111"))]), expiry_date }
    }

    /// The only command of each call.
    fn commands(app: &App<Scripted>) -> Vec<Vec<String>> {
        let calls = app.host.calls.take().into_iter();
        calls
            .map(|call| serde_json::from_value::<[_; 1]>(call).expect("one command"))
            .map(|[one]| one)
            .collect()
    }

    #[test]
    fn creating_overwrites_nothing_and_takes_another_id() {
        let (app, mut record) = (app(&[NULL, OK]), record(60));
        block_on(create(&app, &mut record)).expect("created");
        assert_ne!(record.id, Id(7));
        let commands = commands(&app);
        let keys: Vec<_> = commands.iter().map(|command| command[1].as_str()).collect();
        assert_eq!(keys, [key(&app, &Id(7)), key(&app, &record.id)]);
        for command in &commands {
            assert_eq!(command[3..], ["NX", "PX", "60123"]);
        }
    }

    #[test]
    fn creating_gives_up_when_every_id_is_taken() {
        let app = app(&[NULL]);
        let error = block_on(create(&app, &mut record(60))).expect_err("no id");
        assert_eq!(error.to_string(), "random session ids repeat themselves");
        assert_eq!(commands(&app).len(), 3);
    }

    #[test]
    fn saving_creates_nothing_and_an_ended_session_is_no_error() {
        for answer in [OK, NULL] {
            let app = app(&[answer]);
            block_on(save(&app, &record(60))).expect("saved, or ended");
            assert_eq!(commands(&app)[0][3..], ["XX", "PX", "60123"]);
        }
    }

    #[test]
    fn what_has_expired_is_kept_for_the_shortest_time_there_is() {
        for seconds in [-1, -100_000_000_000] {
            let app = app(&[OK]);
            block_on(save(&app, &record(seconds))).expect("saved");
            assert_eq!(commands(&app)[0][5], "1");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_until_it_expires() {
        for (seconds, is_found) in [(60, true), (0, true), (-1, false)] {
            let app = app(&[OK]);
            block_on(save(&app, &record(seconds))).expect("saved");
            let json = commands(&app).remove(0).remove(2);
            let reply = json!([{ "result": json }]).to_string();
            app.host.answers.replace(vec![reply.leak()]);
            let found = block_on(load(&app, &Id(7))).expect("an answer");
            assert_eq!(found, is_found.then(|| record(seconds)), "{seconds}");
            assert_eq!(commands(&app)[0][0], "GETEX", "only the primary answers");
        }
    }

    #[test]
    fn the_store_holds_neither_ids_nor_what_is_in_the_cookie() {
        let app = app(&[OK, OK, NULL, r#"[{"result":1}]"#]);
        let mut record = record(60);
        block_on(create(&app, &mut record)).expect("created");
        block_on(save(&app, &record)).expect("saved");
        block_on(load(&app, &record.id)).expect("an answer");
        block_on(delete(&app, &record.id)).expect("deleted");
        for command in commands(&app) {
            assert!(command[1].starts_with("shop:tower:"), "{command:?}");
            assert!(!command.concat().contains(&record.id.to_string()), "{command:?}");
        }
    }

    #[test]
    fn with_keys_records_are_sealed_and_read_again_by_who_has_the_key_alone() {
        let keyed = |key: &str, answer| app_with(&[answer], json!({"SESSION_ENCRYPTION_KEY": key}));
        let (old, new) =
            ("q4LT/Ib+31SPZv0CVhgyLYe05/ii2Fof6T+KQai7Lic=", "gdgcUFfg/gicr0fPJsEBCcbA0T5bH5hxAAv0ho5V2JU=");
        let app = keyed(old, OK);
        let mut record = record(60);
        block_on(create(&app, &mut record)).expect("created");
        block_on(save(&app, &record)).expect("saved");
        for command in commands(&app) {
            let stored = &command[2];
            assert!(!stored.contains("4111") && !stored.contains("card"), "{stored}");
            let reply: &str = json!([{ "result": stored }]).to_string().leak();
            assert_eq!(
                block_on(load(&keyed(old, reply), &record.id)).expect("an answer"),
                Some(record.clone())
            );
            let both = keyed(&[new, old].join(","), reply);
            assert_eq!(block_on(load(&both, &record.id)).expect("an answer"), Some(record.clone()));
            for (app, id) in [
                (keyed(new, reply), record.id),
                (keyed(old, reply), Id(8)),
                (app_with(&[reply], json!({})), record.id),
            ] {
                let error = block_on(load(&app, &id)).expect_err("unreadable").to_string();
                assert!(error.contains("cannot be read: it is sealed"), "{error}");
                assert!(app.host.log.take().contains("cannot be read: it is sealed"));
            }
        }
        // What was stored without keys.
        let unsealed = json!({"expires": [Machine.now().0 / 1000 + 60, 0], "data": {}}).to_string();
        let reply: &str = json!([{ "result": unsealed }]).to_string().leak();
        assert!(block_on(load(&keyed(old, reply), &Id(7))).expect("an answer").is_some());
    }

    #[test]
    fn a_key_stays_the_same_from_version_to_version() {
        assert_eq!(key(&app(&[OK]), &Id(7)), "shop:tower:xJnZeaKkigfJB3E7UJrogCV31kIvKJ7h2dK0hVuv3Os");
    }

    #[test]
    fn no_record_is_not_an_unreadable_one_and_neither_is_a_failure() {
        assert_eq!(block_on(load(&app(&[NULL]), &Id(7))).expect("an answer"), None);
        for (answer, message) in [
            (
                r#"[{"result":"4111"}]"#,
                "Decoding failed with: a record of tower-sessions in the store cannot be read",
            ),
            (
                r#"[{"result":"{\"expires\":[1767225700,1000000000],\"data\":{\"card\":\"4111\"}}"}]"#,
                "Decoding failed with: a record of tower-sessions in the store cannot be read",
            ),
            (
                r#"[{"error":"WRONGTYPE of 4111"}]"#,
                "the store failed: a command was refused, WRONGTYPE: another application uses a key of ours: set key_prefix",
            ),
            (r#"{"error":"of 4111"}"#, "the store failed: status 401: check UPSTASH_REDIS_REST_TOKEN"),
            ("", "the store failed: no answer (refused, broken off, or over store.timeout)"),
            ("[]", "the store failed: an answer that is not Upstash's format; check UPSTASH_REDIS_REST_URL"),
        ] {
            let app = app(&[answer]);
            let error = block_on(load(&app, &Id(7))).expect_err(answer);
            assert_eq!(error.to_string(), message);
            assert!(message.ends_with(&app.host.log.take()), "the operator learns of it");
        }
    }

    #[test]
    fn a_record_over_the_limit_is_refused_before_the_store_is_asked() {
        let (app, mut record) = (app(&[OK]), record(60));
        record.data.insert("much".to_owned(), json!("4111".repeat(300)));
        for result in [block_on(save(&app, &record)), block_on(create(&app, &mut record))] {
            let message = result.expect_err("too large").to_string();
            assert!(message.ends_with("the limit is 1000 (session.max_bytes)"), "{message}");
            assert!(!message.contains("4111"), "{message}");
        }
        assert!(commands(&app).is_empty());
    }

    proptest! {
        #[test]
        fn any_keys_and_values_are_read_as_they_were_written(
            data in hash_map(prop_oneof![Just("__proto__".to_owned()), any::<String>()], any::<(f64, String)>(), 0..5),
            seconds in -62_167_219_200_i64..253_402_300_799,
        ) {
            let data = data.into_iter().map(|(key, value)| (key, json!(value))).collect();
            let expiry_date = OffsetDateTime::from_unix_timestamp(seconds).expect("a date");
            let record = Record { id: Id(7), data, expiry_date };
            if let Ok(json) = encode(&app(&[OK]), &record) {
                prop_assert_eq!(decode(Id(7), &json), Some(record));
            }
        }
    }
}
