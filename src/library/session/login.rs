//! Who is logged in, and the beginning and the end of sessions.

use serde_json::value::RawValue;

use super::Session;
use crate::{
    context::no_user,
    http::Problem,
    id::Handle,
    library::Error,
    session::{self, ListedSession, User},
    ticket::UserTag,
};

impl Session {
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
    /// `session.remember`, and its cookie outlives the browser. What makes the user theirs (a password, a row of yours that is not
    /// locked) must hold when this is called: it begins after all that ended sessions before. Subject to
    /// `session.max_per_user`. Changes that are not written are made to what is carried over, in the same moment. Two calls;
    /// more if the user has an account of the service's, if sessions of theirs were ended lately, or have to make room.
    ///
    /// Errors: 409 `conflict` if all sessions of the user were ended meanwhile, or if their account of the service's is
    /// disabled, in which case the session that there is lives on; 422 if the user cannot be (an empty id, a role
    /// with a comma); 413, 422 if the changes do not fit the newest data any more; 503.
    pub async fn log_in(&mut self, user: impl Into<User>, remember: bool) -> Result<(), Error> {
        let user = user.into();
        user.check("user").map_err(Problem::unprocessable)?;
        self.begin();
        let is_disabled = self.cx.is_disabled(&user.tag()).await;
        if is_disabled.map_err(|error| self.problem(error))? {
            return Err(Problem::conflict("the account of this user is disabled").into());
        }
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
        if let Some(session) = self.loaded.clone()
            // The cookie of another application carries no id of ours.
            && carried.as_ref().is_none_or(|carried| session.ticket.id == *carried)
        {
            let carried = session.ticket.id.clone();
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
}
