//! Accounts: register, log in, and what needs the password again.

use std::fmt::Write;

use serde_json::value::RawValue;

use super::{Done, Param, Plan, Route, session::change};
use crate::{
    account::{
        Account, Kept, KnownDevice, Registry,
        name::{Name, NameTag},
        password::{self, Password, Right},
    },
    config::Config,
    fields::Table,
    host::{self, Host},
    http::{Code, IfMatch, Method, Problem, Request, Response},
    id::Family,
    limit::{Meter, Subject},
    session::{
        Desk, Device, Error, Session, User,
        change::{Change, Unfit, no_data},
    },
    ticket::Ticket,
};

/// What is done without being logged in.
#[derive(Debug)]
pub struct Entry {
    username: String,
    password: Password,
    remember: bool,
    is_new: bool,
}

/// What is asked for by somebody logged in.
#[derive(Debug)]
pub enum Errand {
    /// Looks at the profile.
    Profile,
    /// Changes it, on a condition.
    ChangeProfile(Change, IfMatch),
    /// Asks who is logged in, and whether they hold a role (forward-auth).
    Verify(Option<String>),
    /// Proves with the password that it is still the same person, in order to …
    Prove(Password, Purpose),
}

/// What the password is given for.
#[derive(Debug)]
pub enum Purpose {
    /// Nothing more than that.
    Reauthenticate,
    /// Another password.
    ChangePassword(Password),
    /// The end of the account.
    Close,
}

impl Entry {
    /// Whether an account is to be made.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
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
        let plan = || {
            texts(request, ["password"])
                .map(|[password]| Errand::Prove(Password(password), Purpose::Reauthenticate))
        };
        (request.method == Method::Post).then(|| plan().map(Plan::Errand))
    },
};

