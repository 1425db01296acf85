//! A visitor's session, as a handler uses it.

use std::{cell::RefCell, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use worker::Context as WorkerContext;

use super::{
    Allowance, Error, Limit, ResponseHead,
    data::{Data, to_json},
    members::Edit,
};
use crate::{
    app::App,
    context::{Context, TOKEN, no_user},
    host::Host,
    http::{Preconditions, Problem, Request, Response},
    id::Handle,
    limit::{OwnName, Quota, Subject},
    platform::Platform,
    session::{self, ListedSession, User, change::empty_data},
    ticket::UserTag,
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
                Ok(Self { cx, loaded, data, subject, needs_cookie: false })
            }
            Err(problem) => {
                let answer = cx.answer(Err(problem.clone()), false);
                Err(Error::answered(problem, answer.uncacheable()))
            }
        }
    }

    // What it holds.

    /// Whether there is a session: one that was loaded, or begun by this request and written.
    pub fn exists(&self) -> bool {
        self.loaded.is_some()
    }

    /// The session's public name: it finds the session in the device list, and nobody can log in with it.
    pub fn handle(&self) -> Option<Handle> {
        self.loaded.as_ref().map(|session| session.ticket.id.handle())
    }

    /// A member of the data, with the changes that are not written yet; `None` if there is none, or if it is null and `T` knows
    /// no null. Errors: it is no `T`.
    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.data.get(key)
    }

    /// All data, with the changes that are not written yet; without a session it is `{}`. Errors: it is no `T`.
    #[track_caller]
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.data.all()
    }

    // Changes, to be written by `respond` or `save`.

    /// Gives a member of the data this value. Errors: 413 `too_large` if the data would be larger than `session.max_bytes`,
    /// 422 if it would have more than 10,000 values or nest deeper than 100 levels; a value that cannot be JSON. What was there
    /// stays.
    pub fn insert(&mut self, key: &str, value: impl Serialize) -> Result<(), Error> {
        self.data.change(Edit::insert(key, &to_json(value)?))
    }

    /// Removes a member of the data, and returns it; `None` if there was none. Errors: it is no `T`; it stays.
    #[track_caller]
    pub fn remove<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, Error> {
        let removed = self.data.get(key)?;
        self.data.change(Ok(Edit::Remove(key.to_owned())))?;
        Ok(removed)
    }

    /// Adds to a number in the data, which is zero if it is missing, and returns the sum. Requests at the same time are all
    /// counted; the sum is the one that this request sees. For the one that is stored, [`Session::save`] and
    /// [`Session::get`]. Errors: 422 `unprocessable` if it is no number or too large; the sum is no `N`.
    #[track_caller]
    pub fn increment<N: DeserializeOwned>(&mut self, key: &str, by: impl Into<Value>) -> Result<N, Error> {
        self.data.change(Edit::increment(key, by.into()))?;
        let sum = self.data.get(key)?;
        sum.ok_or_else(|| Problem::internal("something went wrong here").into())
    }

    /// Merges into the data (RFC 7396): members that are null are removed, objects are merged, all else is replaced. Errors: as
    /// [`Session::insert`].
    pub fn patch(&mut self, merge_patch: impl Serialize) -> Result<(), Error> {
        self.data.change(Edit::merge(&to_json(merge_patch)?))
    }

    /// Forgets the changes that are not written.
    pub fn discard_changes(&mut self) {
        self.data.discard_changes();
    }

    /// Computes new data from old: `change` sees the newest data as a `T`, and runs again on newer data if another request was
    /// faster. Returns what the run has returned whose result is stored. Members of the data that `T` does not know stay as
    /// they are; without a session `T` is read from `{}`. To refuse, leave the data as it is and return why.
    ///
    /// Written at once, with the changes before it: one call, none if nothing changes.
    pub async fn update<T, R>(&mut self, change: impl FnMut(&mut T) -> R) -> Result<R, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let change = RefCell::new(change);
        self.write_computed(|data, newest| data.update(newest, &mut *change.borrow_mut())).await
    }

    /// The same for one member of the data; a missing one is `T`'s default.
    pub async fn update_key<T, R>(&mut self, key: &str, change: impl FnMut(&mut T) -> R) -> Result<R, Error>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let change = RefCell::new(change);
        self.write_computed(|data, newest| data.update_key(newest, key, &mut *change.borrow_mut())).await
    }

    /// Writes the changes now: one call, none if there are none. [`Session::respond`] does so otherwise.
    ///
    /// Errors, after which the changes are still there, and not written unless it says so:
    /// - 401 `unauthenticated`: the session has ended meanwhile. The changes are gone.
    /// - 409 `conflict`: others kept changing it for five times `store.timeout`.
    /// - 413, 422: they do not fit the newest data any more.
    /// - 429: `limits.mint`, for a session that would begin.
    /// - 503: the store does not answer as expected. The changes may have been written: saving them again may make them twice.
    pub async fn save(&mut self) -> Result<(), Error> {
        if self.data.has_changes() {
            let written = self.write(&|newest| self.data.apply_to(newest)).await;
            self.take_over(written)?;
        }
        Ok(())
    }

    // Who it is.

    /// The user who is logged in.
    pub fn user(&self) -> Option<&User> {
        self.loaded.as_ref()?.record.user.as_ref()
    }

    /// The user. Error: 401 `unauthenticated` if nobody is logged in.
    pub fn require_user(&self) -> Result<&User, Error> {
        let session = self.loaded.as_ref().ok_or_else(Problem::no_session)?;
        Ok(session.record.user.as_ref().ok_or_else(no_user)?)
    }

    /// The user, who has this role. Errors: 401 `unauthenticated` if nobody is logged in, 403 `forbidden` if the user lacks it.
    pub fn require_role(&self, role: &str) -> Result<&User, Error> {
        let user = self.require_user()?;
        if user.has_role(role) { Ok(user) } else { Err(Problem::forbidden().into()) }
    }

    /// Whether the user has logged in within `session.fresh_for`.
    pub fn is_fresh(&self) -> bool {
        // The handler may have waited for something of its own.
        self.cx.app.host.refresh_clock();
        self.loaded.as_ref().is_some_and(|session| self.cx.sessions().check_fresh(session).is_ok())
    }

    /// The user, who has logged in within `session.fresh_for`: for what needs a recent login. Errors: 401 `unauthenticated` if
    /// nobody is logged in, 403 `reauthenticate` if that was too long ago.
    pub fn require_fresh(&self) -> Result<&User, Error> {
        let user = self.require_user()?;
        if self.is_fresh() { Ok(user) } else { Err(session::Error::NotFresh.into()) }
    }

    // Beginning and ending.

    /// Begins a session for a user whom the handler has authenticated, in exchange for the present one, whose id is dead at
    /// once. What an anonymous session holds is carried over, and what one of the same user holds. `remember`: it lasts
    /// `session.remember`, and its cookie outlives the browser. What makes the user theirs (a password, an account that is not
    /// disabled) must hold when this is called: it begins after all that ended sessions before. Subject to `session.max_per_user`. Changes that are not written
    /// are made to what is carried over, in the same moment. One call; more if sessions of this user were ended lately, or have to make room.
    ///
    /// Errors: 409 `conflict` if all sessions of the user were ended meanwhile; 422 if the user cannot be (an empty id, a role
    /// with a comma); 413, 422 if the changes do not fit the newest data any more; 503.
    pub async fn log_in(&mut self, user: impl Into<User>, remember: bool) -> Result<(), Error> {
        let user = user.into();
        user.check("user").map_err(Problem::unprocessable)?;
        self.begin();
        let apply = |newest: &RawValue| self.data.apply_to(newest);
        let session = self.cx.log_in(self.loaded.clone(), user, remember, &apply, async || Ok(true)).await;
        if matches!(session, Err(session::Error::Conflict)) {
            // The old one is gone.
            self.forget();
        }
        self.take_over(session)
    }

    /// Ends the session: its id is dead once this returns, and the answer removes the cookie. Changes that are not written are
    /// forgotten; later ones begin another session. Two calls, none without a session.
    pub async fn log_out(&mut self) -> Result<(), Error> {
        self.begin();
        let ended = self.cx.log_out(self.loaded.clone()).await;
        ended.map_err(|error| self.problem(error))?;
        self.forget();
        Ok(())
    }

    /// The same, in tower-sessions' words: forgets the data and ends the session.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.log_out().await
    }

    /// Gives the session a new id, as after a change of what its user may do. A login gives one by itself. Requests that are on
    /// their way with the old id are served for 30 seconds. Three calls, none if this request has given it a new one. Errors:
    /// 429 after eight within a minute, 503.
    pub async fn cycle_id(&mut self) -> Result<(), Error> {
        self.save().await?;
        self.begin();
        let carried = self.cx.presented().map(|presented| presented.ticket.id.clone());
        if let (Some(session), Some(carried)) = (self.loaded.clone(), carried)
            && session.ticket.id == carried
        {
            let rotated = self.cx.sessions().rotate(session, &carried).await;
            self.take_over(rotated)?;
        }
        Ok(())
    }

    // The user's other sessions.

    /// The user's sessions, the oldest first, as a device list shows them. Two calls, more for many or large ones. Errors: 401 if
    /// nobody is logged in, or if the session has ended meanwhile; 503.
    pub async fn list(&mut self) -> Result<Vec<ListedSession>, Error> {
        let (tag, handle) = (self.require_user()?.tag(), self.handle());
        self.begin();
        let listed = self.cx.sessions().list(&tag, handle.as_ref()).await;
        let listed = listed.map_err(|error| self.problem(error))?;
        if listed.iter().any(|listed| listed.current) {
            Ok(listed)
        } else {
            self.take_over(Err(session::Error::Ended))?;
            Ok(Vec::new())
        }
    }

    /// Ends one of the user's sessions; this one, too. Three calls or more. Errors: 401 if nobody is logged in, 404 if it is none
    /// of theirs or has ended, 503. Whether it needs a recent login is for the handler to say: [`Session::require_fresh`].
    pub async fn end(&mut self, handle: &Handle) -> Result<(), Error> {
        if self.handle().as_ref() == Some(handle) {
            return self.log_out().await;
        }
        let tag = self.require_user_at_primary().await?;
        let ended = self.cx.sessions().end_by_handle(handle, Some(&tag)).await;
        let ended = ended.map_err(|error| self.problem(error))?;
        // By a handle that it had before a rotation.
        if self.handle() == Some(ended) { self.log_out().await } else { Ok(()) }
    }

    /// Ends all sessions of the user, this one, too: also those that no list knows, and logins under way. Errors: 401 if nobody is
    /// logged in; 503.
    pub async fn end_all(&mut self) -> Result<(), Error> {
        let tag = self.require_user_at_primary().await?;
        let ended = self.cx.sessions().end_all(&tag, self.loaded.clone()).await;
        ended.map_err(|error| self.problem(error))?;
        self.cx.forget_session();
        self.forget();
        Ok(())
    }

    /// Ends all other sessions of the user. Errors: 401 if nobody is logged in; 503.
    pub async fn end_others(&mut self) -> Result<(), Error> {
        self.save().await?;
        let tag = self.require_user_at_primary().await?;
        let Some(session) = self.loaded.clone() else { return Err(Problem::no_session().into()) };
        let kept = self.cx.sessions().end_others(&tag, session).await;
        self.take_over(kept)
    }

    // Limits.

    /// A rate limit of the application's own: so many in so long, exactly, over all isolates; `"20/1m"`, with `s`, `m`, `h` or
    /// `d`. Await it: one call. By the session that the request came with or, without one, by the client's address; see [`Limit`] for other subjects, costs,
    /// and looking without taking. The answer's rate-limit fields tell its state, under this name: 1 to 64 characters of letters,
    /// digits and `-_./`, and none of ours.
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

    // The answer.

    /// Answers: writes the changes, and adds the cookies, the rate-limit fields and `Vary: Cookie`. A response that says nothing
    /// of caching gets `Cache-Control: no-store`; so does one that shared caches might keep, if a cookie comes with it. What may
    /// wait is done after the response.
    ///
    /// If the changes cannot be written, the answer is that problem ([`Session::save`] lists them) in the place of `response`.
    /// Errors: the platform refuses a header.
    pub async fn respond<R: ResponseHead>(
        mut self,
        response: R,
        context: &WorkerContext,
    ) -> worker::Result<R> {
        match self.save().await {
            Ok(()) => {
                let answer = self.cx.answer(Ok(Response::new(200)), false);
                self.leave(context);
                add_fields(response, &answer)
            }
            Err(error) => self.refuse(error, context).await,
        }
    }

    /// Answers with a problem, and forgets the changes that are not written. Errors: the error is not ours.
    pub async fn refuse<R: ResponseHead>(
        mut self,
        error: Error,
        context: &WorkerContext,
    ) -> worker::Result<R> {
        self.data.discard_changes();
        match error.into_problem() {
            Ok(problem) => {
                let answer = self.cx.answer(Err(problem), self.needs_cookie).uncacheable();
                self.leave(context);
                R::from_response(&answer)
            }
            Err(error) => {
                self.run_background(context);
                Err(error)
            }
        }
    }

    /// The answer is made. What may wait is done after it.
    fn leave(&mut self, context: &WorkerContext) {
        self.needs_cookie = false;
        self.run_background(context);
    }

    fn run_background(&self, context: &WorkerContext) {
        let app = self.cx.app;
        if app.has_background_work() {
            context.wait_until(app.run_background());
        }
    }

    // What these have in common.

    /// An operation begins: time may have passed since the last one.
    fn begin(&self) {
        self.cx.app.host.refresh_clock();
        self.cx.begin_operation();
    }

    /// Writes the data that `apply` makes. Errors: as [`Session::save`].
    async fn write(
        &self,
        apply: &dyn Fn(&RawValue) -> Result<Box<RawValue>, session::Error>,
    ) -> Result<session::Session, session::Error> {
        self.begin();
        self.cx.change(self.loaded.clone(), apply, &Preconditions::default()).await
    }

    /// Writes what `compute` makes of the newest data, and returns what it has returned with it.
    async fn write_computed<R>(
        &mut self,
        compute: impl Fn(&Data, &RawValue) -> Result<(Box<RawValue>, R), Error>,
    ) -> Result<R, Error> {
        if self.loaded.is_none() {
            // No session begins if nothing changes.
            let empty = empty_data();
            let (next, result) = compute(&self.data, &self.data.apply_to(&empty)?)?;
            if next.get() != empty.get() {
                let written = self.write(&|_| Ok(next.clone())).await;
                self.take_over(written)?;
            }
            return Ok(result);
        }
        let (outcome, failure) = (RefCell::new(None), RefCell::new(None));
        let apply = |newest: &RawValue| {
            let current = self.data.apply_to(newest)?;
            match compute(&self.data, &current) {
                Ok((next, result)) => {
                    outcome.replace(Some(result));
                    Ok(next)
                }
                Err(error) => {
                    failure.replace(Some(error));
                    Err(session::Error::Conflict)
                }
            }
        };
        let written = self.write(&apply).await;
        match failure.take() {
            Some(error) => return Err(error),
            None => self.take_over(written)?,
        }
        outcome.take().ok_or_else(|| Problem::internal("something went wrong here").into())
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

    /// The user, if the session lives by what the primary says: a replica may not know yet that it has ended.
    async fn require_user_at_primary(&mut self) -> Result<UserTag, Error> {
        self.require_user()?;
        self.begin();
        if self.cx.request.method.is_safe()
            && let Some(session) = self.loaded.clone()
        {
            let newest = self.cx.sessions().reload_from_primary(session).await;
            self.take_over(newest)?;
        }
        Ok(self.require_user()?.tag())
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
        self.cx.app.host.log(&format_args!(
            "a session was dropped {lost}: a handler must return Session::respond, or save or discard the changes"
        ));
    }
}

