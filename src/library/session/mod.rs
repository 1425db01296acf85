//! A visitor's session, as a handler uses it.

mod answer;
mod changes;
mod login;
pub(super) mod provider;

use std::time::Duration;

use serde_json::value::RawValue;

use super::{Allowance, Error, Limit, data::Data};
use crate::{
    app::App,
    context::Context,
    host::Host,
    http::{Problem, Request},
    limit::{OwnName, Quota, Subject},
    log::{self, Line},
    platform::Platform,
    session,
};

/// The session of the visitor who sends a request. There may be none: it begins with the first change that is written, or with
/// a login.
///
/// Changes are made in memory, as operations, and written by [`Session::respond`] or [`Session::save`]: one call, and one more
/// each time another request was faster; then the operations are made again, to the newest data. No change is lost, and none
/// brings an ended session back.
///
/// Await what you call to its end: a call that is dropped halfway, as the loser of a `select`, may have been made, and its
/// changes are then made once more by the next one. Limits may be asked at the same time.
///
/// Dropped with changes that are not written, or without a cookie that the visitor needs, it says so in the log.
#[must_use = "return it through `respond`: its changes and its cookie are lost otherwise"]
pub struct Session {
    cx: Context<'static, Platform>,
    loaded: Option<session::Session>,
    data: Data,
    /// Whose requests a limit counts with this one: of the session that it came with or, without one, of the address. One that
    /// it begins would let every request have a quota of its own.
    subject: Subject,
    /// Whether the visitor would lose the session without the cookie of the answer.
    needs_cookie: bool,
    /// The lines of cookies of logins that have begun or are over.
    cookies: Vec<String>,
}

impl Session {
    pub(super) async fn load(app: &'static App<Platform>, request: Request<'static>) -> Result<Self, Error> {
        app.host.refresh_clock();
        let cx = Context::new(app, request, false);
        cx.remove_useless_cookie();
        let loaded = async {
            cx.check_transport()?;
            cx.apply_limits().await?;
            let session = cx.session().await?;
            cx.store.count().await.map_err(Problem::store_unavailable)?;
            Ok(session)
        };
        match loaded.await.map_err(|problem| refusal(&cx, problem)) {
            Ok(loaded) => {
                let data = Data::new(data_of(&loaded), app.config.session.max_bytes);
                let session = loaded.as_ref().map(|loaded| Subject::Session(loaded.ticket.family.origin()));
                let subject = session.unwrap_or_else(|| cx.address());
                Ok(Self { cx, loaded, data, subject, needs_cookie: false, cookies: Vec::new() })
            }
            Err(problem) => {
                let answer = cx.answer(Err(problem.clone()), false);
                Err(Error::answered(problem, answer.uncacheable()))
            }
        }
    }

    /// A rate limit of the application's own: so many in so long, exactly, over all isolates; `"20/1m"`, with `s`, `m`, `h` or
    /// `d`. Await it: one call. By the session that the request came with or, without one, by the client's address; see
    /// [`Limit`] for other subjects, costs, and looking without taking. The answer's rate-limit fields tell its state, under
    /// this name: 1 to 64 characters of letters, digits and `-_./`, and none of ours.
    ///
    /// Errors: 429 `rate_limited`; 503 if the store is away, unless `store.on_failure` is `open`; 500 for a name or a quota that
    /// is none.
    ///
    /// ```no_run
    /// # async fn search(session: &cloakroom::Session) -> Result<(), cloakroom::Error> {
    /// session.limit("search", "20/1m").await?;
    /// session.limit("export", "100/1d").cost(25).by_user().await?;
    /// let left = session.limit("export", "100/1d").peek().by_user().await?.remaining;
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit(&self, name: &str, quota: &str) -> Limit<'_> {
        Limit::new(self, name, quota)
    }

    pub(super) async fn ask_limit(
        &self,
        name: OwnName,
        quota: Quota,
        subject: Subject,
        cost: u32,
    ) -> Result<Allowance, Error> {
        let limiter = &self.cx.store.limiter;
        self.begin();
        let asked = limiter.add_own(name, quota, subject, cost);
        self.cx.store.count().await.map_err(|failure| self.problem(failure.into()))?;
        limiter.check_asked(asked).map_err(Problem::from)?;
        // Without a state it passed uncounted.
        let state = limiter.state(asked);
        let (remaining, reset) =
            state.map_or((quota.count.get(), Duration::ZERO), |state| (state.remaining, state.reset));
        Ok(Allowance { limit: quota.count.get(), remaining, reset })
    }

    /// Whose requests a limit of the application's counts together.
    pub(super) fn subject(&self) -> Subject {
        self.subject
    }

    pub(super) fn address(&self) -> Subject {
        self.cx.address()
    }

    /// An operation begins: time may have passed since the last one.
    fn begin(&self) {
        self.cx.app.host.refresh_clock();
        self.cx.begin_operation();
    }

    /// The session as it is after an operation. Errors: that of the operation; the session may have ended.
    fn take_over(&mut self, outcome: Result<session::Session, session::Error>) -> Result<(), Error> {
        let session = match outcome {
            Ok(session) => session,
            Err(error) => {
                if error == session::Error::Ended {
                    self.cx.remove_cookie();
                    self.forget();
                }
                return Err(self.problem(error));
            }
        };
        self.cx.issue_ticket(&session);
        let presented = self.cx.presented().map(|presented| &presented.ticket.id);
        self.needs_cookie |= presented != Some(&session.ticket.id);
        self.data = Data::new(Some(&session.record.data), self.max_bytes());
        self.loaded = Some(session);
        Ok(())
    }

    /// There is no session any more.
    fn forget(&mut self) {
        self.loaded = None;
        self.needs_cookie = false;
        self.data = Data::new(None, self.max_bytes());
    }

    fn max_bytes(&self) -> usize {
        self.cx.app.config.session.max_bytes
    }

    /// What the client is told: that the request is over a limit, if that is why.
    fn problem(&self, error: session::Error) -> Error {
        refusal(&self.cx, error.into()).into()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let lost = match (self.data.has_changes(), self.needs_cookie) {
            (true, _) => "with changes that were not written",
            (false, true) => "with a new id that its visitor does not learn",
            (false, false) => return,
        };
        let message = format!(
            "a session was dropped {lost}: a handler must return Session::respond, or save or discard the changes"
        );
        self.cx.app.host.log(&Line::new(log::Event::SessionDropped, message));
    }
}

fn refusal(cx: &Context<'_, Platform>, problem: Problem) -> Problem {
    cx.store.check().err().map_or(problem, Problem::from)
}

fn data_of(loaded: &Option<session::Session>) -> Option<&RawValue> {
    loaded.as_ref().map(|session| &*session.record.data)
}
