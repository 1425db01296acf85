//! Accounts: register, log in, and what needs the password again.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    account::{
        Account, KnownDevice, PasswordTag, ResetToken, StoredAccount,
        name::{Name, NameTag},
        password::Password,
    },
    context::Context,
    events::Event,
    host::Host,
    http::{Problem, Response},
    limit::{LOGIN_LIMITS, Subject},
    session::{Error, Session, User},
};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    #[cfg_attr(test, schemars(length(min = 1), description = "1 to 128 characters after NFKC and trimming"))]
    username: String,
    #[cfg_attr(test, schemars(with = "String", length(min = crate::account::new_password::MIN_LENGTH, max = crate::account::new_password::MAX_LENGTH)))]
    password: Password,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    username: String,
    password: Password,
    #[serde(default)]
    remember: bool,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    password: Password,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordChange {
    current: Password,
    #[cfg_attr(test, schemars(with = "String", length(min = crate::account::new_password::MIN_LENGTH, max = crate::account::new_password::MAX_LENGTH)))]
    new: Password,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordReset {
    token: String,
    #[cfg_attr(test, schemars(with = "String", length(min = crate::account::new_password::MIN_LENGTH, max = crate::account::new_password::MAX_LENGTH)))]
    new: Password,
}

/// `POST /auth/register`: an account, and a session that is logged in to it. Three calls.
pub(super) async fn register<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let Registration { username, password } = cx.request.json()?;
    // 1. What can be refused without the store.
    let name = Name::parse(&username, &cx.app.host).map_err(Problem::unprocessable)?;
    cx.app.name_fault(&name).map_or(Ok(()), |fault| Err(Problem::unprocessable(fault)))?;
    check_new_password(cx, "password", &password, &name)?;
    // 2. Whether the name is taken, with the present session. The attempt is counted as one to log in.
    let (old, existing, device) = load_with_account(cx, &name).await?;
    let outcome = match existing {
        Some(_) => Err(Error::NameTaken.into()),
        None => create(cx, &name, &password).await,
    };
    let account = outcome.inspect_err(|_| cx.store.limiter.refund(&["mint"]))?;
    cx.store.limiter.refund(LOGIN_LIMITS);
    cx.tell(&account.user(), &Event::Registered);
    // 3. The session.
    let session = begin_session(cx, old, &account, &name, false).await?;
    Ok(show_login(cx, session, device, &account, &name).status(201))
}

/// `POST /auth/login`: always a new id; what an anonymous session holds is carried over. Two calls.
pub(super) async fn log_in<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let Credentials { username, password, remember } = cx.request.json()?;
    // 1. The account, with the present session. A name that no account can have behaves like one that none has.
    let name = Name::parse(&username, &cx.app.host).unwrap_or_else(|_| Name::impossible());
    let (old, stored, device) = load_with_account(cx, &name).await?;
    // 2. The password. A failed attempt stays counted; no session was created.
    let outcome = cx.accounts().verify_password(stored, &password.0).await;
    let stored = outcome.inspect_err(|_| cx.store.limiter.refund(&["mint"]))?;
    cx.store.limiter.refund(LOGIN_LIMITS);
    // 3. Who knows the password needs no reset.
    let outcome = cx.accounts().end_reset(stored).await;
    let stored = outcome.inspect_err(|_| cx.store.limiter.refund(&["mint"]))?;
    // 4. The session. A live login counts as a known device.
    let account = stored.account;
    let owner = old.as_ref().and_then(|old| old.record.user.as_ref());
    let is_known = device.is_some() || owner.is_some_and(|owner| owner.id == account.id);
    let session = begin_session(cx, old, &account, &name, remember).await?;
    if !is_known {
        tell_of_device(cx, &session, &account.user());
    }
    Ok(show_login(cx, session, device, &account, &name))
}

/// `POST /auth/reauthenticate`: renews `authenticated_at`; a new id.
pub(super) async fn reauthenticate<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let Confirmation { password } = cx.request.json()?;
    let (session, user) = cx.require_user().await?;
    confirm(cx, &session, &user, &password).await?;
    let session = cx.sessions().reauthenticate(session).await?;
    Ok(cx.show(session))
}

/// `POST /auth/password`: another password; a new id; every other session of the user ends.
pub(super) async fn change_password<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let PasswordChange { current, new } = cx.request.json()?;
    cx.sessions().check_can_end_all()?;
    let (session, user) = cx.require_fresh_user().await?;
    let name = Name::parse(&user.name, &cx.app.host).map_err(|_| Error::NoAccount)?;
    check_new_password(cx, "new", &new, &name)?;
    let stored = confirm(cx, &session, &user, &current).await?;
    check_not_breached(cx, "new", &new).await?;
    // The others end before the change, so that none is left if it breaks off; and after it, for logins in between.
    let tag = user.tag();
    let session = cx.sessions().end_others(&tag, session).await?;
    let stored = cx.accounts().set_password(stored, &new.0).await?;
    cx.tell(&user, &Event::PasswordChanged);
    // From here on the password is another one: that the session has ended meanwhile must not look as if nothing was done.
    let session = cx.sessions().end_others(&tag, session).await.map_err(Error::after_a_change)?;
    let session = cx.sessions().reauthenticate(session).await.map_err(Error::after_a_change)?;
    // The devices that knew the old password are strangers now; this one is not.
    Ok(add_device_cookie(cx, cx.show(session), None, &stored.account, &name))
}

