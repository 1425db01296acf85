//! Accounts: register, log in, and what needs the password again.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;

use super::{Plan, Route, session::change};
use crate::{
    account::{
        Account, Kept, KnownDevice, Registry,
        name::{Name, NameTag},
        password,
    },
    config::Config,
    fields::Table,
    host::{self, Host},
    http::{Code, IfMatch, Method, Problem, Request, Response},
    id::Family,
    limit::{Meter, Subject},
    session::{
        Desk, Device, Error, Session,
        change::{Change, Unfit, no_data},
    },
    ticket::Ticket,
};

/// What is done without being logged in.
#[derive(Debug)]
pub struct Entry {
    username: String,
    password: String,
    remember: bool,
    is_new: bool,
}

/// What is asked for by somebody logged in.
#[derive(Debug)]
pub enum Errand {
    /// Proves with the password that it is still the same person.
    Reauthenticate(String),
    /// Changes the password.
    ChangePassword {
        /// The present one.
        current: String,
        /// The one to come.
        new: String,
    },
    /// Looks at the profile.
    Profile,
    /// Changes it, on a condition.
    ChangeProfile(Change, IfMatch),
    /// Takes the account away.
    Close(String),
    /// Asks who is logged in, and whether they hold a role (forward-auth).
    Verify(Option<String>),
}

impl Entry {
    /// Whether an account is to be made.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Done {
    /// The answer, when it is not the session.
    pub response: Option<Response>,
    /// The session, when it lives on.
    pub session: Option<Session>,
    /// The `Set-Cookie` line by which the device is known from now on.
    pub device: Option<String>,
}

pub(super) const REGISTER: Route = Route {
    path: "/register",
    methods: "POST",
    plan: |request, _| (request.method == Method::Post).then(|| enter(request, true)),
};

pub(super) const LOGIN: Route = Route {
    path: "/login",
    methods: "POST",
    plan: |request, _| (request.method == Method::Post).then(|| enter(request, false)),
};

pub(super) const LOGOUT: Route = Route {
    path: "/logout",
    methods: "POST",
    plan: |request, _| (request.method == Method::Post).then_some(Ok(Plan::End)),
};

pub(super) const REAUTHENTICATE: Route = Route {
    path: "/reauthenticate",
    methods: "POST",
    plan: |request, _| {
        let plan = || texts(request, ["password"]).map(|[password]| Errand::Reauthenticate(password));
        (request.method == Method::Post).then(|| plan().map(Plan::Errand))
    },
};

pub(super) const PASSWORD: Route = Route {
    path: "/password",
    methods: "POST",
    plan: |request, _| {
        let plan = || {
            texts(request, ["current", "new"]).map(|[current, new]| Errand::ChangePassword { current, new })
        };
        (request.method == Method::Post).then(|| plan().map(Plan::Errand))
    },
};

pub(super) const PROFILE: Route = Route {
    path: "/profile",
    methods: "GET, HEAD, PATCH",
    plan: |request, _| match request.method {
        Method::Get | Method::Head => Some(Ok(Plan::Errand(Errand::Profile))),
        Method::Patch => Some(
            change(request).map(|(change, if_match)| Plan::Errand(Errand::ChangeProfile(change, if_match))),
        ),
        _ => None,
    },
};

pub(super) const ACCOUNT: Route = Route {
    path: "/account",
    methods: "DELETE",
    plan: |request, _| {
        let plan = || texts(request, ["password"]).map(|[password]| Errand::Close(password));
        (request.method == Method::Delete).then(|| plan().map(Plan::Errand))
    },
};

pub(super) const VERIFY: Route = Route {
    path: "/verify",
    methods: "GET, HEAD",
    plan: |request, _| {
        matches!(request.method, Method::Get | Method::Head)
            .then(|| role(request.query).map(|role| Plan::Errand(Errand::Verify(role))))
    },
};

/// `{username, password, remember?}`
fn enter(request: &Request<'_>, is_new: bool) -> Result<Plan, Problem> {
    let body = request.json()?;
    let mut table = Table::new("the body", Some(&body));
    let username = table.required_text("username");
    let password = table.required_text("password");
    let remember = !is_new && table.flag("remember", false);
    table.done()?;
    Ok(Plan::Enter(Entry { username, password, remember, is_new }))
}

/// Strings that have to be there, and nothing else.
fn texts<const N: usize>(request: &Request<'_>, names: [&'static str; N]) -> Result<[String; N], Problem> {
    let body = request.json()?;
    let mut table = Table::new("the body", Some(&body));
    let texts = names.map(|name| table.required_text(name));
    table.done()?;
    Ok(texts)
}

