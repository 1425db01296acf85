//! Events: what a back end of the operator's is told of users and sessions, so that it can send mail. Signed, after the
//! response, at least once or not at all.
//!
//! An isolate has at most `MAX_UNDER_WAY` of them under way. Further ones are dropped, which is logged and counted, so that
//! a receiver that hangs costs no memory. Each is delivered in a background task of its own: none waits for another.

use std::{cell::RefCell, fmt, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::{
    fields::Table,
    host::{Host, Post, random},
    http::cors::is_safe_origin,
    id::{Handle, Nonce},
    isolate::Isolate,
    json,
    log::{self, Line},
    session::{Device, User},
    time::{Time, as_rfc3339},
};

/// How many events an isolate holds at most: those that wait, and those that are being delivered.
const MAX_UNDER_WAY: usize = 100;

/// The pauses before the second try and the third. With three timeouts that is 25 seconds: the platform ends what goes on
/// for more than 30 after the response.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// How long one try may take, until the status of the answer is there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// When an event that is being delivered is so no more, even if nobody has said so: the platform has ended it.
const LONGEST: Duration = Duration::from_secs(30);

/// The counter of events that were dropped or could not be delivered.
pub(crate) const LOST: &str = "events_lost";

/// What has happened, with what is told of it beside the user.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// An account was made.
    Registered,
    /// Somebody logged in from a device that the account did not know.
    NewDevice {
        /// The session's.
        handle: Handle,
        /// As the device list shows it.
        user_agent: Option<String>,
        /// As the device list shows it.
        ip: Option<String>,
    },
    /// The account has another password.
    PasswordChanged,
    /// A reset of the password has begun.
    ResetRequested(Reset),
    /// An operator has disabled the account.
    Disabled,
    /// An operator has enabled it again.
    Enabled,
    /// The account is gone.
    Deleted,
    /// An old id of a session was used after its grace. The session was ended.
    ReuseDetected {
        /// The session's.
        handle: Handle,
    },
}

/// A reset, with its token: the only secret that an event holds. Does not print.
#[derive(Serialize)]
pub struct Reset {
    /// What opens the account once.
    pub token: String,
    /// When it ends.
    #[serde(serialize_with = "as_rfc3339")]
    pub expires_at: Time,
}

impl fmt::Debug for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reset(…)")
    }
}

impl Event {
    /// A login from a device that was not known.
    pub fn new_device(handle: Handle, device: Device) -> Self {
        let Device { user_agent, ip, .. } = device;
        Self::NewDevice { handle, user_agent, ip }
    }

    /// Its `type`.
    fn name(&self) -> &'static str {
        match self {
            Self::Registered => "user.registered",
            Self::NewDevice { .. } => "user.new_device",
            Self::PasswordChanged => "user.password_changed",
            Self::ResetRequested(_) => "user.reset_requested",
            Self::Disabled => "user.disabled",
            Self::Enabled => "user.enabled",
            Self::Deleted => "user.deleted",
            Self::ReuseDetected { .. } => "session.reuse_detected",
        }
    }
}

/// The body that is sent.
#[derive(Serialize)]
struct Body<'a> {
    id: Nonce,
    r#type: &'a str,
    #[serde(serialize_with = "as_rfc3339")]
    at: Time,
    user: Option<Who<'a>>,
    #[serde(flatten)]
    event: &'a Event,
}

/// The user an event is about.
#[derive(Serialize)]
struct Who<'a> {
    id: &'a str,
    name: &'a str,
}

/// An event as it is sent, every time with the same id. Does not print its body.
pub struct Message {
    id: Nonce,
    name: &'static str,
    body: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// For the log: type and id.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} {}", self.name, self.id)
    }
}

/// The events that an isolate has under way. Without a receiver it takes none.
#[derive(Debug, Default)]
pub struct Outbox {
    is_open: bool,
    /// Those whose delivery has not begun.
    waiting: RefCell<Vec<Message>>,
    /// Those that are being delivered, and until when at most.
    sent: RefCell<Vec<(Nonce, Time)>>,
}

impl Outbox {
    /// An empty one. `is_open`: whether there is a receiver.
    pub(crate) fn new(is_open: bool) -> Self {
        Self { is_open, ..Self::default() }
    }

    /// Keeps a message until it is taken, or gives it back if there are too many.
    fn add(&self, message: Message, now: Time) -> Result<(), Message> {
        let mut sent = self.sent.borrow_mut();
        sent.retain(|(_, until)| now < *until);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() + sent.len() >= MAX_UNDER_WAY {
            return Err(message);
        }
        waiting.push(message);
        Ok(())
    }

