//! What a handler asks for: the session, a user, a recent login, a role, the admin token.

use std::{cell::RefCell, pin::Pin};

use crate::{
    account::{Account, Accounts, KnownDevice, name::Name},
    app::App,
    config::Secret,
    host::Host,
    http::{Problem, Request, Response},
    id::Handle,
    limit::{CountingStore, RateLimiter, Subject},
    session::{Device, Error, Session, Sessions, User},
    store::Store,
    ticket::{Ticket, Verified, sync},
    time::Time,
};

/// How many times `store.timeout` a change is re-applied while others change the same session.
const DEADLINE_IN_TIMEOUTS: u32 = 5;

/// A request on its way through its handler.
pub struct Context<'a, H> {
    /// The deployment.
    pub app: &'a App<H>,
    /// The request.
    pub request: &'a Request<'a>,
    /// What the route's path has at its `*`, still percent-encoded.
    pub param: &'a str,
    /// The ticket that came with the request, verified.
    pub presented: Option<Verified<'a>>,
    /// The store, which counts the request in its first call.
    pub store: CountingStore<'a, H>,
    cookie_change: RefCell<CookieChange>,
    began: Time,
}

/// What happens to the visitor's cookie.
pub enum CookieChange {
    /// Nothing.
    Unchanged,
    /// It gets this ticket.
    Set(Ticket),
    /// It is removed.
    Remove,
}

impl<'a, H: Host> Context<'a, H> {
    /// Verifies the ticket; makes no call to the store.
    pub fn new(app: &'a App<H>, request: &'a Request<'a>) -> Self {
        let App { config, host, isolate, .. } = app;
        let now = host.now();
        let presented = find_ticket(app, request, now);
        let (sync_cookie, sync_keyring) = &config.sync;
        let sync_token =
            sync_cookie.values(request.cookie()).find_map(|value| sync::open(value, sync_keyring, now));
        let store = Store::new(host, config.store_timeout, sync_token.unwrap_or_default());
        let limiter = RateLimiter::new(&isolate.limits, &config.session.key_prefix);
        Self {
            app,
            request,
            param: "",
            presented,
            store: CountingStore::new(store, limiter, config.limits.fails_open),
            cookie_change: RefCell::new(CookieChange::Unchanged),
            began: now,
        }
    }

    /// A cookie that holds no valid ticket is removed.
    pub(crate) fn remove_invalid_cookie(&self) {
        let values = || self.app.config.cookie.values(self.request.cookie());
        if self.presented.is_none() && values().next().is_some() {
            self.remove_cookie();
        }
    }

