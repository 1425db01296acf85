//! Logging in with others: the way to a provider, and the way back.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{account, link};
use crate::{
    account::Account,
    context::{Context, Proof},
    host::{Host, random},
    http::{Method, Problem, Response, unknown_query},
    limit::LOGIN_LIMITS,
    log::{Event, Line},
    provider::{
        Client, Failure, Identity, LIFETIME, Params, Pending, Provider, append_param, check_return_to,
    },
    session::{Error, Session, User},
    ticket::cookie::Cookie,
};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Providers<'p> {
    providers: Vec<Listed<'p>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Listed<'p> {
    id: &'p str,
    name: &'p str,
    /// Whether the user can log in with it.
    linked: bool,
}

/// `GET /auth/providers`: where one can log in, in the order of the settings. One call more for who is logged in to an account.
pub(super) async fn list<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let session = cx.session().await?;
    let user = session.as_ref().and_then(|session| session.record.user.as_ref());
    // A user of a provider's has no account that could be tied to others.
    let account = match user.filter(|user| !is_of_any(cx, user)) {
        Some(user) => link::find_account(cx, user).await?,
        None => None,
    };
    let is_tied = |id: &str| account.as_ref().is_some_and(|stored| stored.account.links.contains_key(id));
    let listed = cx.app.config.accounts.providers.iter().map(|provider| Listed {
        id: &provider.id,
        name: &provider.name,
        linked: user.is_some_and(|user| provider.is_of(&user.id)) || is_tied(&provider.id),
    });
    Ok(Response::json(&Providers { providers: listed.collect() }))
}

/// `GET /auth/login/{provider}`: sends the visitor to the provider. No call to the store but to count.
pub(super) async fn log_in<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    const QUERY: &str = "return_to=/path&remember=1&fresh=1";
    let provider = provider(cx)?;
    cx.sessions().check_holds_users()?;
    // 1. What is asked for.
    let params = Params::parse(cx.request.query())
        .filter(|params| params.are_all_of(&["return_to", "remember", "fresh"]));
    let params = params.ok_or_else(|| unknown_query(QUERY))?;
    let flag = |name| match params.get(name) {
        None => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(Problem::bad_request(format!("{name} is 1, or left out"))),
    };
    let return_to = params.get("return_to").unwrap_or("/");
    let wish = Wish { return_to, remember: flag("remember")?, fresh: flag("fresh")? };
    // 2. Where to, with what has to be remembered meanwhile.
    let (location, cookie) = begin(cx, provider, &provider.id, &redirect_uri(cx, provider), &wish).await?;
    Ok(with_cookie(redirect(location), cookie))
}

/// What a login is to be.
pub(crate) struct Wish<'w> {
    /// Where the visitor goes afterwards: a path of this origin.
    pub(crate) return_to: &'w str,
    /// Whether the session outlives the browser.
    pub(crate) remember: bool,
    /// Whether the visitor is to prove anew who they are.
    pub(crate) fresh: bool,
}

/// Begins a login: where the visitor is sent, and the line of the cookie without which they do not come back; see [`set_out`].
/// `route`: what ends it, the service's route by the provider's id or a handler by its path; no other does. No call to the
/// store. Errors: 400, 422.
pub(crate) async fn begin<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    route: &str,
    redirect_uri: &str,
    wish: &Wish<'_>,
) -> Result<(String, Option<String>), Problem> {
    check_return_to(wish.return_to).map_err(Problem::bad_request)?;
    if wish.fresh && !provider.can_renew() {
        return Err(Problem::unprocessable(
            "this provider cannot be asked to let a visitor log in anew: it speaks OAuth 2.0 alone",
        ));
    }
    let seed: [u8; 32] = random(&cx.app.host);
    let pending = Pending::new(seed, route, wish.return_to, wish.remember, wish.fresh, cx.app.host.now());
    set_out_to(cx, provider, &pending, redirect_uri).await
}

/// The path in `return_to`, or the site's first page.
pub(super) fn return_to(params: &Params) -> Result<&str, Problem> {
    let return_to = params.get("return_to").unwrap_or("/");
    check_return_to(return_to).map(|()| return_to).map_err(Problem::bad_request)
}

/// Where the visitor goes: to the provider, with the line of a cookie that remembers why; or back at once, if it is down.
pub(super) async fn set_out<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    pending: &Pending,
) -> Result<(String, Option<String>), Problem> {
    set_out_to(cx, provider, pending, &redirect_uri(cx, provider)).await
}

async fn set_out_to<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    pending: &Pending,
    redirect_uri: &str,
) -> Result<(String, Option<String>), Problem> {
    match client(cx, provider).login_url(pending, redirect_uri).await {
        Ok(url) => {
            let value = pending.seal(&cx.app.config.logins.1);
            let (Some(value), Some(cookie)) = (value, free_slot(cx, random::<1>(&cx.app.host))) else {
                return Err(Problem::misconfigured());
            };
            Ok((url, Some(cookie.set(&value, Some(LIFETIME)))))
        }
        Err(failure) => Ok((refusal(cx, provider, failure, pending.return_to()), None)),
    }
}

