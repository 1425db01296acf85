//! Logging out with others: here and there at once (OpenID Connect RP-Initiated Logout 1.0), and here because of there
//! (OpenID Connect Back-Channel Logout 1.0).

use super::provider::{client, provider, redirect, refuse};
use crate::{
    context::Context,
    host::Host,
    http::{Method, Problem, Response, cross_site, unknown_query},
    log::{Event, Line},
    provider::{Failure, Params, Provider, check_return_to},
    session::{Error, LogoutOutcome, ProviderLogout},
    ticket::UserTag,
};

/// `GET /auth/logout/{provider}`: logs out here, as `POST /auth/logout` does, whoever's session it is, and then sends the
/// visitor to the provider to log out there, too. If that cannot be done, they are logged out here all the same.
pub(super) async fn log_out<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let provider = provider(cx, &cx.param)?;
    // 1. It is a link, and still a change: no page of another origin and nothing that only looks ahead may make it.
    cross_site::check_change(&cx.request, &cx.app.config.cors)
        .map_err(|_| Problem::cross_site("this logs out, which only a page of this origin may ask for"))?;
    let purposes = [cx.request.header("sec-purpose"), cx.request.header("purpose")];
    if cx.request.method == Method::Head || purposes.iter().any(|purpose| purpose.contains("prefetch")) {
        return Err(Problem::bad_request(
            "this logs out, which takes GET by the visitor: no HEAD, no prefetch",
        ));
    }
    let params = Params::parse(cx.request.query()).filter(|params| params.are_all_of(&["return_to"]));
    let params = params.ok_or_else(|| unknown_query("return_to=/path"))?;
    let return_to = params.get("return_to").unwrap_or("/");
    check_return_to(return_to).map_err(Problem::bad_request)?;
    // 2. Here.
    cx.log_out(None).await?;
    // 3. There.
    let back = [cx.request.origin(), return_to].concat();
    match client(cx, provider).logout_url(&back).await {
        Ok(url) => Ok(redirect(url.unwrap_or_else(|| return_to.to_owned()))),
        Err(failure) => Ok(refuse(cx, provider, failure, return_to)),
    }
}

/// `POST /auth/backchannel/{provider}`: the provider says that a user has logged out there. Their sessions end: those that
/// began with that session at the provider if it names one, else all. Whoever can prove that may be anybody; only what
/// proves nothing is counted, by address.
pub(super) async fn hear<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let provider = provider(cx, &cx.param)?;
    if !provider.can_renew() {
        return Err(Problem::not_found("this provider speaks OAuth 2.0 alone, which has no logout tokens"));
    }
    cx.sessions().check_can_end_all()?;
    // 1. The token.
    const FORM: &str = "application/x-www-form-urlencoded";
    let media_type = cx.request.header("content-type");
    if !media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM) {
        return Err(Problem::unsupported_media_type("send Content-Type: application/x-www-form-urlencoded"));
    }
    let form = std::str::from_utf8(cx.request.body()?).ok().and_then(Params::parse);
    let Some(token) = form.as_ref().and_then(|form| form.get("logout_token")) else {
        return refuse_token(cx, provider, "it sent no logout_token, or several").await;
    };
    let logout = match client(cx, provider).verify_logout(token).await {
        Ok(logout) => logout,
        Err(Failure::Unavailable(why)) => {
            return Err(Problem::provider_unavailable(format!("provider {}: {why}", provider.id)));
        }
        Err(failure) => return refuse_token(cx, provider, failure.why().unwrap_or_default()).await,
    };
    // 2. Whose. The wait for its keys was none of the store's.
    cx.begin_operation();
    let (user, account) = match &logout.subject {
        None => (None, None),
        Some(subject) => match users_of(cx, provider, subject).await? {
            None => return refuse_token(cx, provider, "its user has a sub that can be none").await,
            Some((user, account)) => (Some(user), account),
        },
    };
    // 3. The end.
    let (name, name_for_account) = logout.names(provider);
    let (until, certainly_past) = (logout.until, logout.certainly_past());
    let said = ProviderLogout { token: &name, until, certainly_past };
    let said_for_account = ProviderLogout { token: &name_for_account, until, certainly_past };
    let sessions = cx.sessions();
    let outcome = match logout.session(provider) {
        Some(session) => {
            let users: Vec<UserTag> = user.into_iter().chain(account).collect();
            sessions.end_provider_session(&session, &users, &said).await?
        }
        None => {
            // The account first, by a name of its own of the token: what broke off in between can be sent again.
            let mut outcome = LogoutOutcome::Replayed;
            for (user, said) in [(account, &said_for_account), (user, &said)] {
                let Some(user) = user else { continue };
                if sessions.end_all_at_logout(&user, said).await? == LogoutOutcome::Ended {
                    outcome = LogoutOutcome::Ended;
                }
            }
            outcome
        }
    };
    match outcome {
        LogoutOutcome::Ended => Ok(Response::new(200)),
        LogoutOutcome::Replayed => refuse_token(cx, provider, "its logout token was used before (jti)").await,
    }
}

/// Who may be logged in here as this user of the provider's: that user, since before they were tied to an account, and the account.
/// `None`: there is no such user.
async fn users_of<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    subject: &str,
) -> Result<Option<(UserTag, Option<UserTag>)>, Error> {
    let Some(user) = provider.user(subject, None) else { return Ok(None) };
    let tied = cx.accounts().of_identity(&provider.id, &user.id).await?;
    Ok(Some((user.tag(), tied.map(|stored| stored.account.user().tag()))))
}

/// 400 to what proves nothing. It counts as a failed login of its sender's.
async fn refuse_token<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    why: &str,
) -> Result<Response, Problem> {
    cx.app.config.limits.apply_login_address(&cx.store.limiter, cx.address());
    cx.store.count().await.map_err(Problem::store_unavailable)?;
    cx.store.check()?;
    cx.app.host.log(&Line::new(Event::ProviderFailed, format!("provider {}: {why}", provider.id)));
    Ok(Problem::bad_request(format!("this logs nobody out: {why}")).answer_to_client("invalid_request"))
}
