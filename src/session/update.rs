//! Beginning a session; and how a session or an account is changed: after a conflict the change is applied again, to the newest
//! state.

use serde_json::value::RawValue;

use super::{Device, Error, Record, Retry, Session, Sessions, User};
use crate::{
    host::{Host, random},
    id::{Family, Id, Nonce},
    json::Version,
};

impl<H: Host> Sessions<'_, H> {
    /// Begins an anonymous session. One call.
    pub async fn create(&self, data: Box<RawValue>) -> Result<Session, Error> {
        if let Some(format) = self.rules.formats.own() {
            let make = || self.with_user(format, &self.new_foreign(format, None, data.clone(), false), None);
            let session = self.insert_foreign(format, &[], &make).await?;
            self.isolate.count("sessions_created", self.host.now());
            return Ok(session);
        }
        let created = self
            .insert(&|| self.new_session(None, data.clone(), false, Device::default(), Vec::new()))
            .await?;
        Ok(created.session)
    }

    /// A session that begins now, not written yet.
    pub fn new_session(
        &self,
        user: Option<User>,
        data: Box<RawValue>,
        remember: bool,
        device: Device,
        marks: Vec<Nonce>,
    ) -> Session {
        if let Some(format) = self.rules.formats.own() {
            return self.new_foreign(format, user, data, remember);
        }
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
            rotations: Vec::new(),
            expires_at: self.rules.lifetimes.end(remember, now),
            remember,
            marks,
            device,
            provider_session: None,
            family: Family(random(self.host)),
            generation: 0,
        };
        self.begin(Id::from_bytes(random(self.host)), record, now)
    }
}

/// What is changed by compare-and-set, with the names of its states.
pub(crate) trait Versioned {
    /// The name of this state.
    fn revision(&self) -> Nonce;

    /// Whether this is the state of that name, or one of those that followed it.
    fn includes(&self, revision: &Nonce) -> bool;
}

impl Versioned for Session {
    fn revision(&self) -> Nonce {
        self.record.revision
    }

    fn includes(&self, revision: &Nonce) -> bool {
        self.record.includes(revision)
    }
}

/// Changes a session or an account: the change is made once, to the newest state, whatever happens to the answers.
///
/// - `make`: the next state, under a name of its own; `None` if there is nothing to change.
/// - `write`: replaces the one state by the other; false if it is not the one that is stored.
/// - `reload`: the newest state. [`Error::Ended`] if there is none.
pub(crate) async fn update<H: Host, T: Versioned>(
    sessions: &Sessions<'_, H>,
    mut current: T,
    make: &dyn Fn(&T) -> Result<Option<T>, Error>,
    write: impl AsyncFn(&T, &T) -> Result<bool, Error>,
    mut reload: impl AsyncFnMut(T) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut retry = Retry::default();
    // The writes whose answers were lost: the revision they replace, and their own.
    let mut unsettled: Vec<(Nonce, Nonce)> = Vec::new();
    loop {
        // 1. Was it made already?
        if settle(&unsettled, &current)?.is_some() {
            return Ok(current);
        }
        // 2. The change, on the newest state known.
        let Some(next) = make(&current)? else { return Ok(current) };
        // 3. Written, if that is still the state.
        match write(&current, &next).await {
            Ok(true) => return Ok(next),
            Ok(false) => sessions.check_deadline()?,
            Err(Error::Store(failure)) => {
                retry.after(failure, sessions.store).await?;
                unsettled.push((current.revision(), next.revision()));
            }
            Err(error) => return Err(error),
        }
        // 4. Another change was faster, or the answer was lost: read it again.
        current = match reload(current).await {
            Err(Error::Ended | Error::NoAccount) if !unsettled.is_empty() => return Err(Error::Unknown),
            outcome => outcome?,
        };
    }
}

/// Which of these writes was made whose answers were lost, if one was; each was to replace the first state by the second.
/// Error: there were too many changes since to tell.
pub(crate) fn settle(unsettled: &[(Nonce, Nonce)], current: &impl Versioned) -> Result<Option<usize>, Error> {
    for (index, (base, revision)) in unsettled.iter().enumerate() {
        if current.includes(revision) {
            return Ok(Some(index));
        }
        if !current.includes(base) {
            return Err(Error::Unknown);
        }
    }
    Ok(None)
}
