//! Begins and changes records. Each change is a compare-and-set, so that none of ours is lost; the application's own writes do not
//! ask what is stored.

use serde_json::value::RawValue;

use super::{MARGIN, Session, Sessions, scripts};
use crate::{
    foreign::{Format, Sid},
    host::Host,
    http::Preconditions,
    session::{Error, Retry},
    store::{Batch, Failure},
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

    /// Writes a session under its new id. If the answer is lost, another one is made under another id: a late one belongs to
    /// nobody.
    pub(in super::super) async fn insert_foreign(
        &self,
        format: &Format,
        make: &dyn Fn() -> Result<Session, Error>,
    ) -> Result<Session, Error> {
        let mut retry = Retry::default();
        loop {
            let session = make()?;
            match self.write_new_foreign(format, &session).await {
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

    async fn write_new_foreign(&self, format: &Format, session: &Session) -> Result<bool, Failure> {
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
        let batch = batch.set(&beside_key, &companion, foreign.lifetime + MARGIN).atomic();
        let [created, noted] = self.store.run(batch).await?;
        noted.is_ok()?;
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
            let data = apply(&session.record.data)?;
            if data.get() == session.record.data.get() {
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
            if is_in_doubt && !is_the_same && apply(&session.record.data)?.get() != session.record.data.get()
            {
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
