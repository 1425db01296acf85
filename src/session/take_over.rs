//! Taking over the sessions of an application that is being replaced (`cookie.accept`): at the first request with its cookie a
//! session of ours begins, with its data and its user. Its record stays as it is.
//!
//! The session's id follows from the old one and a secret of ours, so that requests at the same time, lost answers and
//! clients that do not keep the new cookie all lead to the same session. That it has begun is kept under `taken:<handle>`: once
//! it has ended, the old cookie does not begin another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Device, Error, Retry, Session, Sessions, User,
    foreign::{self, UNDER_WAY},
};
use crate::{
    base64url,
    foreign::{Format, Record, Sid},
    host::Host,
    id::{Family, Id},
    json::{self, Version},
    log::{self, Line},
    store::{Batch, Failure, Reply},
    ticket::{Keyring, Ticket, UserTag, cookie},
    time::{Time, milliseconds},
};

/// How long it is known that a session was taken over.
const KNOWN_FOR: Duration = cookie::LONGEST;

/// Takes a session over, if nobody has: writes that it is taken and the session. 1, or what says that it was taken before; 0 if
/// its record is gone, or if all sessions of the user were ended: its login may have been one of those.
const TAKE: &str = "#!lua flags=allow-key-locking
local taken = redis.call('GET', KEYS[1])
if taken then return taken end
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
if KEYS[4] then
  local state = redis.call('GET', KEYS[4])
  if state and string.find(state, '\"mark\":', 1, true) then return 0 end
  redis.call('HSET', KEYS[5], ARGV[5], ARGV[6])
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1";

/// Notes that a session was taken over, whether it was or not: it leads nowhere then. If nothing is known of it, the note lasts for
/// as long as a request of the application's may be under way. With a record's key it is deleted.
const FORGET: &str = "#!lua flags=allow-key-locking
if redis.call('EXISTS', KEYS[1]) == 0 then
  local ttl = ARGV[3]
  if redis.call('EXISTS', KEYS[2]) == 1 then ttl = ARGV[2] end
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
end
if ARGV[4] == 'delete' then redis.call('DEL', KEYS[2]) end
return 1";

/// A session that was taken over: what its ticket is made of, beside the id.
#[derive(Serialize, Deserialize)]
struct Taken {
    v: Version,
    /// The fingerprint of the secret by which its id follows from the old one.
    key: String,
    ends: Time,
    remember: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

/// An old cookie: the session that it leads to.
#[derive(Debug)]
pub struct OldCookie<'a> {
    /// What the application that has set it knows.
    pub format: &'a Format,
    /// The id in it.
    pub sid: Sid,
    /// The name of the session in its format.
    pub name: Ticket,
}