/// `?role=admin`, or nothing.
fn role(query: &str) -> Result<Option<String>, Problem> {
    let wrong = || Problem::new(Code::BadRequest, "the only query here is ?role=NAME");
    match query.split_once('=') {
        None if query.is_empty() => Ok(None),
        Some(("role", role)) if !role.is_empty() && !role.contains(['&', '=']) => {
            let role = percent_encoding::percent_decode_str(role).decode_utf8().map_err(|_| wrong())?;
            Ok(Some(role.into_owned()))
        }
        _ => Err(wrong()),
    }
}

/// Registers or logs in, whatever session the visitor has: its id is dead after that, and what was anonymous in it is
/// carried over. Two calls.
pub async fn admit<H: Host>(
    entry: Entry,
    ticket: Option<Ticket>,
    request: &Request<'_>,
    config: &Config,
    desk: &Desk<'_, H>,
    meter: &mut Meter<'_>,
) -> Result<Done, Error> {
    let registry = Registry { desk, params: config.passwords };
    let name = Name::parse(&entry.username, desk.host);
    // 1. What can be refused at once. A name that cannot be is like one that nobody has.
    let name = match name {
        Err(why) if entry.is_new => return Err(unprocessable(why)),
        name => name.unwrap_or_else(|_| Name { shown: String::new(), folded: String::new() }),
    };
    if let Some(why) = password::fault(&entry.password, &name.folded).filter(|_| entry.is_new) {
        return Err(unprocessable(why));
    }
    // 2. The account and the session, counted in the same call.
    let address = Subject::address(request.address);
    let device = device(request, config, &name.tag(), desk.host);
    let known = device.map(|device| Subject::Device(device.name));
    config.limits.apply_login(meter, Subject::Account(name.tag()), known, address);
    meter.add("mint", config.limits.mint, address);
    meter.recall(desk.host.now())?;
    let key = registry.key(&name);
    let loaded = desk.load_beside(ticket, meter, &key).await;
    meter.check()?;
    let (old, stored) = loaded?;
    // 3. Is it them?
    let kept = Kept::read(key, stored);
    let entered = match (entry.is_new, kept) {
        (true, None) => registry.create(&name, &entry.password).await,
        (true, Some(_)) => Err(Error::Taken),
        (false, kept) => prove(&entry.password, kept, &registry).await.map(|kept| kept.account),
    };
    let account = match entered {
        Ok(account) => account,
        Err(error) => {
            // The attempt stays counted, the session was not begun.
            meter.give_back(&["mint"]);
            desk.isolate.count("failed_logins".to_owned(), desk.host.now());
            return Err(error);
        }
    };
    meter.give_back(LOGIN_LIMITS);
    // 4. The session.
    let (user, remember) = (account.user(), entry.remember);
    let from = Device::new(request.user_agent, request.address, config.session.record_ip);
    let make =
        |old: Option<&Session>| desk.logged_in(user.clone(), carried(old, &account), remember, from.clone());
    let session = desk.log_in(old, make).await?;
    desk.isolate.count("logins".to_owned(), desk.host.now());
    Ok(Done {
        response: None,
        session: Some(session),
        device: remember_device(device, config, &name.tag(), desk.host),
    })
}

/// The limits of which a success gives back what the attempt reserved.
const LOGIN_LIMITS: &[&str] = &["login", "login-address"];

/// What the new session begins with: the old one's data, if that was nobody's or theirs.
fn carried(old: Option<&Session>, account: &Account) -> Box<RawValue> {
    let is_theirs =
        |session: &&Session| session.record.user.as_ref().is_none_or(|user| user.id == account.id);
    old.filter(is_theirs).map_or_else(no_data, |session| session.record.data.clone())
}

