//! A new id for a record: rotation, login, a renewed login. The old id is dead in the same moment.

use super::{Companion, Ended, Foreign, Login, MARGIN, Session, Sessions, beside, scripts};
use crate::{
    foreign::Format,
    host::{Host, random},
    log::{self, Line},
    session::{
        Error, Retry,
        change::{ApplyError, empty_data},
        rotate::{MAX_ROTATIONS, MINUTE},
    },
    store::{Batch, Failure},
    ticket::Ticket,
    time::milliseconds,
};

/// What came of a move.
enum Moved {
    Done,
    /// The record is not the one that was read.
    Changed,
    /// There is no record any more.
    Gone,
}

/// What becomes of the session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is the same under another id.
    Renamed,
    /// Another takes its place.
    Replaced,
}

impl<H: Host> Sessions<'_, H> {
    /// A new id for the same session. One call.
    pub(in super::super) async fn rotate_foreign(
        &self,
        format: &Format,
        session: Session,
    ) -> Result<Session, Error> {
        let now = self.host.now();
        let wait = session.rotation_allowed_in(now);
        if !wait.is_zero() {
            return Err(Error::too_many_rotations(wait));
        }
        let rename = |companion: &Companion| {
            let recent = companion.rotations.iter().filter(|at| now < **at + MINUTE).copied();
            let mut rotations: Vec<_> = recent.chain([now]).collect();
            rotations.drain(..rotations.len().saturating_sub(MAX_ROTATIONS));
            Companion { rotations, ..companion.clone() }
        };
        self.rename(format, session, &rename).await
    }

    /// The same, when the user has just given the password.
    pub(in super::super) async fn reauthenticate_foreign(
        &self,
        format: &Format,
        session: Session,
    ) -> Result<Session, Error> {
        let user = session.record.user.clone().ok_or(Error::NotFresh)?;
        let login = Some(Login { user, at: self.host.now() });
        let rename = |companion: &Companion| Companion { login: login.clone(), ..companion.clone() };
        self.rename(format, session, &rename).await
    }

    async fn rename(
        &self,
        format: &Format,
        session: Session,
        change: &dyn Fn(&Companion) -> Companion,
    ) -> Result<Session, Error> {
        let make = |old: &Session| {
            let (now, sid) = (self.host.now(), format.new_sid(&random(self.host)));
            let Foreign { stored, companion, .. } = &**old.foreign.as_ref().ok_or(Error::Ended)?;
            let companion = Companion { sid: sid.as_str().to_owned(), ..change(companion) };
            self.session_of_record(format, &format.ticket(sid, now), stored.clone(), companion)
        };
        self.replace(format, session, Kind::Renamed, &make).await?.ok_or(Error::Ended)
    }

    /// A session of a user who has just proved who they are, in exchange for the one they had. `make` makes it from the last
    /// state of the old one. `carried`: the tickets that came along, which all are dead then. One call.
    pub(in super::super) async fn log_in_foreign(
        &self,
        format: &Format,
        old: Option<Session>,
        carried: &[Ticket],
        make: &dyn Fn(Option<&Session>) -> Result<Session, Error>,
    ) -> Result<Session, Error> {
        let mut carried = carried.to_vec();
        if let Some(old) = old {
            carried.push(old.ticket.clone());
            let make = |old: &Session| self.with_user(format, &make(Some(old))?, Some(old));
            if let Some(session) = self.replace(format, old, Kind::Replaced, &make).await? {
                return Ok(session);
            }
        }
        self.insert_foreign(format, &carried, &|| self.with_user(format, &make(None)?, None)).await
    }

    /// Puts the session that `make` makes in the place of another, whose id is dead once this has returned. `None` if that has
    /// ended meanwhile.
    async fn replace(
        &self,
        format: &Format,
        mut old: Session,
        kind: Kind,
        make: &dyn Fn(&Session) -> Result<Session, Error>,
    ) -> Result<Option<Session>, Error> {
        let (mut retry, mut attempts) = (Retry::default(), Vec::new());
        loop {
            let next = make(&old)?;
            match self.move_record(format, &old, &next, kind).await {
                Ok(Moved::Done) => return Ok(Some(next)),
                Ok(Moved::Changed) => self.check_deadline()?,
                // Perhaps by an attempt whose answer was lost.
                Ok(Moved::Gone) => return self.made(format, &old, attempts).await,
                Err(failure) => {
                    retry.after(failure, self.store).await?;
                    attempts.push(next);
                }
            }
            match self.load_from_primary(old.ticket.clone()).await? {
                Some(newest) => old = newest,
                None => return self.made(format, &old, attempts).await,
            }
        }
    }

    /// A session as it is to be written: with its user where the application looks for one.
    pub(in super::super) fn with_user(
        &self,
        format: &Format,
        session: &Session,
        before: Option<&Session>,
    ) -> Result<Session, Error> {
        let before = before.and_then(|before| before.foreign.as_ref()).map(|foreign| &*foreign.stored);
        let Some(user) = &session.record.user else {
            return self.encoded(format, session, &session.record.data, before);
        };
        let written = format.with_user(&session.record.data, user).map_err(Error::from);
        match written.and_then(|data| self.encoded(format, session, &data, before)) {
            // Nobody is kept from logging in by what is stored under the old id.
            Err(Error::NotApplicable(error)) if *error == ApplyError::Unreadable => {
                let handle = session.ticket.id.handle();
                let message = format!(
                    "session {handle} began without the data of the one before it, which cannot be changed"
                );
                self.host.log(&Line::new(log::Event::DataLeftBehind, message).about(handle));
                self.encoded(format, session, &format.with_user(&empty_data(), user)?, None)
            }
            outcome => outcome,
        }
    }

    /// Which of the attempts whose answers were lost was made, if one was: what stands beside the old record tells.
    async fn made(
        &self,
        format: &Format,
        old: &Session,
        attempts: Vec<Session>,
    ) -> Result<Option<Session>, Error> {
        if attempts.is_empty() {
            return Ok(None);
        }
        let key = self.beside_key(&old.ticket.id.handle());
        let batch = beside::as_bytes(format, Batch::default().get_from_primary(&key));
        let [stored] = self.store.run(batch).await?;
        let by = match beside::Beside::parse(stored.bytes()?.as_deref()) {
            Some(beside::Beside::Ended(ended)) => ended.by,
            _ => None,
        };
        Ok(attempts.into_iter().find(|attempt| Some(attempt.ticket.id.handle()) == by))
    }

    async fn move_record(
        &self,
        format: &Format,
        old: &Session,
        next: &Session,
        kind: Kind,
    ) -> Result<Moved, Failure> {
        let (Some(from), Some(to)) = (&old.ticket.foreign, &next.ticket.foreign) else {
            return Err(Failure::Garbled);
        };
        let (Some(before), Some(after)) = (&old.foreign, &next.foreign) else { return Err(Failure::Garbled) };
        let prefix = &self.rules.key_prefix;
        let keys = [
            format.record_key(prefix, from),
            format.record_key(prefix, to),
            self.beside_key(&old.ticket.id.handle()),
            self.beside_key(&next.ticket.id.handle()),
        ];
        let is_replaced = kind == Kind::Replaced;
        let handle = next.ticket.id.handle();
        let ended = Ended::now(self.host.now(), Some(handle), (!is_replaced).then(|| to.as_str().to_owned()));
        let arguments = [
            scripts::hex(&before.stored),
            if is_replaced { scripts::hex(&after.stored) } else { String::new() },
            if is_replaced { milliseconds(after.lifetime).to_string() } else { String::new() },
            ended,
            after.companion.to_json(),
            milliseconds(before.lifetime.max(after.lifetime) + MARGIN).to_string(),
        ];
        let [moved] = self.store.run(Batch::default().script(scripts::MOVE, keys, arguments)).await?;
        Ok(match moved.integer()? {
            1 => Moved::Done,
            0 => Moved::Changed,
            _ => Moved::Gone,
        })
    }
}