pub(super) const PASSWORD: Route = Route {
    path: "/password",
    methods: "POST",
    plan: |request, _| {
        let plan = || {
            texts(request, ["current", "new"]).map(|[current, new]| {
                Errand::Prove(Password(current), Purpose::ChangePassword(Password(new)))
            })
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
        let plan = || {
            texts(request, ["password"]).map(|[password]| Errand::Prove(Password(password), Purpose::Close))
        };
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
    let password = Password(table.required_text("password"));
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
            Param(role).text().map(Some)
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
    if let Some(why) = password::fault(&entry.password.0, &name.folded).filter(|_| entry.is_new) {
        return Err(unprocessable(why));
    }
    // 2. The account and the session, counted in the same call.
    let device = attempt(&name.tag(), request, config, desk.host, meter);
    meter.add("mint", config.limits.mint, Subject::address(request.address));
    meter.recall(desk.host.now())?;
    let key = registry.key(&name);
    let loaded = desk.load_beside(ticket, meter, &key).await;
    meter.check()?;
    let (old, stored) = loaded?;
    // 3. Is it them?
    let kept = Kept::read(key, stored);
    let entered = match (entry.is_new, kept) {
        (true, None) => registry.create(&name, &entry.password.0).await,
        (true, Some(_)) => Err(Error::Taken),
        (false, kept) => prove(&entry.password.0, kept, &registry).await.map(|kept| kept.account),
    };
    let account = match entered {
        Ok(account) => account,
        Err(error) => {
            // The attempt stays counted, the session was not begun.
            meter.give_back(&["mint"]);
            return Err(error);
        }
    };
    meter.give_back(LOGIN_LIMITS);
    // 4. The session.
    let (user, remember) = (account.user(), entry.remember);
    let from = Device::new(request.user_agent, request.address, config.session.record_ip);
    let make =
        |old: Option<&Session>| desk.logged_in(user.clone(), carried(old, &account), remember, from.clone());
    let session = desk.log_in(old, &make).await?;
    if !session.record.marks.is_empty() {
        // All sessions were ended not long ago: for another password, perhaps, or with the account.
        let kept = registry.read(&registry.key(&name)).await?;
        if kept.is_none_or(|kept| kept.account.hash != account.hash) {
            desk.take_back(&session, &user.tag()).await?;
            return Err(Error::Conflict);
        }
    }
    desk.isolate.count("logins", desk.host.now());
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
    if let Errand::Verify(role) = errand {
        if role.is_some_and(|role| !user.roles.contains(&role)) {
            return Err(Error::Forbidden);
        }
        let response = who(&user, &session);
        return Ok(Done { response: Some(response), ..session.into() });
    }
    let registry = Registry { desk, params: config.passwords };
    let name = Name::parse(&user.name, desk.host).map_err(|_| Error::NoAccount)?;
    // 1. A password that is given is an attempt, as at login. What is sensitive needs one given not long ago, too.
    if let Errand::Prove(_, purpose) = &errand {
        if !matches!(purpose, Purpose::Reauthenticate) {
            desk.check_fresh(&session)?;
        }
        if let Purpose::ChangePassword(new) = purpose
            && let Some(why) = password::fault(&new.0, &name.folded)
        {
            return Err(unprocessable(why));
        }
        attempt(&name.tag(), request, config, desk.host, meter);
        meter.recall(desk.host.now())?;
        desk.count(meter).await?;
    }
    // 2. The account, and what is to become of it.
    let mut kept = registry.of(&user, &name).await?;
    let (password, purpose) = match errand {
        Errand::Prove(password, purpose) => (password, purpose),
        errand => {
            if let Errand::ChangeProfile(change, if_match) = errand {
                let change = |account: &mut Account| {
                    if !if_match.holds(Some(&account.etag())) {
                        return Err(Error::Precondition);
                    }
                    account.profile =
                        change.apply(&account.profile, config.session.max_bytes).map_err(Error::Unfit)?;
                    Ok(())
                };
                kept = registry.update(kept, &change).await?;
            }
            let response = Response::json(kept.account.profile.get().to_owned());
            let response = response.header("ETag", kept.account.etag());
            return Ok(Done { response: Some(response), ..session.into() });
        }
    };
    // 3. Is it them?
    let kept = prove(&password.0, Some(kept), &registry).await?;
    meter.give_back(LOGIN_LIMITS);
    // 4. What they wanted. Sessions end before it, so that nobody is left who should not be when this is cut off in the
    //    middle; and after it, for whoever logged in between the two.
    let (tag, mut session, mut kept) = (user.tag(), session, Some(kept));
    match purpose {
        Purpose::Reauthenticate => {}
        Purpose::ChangePassword(new) => loop {
            session = desk.end_others(&tag, session).await?;
            let Some(kept) = kept.take() else { break };
            registry.set_password(kept, &new.0).await?;
        },
        Purpose::Close => loop {
            desk.end_all(&tag, kept.as_ref().map(|_| &*session.record)).await?;
            let Some(kept) = kept.take() else { return Ok(Done::default()) };
            registry.delete(kept).await?;
        },
    }
    Ok(desk.renew(session).await?.into())
}

/// Percent-encoded UTF-8: nothing in it can end a header or a list.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into memory cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Who is logged in, in headers.
fn who(user: &User, session: &Session) -> Response {
    let mut roles = String::new();
    for role in &user.roles {
        let separator = if roles.is_empty() { "" } else { "," };
        roles = roles + separator + &encoded(role);
    }
    Response::new(200)
        .header("X-Session-User", encoded(&user.id))
        .header("X-Session-Name", encoded(&user.name))
        .header("X-Session-Roles", roles)
        .header("X-Session-Handle", session.ticket.id.handle().to_string())
}

/// The account whose password this is; else it costs the same work, and is wrong. A hash that is not as today's are is made again.
async fn prove<H: Host>(
    password: &str,
    mut kept: Option<Kept>,
    registry: &Registry<'_, H>,
) -> Result<Kept, Error> {
    loop {
        let hash = kept.as_ref().map(|kept| kept.account.hash.as_str());
        match (password::verify(password, hash, registry.params), kept) {
            (Some(Right { is_outdated: true }), Some(outdated)) => {
                let key = outdated.key.clone();
                match registry.set_password(outdated, password).await {
                    // Another hash is there by now: of the same password, if another login made it.
                    Err(Error::Credentials | Error::Ended) => kept = registry.read(&key).await?,
                    done => return done,
                }
            }
            (Some(_), Some(kept)) => return Ok(kept),
            _ => {
                registry.desk.isolate.count("failed_logins", registry.desk.host.now());
                return Err(Error::Credentials);
            }
        }
    }
}

/// Counts an attempt at a password. Tells the device, when this account was logged in to from it before.
fn attempt(
    account: &NameTag,
    request: &Request<'_>,
    config: &Config,
    host: &impl Host,
    meter: &mut Meter<'_>,
) -> Option<KnownDevice> {
    let (cookie, keyring) = &config.device;
    let open = |value| KnownDevice::open(value, account, keyring, host.now());
    let device = cookie.values(request.cookie).find_map(open);
    let known = device.map(|device| Subject::Device(device.name));
    config.limits.apply_login(meter, Subject::Account(*account), known, Subject::address(request.address));
    device
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