/// `POST /auth/reset`: another password, by a token that the service API made; a session, and every other one of the user
/// ends.
pub(super) async fn reset<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let PasswordReset { token, new } = cx.request.json()?;
    cx.sessions().check_can_end_all()?;
    // 1. The account, with the present session. Who guesses tokens is counted as who guesses passwords; a session that
    // costs an operator's token is nobody's way round `limits.mint`.
    let accounts = cx.accounts();
    cx.app.config.limits.apply_login_address(&cx.store.limiter, cx.address());
    let token = ResetToken::parse(&token).ok_or_else(Problem::invalid_reset)?;
    let (old, name) = cx.load_with(&accounts.name_key(&token.user)).await?;
    let stored = accounts.by_stored_name(name, &token.user).await?;
    let stored = stored.filter(|stored| accounts.is_opened_by(&stored.account, &token));
    let stored = stored.ok_or_else(Problem::invalid_reset)?;
    cx.store.limiter.refund(LOGIN_LIMITS);
    // 2. The password. A weak one does not use the token up.
    let name = Name::parse(&stored.account.name, &cx.app.host).map_err(|_| Error::NoAccount)?;
    check_new_password(cx, "new", &new, &name)?;
    check_not_breached(cx, "new", &new).await?;
    // 3. Sessions end before the change and after it, as when its owner changes it. Of others with this token none ends a
    // session that begins here: by then it opens nothing.
    let refused = |error| match error {
        // Used, ended or deleted with its account meanwhile.
        Error::InvalidCredentials | Error::Ended => Problem::invalid_reset(),
        error => error.into(),
    };
    accounts.end_all_for_reset(&stored.key, &token).await.map_err(refused)?;
    let stored = accounts.reset_password(stored, &token, &new.0).await.map_err(refused)?;
    cx.tell(&stored.account.user(), &Event::PasswordChanged);
    cx.sessions().end_all(&token.user, None).await.map_err(Error::after_a_change)?;
    // 4. The session begins after that.
    cx.begin_operation();
    let session = begin_session(cx, old, &stored.account, &name, false).await?;
    Ok(show_login(cx, session, None, &stored.account, &name))
}

/// `DELETE /auth/account`: the account, its profile and all its sessions.
pub(super) async fn delete<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let Confirmation { password } = cx.request.json()?;
    cx.sessions().check_can_end_all()?;
    let (session, user) = cx.require_fresh_user().await?;
    let stored = confirm(cx, &session, &user, &password).await?;
    // Sessions end before it and after it, as with a change of the password.
    let tag = user.tag();
    cx.sessions().end_all(&tag, Some(session)).await?;
    cx.accounts().delete(stored).await?;
    cx.tell(&user, &Event::Deleted);
    cx.sessions().end_all(&tag, None).await?;
    cx.forget_old_cookies(true).await?;
    cx.forget_session();
    Ok(Response::no_content())
}

/// The present session, the account of a name, and the device if that account knows it. One call, in which the attempt is
/// counted, also by `limits.mint`; one more for a device that knew an earlier password.
async fn load_with_account<H: Host>(
    cx: &Context<'_, H>,
    name: &Name,
) -> Result<(Option<Session>, Option<StoredAccount>, Option<KnownDevice>), Error> {
    cx.sessions().check_holds_users()?;
    let device = cx.limit_attempt(name);
    cx.store.limiter.add("mint", cx.app.config.limits.mint, cx.address());
    let key = cx.accounts().key(name);
    let loaded = cx.load_with(&key).await;
    let outcome = async {
        let (session, stored) = loaded?;
        let stored = cx.accounts().open(key, stored)?;
        let account = stored.as_ref().map(|stored| &stored.account);
        let device = cx.confirm_device(device, account).await?;
        Ok((session, stored, device))
    };
    outcome.await.inspect_err(|_| cx.store.limiter.refund(&["mint"]))
}

/// Begins a session for the owner of an account, in exchange for the present one.
async fn begin_session<H: Host>(
    cx: &Context<'_, H>,
    old: Option<Session>,
    account: &Account,
    name: &Name,
    remember: bool,
) -> Result<Session, Error> {
    let is_valid = async || {
        // All sessions were ended not long ago: perhaps by a change of the password, or with the account.
        let accounts = cx.accounts();
        let current = match accounts.read(&accounts.key(name)).await {
            Err(Error::UnreadableAccount(_)) => None,
            current => current?,
        };
        Ok(current.is_some_and(|current| current.account.hash == account.hash && !current.account.disabled))
    };
    let keep = |data: &RawValue| Ok(data.to_owned());
    cx.log_in(old, account.user(), remember, &keep, is_valid).await
}

