//! Tying the account that a visitor is logged in to to a provider, so that they can log in there as well; and untying it.

use serde::Serialize;

use super::provider::{self, provider, redirect_uri, return_to, set_out, with_cookie};
use crate::{
    account::StoredAccount,
    context::Context,
    host::{Host, random},
    http::{Problem, Response, unknown_query},
    provider::{Failure, Identity, Params, Pending, Provider},
    session::{Error, Session, User},
};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Begun {
    /// Where the page goes: to the provider or, if that is down, to `return_to` with `login_error`.
    location: String,
}

/// `POST /auth/link/{provider}`: says where to send the visitor, who comes back by the callback. The account is tied there:
/// see [`finish`].
pub(super) async fn begin<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let provider = provider(cx, &cx.param)?;
    cx.sessions().check_holds_users()?;
    let params = Params::parse(cx.request.query()).filter(|params| params.are_all_of(&["return_to"]));
    let params = params.ok_or_else(|| unknown_query("return_to=/path"))?;
    let return_to = return_to(&params)?;
    if cx.is_bearer {
        return Err(Problem::unprocessable(
            "this takes a browser: what comes back from the provider is known by a cookie",
        ));
    }
    let (session, user) = cx.require_user().await?;
    let stored = account_of(cx, &user).await?;
    cx.sessions().check_fresh(&session)?;
    let seed: [u8; 32] = random(&cx.app.host);
    let pending = Pending::new(seed, &provider.id, return_to, false, false, cx.app.host.now());
    let pending = pending.tying(&stored.account.password_tag());
    let (location, cookie) = set_out(cx, provider, &pending, &redirect_uri(cx, provider)).await?;
    Ok(with_cookie(Response::json(&Begun { location }), cookie))
}

/// `DELETE /auth/link/{provider}`: also if it is not tied.
pub(super) async fn untie<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let provider = provider(cx, &cx.param)?;
    cx.sessions().check_holds_users()?;
    let (session, user) = cx.require_user().await?;
    let stored = account_of(cx, &user).await?;
    cx.sessions().check_fresh(&session)?;
    let is_way_in = |id: &str| cx.app.config.accounts.providers.iter().any(|provider| provider.id == id);
    cx.accounts().unlink(stored, &provider.id, &is_way_in).await?;
    Ok(Response::no_content())
}

/// The account that the visitor has begun to tie, if they are logged in to it still, and not for too long. It is to be asked before
/// the provider is, and again after that has answered.
pub(super) async fn check<H: Host>(
    cx: &Context<'_, H>,
    session: Option<&Session>,
    pending: &Pending,
) -> Result<Result<StoredAccount, Failure>, Problem> {
    let Some(session) = session else { return Ok(Err(Failure::InvalidState)) };
    let Some(user) = &session.record.user else { return Ok(Err(Failure::InvalidState)) };
    // With another password it is not what it was: perhaps somebody else has begun this, whom its owner has locked out.
    let stored = find_account(cx, user).await?;
    let stored = stored.filter(|stored| pending.ties(&stored.account.password_tag()));
    Ok(match (stored, cx.sessions().check_fresh(session)) {
        (None, _) => Err(Failure::InvalidState),
        (_, Err(_)) => Err(Failure::NotFresh),
        (Some(stored), Ok(())) => Ok(stored),
    })
}

/// Ties the account to who the visitor is at the provider. Their session stays as it is.
pub(super) async fn finish<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    Identity { user, .. }: &Identity,
    pending: &Pending,
) -> Result<Result<(), Failure>, Problem> {
    let session = cx.load_at_primary().await?;
    let stored = match check(cx, session.as_ref(), pending).await? {
        Ok(stored) => stored,
        Err(failure) => return Ok(Err(failure)),
    };
    let password = stored.account.password_tag();
    match cx.accounts().link(stored, &provider.id, &user.id, password).await {
        Ok(()) => Ok(Ok(())),
        Err(Error::AlreadyLinked) => Ok(Err(Failure::AlreadyLinked)),
        // Another password since, disabled or deleted.
        Err(Error::InvalidCredentials | Error::NoAccount) => Ok(Err(Failure::InvalidState)),
        Err(error) => Err(error.into()),
    }
}

/// The account of a user, if they have one here. One call.
pub(super) async fn find_account<H: Host>(
    cx: &Context<'_, H>,
    user: &User,
) -> Result<Option<StoredAccount>, Error> {
    match cx.accounts().of_user(user).await {
        Ok(stored) => Ok(Some(stored)),
        Err(Error::NoAccount) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same. 409 for a user of a provider's, 404 for another without an account.
async fn account_of<H: Host>(cx: &Context<'_, H>, user: &User) -> Result<StoredAccount, Problem> {
    match find_account(cx, user).await? {
        Some(stored) => Ok(stored),
        None if provider::is_of_any(cx, user) => Err(Problem::conflict(
            "this user has no account with a password here: the provider that they have logged in with is their only way to \
             log in, and is neither tied nor untied; register first, then tie it to that account",
        )),
        None => Err(Error::NoAccount.into()),
    }
}