    /// Takes all that wait: they are being delivered from now on.
    pub(crate) fn take(&self, now: Time) -> Vec<Message> {
        let messages = self.waiting.take();
        self.sent.borrow_mut().extend(messages.iter().map(|message| (message.id, now + LONGEST)));
        messages
    }

    /// A message was delivered, or given up.
    fn remove(&self, id: &Nonce) {
        self.sent.borrow_mut().retain(|(other, _)| other != id);
    }
}

/// Tells the operator's back end of an event, once the response is under way. It costs nothing if there is none.
pub fn tell(host: &impl Host, isolate: &Isolate, user: Option<&User>, event: &Event) {
    if !isolate.events.is_open {
        return;
    }
    let (id, name, now) = (Nonce(random(host)), event.name(), host.now());
    let user = user.map(|User { id, name, .. }| Who { id, name });
    let body = json::to_string(&Body { id, r#type: name, at: now, user, event });
    if let Err(dropped) = isolate.events.add(Message { id, name, body }, now) {
        let message = format!("{dropped} was dropped: {MAX_UNDER_WAY} are under way, is events.url slow?");
        host.log(&Line { r#type: Some(name), ..Line::new(log::Event::EventDropped, message) });
        isolate.count(LOST, now);
    }
}

/// Where events go.
pub struct Receiver {
    url: String,
    mac: Hmac<Sha256>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver(…)")
    }
}

impl Receiver {
    /// At this URL, which knows the secret `EVENTS_SECRET`.
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    pub(crate) fn new(url: String, secret: &str) -> Self {
        Self { url, mac: Hmac::new_from_slice(secret.as_bytes()).expect("a key of any length") }
    }

    /// Delivers a message, in three tries at most. What that comes to is logged by type and id alone.
    pub(crate) async fn deliver(&self, host: &impl Host, isolate: &Isolate, message: Message) {
        let mut pauses = PAUSES.iter();
        loop {
            let signature = self.sign(host.now(), &message.body);
            let headers = [("content-type", "application/json"), ("session-signature", &*signature)];
            let post = Post { url: &self.url, headers: &headers, body: &message.body, timeout: TIMEOUT };
            let status = host.post(post).await.ok();
            if status.is_some_and(|status| (200..300).contains(&status)) {
                break;
            }
            let Some(pause) = pauses.next() else {
                let last = status.map_or_else(
                    || format!("no answer within {} seconds", TIMEOUT.as_secs()),
                    |status| format!("status {status}"),
                );
                let text =
                    format!("{message} was not delivered: {} tries, the last with {last}", PAUSES.len() + 1);
                let line = Line::new(log::Event::EventNotDelivered, text);
                host.log(&Line { r#type: Some(message.name), ..line });
                isolate.count(LOST, host.now());
                break;
            };
            host.sleep(*pause).await;
        }
        isolate.events.remove(&message.id);
    }

    /// The value of `Session-Signature`. It holds the time, so that a receiver can refuse what somebody has recorded.
    fn sign(&self, now: Time, body: &str) -> String {
        let seconds = (now.0 / 1000).to_string();
        let mac = self.mac.clone().chain_update(&seconds).chain_update(".").chain_update(body).finalize();
        let hex: String = mac.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        ["t=", &seconds, ",v1=", &hex].concat()
    }
}

/// Reads the table: the URL; empty if nobody is to be told.
pub(crate) fn settings(table: &mut Table<'_>) -> String {
    let mut inner = table.table("events");
    let url = inner.text("url", "");
    if !url.is_empty() && !is_safe_url(&url) {
        inner.fault(
            "url",
            "a URL like \"https://app.example.com/hooks/cloakroom\" (http:// for this machine alone), without user, password \
             or fragment",
        );
    }
    table.include(inner);
    url
}

/// Whether events, which may hold the token of a reset, may go there.
fn is_safe_url(url: &str) -> bool {
    let host = url.find("://").map_or(url.len(), |end| end + 3);
    let end =
        url.get(host..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |length| host + length);
    let (origin, target) = url.split_at(end);
    is_safe_origin(origin) && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::host::tests::Machine;

    const NOW: Time = Time(1_767_225_600_999);

    fn message(number: u8) -> Message {
        Message { id: Nonce([number; 12]), name: "user.registered", body: String::new() }
    }

    /// The members of an event beside id, type, time and user.
    fn body(event: &Event) -> Value {
        let isolate = Isolate::new(true);
        let user = User { id: "u1".to_owned(), name: "Ada".to_owned(), roles: vec!["admin".to_owned()] };
        tell(&Machine, &isolate, Some(&user), event);
        let [message] = &isolate.events.take(NOW)[..] else { panic!("one message") };
        assert_eq!(message.to_string(), format!("event {} BAQEBAQEBAQEBAQE", event.name()));
        assert!(!format!("{message:?}{event:?}").contains("t0ken"));
        let mut body: Value = serde_json::from_str(&message.body).expect("JSON");
        let object = body.as_object_mut().expect("an object");
        assert_eq!(object.remove("id"), Some(json!("BAQEBAQEBAQEBAQE")));
        assert_eq!(object.remove("type"), Some(json!(event.name())));
        assert_eq!(object.remove("at"), Some(json!("2026-01-01T00:00:00Z")));
        assert_eq!(object.remove("user"), Some(json!({"id": "u1", "name": "Ada"})));
        body
    }

    #[test]
    fn an_event_says_what_happened_to_whom_and_no_secret_but_the_token_of_a_reset() {
        let handle = Handle::parse("W5mFHxzQHphIkp8jCPn54IoR").expect("a handle");
        let reset = Reset { token: "t0ken".to_owned(), expires_at: NOW };
        let unknown = Device::default();
        for (event, rest) in [
            (Event::Registered, json!({})),
            (Event::PasswordChanged, json!({})),
            (Event::Disabled, json!({})),
            (Event::Enabled, json!({})),
            (Event::Deleted, json!({})),
            (
                Event::new_device(handle, unknown),
                json!({"handle": handle.to_string(), "user_agent": null, "ip": null}),
            ),
            (Event::ResetRequested(reset), json!({"token": "t0ken", "expires_at": "2026-01-01T00:00:00Z"})),
            (Event::ReuseDetected { handle }, json!({"handle": handle.to_string()})),
        ] {
            assert_eq!(body(&event), rest, "{event:?}");
        }
    }

    /// `printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of the receiver, 2026-11-28'`
    #[test]
    fn a_signature_is_what_openssl_computes() {
        let receiver = Receiver::new("https://a.example".to_owned(), "a secret of the receiver, 2026-11-28");
        assert_eq!(
            receiver.sign(NOW, r#"{"a":1}"#),
            "t=1767225600,v1=2c9b09ce6bea5bdfceb7b56ccd0601c33383b918e7493b48ee9118b8a55aaf2b"
        );
        assert_eq!(format!("{receiver:?}"), "Receiver(…)");
    }

    #[test]
    fn without_a_receiver_nothing_is_kept() {
        let isolate = Isolate::new(false);
        tell(&Machine, &isolate, None, &Event::Registered);
        assert!(isolate.events.take(NOW).is_empty());
    }

    #[test]
    fn so_many_are_under_way_and_one_that_is_delivered_or_was_ended_makes_room() {
        let outbox = Outbox::new(true);
        let add = |now| outbox.add(message(200), now).is_ok();
        for number in 0..100 {
            assert!(outbox.add(message(number), NOW).is_ok());
        }
        assert!(!add(NOW), "those that wait are counted");
        assert_eq!(outbox.take(NOW).len(), 100);
        assert!(!add(NOW), "and those that are being delivered");
        outbox.remove(&Nonce([7; 12]));
        assert!(add(NOW) && !add(NOW));
        let later = NOW + Duration::from_secs(30);
        assert!(add(later), "the platform has ended them");
        assert_eq!(outbox.take(later).len(), 2);
    }

    #[test]
    fn events_go_over_https_or_to_this_machine() {
        for url in [
            "https://app.example.com",
            "https://app.example.com:8443/hooks/cloakroom?key=a%20b",
            "https://app.example.com?key",
            "http://localhost:3000/hook",
            "http://127.0.0.1/",
            "http://[::1]:8080",
        ] {
            assert!(is_safe_url(url), "{url}");
        }
        for url in [
            "http://app.example.com/",
            "http://localhost.example.com/",
            "http://localhost@app.example.com/",
            "https://user:word@app.example.com/",
            "https://app.example.com/#hook",
            "https://app.example.com/a b",
            "https://app.example.com\\@evil.example/",
            "https:///hook",
            "ftp://app.example.com/",
            "//app.example.com/",
            "/hook",
            "https",
        ] {
            assert!(!is_safe_url(url), "{url}");
        }
    }
}