fn with_cookie(response: Response, line: Option<String>) -> Response {
    match line {
        Some(line) => response.header("Set-Cookie", line),
        None => response,
    }
}

/// `GET /auth/callback/{provider}`: the visitor comes back, and has a session under a new id if the provider says who they are.
/// What went wrong is said to the page that they come back to; the session that they have lives on.
pub(super) async fn come_back<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let provider = provider(cx)?;
    check_come_back(cx)?;
    // 1. This browser has begun this login. Nothing is asked of anybody to find that out.
    let Some((params, cookie, pending)) = find(cx, &provider.id) else {
        return Ok(refuse(cx, provider, Failure::InvalidState, "/"));
    };
    // 2. The rest, after which it is over.
    let response = match finish(cx, provider, &params, &pending).await? {
        Ok(device) => with_cookie(redirect(pending.return_to().to_owned()), device),
        Err(failure) => refuse(cx, provider, failure, pending.return_to()),
    };
    Ok(response.header("Set-Cookie", cookie.remove()))
}

/// Errors: 400 for a look that would use a login up; 422 if sessions hold no users.
pub(crate) fn check_come_back<H: Host>(cx: &Context<'_, H>) -> Result<(), Problem> {
    if cx.request.method == Method::Head {
        return Err(Problem::bad_request("this ends a login, which takes GET: HEAD would use it up"));
    }
    Ok(cx.sessions().check_holds_users()?)
}

/// Ends a login that was begun here, or ties an account. The line of the cookie by which an account knows the device from now on, if
/// there is one to set.
async fn finish<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    params: &Params,
    pending: &Pending,
) -> Result<Result<Option<String>, Failure>, Problem> {
    let (old, identity) = match identify(cx, provider, params, pending, &redirect_uri(cx, provider)).await? {
        Ok(identified) => identified,
        Err(failure) => return Ok(Err(failure)),
    };
    if pending.is_tie() {
        return Ok(link::finish(cx, provider, &identity, pending).await?.map(|()| None));
    }
    let keep = |data: &RawValue| Ok(data.to_owned());
    match begin_session(cx, provider, old, identity, pending, &keep).await {
        // All sessions of the user were ended since this login was begun: it counts as before that.
        Err(Error::Conflict) => Ok(Err(Failure::InvalidState)),
        outcome => Ok(outcome?.map(|(_, device)| device)),
    }
}

/// Who has come back, and the session that they have: one call to the store, and one or more to the provider.
pub(crate) async fn identify<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    params: &Params,
    pending: &Pending,
    redirect_uri: &str,
) -> Result<Result<(Option<Session>, Identity), Failure>, Problem> {
    let client = client(cx, provider);
    let code = match client.code(params).await {
        Ok(code) => code,
        Err(failure) => return Ok(Err(failure)),
    };
    // 1. The limits, before the provider is asked; and the present session.
    cx.app.config.limits.apply_login_address(&cx.store.limiter, cx.address());
    if !pending.is_tie() {
        cx.store.limiter.add("mint", cx.app.config.limits.mint, cx.address());
    }
    let old = cx.load_at_primary().await.inspect_err(|_| cx.store.limiter.refund(&["mint"]))?;
    if pending.is_tie()
        && let Err(failure) = link::check(cx, old.as_ref(), pending).await?
    {
        return Ok(Err(failure));
    }
    // 2. Who it is. A failed attempt stays counted; no session was created.
    let identity = match client.identify(pending, code, redirect_uri).await {
        Ok(identity) => identity,
        Err(failure) => {
            cx.store.limiter.refund(&["mint"]);
            return Ok(Err(failure));
        }
    };
    cx.store.limiter.refund(LOGIN_LIMITS);
    // The wait was none of the store's.
    cx.begin_operation();
    Ok(Ok((old, identity)))
}

/// Logs in the user of an identity: of the account that it is tied to, if it is. The session, and the line of the cookie by which
/// the account knows the device from now on. `apply`: see [`Context::log_in`]. Error: Conflict if all sessions of the user were
/// ended since the login was begun.
pub(crate) async fn begin_session<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    old: Option<Session>,
    Identity { user, auth_time }: Identity,
    pending: &Pending,
    apply: &dyn Fn(&RawValue) -> Result<Box<RawValue>, Error>,
) -> Result<Result<(Session, Option<String>), Failure>, Error> {
    // 1. Whose it is.
    let identity = user.id.clone();
    let tied = cx.accounts().of_identity(&provider.id, &identity).await;
    let tied = tied.inspect_err(|_| cx.store.limiter.refund(&["mint"]))?.map(|stored| stored.account);
    if tied.as_ref().is_some_and(|account| account.disabled) {
        cx.store.limiter.refund(&["mint"]);
        return Ok(Err(Failure::AccessDenied));
    }
    let user = tied.as_ref().map_or(user, Account::user);
    // 2. The session.
    let (id, tag) = (user.id.clone(), user.tag());
    let is_owners = old.as_ref().and_then(|old| old.record.user.as_ref()).is_some_and(|owner| owner.id == id);
    let is_valid = async || {
        let state = cx.sessions().user_state(&tag).await?;
        if state.revocation_mark.is_some_and(|mark| mark.time() > pending.begun) {
            return Ok(false);
        }
        if tied.is_none() {
            return Ok(true);
        }
        // Untied, disabled or deleted before that, perhaps.
        let stored = match cx.accounts().of_identity(&provider.id, &identity).await {
            Err(Error::UnreadableAccount(_)) => None,
            stored => stored?,
        };
        Ok(stored.is_some_and(|stored| stored.account.id == id && !stored.account.disabled))
    };
    let proof = Proof { user, provider: Some((provider.id.clone(), auth_time)) };
    let session = cx.log_in(old, proof, pending.remember(), apply, is_valid).await?;
    // 3. The device, as with a password.
    let device = tied.as_ref().and_then(|account| account::meet_device(cx, &session, account, is_owners));
    Ok(Ok((session, device)))
}