/// The answer to a login. The account knows the device from now on.
fn show_login<H: Host>(
    cx: &Context<'_, H>,
    session: Session,
    device: Option<KnownDevice>,
    account: &Account,
    name: &Name,
) -> Response {
    let response = cx.show(session);
    if device.is_some_and(|device| !device.is_due(cx.app.host.now())) {
        return response;
    }
    add_device_cookie(cx, response, device, account, name)
}

/// The same for a login without a password, of an account's owner or of a provider's user: tells the back end of a device that is
/// not known, unless the user was logged in there. The line of the cookie by which it is known from now on, if it needs one.
pub(super) fn meet_device<H: Host>(
    cx: &Context<'_, H>,
    session: &Session,
    user: &User,
    (tag, password): (NameTag, PasswordTag),
    is_logged_in: bool,
) -> Option<String> {
    let device = cx.known_device(&tag).filter(|device| device.password == password);
    if device.is_none() && !is_logged_in {
        tell_of_device(cx, session, user);
    }
    match device {
        Some(device) if !device.is_due(cx.app.host.now()) => None,
        device => device_line(cx, device, (tag, password)),
    }
}

fn tell_of_device<H: Host>(cx: &Context<'_, H>, session: &Session, user: &User) {
    let handle = session.ticket.id.handle();
    cx.tell(user, &Event::new_device(handle, session.record.device.clone()));
}

/// The account of a session's user, whose password this is. The attempt is counted as one to log in, by the session, which
/// is live: others who guess cannot lock its user out.
async fn confirm<H: Host>(
    cx: &Context<'_, H>,
    session: &Session,
    user: &User,
    password: &Password,
) -> Result<StoredAccount, Problem> {
    let who = Subject::Session(session.ticket.family.origin());
    cx.app.config.limits.apply_login(&cx.store.limiter, who, cx.address());
    let accounts = cx.accounts();
    let stored = accounts.of_user(user).await?;
    let stored = accounts.verify_password(Some(stored), &password.0).await?;
    cx.store.limiter.refund(LOGIN_LIMITS);
    Ok(stored)
}

/// The account of a visitor who registers.
async fn create<H: Host>(cx: &Context<'_, H>, name: &Name, password: &Password) -> Result<Account, Problem> {
    check_not_breached(cx, "password", password).await?;
    Ok(cx.accounts().create(name, Some(&password.0), Vec::new()).await?)
}

/// Refuses a password by which nobody is to be known, as far as the Worker can tell by itself. `field`: where it stands.
pub(super) fn check_new_password<H: Host>(
    cx: &Context<'_, H>,
    field: &str,
    password: &Password,
    name: &Name,
) -> Result<(), Problem> {
    match cx.app.password_fault(password, name) {
        Some(fault) => Err(refused_password(field, fault)),
        None => Ok(()),
    }
}

/// Refuses a password that is known from a breach. The attempt must have been counted: this asks another service.
pub(super) async fn check_not_breached<H: Host>(
    cx: &Context<'_, H>,
    field: &str,
    password: &Password,
) -> Result<(), Problem> {
    let Some(check) = &cx.app.config.breach_check else { return Ok(()) };
    if check.is_breached(&password.0, &cx.app.host, &cx.app.isolate).await {
        return Err(refused_password(field, "this password was found in a data breach; choose another"));
    }
    // The wait is none of the store's.
    cx.begin_operation();
    Ok(())
}

fn refused_password(field: &str, fault: &str) -> Problem {
    Problem::unprocessable(format!("\"{field}\": {fault}"))
}

/// Adds the cookie by which the account knows the device from now on, if the client keeps cookies.
fn add_device_cookie<H: Host>(
    cx: &Context<'_, H>,
    response: Response,
    device: Option<KnownDevice>,
    account: &Account,
    name: &Name,
) -> Response {
    match device_line(cx, device, (name.tag(), account.password_tag())) {
        Some(line) => response.header("Set-Cookie", line),
        None => response,
    }
}

/// The line of that cookie.
fn device_line<H: Host>(
    cx: &Context<'_, H>,
    device: Option<KnownDevice>,
    (tag, password): (NameTag, PasswordTag),
) -> Option<String> {
    if cx.is_bearer {
        return None;
    }
    let (cookie, keyring) = &cx.app.config.device;
    let device = KnownDevice::new(tag, password, device, &cx.app.host);
    Some(cookie.set(&device.sign(keyring)?, Some(KnownDevice::LIFETIME)))
}
