//! Logging in with a provider of the settings, by handlers of one's own.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use serde_json::value::RawValue;

use super::{Session, refusal};
use crate::{
    http::Problem,
    library::{Error, Sessions},
    provider::{Failure, MAX_ROUTE, Provider, append_param, check_return_to},
    routes::provider::{self, Wish},
    session::{self, User},
};

/// Where visitors can log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginProvider {
    /// Its name in paths and user ids.
    pub id: &'static str,
    /// Its name for people: the setting `label`.
    pub name: &'static str,
}

/// A login that is about to begin: await it. See [`Session::log_in_with`].
#[must_use = "it begins when it is awaited"]
pub struct ProviderLogin<'s> {
    session: &'s mut Session,
    provider: &'s str,
    callback: Option<&'s str>,
    wish: Wish<'s>,
}

/// A login that is over. See [`Session::finish_login`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinishedLogin {
    /// The path that the login was begun with; `/` where it is not known which login it was.
    pub return_to: String,
    /// Why nobody has logged in: a code of docs/login.md, like `access_denied`. `None`: the user is logged in.
    pub error: Option<&'static str>,
}

impl FinishedLogin {
    /// Where to send the visitor: `return_to`, with the parameter `login_error` if nobody has logged in.
    pub fn location(&self) -> String {
        match self.error {
            Some(code) => append_param(&self.return_to, "login_error", code),
            None => self.return_to.clone(),
        }
    }
}

impl Sessions {
    /// Where visitors can log in, in the order of the settings: `[[vars.CLOAKROOM.accounts.providers]]` (docs/login.md).
    pub fn providers(&self) -> impl Iterator<Item = LoginProvider> + use<> {
        let providers = self.app.config.accounts.providers.iter();
        providers.map(|Provider { id, name, .. }| LoginProvider { id, name })
    }
}

impl Session {
    /// Begins a login with a provider of the settings. Await it: the location to send the visitor to, with 303; [`Session::respond`]
    /// adds the cookie that lets them come back. No call to the store, and one to an OpenID provider in an hour.
    ///
    /// They come back to `{base_path}/callback/{provider}`, unless [`callback`](ProviderLogin::callback) says another path; the
    /// handler there calls [`Session::finish_login`]. If the provider is unavailable the location is `return_to` with
    /// `login_error=provider_unavailable`.
    ///
    /// ```no_run
    /// # use cloakroom::Session;
    /// # use worker::{Request, Response, Result};
    /// /// `GET /auth/login/google`
    /// async fn log_in(request: &Request, session: &mut Session) -> Result<Response> {
    ///     let location = session.log_in_with("google").return_to("/account").await?;
    ///     Response::redirect_with_status(request.url()?.join(&location)?, 303)
    /// }
    /// ```
    ///
    /// Errors: 404 if there is no such provider, 400 for a `return_to` that is no path of this origin, 422 if a provider of plain
    /// OAuth 2.0 is asked for a [`fresh`](ProviderLogin::fresh) login.
    pub fn log_in_with<'s>(&'s mut self, provider: &'s str) -> ProviderLogin<'s> {
        let wish = Wish { return_to: "/", remember: false, fresh: false };
        ProviderLogin { session: self, provider, callback: None, wish }
    }