fn refusal(cx: &Context<'_, Platform>, problem: Problem) -> Problem {
    cx.store.check().err().map_or(problem, Problem::from)
}

fn data_of(loaded: &Option<session::Session>) -> Option<&RawValue> {
    loaded.as_ref().map(|session| &*session.record.data)
}

/// The handler's response with what `answer` has of cookies and fields.
fn add_fields<R: ResponseHead>(mut response: R, answer: &Response) -> worker::Result<R> {
    let mut has_cookie = false;
    for (name, value) in &answer.headers {
        has_cookie |= ["Set-Cookie", TOKEN].contains(name);
        response = response.append_header(name, value)?;
    }
    if has_cookie {
        // For some shared caches these stand above Cache-Control (RFC 9213).
        for name in ["CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control"] {
            if response.header(name)?.is_some() {
                response = response.set_header(name, "no-store")?;
            }
        }
    }
    match response.header("Cache-Control")? {
        Some(caching) if !has_cookie || is_private(&caching) => Ok(response),
        _ => response.set_header("Cache-Control", "no-store"),
    }
}

/// Whether no shared cache may keep a response with this `Cache-Control`. With an argument `private` concerns some of its
/// headers alone.
fn is_private(caching: &str) -> bool {
    let mut directives = caching.split(',').map(|directive| directive.trim_matches([' ', '\t']));
    directives.any(|one| one.eq_ignore_ascii_case("private") || one.eq_ignore_ascii_case("no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_private_as_a_whole() {
        for (caching, expected) in [
            ("private", true),
            ("max-age=60, Private", true),
            ("no-cache,\tNO-STORE", true),
            ("", false),
            ("public, max-age=60", false),
            ("public, private=\"x-name\"", false),
            ("max-age=60, x-private", false),
            ("max-age=60, note=no-store", false),
        ] {
            assert_eq!(is_private(caching), expected, "{caching}");
        }
    }
}
