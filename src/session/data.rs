//! Changing a session's data. A change is kept as an operation: after a conflict it is applied again, to the newest state. What
//! waits for the same session in this isolate is written together (`merge`); a session that this isolate knows is changed in the
//! call that would load it (`exchange`).

use std::rc::Rc;

use serde_json::value::RawValue;

use super::{
    Error, Retry, Session, Sessions,
    exchange::Exchange,
    load::Loaded,
    merge::{ASK_EVERY, Outcome, Place, Turn, Write},
    update::{Versioned, settle},
};
use crate::{host::Host, http::Preconditions, id::Nonce, store::Failure, ticket::Ticket};

/// Makes new data from the newest. It may run several times.
pub(crate) type Apply<'a> = dyn Fn(&RawValue) -> Result<Box<RawValue>, Error> + 'a;

/// What came of a change of a session that this isolate may know.
pub(crate) enum Early {
    /// It is made: one call.
    Changed(Session),
    /// The session is not as it was known: this is what there is. One call, which has counted the request.
    Read(Box<Loaded>),
    /// Nothing was done.
    Not,
}

impl<H: Host> Sessions<'_, H> {
    /// Changes the session's data. One call if nobody else changes it at the same time, none if that changes nothing.
    pub async fn change(
        &self,
        session: Session,
        apply: &Apply<'_>,
        preconditions: &Preconditions,
    ) -> Result<Session, Error> {
        if let Some((format, sid)) = self.foreign(&session.ticket) {
            let sid = sid.clone();
            return self.change_foreign(format, &sid, session, apply, preconditions).await;
        }
        self.change_from(Rc::new(session), Vec::new(), Vec::new(), apply, preconditions).await
    }

    /// The same after some tries. `unsettled`: the writes whose answers were lost, by the state that they replace and the one that
    /// they write; `answers`: what the caller gets if that was made.
    async fn change_from(
        &self,
        mut current: Rc<Session>,
        mut unsettled: Vec<(Nonce, Nonce)>,
        mut answers: Vec<Result<Session, Error>>,
        apply: &Apply<'_>,
        preconditions: &Preconditions,
    ) -> Result<Session, Error> {
        let (mut conflicts, mut retry) = (0, Retry::default());
        loop {
            // 1. Was it made already?
            if let Some(index) = settle(&unsettled, &*current)? {
                self.store.has_written(&self.store.sync_token());
                return answers.swap_remove(index);
            }
            // 2. The change, on the newest state that this request has read.
            let Some(data) = next_data(&current, apply, preconditions)? else {
                return Ok(Rc::unwrap_or_clone(current));
            };
            // 3. The change, on what it is written together with; and that write. What fails there has failed if that is written.
            let place = self.isolate.writes.join(&current, self.host.now(), self.deadline);
            let write = Rc::clone(place.write());
            let newest = write.newest(&current);
            let next = match Rc::ptr_eq(&newest, &current) {
                true => Ok(Some(data)),
                false => next_data(&newest, apply, preconditions),
            };
            let own = next.map(|data| match data {
                Some(data) => write.add(&newest, data, self.nonce()),
                None => newest,
            });
            let answer =
                |own: Result<Rc<Session>, Error>| own.map(|own| Rc::unwrap_or_clone(write.as_written(own)));
            let outcome = match place {
                Place::First(turn, before) => self.carry_out(turn, before, conflicts > 0).await,
                Place::Joined(_) => self.wait_for(&write).await,
            };
            // 4. What came of it.
            let now_at = match outcome {
                Outcome::Made => {
                    self.store.has_written(&write.sync_token.borrow());
                    return answer(own);
                }
                Outcome::Empty => Some(current),
                Outcome::Changed(newest) => {
                    conflicts += 1;
                    (conflicts <= PAUSE_AFTER).then_some(newest)
                }
                Outcome::NotMade => None,
                Outcome::Ended if unsettled.is_empty() => return Err(Error::Ended),
                Outcome::Ended => return Err(Error::Unknown),
                Outcome::Refused(failure) => return Err(failure.into()),
                Outcome::Lost(failure) => {
                    unsettled.push(write.names());
                    answers.push(answer(own));
                    retry.after(failure, self.store).await?;
                    None
                }
            };
            if self.check_deadline().is_err() {
                return Err(if unsettled.is_empty() { Error::Conflict } else { Error::Unknown });
            }
            current = match now_at {
                Some(current) => current,
                None => match self.reload(write.base.ticket.clone(), &mut conflicts).await {
                    Err(Error::Ended) if !unsettled.is_empty() => return Err(Error::Unknown),
                    outcome => Rc::new(outcome?),
                },
            };
        }
    }

    /// Changes the data of the session of this ticket if it is still as this isolate knows it: one call, which counts the
    /// request. A change that fails is not made this way: only the newest state can tell.
    pub(crate) async fn change_known(
        &self,
        ticket: &Ticket,
        apply: &Apply<'_>,
        preconditions: &Preconditions,
    ) -> Result<Early, Error> {
        // 1. What is known, if nothing else is to be done to the session than the change.
        let now = self.host.now();
        let Some(known) = self.known(ticket) else { return Ok(Early::Not) };
        let known = Rc::new(known);
        let Some(turn) = self.isolate.writes.begin(&known, now, self.deadline) else { return Ok(Early::Not) };
        let Ok(Some(data)) = next_data(&known, apply, preconditions) else { return Ok(Early::Not) };
        turn.write.add(&known, data, self.nonce());
        let Some(written) = turn.start(|newest| self.with_record(newest, (*newest.record).clone())) else {
            return Ok(Early::Not);
        };
        // 2. The call. Whoever waits behind it reads the session again, if it was not made.
        let was_due = self.store.counts_next();
        let outcome = self.exchange(&known, &written).await;
        match outcome {
            Ok(Some(Exchange::Made)) => {
                self.finish(turn, Outcome::Made);
                self.note_presented(&written, ticket);
                Ok(Early::Changed(Rc::unwrap_or_clone(written)))
            }
            Ok(Some(Exchange::Found(loaded))) => {
                self.finish(turn, Outcome::NotMade);
                Ok(Early::Read(loaded))
            }
            Ok(None) => {
                self.finish(turn, Outcome::NotMade);
                Ok(Early::Not)
            }
            // 3. Its answer was lost: it is found out whether it was made. If not, it is tried again, unless it cannot be told
            // whether the request was counted.
            Err(failure) if failure.is_in_doubt() => {
                let (names, is_counted) =
                    (turn.write.names(), was_due.then(|| self.store.pass_uncounted(failure)));
                self.finish(turn, Outcome::Lost(failure));
                Retry::default().after(failure, self.store).await?;
                let session = self.load_from_primary(known.ticket.clone()).await?.ok_or(Error::Unknown)?;
                let answer = Rc::unwrap_or_clone(written);
                if let Some(Err(_)) = is_counted {
                    if !session.includes(&answer.record.revision) {
                        return Err(failure.into());
                    }
                    self.store.has_written(&self.store.sync_token());
                    return Ok(Early::Changed(answer));
                }
                let (unsettled, answers) = (vec![names], vec![Ok(answer)]);
                let changed = self.change_from(Rc::new(session), unsettled, answers, apply, preconditions);
                changed.await.map(Early::Changed)
            }
            Err(failure) => {
                self.finish(turn, Outcome::NotMade);
                self.do_without_scripts(failure)?;
                Ok(Early::Not)
            }
        }
    }

    /// What this isolate knows of the session that this ticket has the newest id of, unless its load would have more to do.
    fn known(&self, ticket: &Ticket) -> Option<Session> {
        let now = self.host.now();
        if self.foreign(ticket).is_some() || !self.isolate.may_run_scripts(now) {
            return None;
        }
        let known = self.isolate.known.borrow_mut().take(ticket)?;
        let ticket = self.as_touched(ticket);
        let is_same = known.ticket == Ticket { issued: known.ticket.issued, ..ticket.clone() };
        let is_due = self.rules.lifetimes.touch_due(&ticket, now)
            || known.is_rotation_due(self.rules.rotate_every, now)
            || now >= known.record.expires_at;
        (is_same && !is_due).then_some(Session { ticket, ..known })
    }

    /// Carries out a write: once the one before it is made or, after a conflict, when others have had the time to join.
    async fn carry_out(&self, turn: Turn<'_>, before: Option<Rc<Write>>, gathers: bool) -> Outcome {
        let has_company = before.is_some() || gathers;
        if let Some(before) = before {
            let outcome = match self.wait_for(&before).await {
                Outcome::Made => None,
                Outcome::Empty | Outcome::Lost(_) | Outcome::Refused(_) => Some(Outcome::NotMade),
                outcome => Some(outcome),
            };
            if let Some(outcome) = outcome {
                return turn.finish(outcome);
            }
        } else if gathers {
            self.host.sleep(ASK_EVERY).await;
        }
        let Some(written) = turn.start(|newest| self.with_record(newest, (*newest.record).clone())) else {
            return turn.finish(Outcome::Empty);
        };
        let outcome = self.write(&turn.write.base, &written, has_company).await;
        self.finish(turn, outcome)
    }

    fn finish(&self, turn: Turn<'_>, outcome: Outcome) -> Outcome {
        turn.write.sync_token.replace(self.store.sync_token());
        turn.finish(outcome)
    }

    /// Waits for a write that another request carries out.
    async fn wait_for(&self, write: &Write) -> Outcome {
        loop {
            if let Some(outcome) = write.outcome() {
                return outcome;
            }
            if self.check_deadline().is_err() {
                return Outcome::Lost(Failure::Unreachable);
            }
            self.host.sleep(ASK_EVERY).await;
        }
    }

    /// Writes the next state. In `company` others probably write at the same time: a script then tells at once what there is, for
    /// two commands more. It is also told a large state by what differs, where a command would need the old one and the new one.
    async fn write(&self, base: &Session, next: &Session, has_company: bool) -> Outcome {
        let is_large = base.stored.len() > LARGE;
        if (has_company || is_large) && self.isolate.may_run_scripts(self.host.now()) {
            match self.exchange(base, next).await {
                Ok(Some(Exchange::Made)) => return Outcome::Made,
                Ok(Some(Exchange::Found(loaded))) => {
                    return Outcome::found(self.follow(base.ticket.clone(), *loaded).await);
                }
                Err(failure) if failure.is_in_doubt() => return Outcome::Lost(failure),
                Err(failure) => {
                    if self.do_without_scripts(failure).is_err() {
                        return Outcome::Refused(failure);
                    }
                }
                Ok(None) => {}
            }
        }
        match self.compare_and_set(base, &next.stored, None).await {
            Ok(true) => Outcome::Made,
            Ok(false) => Outcome::found(self.load_from_primary(base.ticket.clone()).await),
            Err(Error::Ended) => Outcome::Ended,
            Err(Error::Store(failure)) if failure.is_in_doubt() => Outcome::Lost(failure),
            Err(Error::Store(failure)) => Outcome::Refused(failure),
            Err(_) => Outcome::NotMade,
        }
    }
}

/// After how many conflicts a change waits, and reads again, before the next try: others are faster.
const PAUSE_AFTER: u32 = 3;

/// From how many bytes of text on it costs less to send what differs than to save commands: at Upstash's prices 33 KB are as
/// much as a command.
const LARGE: usize = 32_768;

/// The data of the next state; `None` if nothing changes.
fn next_data(
    session: &Session,
    apply: &Apply<'_>,
    preconditions: &Preconditions,
) -> Result<Option<Box<RawValue>>, Error> {
    preconditions.check(Some(&session.etag()))?;
    let data = apply(&session.record.data)?;
    Ok(Some(data).filter(|data| data.get() != session.record.data.get()))
}