    /// Ends a login that [`Session::log_in_with`] has begun, in the handler of a `GET` of the path that it was begun for. The
    /// provider is the last segment of that path. Whatever goes wrong with the login is no error: nobody is logged in, the
    /// session that there is lives on, and [`FinishedLogin::location`] tells the page why.
    ///
    /// `user`: who the provider's user is here. They come as the service knows them (id `google:1094563`, a name, no roles; or the
    /// account that they are tied to by `POST /auth/link/{provider}`), and leave as it says: with roles, or with the id of a row
    /// of yours. Logout tokens that name a `sub` alone find no user whose id is yours; those with a `sid` do. Never go by a name or a mail address there: whoever can
    /// choose it at a provider would be that user. Its errors are the handler's.
    ///
    /// The session is that of [`Session::log_in`]: a new id, with what an anonymous one held. Failed logins count by address, ten
    /// times `limits.login`, and new sessions by `limits.mint`. Two calls more than [`Session::log_in`] makes at most.
    ///
    /// Errors: 404 if the path names no provider; 400 for `HEAD`; 409 `conflict` if the user's account of the service's is
    /// disabled; 422 if the user cannot be; 429; 503, after which the visitor can reload the page.
    pub async fn finish_login(
        &mut self,
        user: impl AsyncFnOnce(User) -> Result<User, Error>,
    ) -> Result<FinishedLogin, Error> {
        let path = self.cx.request.path().to_owned();
        let id = path.rsplit('/').next().unwrap_or_default();
        let provider = provider::provider(&self.cx, id)?;
        provider::check_come_back(&self.cx)?;
        self.begin();
        // 1. This browser has begun this login, to end here.
        let found = provider::find(&self.cx, &path);
        let found = found.map(|(params, cookie, pending)| (params, cookie.remove(), pending));
        let Some((params, removal, pending)) = found else {
            return Ok(self.failed(provider, Failure::InvalidState, "/"));
        };
        // 2. Who it is, by the provider and by the handler.
        let redirect_uri = [self.cx.request.origin(), &path].concat();
        let identified = provider::identify(&self.cx, provider, &params, &pending, &redirect_uri).await;
        let identified = identified.map_err(|problem| refusal(&self.cx, problem))?;
        let found = match identified {
            Ok((old, identity)) => {
                let arrival = provider::find_user(&self.cx, provider, identity).await;
                arrival.map_err(|error| self.problem(error))?.map(|arrival| (old, arrival))
            }
            Err(failure) => Err(failure),
        };
        let (old, arrival) = match found {
            Ok(found) => found,
            Err(failure) => {
                self.cookies.push(removal);
                return Ok(self.failed(provider, failure, pending.return_to()));
            }
        };
        let user = user(arrival.user.clone()).await?;
        user.check("user").map_err(Problem::unprocessable)?;
        self.begin();
        let is_disabled = self.cx.is_disabled(&user.tag()).await;
        if is_disabled.map_err(|error| self.problem(error))? {
            return Err(Problem::conflict("the account of this user is disabled").into());
        }
        // 3. The session.
        let apply = |newest: &RawValue| self.data.apply_to(newest);
        let arrival = arrival.with_user(user);
        let session = provider::begin_session(&self.cx, provider, old, &arrival, &pending, &apply).await;
        if matches!(session, Err(session::Error::Conflict)) {
            // All sessions of the user were ended since it was begun. What an anonymous session held is in another one now.
            self.forget();
            self.cookies.push(removal);
            return Ok(self.failed(provider, Failure::InvalidState, pending.return_to()));
        }
        self.take_over(session)?;
        self.cookies.push(removal);
        Ok(FinishedLogin { return_to: pending.return_to().to_owned(), error: None })
    }

    fn failed(&self, provider: &Provider, failure: Failure, return_to: &str) -> FinishedLogin {
        provider::tell(&self.cx, provider, failure);
        FinishedLogin { return_to: return_to.to_owned(), error: Some(failure.code()) }
    }
}

impl<'s> ProviderLogin<'s> {
    /// Where the visitor goes afterwards: a path of this origin, percent-encoded, of at most 512 characters. `/` if this is not
    /// called.
    pub fn return_to(mut self, path: &'s str) -> Self {
        self.wish.return_to = path;
        self
    }

    /// Whether the session lasts `session.remember`, and its cookie outlives the browser.
    pub fn remember(mut self, remember: bool) -> Self {
        self.wish.remember = remember;
        self
    }

    /// Whether the user proves anew who they are, also if the provider knows them still: for what
    /// [`Session::require_fresh`] refuses.
    pub fn fresh(mut self, fresh: bool) -> Self {
        self.wish.fresh = fresh;
        self
    }

    /// The path that the provider sends the visitor back to, as it is registered there. Its last segment is the provider's id, so
    /// that no provider can pass for another (RFC 9700 section 4.4.2).
    pub fn callback(mut self, path: &'s str) -> Self {
        self.callback = Some(path);
        self
    }

    async fn begin(self) -> Result<String, Error> {
        let Self { session, provider, callback, wish } = self;
        let cx = &session.cx;
        let provider = provider::provider(cx, provider)?;
        cx.sessions().check_holds_users().map_err(Problem::from)?;
        let usual = [&*cx.app.config.base_path, "/callback/", &provider.id].concat();
        let path = callback.unwrap_or(&usual);
        let is_of_it = path.strip_suffix(&*provider.id).is_some_and(|rest| rest.ends_with('/'));
        if !is_of_it || path.len() > MAX_ROUTE || path.contains(['?', '#']) || check_return_to(path).is_err()
        {
            return Err(Error::mistake(format!(
                "Session::log_in_with: callback must be a path like /login/done/{0}, whose last segment is {0}, of at most \
                 {MAX_ROUTE} characters",
                provider.id,
            )));
        }
        session.begin();
        let redirect_uri = [cx.request.origin(), path].concat();
        let (location, cookie) = provider::begin(cx, provider, path, &redirect_uri, &wish).await?;
        session.cookies.extend(cookie);
        Ok(location)
    }
}

impl<'s> IntoFuture for ProviderLogin<'s> {
    type Output = Result<String, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + 's>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}
