//! From the cookie of another application to the session behind it, in one call to the store.

use super::{Beside, Companion, Foreign, MARGIN, Session, Sessions, beside};
use crate::{
    foreign::{Format, Sid},
    host::Host,
    id::Handle,
    json::Version,
    log::{self, Line},
    session::{Error, Reason, StoredSession, Task, change::ApplyError},
    store::{Batch, Failure, Reply},
    ticket::Ticket,
};

/// A touch of a record and of what stands beside it, for after the response.
#[derive(Clone, Debug)]
pub struct Touch {
    handle: Handle,
    /// None if reading a session is not to extend its time to live.
    record_key: Option<String>,
    lifetime: std::time::Duration,
    beside_key: String,
    /// What is to stand beside it, if nothing does yet.
    companion: Option<String>,
}

/// The record, and what stands beside it.
struct Stored {
    record: Option<Vec<u8>>,
    beside: Beside,
}

impl<H: Host> Sessions<'_, H> {
    /// Reads the session; `None` if it has ended. In the same call the value of another key. A touch that is due is made after
    /// the response: how long the record is to last stands in it.
    pub(in super::super) async fn load_foreign(
        &self,
        format: &Format,
        ticket: &Ticket,
        sid: &Sid,
        other_key: Option<&str>,
    ) -> Result<(Result<Option<Session>, Error>, Option<String>), Error> {
        let (stored, other) = self.read_foreign(format, ticket, sid, other_key).await?;
        let session = self.session_behind(format, ticket, stored);
        if let Ok(Some(session)) = &session {
            self.touch_foreign(format, sid, session);
        }
        Ok((session, other))
    }

    /// Why there is no session behind a ticket; `None` if there is one. Leaves no trace. Error: also if its record cannot be
    /// read.
    pub(in super::super) async fn inspect_foreign(
        &self,
        format: &Format,
        ticket: &Ticket,
        sid: &Sid,
    ) -> Result<Option<Reason>, Error> {
        let (Stored { record, beside }, _) = self.read_foreign(format, ticket, sid, None).await?;
        let (companion, record) = match (beside, record) {
            // The application may have written its record back: the id has ended all the same.
            (Beside::Ended(ended), _) if ended.next.is_some() => return Ok(Some(Reason::Rotated)),
            (Beside::Ended(_), _) | (_, None) => return Ok(Some(Reason::Ended)),
            (Beside::Companion(companion), Some(record)) => (companion, record),
            (Beside::Nothing, Some(record)) => (self.first_companion(ticket), record),
        };
        self.session_of_record(format, ticket, record, companion).map(|_| None)
    }

    /// The same as the primary has it now.
    pub(in super::super) async fn reload_foreign(
        &self,
        format: &Format,
        ticket: &Ticket,
        sid: &Sid,
    ) -> Result<Option<Session>, Error> {
        let (stored, _) = self.read_foreign(format, ticket, sid, None).await?;
        self.session_behind(format, ticket, stored)
    }

    /// As the primary has it: what the application has just written comes with no token for a replica.
    async fn read_foreign(
        &self,
        format: &Format,
        ticket: &Ticket,
        sid: &Sid,
        other_key: Option<&str>,
    ) -> Result<(Stored, Option<String>), Error> {
        let record_key = format.record_key(&self.rules.key_prefix, sid);
        let beside_key = self.beside_key(&ticket.id.handle());
        let batch = Batch::default().get([&*record_key, &beside_key].into_iter().chain(other_key));
        let batch = beside::as_bytes(format, batch).at_primary(&*record_key);
        let replies = self.store.read_all(batch).await?;
        let Some(Reply::List(values)) = replies.into_iter().next() else {
            return Err(Failure::Garbled.into());
        };
        let mut values = values.into_iter();
        let (record, beside) = (bytes(values.next())?, bytes(values.next())?);
        let other = values.next().map_or(Ok(None), Reply::value)?;
        let beside = Beside::parse(beside.as_deref());
        let beside = beside.ok_or_else(|| {
            Error::unreadable(ticket.id.handle(), "what stands beside it is of another version")
        })?;
        let stored = Stored { record, beside };
        if self.store.check().is_err() {
            // A dead ticket is over nobody's limit.
            if stored.record.is_none() {
                self.store.limiter.withdraw_ticket();
            }
            self.store.check().map_err(|_| Failure::RateLimited)?;
        }
        Ok((stored, other))
    }

    /// The session that was read, if it lives.
    fn session_behind(
        &self,
        format: &Format,
        ticket: &Ticket,
        Stored { record, beside }: Stored,
    ) -> Result<Option<Session>, Error> {
        let Some(record) = record else { return Ok(None) };
        let companion = match beside {
            Beside::Companion(companion) => companion,
            Beside::Nothing => self.first_companion(ticket),
            Beside::Ended(_) => {
                // The application has written it back: a request was under way there when it ended.
                if let Some(sid) = &ticket.foreign {
                    self.isolate.defer(Task::Delete(vec![format.record_key(&self.rules.key_prefix, sid)]));
                }
                return Ok(None);
            }
        };
        self.session_of_record(format, ticket, record, companion).map(Some)
    }

    /// 422 for a record that is too large, 500 for one that cannot be read; both are left as they are.
    pub(super) fn session_of_record(
        &self,
        format: &Format,
        ticket: &Ticket,
        stored: Vec<u8>,
        companion: Companion,
    ) -> Result<Session, Error> {
        let max_bytes = self.rules.max_bytes;
        let too_large = || {
            let (handle, bytes) = (ticket.id.handle(), stored.len());
            let message = format!(
                "session {handle} has a record of {bytes} bytes, more than session.max_bytes ({max_bytes}) allows: it was left \
                 as it is; raise session.max_bytes, or keep less in it"
            );
            self.host.log(&Line::new(log::Event::RecordTooLarge, message).about(handle));
            ApplyError::Unprocessable(format!(
                "the session's record is larger than session.max_bytes ({max_bytes}): it is left as it is"
            ))
        };
        // Before it is parsed. Bytes in MessagePack grow by a third in base64.
        if stored.len() > max_bytes.saturating_mul(2) + 4096 {
            return Err(too_large().into());
        }
        let read = format.read(&stored).map_err(|why| Error::unreadable(ticket.id.handle(), why.0))?;
        if read.data.get().len() > max_bytes {
            return Err(too_large().into());
        }
        let user = format.user_of(&read);
        let foreign = Foreign { stored, companion, lifetime: read.lifetime };
        Ok(self.foreign_session(format, ticket.clone(), user, read.data, read.is_persistent, foreign))
    }

    /// For a session that nobody has seen here before.
    fn first_companion(&self, ticket: &Ticket) -> Companion {
        Companion {
            v: Version,
            sid: ticket.foreign.as_ref().map(|sid| sid.as_str().to_owned()).unwrap_or_default(),
            created_at: self.host.now(),
            login: None,
            rotations: Vec::new(),
        }
    }

    /// Touches the session after the response, if this isolate has not done so lately.
    fn touch_foreign(&self, format: &Format, sid: &Sid, session: &Session) {
        let Some(foreign) = &session.foreign else { return };
        let (now, handle) = (self.host.now(), session.ticket.id.handle());
        let companion = (foreign.companion.created_at == now).then(|| foreign.companion.to_json());
        if !format.touches && companion.is_none() {
            return;
        }
        let every = self.rules.lifetimes.touch_every.min(foreign.lifetime / 2);
        if self.isolate.last_touch(&handle).is_some_and(|last| now - last < every) {
            return;
        }
        let touch = Touch {
            handle,
            record_key: format.touches.then(|| format.record_key(&self.rules.key_prefix, sid)),
            lifetime: foreign.lifetime,
            beside_key: self.beside_key(&handle),
            companion,
        };
        self.isolate.touch(handle, now);
        if !self.isolate.defer(Task::TouchForeign(Box::new(touch))) {
            self.isolate.forget_touch(&handle);
        }
    }

    /// Carries out touches that were put off. A record that the application keeps without an end stays without one.
    pub(in super::super) async fn run_touches(&self, touches: Vec<Touch>) {
        if touches.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for touch in &touches {
            if let Some(record_key) = &touch.record_key {
                batch = batch.extend_ttl(&**record_key, touch.lifetime);
            }
            let ttl = touch.lifetime + MARGIN;
            batch = match &touch.companion {
                Some(companion) => batch.create(&touch.beside_key, companion, ttl),
                None => batch.extend_ttl(&*touch.beside_key, ttl),
            };
        }
        if self.store.run_all(batch).await.is_err() {
            touches.iter().for_each(|touch| self.isolate.forget_touch(&touch.handle));
        }
    }

    /// The id of the session with this handle, if it was ever seen here.
    pub(in super::super) async fn sid_of(&self, format: &Format, handle: &Handle) -> Result<Sid, Error> {
        Sid::parse(&self.companion_of(format, handle).await?.sid).ok_or(Error::NotFound)
    }

    async fn companion_of(&self, format: &Format, handle: &Handle) -> Result<Companion, Error> {
        let beside_key = self.beside_key(handle);
        let batch = beside::as_bytes(format, Batch::default().get([&*beside_key]).at_primary(&*beside_key));
        let [values] = self.store.run(batch).await?;
        let beside = values.values(1)?.pop().flatten();
        match Beside::parse(beside.as_deref().map(str::as_bytes)) {
            Some(Beside::Companion(companion)) => Ok(companion),
            _ => Err(Error::NotFound),
        }
    }

    /// Finds a session by its handle, if it was ever seen here: without that its id is not known.
    pub(in super::super) async fn find_foreign(
        &self,
        format: &Format,
        handle: &Handle,
    ) -> Result<StoredSession, Error> {
        let companion = self.companion_of(format, handle).await?;
        let sid = Sid::parse(&companion.sid).ok_or(Error::NotFound)?;
        let record_key = format.record_key(&self.rules.key_prefix, &sid);
        let ticket = format.ticket(sid, self.host.now());
        let batch = Batch::default().get([&*record_key]).ttl(&record_key).at_primary(&*record_key);
        let batch = beside::as_bytes(format, batch);
        let [values, ttl] = self.store.run(batch).await?;
        let ttl_ms = u64::try_from(ttl.integer()?).unwrap_or(0);
        let Reply::List(values) = values else { return Err(Failure::Garbled.into()) };
        let stored = bytes(values.into_iter().next())?.ok_or(Error::NotFound)?;
        let stored_bytes = stored.len();
        let Session { ticket, record, .. } = self.session_of_record(format, &ticket, stored, companion)?;
        Ok(StoredSession {
            handle: *handle,
            record,
            stored: String::new(),
            stored_bytes,
            ttl_ms,
            foreign: ticket.foreign,
        })
    }
}

/// A value as bytes.
fn bytes(reply: Option<Reply>) -> Result<Option<Vec<u8>>, Failure> {
    reply.ok_or(Failure::Garbled)?.bytes()
}
