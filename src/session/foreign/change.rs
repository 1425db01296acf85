//! Begins and changes records. Each change is a compare-and-set, so that none of ours is lost; the application's own writes do not
//! ask what is stored.

use serde_json::value::RawValue;

use super::{Ended, MARGIN, Session, Sessions, UNDER_WAY, scripts};
use crate::{
    document,
    foreign::{Format, Sid},
    host::Host,
    http::Preconditions,
    session::{Error, Retry, change::ApplyError},
    store::{Batch, Failure},
    ticket::Ticket,
    time::milliseconds,
};

impl<H: Host> Sessions<'_, H> {
    /// The session with this data as it is to be stored, in place of the record `before`.
    pub(super) fn encoded(
        &self,
        format: &Format,
        session: &Session,
        data: &RawValue,
        before: Option<&[u8]>,
    ) -> Result<Session, Error> {
        let foreign = session.foreign.as_ref().ok_or(Error::Ended)?;
        let is_remembered = session.record.remember && foreign.stored.is_empty();
        let remember = is_remembered.then_some(self.rules.lifetimes.remember);
        let stored = format.write(before, data, remember, self.host.now())?;
        self.session_of_record(format, &session.ticket, stored, foreign.companion.clone())
    }

    /// Writes a session under its new id, and notes that those of other tickets have ended, which are gone already. If the
    /// answer is lost, another one is made under another id: a late one belongs to nobody.
    pub(in super::super) async fn insert_foreign(
        &self,
        format: &Format,
        replaced: &[Ticket],
        make: &dyn Fn() -> Result<Session, Error>,
    ) -> Result<Session, Error> {
        let mut retry = Retry::default();
        loop {
            let session = make()?;
            match self.write_new_foreign(format, &session, replaced).await {
                Ok(true) => {
                    self.isolate.touch(session.ticket.id.handle(), self.host.now());
                    return Ok(session);
                }
                // Random bytes exist already only if the source of randomness is broken.
                Ok(false) => return Err(Error::Conflict),
                Err(failure) => retry.after(failure, self.store).await?,
            }
        }
    }

    async fn write_new_foreign(
        &self,
        format: &Format,
        session: &Session,
        replaced: &[Ticket],
    ) -> Result<bool, Failure> {
        let (Some(foreign), Some(sid)) = (&session.foreign, &session.ticket.foreign) else {
            return Err(Failure::Garbled);
        };
        let record_key = format.record_key(&self.rules.key_prefix, sid);
        let beside_key = self.beside_key(&session.ticket.id.handle());
        let companion = foreign.companion.to_json();
        let batch = match std::str::from_utf8(&foreign.stored) {
            Ok(text) => Batch::default().create(&record_key, text, foreign.lifetime),
            Err(_) => {
                let milliseconds = milliseconds(foreign.lifetime).to_string();
                Batch::default().script(
                    scripts::CREATE,
                    [&*record_key],
                    [scripts::hex(&foreign.stored), milliseconds],
                )
            }
        };
        let mut batch = batch.set(&beside_key, &companion, foreign.lifetime + MARGIN);
        for ticket in replaced {
            if let Some(sid) = &ticket.foreign {
                let record_key = format.record_key(&self.rules.key_prefix, sid);
                let ended = Ended::now(self.host.now(), Some(session.ticket.id.handle()), None);
                let keys = [record_key, self.beside_key(&ticket.id.handle())];
                batch = batch.script(scripts::NOTE, keys, [ended, milliseconds(UNDER_WAY).to_string()]);
            }
        }
        let replies = self.store.run_all(batch.atomic()).await?;
        let created = replies.into_iter().next().ok_or(Failure::Garbled)?;
        created.is_made()
    }

    /// Changes the session's data: `apply` makes the new data from the newest, for which it may run again. If an answer is lost
    /// and the record is another one since, nobody can tell whether the change is in it: that is an error, unless it would
    /// change nothing any more.
    pub(in super::super) async fn change_foreign(
        &self,
        format: &Format,
        sid: &Sid,
        mut session: Session,
        apply: &dyn Fn(&RawValue) -> Result<Box<RawValue>, Error>,
        preconditions: &Preconditions,
    ) -> Result<Session, Error> {
        let (mut conflicts, mut retry) = (0, Retry::default());
        let mut is_in_doubt = false;
        loop {
            // 1. The change, on the newest state known.
            if !is_in_doubt {
                preconditions.check(Some(&session.etag()))?;
            }
            let data = apply(&session.record.data).map_err(|error| match error {
                Error::NotApplicable(error) if *error == ApplyError::Unreadable => {
                    Error::unreadable(session.ticket.id.handle(), UNCHANGEABLE)
                }
                other => other,
            })?;
            if is_same(&data, &session.record.data) {
                return Ok(session);
            }
            let before = session.foreign.as_ref().map(|foreign| foreign.stored.clone()).unwrap_or_default();
            let next = self.encoded(format, &session, &data, Some(&before))?;
            // 2. Written, if that is still the state.
            match self.replace_record(format, sid, &before, &next).await {
                Ok(true) => return Ok(next),
                Ok(false) => self.check_deadline()?,
                Err(failure) => {
                    retry.after(failure, self.store).await?;
                    is_in_doubt = true;
                }
            }
            // 3. Read again.
            session = match self.reload(session.ticket, &mut conflicts).await {
                Err(Error::Ended) if is_in_doubt => return Err(Error::Unknown),
                outcome => outcome?,
            };
            let is_the_same = session.foreign.as_ref().is_some_and(|foreign| foreign.stored == before);
            if is_in_doubt && !is_the_same && !is_same(&apply(&session.record.data)?, &session.record.data) {
                return Err(Error::Unknown);
            }
        }
    }

    async fn replace_record(
        &self,
        format: &Format,
        sid: &Sid,
        before: &[u8],
        next: &Session,
    ) -> Result<bool, Failure> {
        let after = next.foreign.as_ref().map(|foreign| &*foreign.stored).unwrap_or_default();
        let key = format.record_key(&self.rules.key_prefix, sid);
        let batch = match (std::str::from_utf8(before), std::str::from_utf8(after)) {
            (Ok(before), Ok(after)) => Batch::default().replace(&key, before, after, None),
            _ => Batch::default().script(
                scripts::REPLACE,
                [&*key],
                [scripts::hex(before), scripts::hex(after)],
            ),
        };
        let [replaced] = self.store.run(batch).await?;
        replaced.is_made()
    }
}

/// Whether both are the same data, however they are written: the application has its own order of members.
fn is_same(one: &RawValue, other: &RawValue) -> bool {
    let value = |data: &RawValue| document::from_stored(data.get()).map(|(value, _)| value);
    one.get() == other.get() || matches!((value(one), value(other)), (Ok(one), Ok(other)) if one == other)
}

/// Why a record that can be read cannot be changed.
const UNCHANGEABLE: &str = "for a change: it nests deeper than 127 levels, or holds half a character (of an emoji that was cut) \
                            or a number beyond all doubles, which only the application can write";
