//! Logging in with others: the way to a provider, and the way back.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{account, link};
use crate::{
    account::{
        Account, KnownDevice, PasswordTag,
        name::{Name, NameTag},
    },
    context::{Context, Proof},
    host::{Host, random},
    http::{Method, Problem, Response, unknown_query},
    limit::LOGIN_LIMITS,
    log::{self, Line},
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
    let provider = provider(cx, &cx.param)?;
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
    let wish = Wish { return_to: return_to(&params)?, remember: flag("remember")?, fresh: flag("fresh")? };
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

/// Begins a login: where the visitor is sent, and the line of the cookie without which they do not come back. If the provider is
/// unavailable they go where they would have gone afterwards, which learns why. `route`: what ends it, the service's route by the
/// provider's id or a handler by its path; no other does. No call to the store. Errors: 400, 422.
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
    set_out(cx, provider, &pending, redirect_uri).await
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
        Err(failure) => {
            tell(cx, provider, failure);
            Ok((append_param(pending.return_to(), "login_error", failure.code()), None))
        }
    }
}

pub(super) fn with_cookie(response: Response, line: Option<String>) -> Response {
    match line {
        Some(line) => response.header("Set-Cookie", line),
        None => response,
    }
}

/// `GET /auth/callback/{provider}`: the visitor comes back, and has a session under a new id if the provider says who they are.
/// What went wrong is said to the page that they come back to; the session that they have lives on.
pub(super) async fn come_back<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let provider = provider(cx, &cx.param)?;
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

/// Ends a login that was begun here, or ties an account. Returns the line that sets the cookie by which the device is known, if it
/// needs one.
async fn finish<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    params: &Params,
    pending: &Pending,
) -> Result<Result<Option<String>, Failure>, Problem> {
    // 1. Who it is.
    let (old, identity) = match identify(cx, provider, params, pending, &redirect_uri(cx, provider)).await? {
        Ok(identified) => identified,
        Err(failure) => return Ok(Err(failure)),
    };
    if pending.is_tie() {
        return Ok(link::finish(cx, provider, &identity, pending).await?.map(|()| None));
    }
    let arrival = match find_user(cx, provider, identity).await? {
        Ok(arrival) => arrival,
        Err(failure) => return Ok(Err(failure)),
    };
    // 2. The session.
    let owner = old.as_ref().and_then(|old| old.record.user.as_ref());
    let is_owners = owner.is_some_and(|owner| owner.id == arrival.user.id);
    let keep = |data: &RawValue| Ok(data.to_owned());
    let session = match begin_session(cx, provider, old, &arrival, pending, &keep).await {
        Ok(session) => session,
        // All sessions of the user were ended since this login was begun: it counts as before that.
        Err(Error::Conflict) => return Ok(Err(Failure::InvalidState)),
        Err(error) => return Err(error.into()),
    };
    // 3. The device, as with a password.
    let known_as = arrival.known_as(&cx.app.host);
    Ok(Ok(known_as.and_then(|tags| account::meet_device(cx, &session, &arrival.user, tags, is_owners))))
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

/// Who has logged in at a provider, as a user here.
pub(crate) struct Arrival {
    /// The user that the session is to be of.
    pub(crate) user: User,
    identity: Identity,
    /// The account that the identity is tied to.
    tied: Option<Account>,
}

impl Arrival {
    /// The same as another user: whom a handler knows them as.
    pub(crate) fn with_user(self, user: User) -> Self {
        Self { user, ..self }
    }

    /// As whose a device is known from which they have logged in.
    fn known_as(&self, host: &impl Host) -> Option<(NameTag, PasswordTag)> {
        match &self.tied {
            Some(account) => Some((Name::parse(&account.name, host).ok()?.tag(), account.password_tag())),
            None => Some((KnownDevice::tag_of_user(&self.user.id), KnownDevice::NO_PASSWORD)),
        }
    }
}

/// Whose identity it is: the account's that it is tied to, if it is. One call to the store, and one more then.
pub(crate) async fn find_user<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    identity: Identity,
) -> Result<Result<Arrival, Failure>, Error> {
    let tied = cx.accounts().of_identity(&provider.id, &identity.user.id).await;
    let tied = tied.inspect_err(|_| cx.store.limiter.refund(&["mint"]))?.map(|stored| stored.account);
    if tied.as_ref().is_some_and(|account| account.disabled) {
        cx.store.limiter.refund(&["mint"]);
        return Ok(Err(Failure::AccessDenied));
    }
    let user = tied.as_ref().map_or_else(|| identity.user.clone(), Account::user);
    Ok(Ok(Arrival { user, identity, tied }))
}

