//! What a handler asks for: the session, a user, a recent login, the admin token. It finds the tickets of the request, and
//! knows which of them counts and what becomes of the visitor's cookie.

mod answer;
mod operations;
mod tickets;

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    time::Duration,
};

use self::tickets::{Tickets, find_tickets};
pub(crate) use self::{
    answer::TOKEN,
    operations::Proof,
    tickets::{MAX_DEAD_TICKETS, open_old},
};
use crate::{
    account::{
        Account, Accounts, KnownDevice,
        name::{Name, NameTag},
    },
    app::App,
    config::Secret,
    host::Host,
    http::{Preconditions, Problem, Request, Response},
    id::Handle,
    limit::{CountingStore, RateLimiter, Subject},
    routes,
    session::{Apply, Device, Early, Error, Loaded, Session, Sessions, Source, User, UserState},
    store::Store,
    ticket::{Ticket, UserTag, Verified, sync},
    time::Time,
};

/// After this time an answer may reach the visitor behind that to a login or logout which was sent later.
const LATE: Duration = Duration::from_secs(1);

/// A request on its way through its handler.
pub struct Context<'a, H> {
    /// The deployment.
    pub app: &'a App<H>,
    /// The request.
    pub request: Request<'a>,
    /// What the route's path has at its `*`, still percent-encoded.
    pub param: String,
    /// The pattern of its route, once that is found: for the log.
    pub(crate) route: Cell<Option<&'static str>>,
    /// Whether another site's page makes the visitor's browser look: without a cookie, and counted for nobody.
    pub(crate) is_foreign_read: bool,
    /// Whether the ticket travels in `Authorization` and `Session-Token`: the client has no cookie jar.
    pub(crate) is_bearer: bool,
    /// The store, which counts the request in its first call.
    pub store: CountingStore<'a, H>,
    tickets: Tickets<'a>,
    cookie_change: RefCell<CookieChange>,
    /// The value of the cookie of read-your-writes that came with a ticket from elsewhere.
    handed_sync: RefCell<Option<String>>,
    /// Whether the visitor has logged out in this request.
    has_logged_out: Cell<bool>,
    /// Whether the visitor may have got another cookie since: see [`Context::reconsider_cookie`].
    is_late: Cell<bool>,
    /// Whether the limits that depend on the user were added, after the session was read.
    has_user_limits: Cell<bool>,
    /// When what is under way began: the request, or a later operation of an application's handler.
    began: Cell<Time>,
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
    /// Verifies the tickets; makes no call to the store. `is_foreign_read`: another site's page makes the visitor's browser
    /// look.
    pub fn new(app: &'a App<H>, request: Request<'a>, is_foreign_read: bool) -> Self {
        if is_foreign_read {
            request.ignore_cookie();
        }
        let is_bearer = app.config.has_bearer && request.wants_bearer();
        let tickets = find_tickets(app, &request, is_bearer);
        Self { is_foreign_read, is_bearer, tickets, ..Self::without_tickets(app, request) }
    }

    /// For a request whose tickets matter to nobody: they are not verified, and it is counted by its address alone.
    pub(crate) fn without_tickets(app: &'a App<H>, request: Request<'a>) -> Self {
        let App { config, host, isolate, .. } = app;
        let now = host.now();
        let (sync_cookie, sync_keyring) = &config.sync;
        let sync_token =
            sync_cookie.values(request.cookie()).find_map(|value| sync::open(value, sync_keyring, now));
        let store = Store::new(host, config.store_timeout, sync_token.unwrap_or_default());
        let limiter = RateLimiter::new(&isolate.limits, &config.session.key_prefix);
        Self {
            app,
            request,
            param: String::new(),
            route: Cell::new(None),
            is_foreign_read: false,
            is_bearer: false,
            tickets: Tickets::default(),
            store: CountingStore::new(store, limiter, config.limits.fails_open),
            cookie_change: RefCell::new(CookieChange::Unchanged),
            handed_sync: RefCell::default(),
            has_logged_out: Cell::new(false),
            is_late: Cell::new(false),
            has_user_limits: Cell::new(false),
            began: Cell::new(now),
        }
    }

    /// The same with its tickets, which matter after all. Nothing is counted again.
    pub(crate) fn with_tickets(self) -> Self {
        Self { has_user_limits: Cell::new(true), ..Self::new(self.app, self.request, false) }
    }

    /// Refuses a request with a ticket in its cookie and another in `Authorization`: which one is meant?
    pub(crate) fn check_transport(&self) -> Result<(), Problem> {
        let (config, request) = (&self.app.config, &self.request);
        let has_both = config.has_bearer
            && !self.is_bearer
            && (self.has_own_ticket() || self.tickets.has_unknown_key)
            && request.bearer().is_some_and(|text| Ticket::has_form(&text));
        if !has_both {
            return Ok(());
        }
        Err(Problem::bad_request("the ticket is both in the cookie and in Authorization: send one of them"))
    }

    /// Whether there is a ticket, good or not, that is not under an unknown key.
    fn has_own_ticket(&self) -> bool {
        self.tickets.has_useless || !self.tickets.verified.is_empty()
    }

    /// A cookie that holds no ticket for a session is removed.
    pub(crate) fn remove_useless_cookie(&self) {
        if self.tickets.verified.is_empty() && self.tickets.has_useless {
            self.remove_cookie();
        }
    }

    /// Whether the answer may remove the cookie: that to a safe request may arrive after the one that has set a newer, unless
    /// it was a logout. One under an unknown key may be good at another isolate, where a new secret is known already.
    pub(crate) fn may_remove_cookie(&self) -> bool {
        if self.is_late.get() {
            return false;
        }
        // The cookie is the application's, too: a session that has ended here may have been moved by a request beside this one.
        if self.app.config.session.formats.own().is_some() {
            return self.has_logged_out.get() && self.has_own_ticket() && !self.tickets.has_unknown_key;
        }
        let is_useless = !self.tickets.has_unknown_key && !self.has_unread_tickets();
        let is_change = self.has_logged_out.get() || !self.request.method.is_safe();
        self.has_own_ticket() && is_useless && is_change
    }

    /// Somebody else has answered, and may have taken long. Then the visitor may have logged out or in meanwhile: the answer
    /// removes no cookie, and sets one only if its ticket is still the newest of a session that lives. One call if there is such
    /// a ticket; in doubt the visitor keeps the old one, which leads to the same session.
    pub(crate) async fn reconsider_cookie(&self) {
        if self.app.host.now() < self.began.get() + LATE {
            return;
        }
        self.is_late.set(true);
        if let CookieChange::Set(ticket) = self.take_cookie_change() {
            let fate = boxed(self.sessions().inspect(&ticket)).await;
            let is_newest = fate.is_ok_and(|fate| fate.reason.is_none() && fate.handle == ticket.id.handle());
            if is_newest {
                self.cookie_change.replace(CookieChange::Set(ticket));
            }
        }
    }

    /// Another operation of an application's handler begins: time has passed.
    pub(crate) fn begin_operation(&self) {
        self.began.set(self.app.host.now());
    }

    /// The sessions.
    pub fn sessions(&self) -> Sessions<'_, H> {
        self.app.sessions(&self.store, self.began.get())
    }

    /// The accounts.
    pub fn accounts(&self) -> Accounts<'_, H> {
        Accounts { sessions: self.sessions(), params: self.app.config.passwords }
    }

    /// The session, if there is one; under a new id if that is due. One call to the store; none without a ticket.
    pub async fn session(&self) -> Result<Option<Session>, Problem> {
        self.session_from(self.source(), None).await
    }

    /// The same, by what the primary says: for a change.
    pub(crate) async fn session_at_primary(&self) -> Result<Option<Session>, Problem> {
        self.session_from(Source::Primary, None).await
    }

    async fn session_from(
        &self,
        source: Source,
        read: Option<Box<Loaded>>,
    ) -> Result<Option<Session>, Problem> {
        let Some(session) = self.load_from(source, read).await? else { return Ok(None) };
        // One of an old cookie alone keeps its id: a client that does not keep the new cookie would lose it.
        let Some(presented) = self.presented() else { return Ok(Some(session)) };
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
            // Others keep changing it. It can wait.
            Err(Error::Conflict) => Ok(self.load_from(Source::Primary, None).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes the data of the session, or of a new anonymous one, which is subject to `limits.mint`. One call if this isolate knows
    /// what the session is, two if not.
    pub(crate) async fn load_and_change(
        &self,
        apply: &Apply<'_>,
        preconditions: &Preconditions,
    ) -> Result<Session, Problem> {
        let early = match self.presented() {
            Some(presented) => self.sessions().change_known(&presented.ticket, apply, preconditions).await?,
            None => Early::Not,
        };
        let read = match early {
            Early::Changed(session) => return Ok(session),
            Early::Read(read) => Some(read),
            Early::Not => None,
        };
        let session = self.session_from(self.source(), read).await?;
        Ok(self.change(session, apply, preconditions).await?)
    }

    /// The session, if there is one, under the id it has. One call to the store; none without a ticket.
    pub async fn load(&self) -> Result<Option<Session>, Error> {
        self.load_from(self.source(), None).await
    }

    /// The same, by what the primary says: for a request that gets another session in any case. The request is counted when this
    /// returns, with a session or without.
    pub(crate) async fn load_at_primary(&self) -> Result<Option<Session>, Problem> {
        let session = self.load_from(Source::Primary, None).await?;
        self.store.count().await.map_err(Error::Store)?;
        self.store.check()?;
        Ok(session)
    }

    /// `read`: what the store has said already about the ticket that counts.
    async fn load_from(
        &self,
        source: Source,
        mut read: Option<Box<Loaded>>,
    ) -> Result<Option<Session>, Error> {
        while let Some(Verified { ticket, .. }) = self.presented() {
            let sessions = self.sessions();
            let session = match read.take() {
                Some(read) => sessions.load_read(ticket, ticket.clone(), *read).await?,
                None => sessions.load(ticket, source).await?,
            };
            if let Some(session) = session {
                self.apply_user_limits(&session);
                self.issue_ticket(&session);
                return Ok(Some(session));
            }
            self.dismiss_ticket();
            self.remove_cookie();
        }
        self.take_over().await
    }

    /// The session of a cookie of the application that is being replaced, if one came along.
    async fn take_over(&self) -> Result<Option<Session>, Error> {
        for old in self.old_cookies() {
            let is_disabled = async |user: &UserTag| self.is_disabled(user).await;
            let sessions = self.sessions();
            if let Some(session) =
                boxed(sessions.take_over(old, &self.app.config.keyring, is_disabled)).await?
            {
                self.apply_user_limits(&session);
                self.issue_ticket(&session);
                return Ok(Some(session));
            }
        }
        if !self.old_cookies().is_empty() {
            self.dismiss_old_cookies();
        }
        Ok(None)
    }

    /// The same for a request that gets another session in any case; and in the same call the value of another key.
    pub async fn load_with(&self, key: &str) -> Result<(Option<Session>, Option<String>), Error> {
        loop {
            let ticket = self.presented().map(|presented| &presented.ticket);
            let (session, value) = self.sessions().load_with(ticket, key).await?;
            if session.is_none() && ticket.is_none() {
                return Ok((self.take_over().await?, value));
            }
            if session.is_some() {
                session.iter().for_each(|session| self.apply_user_limits(session));
                return Ok((session, value));
            }
            self.dismiss_ticket();
            if self.presented().is_none() {
                return Ok((self.take_over().await?, value));
            }
        }
    }

    /// Adds the limits that depend on the user, if the ticket does not tell who that is.
    fn apply_user_limits(&self, session: &Session) {
        if session.ticket.foreign.is_some() && !self.has_user_limits.replace(true) {
            let user = session.record.user.as_ref().map(User::tag);
            self.app.config.limits.apply_user(&self.store.limiter, &self.request, &session.ticket, user);
        }
    }

    /// What decides about a request that changes something is the primary's. So is what a client without a cookie jar reads: it
    /// cannot say what it has written.
    fn source(&self) -> Source {
        if self.request.method.is_safe() && !self.is_bearer { Source::Any } else { Source::Primary }
    }

    /// The session. 401 if there is none.
    pub async fn require_session(&self) -> Result<Session, Problem> {
        self.session().await?.ok_or_else(Problem::no_session)
    }

    /// The session and its user. 401 if nobody is logged in.
    pub async fn require_user(&self) -> Result<(Session, User), Problem> {
        self.require_user_from(self.source()).await
    }

    /// The same for an answer that shows more than the session: a replica may not know yet that it has ended.
    pub async fn require_user_at_primary(&self) -> Result<(Session, User), Problem> {
        self.require_user_from(Source::Primary).await
    }

    async fn require_user_from(&self, source: Source) -> Result<(Session, User), Problem> {
        let session = self.session_from(source, None).await?.ok_or_else(Problem::no_session)?;
        let user = session.record.user.clone().ok_or_else(no_user)?;
        Ok((session, user))
    }

    /// The same. 403 if the login was too long ago.
    pub async fn require_fresh_user(&self) -> Result<(Session, User), Problem> {
        let (session, user) = self.require_user().await?;
        self.sessions().check_fresh(&session)?;
        Ok((session, user))
    }

    /// Whether the account of a user is disabled, before a session begins for who was authenticated elsewhere. One call; one more
    /// if there is an account.
    pub(crate) async fn is_disabled(&self, user: &UserTag) -> Result<bool, Error> {
        // Not in another application's format: not all its sessions could be ended.
        let is_native = self.app.config.session.formats.own().is_none();
        Ok(is_native && self.accounts().is_disabled(user).await?)
    }

    /// What holds for all sessions of a user, before one begins who was authenticated elsewhere. One call; one more if the user
    /// has an account here. Error: that is disabled.
    pub(crate) async fn check_not_disabled(&self, user: &UserTag) -> Result<UserState, Problem> {
        let (sessions, accounts) = (self.sessions(), self.accounts());
        if self.app.config.session.formats.own().is_some() {
            return Ok(UserState::default());
        }
        let (state, name) =
            sessions.user_state_with(user, &accounts.name_key(user)).await.map_err(Error::Store)?;
        match accounts.by_stored_name(name, user).await? {
            Some(stored) if stored.account.disabled => {
                Err(Problem::conflict("the account of this user is disabled: enable it first"))
            }
            _ => Ok(state),
        }
    }

    /// Refuses a request without the admin token. 404 if none is configured: then there is no service API.
    pub fn require_admin(&self) -> Result<(), Problem> {
        let Some(token) = &self.app.config.admin_token else {
            return Err(routes::nothing_here());
        };
        if !self.is_presented(token) {
            return Err(Problem::unauthenticated("send Authorization: Bearer with the ADMIN_TOKEN"));
        }
        Ok(())
    }

    /// Lets a back end say whom it acts for: limits and the device list then go by that client's address. 400 if what it
    /// says is no address. Without the admin token the header means nothing: anybody can send it.
    pub(crate) fn read_client_address(&self) -> Result<(), Problem> {
        let Some(token) = &self.app.config.admin_token else { return Ok(()) };
        match self.request.claimed_client_address() {
            Some(claimed) if self.is_presented(token) => self.request.act_for(claimed?),
            _ => {}
        }
        Ok(())
    }

    fn is_presented(&self, token: &Secret) -> bool {
        self.request.bearer().is_some_and(|given| Secret::new(&given) == *token)
    }

    /// The path's parameter, percent-decoded.
    pub fn text_param(&self) -> Result<String, Problem> {
        decode(&self.param)
    }

    /// The path's parameter as a handle. 404 if it is none.
    pub fn handle_param(&self) -> Result<Handle, Problem> {
        Handle::parse(&self.param).ok_or_else(|| Error::NotFound.into())
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
        let device = self.known_device(&name.tag());
        let who = device.map_or(Subject::Account(name.tag()), |device| {
            Subject::Device(device.account, device.password, device.slot)
        });
        self.app.config.limits.apply_login(&self.store.limiter, who, self.address());
        device
    }

    /// The device, if it is one from which the account with the name of this tag was logged in to, perhaps with another password;
    /// or the user of a provider's with that of [`KnownDevice::tag_of_user`].
    pub(crate) fn known_device(&self, tag: &NameTag) -> Option<KnownDevice> {
        let (cookie, keyring) = &self.app.config.device;
        let open = |value| KnownDevice::open(value, tag, keyring, self.app.host.now());
        cookie.values(self.request.cookie()).filter_map(open).max_by_key(|device| device.issued)
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
    pub fn show(&self, session: Session) -> Response {
        self.issue_ticket(&session);
        let response = session.response(&self.app.config.session.lifetimes);
        self.app.isolate.known.borrow_mut().remember(session);
        response
    }

    /// The session's ticket is the visitor's from now on. The cookie is set only if it has another id than the visitor's, or
    /// if that was signed with an older secret; not because of a touch.
    pub fn issue_ticket(&self, session: &Session) {
        let is_present = self
            .presented()
            .is_some_and(|presented| !presented.outdated && presented.ticket.id == session.ticket.id);
        let change =
            if is_present { CookieChange::Unchanged } else { CookieChange::Set(session.ticket.clone()) };
        self.cookie_change.replace(change);
    }

    /// This ticket is the visitor's from now on, whatever came with the request.
    /// `sync`: the value of the cookie of read-your-writes that goes with it.
    pub(crate) fn hand_over(&self, ticket: Ticket, sync: Option<String>) {
        self.cookie_change.replace(CookieChange::Set(ticket));
        self.handed_sync.replace(sync);
    }

    /// The visitor has no session any more.
    pub fn remove_cookie(&self) {
        self.cookie_change.replace(CookieChange::Remove);
    }

    /// The visitor has ended the session, whatever the method of the request.
    pub(crate) fn forget_session(&self) {
        self.has_logged_out.set(true);
        self.remove_cookie();
    }

    /// Whether a proxy asks for its visitor.
    pub(crate) fn is_forward_auth(&self) -> bool {
        routes::is_verify(self.request.path(), &self.app.config.base_path)
    }

    /// Whether a provider asks, and no visitor.
    pub(crate) fn is_back_channel(&self) -> bool {
        routes::is_back_channel(self.request.path(), &self.app.config.base_path)
    }

    /// The line that sets the cookie of read-your-writes: whoever asks first passes it on. `None` if nothing was written.
    pub(crate) fn take_sync_cookie(&self) -> Option<String> {
        let (cookie, keyring) = &self.app.config.sync;
        let written = self.store.take_sync_token();
        let written = written.and_then(|token| sync::sign(&token, keyring, self.app.host.now()));
        let value = written.or_else(|| self.handed_sync.take())?;
        Some(cookie.set(&value, Some(sync::LIFETIME)))
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