    /// The sessions.
    pub fn sessions(&self) -> Sessions<'_, H> {
        let App { config, host, isolate, .. } = self.app;
        let deadline = self.began + config.store_timeout * DEADLINE_IN_TIMEOUTS;
        Sessions { host, store: &self.store, isolate, rules: &config.session, began: self.began, deadline }
    }

    /// The accounts.
    pub fn accounts(&self) -> Accounts<'_, H> {
        Accounts { sessions: self.sessions(), params: self.app.config.passwords }
    }

    /// The session, if there is one; under a new id if that is due. One call to the store; none without a ticket.
    pub async fn session(&self) -> Result<Option<Session>, Problem> {
        let (Some(session), Some(presented)) = (self.load().await?, &self.presented) else { return Ok(None) };
        if !session.is_rotation_due(self.app.config.session.rotate_every, self.app.host.now()) {
            return Ok(Some(session));
        }
        match boxed(self.sessions().rotate(session, &presented.ticket.id)).await {
            Ok(session) => {
                self.issue_ticket(&session);
                Ok(Some(session))
            }
            Err(Error::Ended) => {
                self.remove_cookie();
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The session, if there is one, under the id it has. One call to the store; none without a ticket.
    pub async fn load(&self) -> Result<Option<Session>, Error> {
        let Some(presented) = &self.presented else { return Ok(None) };
        let session = self.sessions().load(presented.ticket.clone()).await?;
        match &session {
            Some(session) => self.issue_ticket(session),
            None => self.remove_cookie(),
        }
        Ok(session)
    }

    /// The session. 401 if there is none.
    pub async fn require_session(&self) -> Result<Session, Problem> {
        self.session().await?.ok_or_else(Problem::no_session)
    }

    /// The session and its user. 401 if nobody is logged in.
    pub async fn require_user(&self) -> Result<(Session, User), Problem> {
        let session = self.require_session().await?;
        let user = session.record.user.clone().ok_or_else(no_user)?;
        Ok((session, user))
    }

    /// The same. 403 if the login was too long ago.
    pub async fn require_fresh_user(&self) -> Result<(Session, User), Problem> {
        let (session, user) = self.require_user().await?;
        self.sessions().check_fresh(&session)?;
        Ok((session, user))
    }

    /// Refuses a request without the admin token. 404 if none is configured: then there is no service API.
    pub fn require_admin(&self) -> Result<(), Problem> {
        let Some(token) = &self.app.config.admin_token else {
            return Err(crate::routes::nothing_here());
        };
        let authorization = self.request.header("authorization");
        match authorization.split_once(' ') {
            Some((scheme, given))
                if scheme.eq_ignore_ascii_case("bearer") && *token == Secret::new(given.trim()) =>
            {
                Ok(())
            }
            _ => Err(Problem::unauthenticated("send Authorization: Bearer with the ADMIN_TOKEN")),
        }
    }

    /// The path's parameter, percent-decoded.
    pub fn text_param(&self) -> Result<String, Problem> {
        decode(self.param)
    }

    /// The path's parameter as a handle. 404 if it is none.
    pub fn handle_param(&self) -> Result<Handle, Problem> {
        Handle::parse(self.param).ok_or_else(|| Error::NotFound.into())
    }

    /// The client's address, for limits.
    pub fn address(&self) -> Subject {
        Subject::address(&self.request.client_address())
    }

    /// The client, for the device list.
    pub fn device(&self) -> Device {
        let record_ip = self.app.config.session.record_ip;
        Device::new(&self.request.header("user-agent"), &self.request.client_address(), record_ip)
    }

    /// Adds the limits of an attempt to give an account's password. Returns the device, if the account knows it; that it
    /// still does is for [`Context::confirm_device`] to say, once the account is loaded.
    pub fn limit_attempt(&self, name: &Name) -> Option<KnownDevice> {
        let (cookie, keyring) = &self.app.config.device;
        let tag = name.tag();
        let open = |value| KnownDevice::open(value, &tag, keyring, self.app.host.now());
        let device = cookie.values(self.request.cookie()).filter_map(open).max_by_key(|device| device.issued);
        let who = device.map_or(Subject::Account(tag), |device| {
            Subject::Device(device.account, device.password, device.slot)
        });
        self.app.config.limits.apply_login(&self.store.limiter, who, self.address());
        device
    }

    /// The device, if its account still has the password that the device was logged in with. Otherwise the attempt is
    /// counted as the account's, in a call of its own, before the password is looked at. Errors: that is over its limit.
    pub async fn confirm_device(
        &self,
        device: Option<KnownDevice>,
        account: Option<&Account>,
    ) -> Result<Option<KnownDevice>, Error> {
        let Some(device) = device else { return Ok(None) };
        if account.is_some_and(|account| account.password_tag() == device.password) {
            return Ok(Some(device));
        }
        let account = Subject::Account(device.account);
        self.app.config.limits.apply_login_to_account(&self.store.limiter, account);
        self.store.count().await?;
        Ok(None)
    }

    /// The answer that shows the session; its ticket is the visitor's from now on.
    pub fn show(&self, session: &Session) -> Response {
        self.issue_ticket(session);
        session.response(&self.app.config.session.lifetimes)
    }

    /// The session's ticket is the visitor's from now on. The cookie is set only if it is another one than the visitor has,
    /// or if it was signed with an older secret.
    pub fn issue_ticket(&self, session: &Session) {
        let is_present = self
            .presented
            .as_ref()
            .is_some_and(|presented| !presented.outdated && presented.ticket == session.ticket);
        let change =
            if is_present { CookieChange::Unchanged } else { CookieChange::Set(session.ticket.clone()) };
        self.cookie_change.replace(change);
    }

    /// The visitor has no session any more.
    pub fn remove_cookie(&self) {
        self.cookie_change.replace(CookieChange::Remove);
    }

    /// Whether a proxy asks for its visitor.
    pub(crate) fn is_forward_auth(&self) -> bool {
        self.request.path.strip_prefix(&*self.app.config.base_path) == Some(crate::routes::VERIFY)
    }

    pub(crate) fn take_cookie_change(&self) -> CookieChange {
        self.cookie_change.replace(CookieChange::Unchanged)
    }
}

/// A path that most requests do not take: its state is kept out of theirs, which start the sooner for it.
fn boxed<'f, T>(path: impl Future<Output = T> + 'f) -> Pin<Box<dyn Future<Output = T> + 'f>> {
    Box::pin(path)
}

/// Nobody is logged in to the session.
pub(crate) fn no_user() -> Problem {
    Problem::unauthenticated("nobody is logged in to this session")
}

/// Percent-decodes a part of a URL.
pub(crate) fn decode(text: &str) -> Result<String, Problem> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| Problem::bad_request("the URL is not UTF-8"))
}

/// The ticket that came with the request. Another host of the domain may have set a cookie with our name: of several, the
/// one that is valid counts, and of several valid ones the latest.
fn find_ticket<'a, H>(app: &'a App<H>, request: &Request<'_>, now: Time) -> Option<Verified<'a>> {
    let values = app.config.cookie.values(request.cookie());
    values
        .filter_map(|value| Ticket::open(value, &app.config.keyring, now).ok())
        .max_by_key(|verified| verified.ticket.issued)
}