impl<H: Host> Sessions<'_, H> {
    /// The session of an old cookie, which begins now if it never has. `None` if there is none, if it has ended, if it cannot
    /// be read, or if its user is barred: whoever bars one ends all their sessions after that. Two calls to begin it, and two
    /// to find it again.
    pub async fn take_over(
        &self,
        old: &OldCookie<'_>,
        keyring: &Keyring,
        is_barred: impl AsyncFn(&UserTag) -> Result<bool, Error>,
    ) -> Result<Option<Session>, Error> {
        let OldCookie { format, sid, name } = old;
        let taken_key = self.taken_key(name);
        let record_key = format.record_key(&self.rules.key_prefix, sid);
        let mut retry = Retry::default();
        loop {
            // 1. The record, and whether it was taken over.
            let (taken, stored) = self.read_old(old).await?;
            if let Some(taken) = taken {
                return self.find_taken(&taken, old, keyring).await;
            }
            let Some(stored) = stored else { return Ok(None) };
            let record = match self.read_record(format, &stored) {
                Ok(record) => record,
                Err(why) => {
                    let handle = name.id.handle();
                    let message =
                        format!("session {handle} cannot be taken over: {why}; it was left as it is");
                    self.host.log(&Line::new(log::Event::RecordUnreadable, message).about(handle));
                    return Ok(None);
                }
            };
            // 2. The session, unless another request has begun it meanwhile.
            let (session, taken) = self.session_to_take(old, record, keyring);
            if let Some(user) = &session.ticket.user
                && is_barred(user).await?
            {
                return Ok(None);
            }
            match self.write_taken([&taken_key, &record_key], &taken, &session).await {
                Ok(Reply::Integer(1)) => {
                    self.isolate.count("sessions_created", self.host.now());
                    return Ok(Some(session));
                }
                Ok(Reply::Integer(_)) => return Ok(None),
                Ok(Reply::Text(taken)) => return self.find_taken(&taken, old, keyring).await,
                Ok(_) => return Err(Failure::Garbled.into()),
                Err(failure) => retry.after(failure, self.store).await?,
            }
        }
    }

    /// Lets an old cookie never begin a session, if it has not. `ends`: its record is deleted, too; the visitor has logged out.
    pub async fn forget_old(&self, old: &OldCookie<'_>, ends: bool) -> Result<(), Error> {
        let taken = Taken { v: Version, key: String::new(), ends: Time(0), remember: false, user: None };
        let record_key = old.format.record_key(&self.rules.key_prefix, &old.sid);
        let keys = [self.taken_key(&old.name), record_key];
        let arguments = [
            json::to_string(&taken),
            milliseconds(KNOWN_FOR).to_string(),
            milliseconds(UNDER_WAY).to_string(),
            if ends { "delete" } else { "" }.to_owned(),
        ];
        let mut retry = Retry::default();
        loop {
            match self.store.run_all(Batch::default().script(FORGET, keys.clone(), arguments.clone())).await {
                Ok(_) => return Ok(()),
                Err(failure) => retry.after(failure, self.store).await?,
            }
        }
    }

    /// What says that an old cookie's session was taken over, and its record.
    pub(super) async fn read_old(
        &self,
        OldCookie { format, sid, name }: &OldCookie<'_>,
    ) -> Result<(Option<String>, Option<Vec<u8>>), Failure> {
        let taken_key = self.taken_key(name);
        let record_key = format.record_key(&self.rules.key_prefix, sid);
        let batch = Batch::default().get([&*taken_key, &record_key]).at_primary(&*taken_key);
        let [values] = self.store.run(foreign::as_bytes(format, batch)).await?;
        let Reply::List(values) = values else { return Err(Failure::Garbled) };
        let mut values = values.into_iter();
        let taken = values.next().ok_or(Failure::Garbled)?.value()?;
        Ok((taken, values.next().ok_or(Failure::Garbled)?.bytes()?))
    }

    /// What an old record says. Error: why it cannot be taken over.
    pub(super) fn read_record(&self, format: &Format, stored: &[u8]) -> Result<Record, &'static str> {
        let read = format.read(stored).map_err(|why| why.0)?;
        let is_small = read.data.get().len() <= self.rules.max_bytes;
        if is_small { Ok(read) } else { Err("it is larger than session.max_bytes") }
    }

    fn taken_key(&self, name: &Ticket) -> String {
        [&self.rules.key_prefix, "taken:", &name.id.handle().to_string()].concat()
    }

    /// The session that was taken over before, wherever it has gone since.
    async fn find_taken(
        &self,
        taken: &str,
        old: &OldCookie<'_>,
        keyring: &Keyring,
    ) -> Result<Option<Session>, Error> {
        match self.ticket_of_taken(taken, old, keyring) {
            Some(ticket) => self.load_from_primary(ticket).await,
            None => Ok(None),
        }
    }

    /// The ticket of a session that was taken over. `None` if it leads nowhere.
    pub(super) fn ticket_of_taken(
        &self,
        taken: &str,
        OldCookie { sid, name, .. }: &OldCookie<'_>,
        keyring: &Keyring,
    ) -> Option<Ticket> {
        let Taken { key, ends, remember, user, .. } = serde_json::from_str(taken).ok()?;
        let (_, id) = keyring.derive(&label(name)).find(|(known, _)| *known == key)?;
        let user = user.and_then(|user| base64url::decode_array(&user));
        Some(self.taken_ticket(id, sid, ends, remember, user))
    }

    fn taken_ticket(
        &self,
        id: [u8; 32],
        sid: &Sid,
        ends: Time,
        remember: bool,
        user: Option<UserTag>,
    ) -> Ticket {
        let id = Id::from_bytes(id);
        let family = Family(
            id.successor(&crate::id::Nonce([0; 12])).as_bytes().first_chunk().copied().unwrap_or_default(),
        );
        // The old cookie is no copy of a ticket: its late use is no theft.
        let foreign = Some(sid.clone());
        Ticket { id, issued: self.host.now(), ends, remember, user, family, generation: 0, foreign }
    }

    /// The session that is to begin, and what is kept of it. Its user has not given a password.
    fn session_to_take(&self, old: &OldCookie<'_>, record: Record, keyring: &Keyring) -> (Session, Taken) {
        let OldCookie { format, sid, name } = old;
        let user = format.user_of(&record);
        // A session that the application ended sooner than ours end is none to be remembered.
        let remember = record.is_persistent && record.lifetime > self.rules.lifetimes.idle;
        let new = self.new_session(user, record.data, remember, Device::default(), Vec::new());
        let (key, id) = keyring.derive(&label(name)).next().unwrap_or_default();
        let tag = new.record.user.as_ref().map(User::tag);
        let ticket = self.taken_ticket(id, sid, new.record.expires_at, new.record.remember, tag);
        let record = super::Record { authenticated_at: None, family: ticket.family, ..*new.record };
        let taken = Taken {
            v: Version,
            key: key.to_owned(),
            ends: ticket.ends,
            remember: ticket.remember,
            user: tag.map(|tag| base64url::encode(&tag)),
        };
        let stored = self.seal(&ticket.id.handle(), &record);
        (Session { ticket, record: Box::new(record), stored, head: None, state: None, foreign: None }, taken)
    }

    async fn write_taken(
        &self,
        [taken_key, record_key]: [&str; 2],
        taken: &Taken,
        session: &Session,
    ) -> Result<Reply, Failure> {
        let Session { ticket, record, stored, .. } = session;
        let lifetimes = &self.rules.lifetimes;
        let handle = ticket.id.handle();
        let mut keys = vec![taken_key.to_owned(), self.key(&handle), record_key.to_owned()];
        if let Some(user) = &ticket.user {
            keys.extend([self.state_key(user), self.list_key(user)]);
        }
        let arguments = [
            json::to_string(taken),
            milliseconds(KNOWN_FOR).to_string(),
            stored.clone(),
            milliseconds(lifetimes.ttl(ticket.ends, ticket.remember, ticket.issued)).to_string(),
            handle.to_string(),
            record.family.to_string(),
            milliseconds(lifetimes.longest()).to_string(),
        ];
        let [reply] = self.store.run(Batch::default().script(TAKE, keys, arguments)).await?;
        Ok(reply)
    }
}

/// What a session's id is derived from: it names the application, too.
fn label(name: &Ticket) -> String {
    ["cloakroom take over v1 ", &base64url::encode(name.id.as_bytes())].concat()
}
