//! Changing a session's data. A change is kept as an operation: after a conflict it is applied again, to the newest state.

use serde_json::value::RawValue;

use super::{
    Device, Error, Record, Retry, Session, Sessions, User,
    change::{Change, empty_data},
};
use crate::{
    host::{Host, random},
    http::Preconditions,
    id::{Family, Id, Nonce},
    json::Version,
    store::Failure,
};

impl<H: Host> Sessions<'_, H> {
    /// The data of a new session: the change applied to empty data.
    pub fn initial_data(
        &self,
        change: &Change,
        preconditions: &Preconditions,
    ) -> Result<Box<RawValue>, Error> {
        preconditions.check(None)?;
        Ok(change.apply(&empty_data(), self.rules.max_bytes)?)
    }

    /// Begins an anonymous session. One call.
    pub async fn create(&self, data: Box<RawValue>) -> Result<Session, Error> {
        let created = self.insert(&|| self.new_session(None, data.clone(), false, Device::default())).await?;
        Ok(created.session)
    }

    /// A session that begins now, not written yet.
    pub fn new_session(
        &self,
        user: Option<User>,
        data: Box<RawValue>,
        remember: bool,
        device: Device,
    ) -> Session {
        let now = self.host.now();
        let record = Record {
            v: Version,
            revision: self.nonce(),
            previous_revisions: Vec::new(),
            authenticated_at: user.is_some().then_some(now),
            user,
            data,
            created_at: now,
            rotated_at: now,
            expires_at: self.rules.lifetimes.end(remember, now),
            remember,
            marks: Vec::new(),
            device,
            family: Family(random(self.host)),
            generation: 0,
        };
        Session::begin(Id::from_bytes(random(self.host)), record, now)
    }

    /// Applies a change to the session's data. One call if nobody else changes it at the same time, none if it changes
    /// nothing.
    pub async fn change(
        &self,
        mut session: Session,
        change: &Change,
        preconditions: &Preconditions,
    ) -> Result<Session, Error> {
        let (mut retry, mut conflicts) = (Retry::default(), 0);
        // The writes whose answers were lost: the revision they replace, and their own.
        let mut unsettled: Vec<(Nonce, Nonce)> = Vec::new();
        loop {
            // 1. Was it made already?
            for (base, revision) in &unsettled {
                if session.record.includes(revision) {
                    return Ok(session);
                }
                if !session.record.includes(base) {
                    // There were so many changes since that it cannot be known.
                    return Err(Error::Store(Failure::Unreachable));
                }
            }
            // 2. The change, on the newest state known.
            preconditions.check(Some(&session.etag()))?;
            let data = change.apply(&session.record.data, self.rules.max_bytes)?;
            if data.get() == session.record.data.get() {
                return Ok(session);
            }
            // 3. Written, if that is still the state.
            let (base, revision) = (session.record.revision, self.nonce());
            let record = Record { data, ..(*session.record).clone() }.with_revision(revision);
            let stored = record.to_json();
            match self.compare_and_set(&session, &stored, None).await {
                Ok(true) => return Ok(Session { record: Box::new(record), stored, ..session }),
                Ok(false) => {}
                Err(Error::Store(failure)) => {
                    retry.after(failure, self.store).await?;
                    unsettled.push((base, revision));
                }
                Err(error) => return Err(error),
            }
            // 4. Another change was faster, or the answer was lost: read it again.
            session = self.reload(session.ticket, &mut conflicts).await?;
        }
    }
}