/// The session of who has come back, in exchange for the one that they have. `apply`: see [`Context::log_in`]. Error: Conflict if
/// all sessions of the user were ended since the login was begun.
pub(crate) async fn begin_session<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    old: Option<Session>,
    Arrival { user, identity, tied }: &Arrival,
    pending: &Pending,
    apply: &dyn Fn(&RawValue) -> Result<Box<RawValue>, Error>,
) -> Result<Session, Error> {
    let (tag, sessions) = (user.tag(), cx.sessions());
    let was_revoked = async || {
        let state = sessions.user_state(&tag).await?;
        Ok::<_, Error>(state.revocation_mark.is_some_and(|mark| mark.time() > pending.begun))
    };
    // 1. What a user's session holds is not carried on by another, as what an anonymous one holds is: it lives on if this login
    // does not count.
    let has_owner = old.as_ref().is_some_and(|old| old.record.user.is_some());
    if has_owner && cx.app.config.session.formats.own().is_none() {
        let has_ended = match &identity.session {
            Some(session) => sessions.has_ended_since(session, &tag, pending.begun).await?,
            None => false,
        };
        if has_ended || was_revoked().await? {
            cx.store.limiter.refund(&["mint"]);
            return Err(Error::Conflict);
        }
    }
    // 2. The new one.
    let is_valid = async || {
        if was_revoked().await? {
            return Ok(false);
        }
        let Some(account) = tied else { return Ok(true) };
        // Untied, disabled or deleted before that, perhaps.
        let stored = match cx.accounts().of_identity(&provider.id, &identity.user.id).await {
            Err(Error::UnreadableAccount(_)) => None,
            stored => stored?,
        };
        Ok(stored.is_some_and(|stored| stored.account.id == account.id && !stored.account.disabled))
    };
    let proof = Proof {
        user: user.clone(),
        provider: Some((provider.id.clone(), identity.auth_time)),
        provider_session: (identity.session.clone(), Some(pending.begun)),
    };
    cx.log_in(old, proof, pending.remember(), apply, is_valid).await
}

/// Whether the user is one of a provider's, and so has no account.
pub(super) fn is_of_any<H: Host>(cx: &Context<'_, H>, user: &User) -> bool {
    cx.app.config.accounts.providers.iter().any(|provider| provider.is_of(&user.id))
}

/// The provider with this id. 404 if there is none.
pub(crate) fn provider<'a, H: Host>(cx: &Context<'a, H>, id: &str) -> Result<&'a Provider, Problem> {
    let provider = cx.app.config.accounts.providers.iter().find(|provider| provider.id == id);
    provider
        .ok_or_else(|| Problem::not_found("there is no such provider here: GET /auth/providers lists them"))
}

pub(super) fn client<'c, H: Host>(cx: &'c Context<'_, H>, provider: &'c Provider) -> Client<'c, H> {
    Client { provider, host: &cx.app.host, memory: &cx.app.isolate.providers }
}

/// Where the provider sends the visitor back to: each has a path of its own, so that none can pass for another (RFC 9700 section
/// 4.4.2).
pub(super) fn redirect_uri<H: Host>(cx: &Context<'_, H>, provider: &Provider) -> String {
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

pub(super) fn redirect(location: String) -> Response {
    Response::new(303).header("Location", location)
}

/// Sends the visitor back without a login.
pub(super) fn refuse<H: Host>(
    cx: &Context<'_, H>,
    provider: &Provider,
    failure: Failure,
    return_to: &str,
) -> Response {
    tell(cx, provider, failure);
    redirect(append_param(return_to, "login_error", failure.code()))
}

/// Tells the operator if there is something to do.
pub(crate) fn tell<H: Host>(cx: &Context<'_, H>, provider: &Provider, failure: Failure) {
    if let Some(why) = failure.why() {
        let message = format!("provider {}: {why}", provider.id);
        cx.app.host.log(&Line::new(log::Event::ProviderFailed, message));
    }
}