/// Carries an errand out, for the user of `session`.
pub async fn serve<H: Host>(
    errand: Errand,
    session: Session,
    request: &Request<'_>,
    config: &Config,
    desk: &Desk<'_, H>,
    meter: &mut Meter<'_>,
) -> Result<Done, Error> {
    let Some(user) = session.record.user.clone() else { return Err(Error::NoUser) };
    let registry = Registry { desk, params: config.passwords };
    let answer = |response| Done { response: Some(response), session: Some(session.clone()), device: None };
    match errand {
        Errand::Verify(Some(role)) if !user.roles.contains(&role) => Err(Error::Forbidden),
        Errand::Verify(_) => {
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let roles: Vec<String> = user.roles.iter().map(|role| encoded(role)).collect();
            Ok(answer(
                Response::new(200)
                    .header("X-Session-User", encoded(&user.id))
                    .header("X-Session-Name", encoded(&user.name))
                    .header("X-Session-Roles", roles.join(","))
                    .header("X-Session-Handle", session.ticket.id.handle().to_string()),
            ))
        }
        Errand::Profile => {
            let kept = registry.of(&user).await?;
            Ok(answer(profile(&kept.account)))
        }
        Errand::ChangeProfile(change, if_match) => {
            let kept = registry.of(&user).await?;
            let kept = registry
                .update(kept, |account| {
                    if !if_match.holds(Some(&account.etag())) {
                        return Err(Error::Precondition);
                    }
                    let profile =
                        change.apply(&account.profile, config.session.max_bytes).map_err(Error::Unfit)?;
                    Ok(Account { profile, ..account.clone() })
                })
                .await?;
            Ok(answer(profile(&kept.account)))
        }
        Errand::Reauthenticate(password) => {
            confirm(&password, &session, request, config, &registry, meter).await?;
            let session = desk.renew(session, true).await?;
            Ok(Done { response: None, session: Some(session), device: None })
        }
        Errand::ChangePassword { current, new } => {
            desk.check_fresh(&session)?;
            let folded = Name::parse(&user.name, desk.host).map(|name| name.folded).unwrap_or_default();
            if let Some(why) = password::fault(&new, &folded) {
                return Err(unprocessable(why));
            }
            let kept = confirm(&current, &session, request, config, &registry, meter).await?;
            let hash = registry.hash(&new)?;
            registry.update(kept, |account| Ok(Account { hash: hash.clone(), ..account.clone() })).await?;
            let session = desk.end_others(&user.tag(), session).await?;
            let session = desk.renew(session, true).await?;
            Ok(Done { response: None, session: Some(session), device: None })
        }
        Errand::Close(password) => {
            desk.check_fresh(&session)?;
            let kept = confirm(&password, &session, request, config, &registry, meter).await?;
            desk.end_all(&user.tag(), Some(&session.record)).await?;
            registry.delete(kept).await?;
            Ok(Done { response: Some(Response::new(204)), session: None, device: None })
        }
    }
}

/// The account whose password this is; else it costs the same work, and is wrong. A hash that is not as today's are is made again.
async fn prove<H: Host>(
    password: &str,
    kept: Option<Kept>,
    registry: &Registry<'_, H>,
) -> Result<Kept, Error> {
    let hash = kept.as_ref().map(|kept| kept.account.hash.as_str());
    let right = password::verify(password, hash, registry.params);
    let (Some(right), Some(kept)) = (right, kept) else { return Err(Error::Credentials) };
    if !right.is_outdated {
        return Ok(kept);
    }
    let hash = registry.hash(password)?;
    let old = kept.account.hash.clone();
    registry
        .update(kept, |account| {
            // Changed meanwhile: this password is not the one any more.
            if account.hash != old {
                return Err(Error::Credentials);
            }
            Ok(Account { hash: hash.clone(), ..account.clone() })
        })
        .await
}

/// The account of the session's user, when this is their password. Counted as a login is.
async fn confirm<H: Host>(
    password: &str,
    session: &Session,
    request: &Request<'_>,
    config: &Config,
    registry: &Registry<'_, H>,
    meter: &mut Meter<'_>,
) -> Result<Kept, Error> {
    let desk = registry.desk;
    let Some(user) = &session.record.user else { return Err(Error::NoUser) };
    let name = Name::parse(&user.name, desk.host).map_err(|_| Error::NoAccount)?;
    let known = device(request, config, &name.tag(), desk.host).map(|device| Subject::Device(device.name));
    let account = Subject::Account(name.tag());
    config.limits.apply_login(meter, account, known, Subject::address(request.address));
    meter.recall(desk.host.now())?;
    let counted = meter.count(desk.store).await;
    meter.check()?;
    counted?;
    let kept = registry.of(user).await?;
    match prove(password, Some(kept), registry).await {
        Ok(kept) => {
            meter.give_back(LOGIN_LIMITS);
            Ok(kept)
        }
        Err(error) => {
            desk.isolate.count("failed_logins".to_owned(), desk.host.now());
            Err(error)
        }
    }
}

fn profile(account: &Account) -> Response {
    Response::json(account.profile.get().to_owned()).header("ETag", account.etag())
}

/// The device, when this account was logged in to from it before.
fn device(
    request: &Request<'_>,
    config: &Config,
    account: &NameTag,
    host: &impl Host,
) -> Option<KnownDevice> {
    let (cookie, keyring) = &config.device;
    cookie.values(request.cookie).find_map(|value| KnownDevice::open(value, account, keyring, host.now()))
}

/// The line that makes the device known, if it is not, or its cookie grows old.
fn remember_device(
    device: Option<KnownDevice>,
    config: &Config,
    account: &NameTag,
    host: &impl Host,
) -> Option<String> {
    let (cookie, keyring) = &config.device;
    let name = match device {
        Some(device) if !device.is_due => return None,
        Some(device) => device.name,
        None => Family(host::random(host)),
    };
    let value = KnownDevice::seal(name, account, keyring, host.now())?;
    Some(cookie.set(&value, Some(KnownDevice::LIFETIME)))
}

fn unprocessable(why: &str) -> Error {
    Error::Unfit(Unfit::Unprocessable(why.to_owned()))
}
