//! What a route of ours and a handler of an application's own both do: count the request, begin a session, log in, log out.

use std::{cell::Cell, pin::Pin};

use super::Context;
use crate::{
    events::{self, Event},
    host::Host,
    http::{Preconditions, Problem},
    limit::{self, Subject},
    session::{Apply, Error, Session, User, change::empty_data},
    stats,
    time::Time,
};

/// Whether a proof still holds, when it is asked.
type Validity<'v> = Pin<Box<dyn Future<Output = Result<bool, Error>> + 'v>>;

/// Who has just proved who they are.
pub(crate) struct Proof {
    /// The user.
    pub(crate) user: User,
    /// The provider that they have proved it to, and when, if it says so; `None`: to us, now.
    pub(crate) provider: Option<(String, Option<Time>)>,
    /// The name of the session there that it belongs to, and when the visitor went there.
    pub(crate) provider_session: (Option<String>, Option<Time>),
}

impl From<User> for Proof {
    fn from(user: User) -> Self {
        Self { user, provider: None, provider_session: (None, None) }
    }
}

impl<H: Host> Context<'_, H> {
    /// Adds the limits that apply to the request, and refuses it as far as that can be done without the store: the first
    /// call to it counts the request.
    pub(crate) async fn apply_limits(&self) -> Result<(), Problem> {
        let (app, request) = (self.app, &self.request);
        if let Some(presented) = self.presented() {
            stats::count_ticket(&app.isolate, presented, app.host.now());
        }
        if app.host.has_platform_limit() {
            let address = Subject::address(&request.client_address());
            // Another site's page must not use up its visitors' limit, and its requests not be without one.
            let subject =
                if self.is_foreign_read { format!("cross-site {address}") } else { address.to_string() };
            if app.host.is_over_platform_limit(&subject).await {
                return Err(limit::over_platform_limit());
            }
        }
        if self.is_back_channel() {
            // What a provider proves is never too much: it has few addresses, and many users.
            return self.apply_route_limit();
        }
        if !self.is_foreign_read {
            app.config.limits.apply(&self.store.limiter, request, self.counted_ticket());
        }
        Ok(self.store.limiter.check_blocked(app.host.now())?)
    }

    /// Adds the limit of the request's path alone, and refuses the request as far as that can be done without the store.
    pub(crate) fn apply_route_limit(&self) -> Result<(), Problem> {
        let (limits, limiter) = (&self.app.config.limits, &self.store.limiter);
        match self.is_foreign_read {
            true => limits.apply_foreign_route(limiter, &self.request),
            false => limits.apply_route(limiter, &self.request, self.counted_ticket()),
        }
        Ok(limiter.check_blocked(self.app.host.now())?)
    }

    /// Changes the data of the session, or of a new anonymous one, which is subject to `limits.mint`. `apply` makes the new
    /// data from the newest, for which it may run again.
    pub(crate) async fn change(
        &self,
        session: Option<Session>,
        apply: &Apply<'_>,
        preconditions: &Preconditions,
    ) -> Result<Session, Error> {
        if let Some(session) = session {
            return self.sessions().change(session, apply, preconditions).await;
        }
        preconditions.check(None)?;
        let data = apply(&empty_data())?;
        self.store.limiter.add("mint", self.app.config.limits.mint, self.address());
        let session = self.sessions().create(data).await?;
        self.issue_ticket(&session);
        Ok(session)
    }

    /// Begins a session for a user who has just proved who they are, in exchange for the present one, whose id is dead at
    /// once. What an anonymous one holds is carried over, and what one of the same user holds, as `apply` changes it; without a
    /// session it changes empty data. One call.
    ///
    /// `is_valid` is asked if all sessions of the user were ended not long ago: whether that proof still holds. Error:
    /// Conflict if it does not, or if the sessions were ended meanwhile.
    pub(crate) async fn log_in(
        &self,
        old: Option<Session>,
        proof: impl Into<Proof>,
        remember: bool,
        apply: &Apply<'_>,
        is_valid: impl AsyncFnOnce() -> Result<bool, Error>,
    ) -> Result<Session, Error> {
        // One function for all callers: each would have a copy of some KB.
        let is_valid: Validity<'_> = Box::pin(async move { is_valid().await });
        self.log_in_as(old, proof.into(), remember, apply, is_valid).await
    }

    async fn log_in_as(
        &self,
        old: Option<Session>,
        proof: Proof,
        remember: bool,
        apply: &Apply<'_>,
        is_valid: Validity<'_>,
    ) -> Result<Session, Error> {
        let Proof { user, provider, provider_session: (provider_session, begun) } = proof;
        let (sessions, client, tag) = (self.sessions(), self.device(), user.tag());
        let was_anonymous = Cell::new(false);
        let owner = old.as_ref().and_then(|old| old.record.user.as_ref());
        let was_others = owner.is_some_and(|owner| owner.id != user.id);
        let make = |old: Option<&Session>| {
            let owner = old.map(|old| old.record.user.as_ref());
            was_anonymous.set(owner == Some(None));
            let is_theirs = |owner: Option<&User>| owner.is_some_and(|owner| owner.id == user.id);
            let theirs = old.filter(|_| owner.is_some_and(is_theirs));
            // What the old one survives, the new one does.
            let marks = theirs.map_or_else(Vec::new, |old| old.record.marks.clone());
            let kept = old.filter(|_| theirs.is_some() || was_anonymous.get());
            let data = match kept {
                Some(kept) => apply(&kept.record.data)?,
                // The changes are of another user's data, too.
                None if was_others => empty_data(),
                None => apply(&empty_data())?,
            };
            let session = sessions.new_session(Some(user.clone()), data, remember, client.clone(), marks);
            Ok(match &provider {
                Some((provider, at)) => sessions.proved(session, *at, provider, provider_session.as_deref()),
                None => session,
            })
        };
        // First: if it fails, the session that there is lives on.
        self.forget_old_cookies(false).await?;
        let (session, mut counts) = sessions.log_in(old, &self.dead_tickets(), begun, &make).await?;
        if counts && !session.record.marks.is_empty() {
            counts = is_valid.await?;
        }
        if !counts {
            // The visitor keeps what an anonymous session held, and nothing of a user's.
            if was_anonymous.get() {
                self.issue_ticket(&sessions.renounce(session, &tag).await?);
            } else {
                sessions.discard(&session, &tag).await?;
            }
            return Err(Error::Conflict);
        }
        self.app.isolate.count("logins", self.app.host.now());
        self.issue_ticket(&session);
        Ok(session)
    }

    /// Tells the operator's back end what has happened to a user, once the response is under way.
    pub(crate) fn tell(&self, user: &User, event: &Event) {
        events::tell(&self.app.host, &self.app.isolate, Some(user), event);
    }

    /// Logs out: ends the session of every ticket that came along. Without a session there is nothing to do. `loaded`: the
    /// session, if it was loaded already.
    pub(crate) async fn log_out(&self, loaded: Option<Session>) -> Result<(), Error> {
        if self.app.config.session.formats.own().is_some() {
            return self.log_out_foreign().await;
        }
        let (mut loaded, mut has_ended) = (loaded, false);
        loop {
            let session = match loaded.take() {
                Some(session) => Ok(Some(session)),
                None => self.load().await,
            };
            match session {
                Ok(None) => break,
                Ok(Some(session)) => self.sessions().end(session).await?,
                Err(Error::Unreadable(session)) => self.sessions().delete_unreadable(&session.handle).await?,
                Err(error) => return Err(error),
            }
            has_ended = true;
            self.pass_ticket();
        }
        self.forget_old_cookies(true).await?;
        if has_ended {
            self.app.isolate.count("logouts", self.app.host.now());
        }
        self.forget_session();
        Ok(())
    }

    /// The same for sessions in another application's format. They are not read: one that cannot be read ends, too.
    async fn log_out_foreign(&self) -> Result<(), Error> {
        let mut has_ended = false;
        for ticket in self.carried_tickets() {
            has_ended |= self.sessions().end_ticket(&ticket).await?;
        }
        if has_ended {
            self.app.isolate.count("logouts", self.app.host.now());
        }
        self.forget_session();
        Ok(())
    }

    /// From now on cookies of the application that is being replaced begin no session. `ends`: the visitor has logged out, so
    /// that they end there, too.
    pub(crate) async fn forget_old_cookies(&self, ends: bool) -> Result<(), Error> {
        for old in self.old_cookies() {
            self.sessions().forget_old(old, ends).await?;
        }
        Ok(())
    }
}