/// Whether the user is one of a provider's, and so has no account.
pub(super) fn is_of_any<H: Host>(cx: &Context<'_, H>, user: &User) -> bool {
    cx.app.config.accounts.providers.iter().any(|provider| provider.is_of(&user.id))
}

/// The provider of the path. 404 if there is none.
pub(super) fn provider<'c, H: Host>(cx: &'c Context<'_, H>) -> Result<&'c Provider, Problem> {
    find_provider(cx, &cx.param)
}

/// The provider with this id. 404 if there is none.
pub(crate) fn find_provider<'c, H: Host>(cx: &'c Context<'_, H>, id: &str) -> Result<&'c Provider, Problem> {
    let provider = cx.app.config.accounts.providers.iter().find(|provider| provider.id == id);
    provider
        .ok_or_else(|| Problem::not_found("there is no such provider here: GET /auth/providers lists them"))
}

fn client<'c, H: Host>(cx: &'c Context<'_, H>, provider: &'c Provider) -> Client<'c, H> {
    Client { provider, host: &cx.app.host, memory: &cx.app.isolate.providers }
}

/// Where the provider sends the visitor back to: each has a path of its own, so that none can pass for another (RFC 9700 section
/// 4.4.2).
fn redirect_uri<H: Host>(cx: &Context<'_, H>, provider: &Provider) -> String {
    [cx.request.origin(), &cx.app.config.base_path, "/callback/", &provider.id].concat()
}

/// The login that the visitor comes back from: with what, its cookie, and what it remembers; if this browser has begun it, to end
/// at this route.
pub(crate) fn find<'c, H: Host>(
    cx: &'c Context<'_, H>,
    route: &str,
) -> Option<(Params, &'c Cookie, Pending)> {
    let params = Params::parse(cx.request.query())?;
    let state = params.get("state")?;
    let (cookie, pending) = logins(cx).find(|(_, pending)| pending.is_of(route, state))?;
    Some((params, cookie, pending))
}

/// The logins that this browser has under way.
fn logins<'c, H: Host>(cx: &'c Context<'_, H>) -> impl Iterator<Item = (&'c Cookie, Pending)> {
    let (cookies, keyring) = &cx.app.config.logins;
    let now = cx.app.host.now();
    cookies.iter().flat_map(move |cookie| {
        let values = cookie.values(cx.request.cookie());
        values.filter_map(move |value| Some((cookie, Pending::open(value, keyring, now)?)))
    })
}

/// A cookie for one login more: any that is free or, if none is, that of the oldest. Tabs that are opened at the same moment do
/// not know of each other: by chance they take different ones.
fn free_slot<'c, H: Host>(cx: &'c Context<'_, H>, [chance]: [u8; 1]) -> Option<&'c Cookie> {
    let cookies = &cx.app.config.logins.0;
    let begun = |cookie: &&Cookie| {
        let mut logins = logins(cx);
        logins.find(|(own, _)| own.name() == cookie.name()).map(|(_, pending)| pending.begun)
    };
    cookies
        .iter()
        .cycle()
        .skip(usize::from(chance) % cookies.len().max(1))
        .take(cookies.len())
        .min_by_key(begun)
}

fn redirect(location: String) -> Response {
    Response::new(303).header("Location", location)
}

/// Sends the visitor back without a login, and tells the operator if there is something to do.
fn refuse<H: Host>(cx: &Context<'_, H>, provider: &Provider, failure: Failure, return_to: &str) -> Response {
    redirect(refusal(cx, provider, failure, return_to))
}

fn refusal<H: Host>(cx: &Context<'_, H>, provider: &Provider, failure: Failure, return_to: &str) -> String {
    tell(cx, provider, failure);
    append_param(return_to, "login_error", failure.code())
}

/// Tells the operator if there is something to do.
pub(crate) fn tell<H: Host>(cx: &Context<'_, H>, provider: &Provider, failure: Failure) {
    if let Some(why) = failure.why() {
        let message = format!("provider {}: {why}", provider.id);
        cx.app.host.log(&Line::new(Event::ProviderFailed, message));
    }
}
