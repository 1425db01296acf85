//! What the origin changes about the visitor's session, in headers of its answer. It is carried out before any of that answer
//! is passed on: what the visitor has seen is stored.

use std::{borrow::Cow, time::Duration};

use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::{
    app::App,
    config::Config,
    context::{Context, TOKEN},
    host::Host,
    http::{Preconditions, Problem, Response},
    id::Handle,
    log::{self, Line},
    session::{Error, Session, Source, change::Change},
    ticket::{Ticket, cookie::LONGEST, sync},
    time::Time,
};

/// The header with a merge patch of the session's data.
const PATCH: &str = "X-Session-Patch";
/// The header with the `set_cookie` of a session that the origin has begun by the service API.
const SET_COOKIE: &str = "X-Session-Set-Cookie";

/// The longest session, in bytes, that is kept while the origin answers: many requests may wait at a time. A longer one is read
/// again to be changed.
const MAX_KEPT: usize = 4096;

/// What the headers of the origin's answer say. Does not print: they hold data and tickets.
#[derive(Default)]
pub struct Changes {
    /// `X-Session-Patch`.
    pub patch: Option<String>,
    /// `X-Session-Set-Cookie`.
    pub set_cookie: Option<String>,
    /// Beside a patch the value of the session's cookie, if the origin sets it itself: of an application whose sessions are used.
    pub own_cookie: Option<String>,
}

/// The visitor of a request that is passed on, until the origin has answered.
pub enum Visitor<'a, H> {
    /// Whose session the origin may change.
    Known(Box<Known<'a, H>>),
    /// Somebody whose session it may not change, and why.
    Other(&'static str),
}

/// What is known of such a visitor.
pub struct Known<'a, H> {
    pub(super) cx: Context<'a, H>,
    /// Whether the request's tickets were looked at.
    pub(super) has_tickets: bool,
    session: Read,
    /// The session's, if it was read.
    handle: Option<Handle>,
}

impl<'a, H> Known<'a, H> {
    pub(super) fn new(cx: Context<'a, H>, has_tickets: bool, read: Read) -> Self {
        let handle = read.handle();
        let is_small = |session: &Session| session.stored.len() <= MAX_KEPT;
        let session = if read.session().is_none_or(is_small) { read } else { Read::Not };
        Self { cx, has_tickets, session, handle }
    }
}

/// The session, as far as it was read.
pub(super) enum Read {
    /// It was not: nobody asked for it, or the store did not answer.
    Not,
    /// It is this, or there is none.
    As(Option<Session>),
}

impl Read {
    /// The session, if it is known.
    pub(super) fn session(&self) -> Option<&Session> {
        match self {
            Self::Not => None,
            Self::As(session) => session.as_ref(),
        }
    }

    /// Its public name.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.session().map(|session| session.ticket.id.handle())
    }
}

/// Headers of ours that the visitor's answer gets.
pub type Added = Vec<(&'static str, Cow<'static, str>)>;

impl<H: Host> App<H> {
    /// Carries out what the origin's answer says about the visitor's session, and says which headers of ours that answer gets.
    /// `is_web_socket`: it has none that matter. Errors: the answer that the visitor gets instead; the session is as it was, or
    /// the store has not said what it is.
    pub async fn carry_out(
        &self,
        visitor: Visitor<'_, H>,
        changes: Changes,
        is_web_socket: bool,
    ) -> Result<Added, Response> {
        let known = match visitor {
            Visitor::Known(known) if !is_web_socket => *known,
            Visitor::Known(_) => return self.ignore(&changes, "the connection becomes a WebSocket"),
            Visitor::Other(why) => return self.ignore(&changes, why),
        };
        known.cx.reconsider_cookie().await;
        if changes.is_empty() {
            return Ok(added(known.cx.answer(Ok(Response::new(200)), false)));
        }
        let Known { cx, has_tickets, session, handle } = known;
        let cx = if has_tickets { cx } else { cx.with_tickets() };
        cx.begin_operation();
        let outcome = apply(&cx, session, &changes).await;
        match cx.settle(outcome.map(|()| Response::new(200))).await {
            Ok(response) => Ok(added(cx.answer(Ok(response), false))),
            Err(problem) => {
                let message =
                    "what the origin's answer asks of the session was not done: its visitor gets the error";
                self.host.log(&Line {
                    status: Some(problem.code.status().0),
                    code: Some(problem.code),
                    headers: changes.names(),
                    handle: handle.map(|handle| handle.to_string()),
                    ..Line::new(log::Event::SessionChangeFailed, message)
                });
                Err(cx.answer(Err(problem), false).uncacheable())
            }
        }
    }

    fn ignore(&self, changes: &Changes, why: &str) -> Result<Added, Response> {
        if !changes.is_empty() {
            let message = format!("what the origin's answer asks of the session was not done: {why}");
            let line = Line::new(log::Event::SessionChangeIgnored, message);
            self.host.log(&Line { headers: changes.names(), ..line });
        }
        Ok(Vec::new())
    }
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.patch.is_none() && self.set_cookie.is_none()
    }

    /// The headers that there are.
    fn names(&self) -> Vec<&'static str> {
        let patch = self.patch.as_ref().map(|_| PATCH);
        patch.into_iter().chain(self.set_cookie.as_ref().map(|_| SET_COOKIE)).collect()
    }
}

/// The headers of an answer of ours that are for the visitor, whoever else answers.
fn added(answer: Response) -> Added {
    let is_meant = |name: &str| name == "Set-Cookie" || name == TOKEN;
    answer.headers.into_iter().filter(|(name, _)| is_meant(name)).collect()
}

/// Changes the session: that of the request or, with `X-Session-Set-Cookie`, the one that replaces it.
async fn apply<H: Host>(cx: &Context<'_, H>, session: Read, changes: &Changes) -> Result<(), Problem> {
    let (config, now) = (&cx.app.config, cx.app.host.now());
    let Config { session: rules, .. } = config;
    // 1. All can be understood, or nothing is carried out.
    let patch = changes.patch.as_deref().map(patch_text).transpose()?;
    let change = patch.as_deref().map(|text| Change::parse("application/merge-patch+json", text));
    let change = change.transpose().map_err(|_| bad(PATCH, "a JSON object of at most 10,000 values"))?;
    let cookies = changes.set_cookie.as_deref().map(|text| Cookies::read(text, config, now)).transpose()?;
    let own = changes.own_cookie.as_deref().filter(|value| !value.is_empty());
    let own = own.map(|value| config.open_ticket(value, now).map(|opened| opened.ticket));
    let own = own.transpose().map_err(|_| bad("Set-Cookie", SIGNED))?;
    // 2. The patch, on the newest state. Who is logged in is not the patch's to say, everything else is the application's.
    let format = rules.formats.own();
    if let Some(change) = change {
        let apply = |data: &RawValue| {
            let changed = change.apply(data, rules.max_bytes)?;
            format.map_or(Ok(()), |format| format.check_applications_change(data, &changed))?;
            Ok(changed)
        };
        // The session that the visitor has from now on.
        let next = cookies.as_ref().map(|cookies| (SET_COOKIE, &cookies.ticket));
        let next = next.or(own.as_ref().map(|ticket| ("Set-Cookie", ticket)));
        let session = match (next, session) {
            (Some((header, ticket)), _) => {
                let session = cx.sessions().load(ticket, Source::Primary).await.map_err(Problem::from)?;
                Some(session.ok_or_else(|| bad(header, LIVING))?)
            }
            (None, Read::Not) => cx.session_at_primary().await?,
            (None, Read::As(session)) => session,
        };
        cx.change(session, &apply, &Preconditions::default()).await.map_err(|error| match (error, next) {
            // The visitor's own session is not the one that has ended.
            (Error::Ended, Some((header, _))) => bad(header, LIVING),
            (error, _) => error.into(),
        })?;
    }
    // 3. The cookies of the other session take the place of whatever the request has changed about the visitor's.
    if let Some(Cookies { ticket, sync }) = cookies {
        cx.hand_over(ticket, sync);
    }
    Ok(())
}

const SIGNED: &str = "a ticket that this deployment has signed";
const LIVING: &str = "the ticket of a session that lives";

/// The JSON of `X-Session-Patch`, which a header can hold if it is ASCII: as it is, or percent-encoded.
fn patch_text(header: &str) -> Result<Cow<'_, [u8]>, Problem> {
    match header.starts_with('{') {
        true if header.is_ascii() => Ok(header.as_bytes().into()),
        true => Err(bad(PATCH, "JSON in ASCII, or percent-encoded as a whole")),
        false => Ok(percent_decode_str(header).into()),
    }
}

/// What `X-Session-Set-Cookie` hands over.
struct Cookies {
    ticket: Ticket,
    /// The value of the cookie of read-your-writes.
    sync: Option<String>,
}

impl Cookies {
    /// Reads the list of lines. Of each only the name and the value count, and `Max-Age` where a ticket does not say how long
    /// its cookie lasts: all else is as for every cookie of ours.
    fn read(text: &str, config: &Config, now: Time) -> Result<Self, Problem> {
        const WHAT: &str = "the list set_cookie that POST /auth/admin/sessions has answered with, as JSON";
        let lines: Vec<String> = serde_json::from_str(text).map_err(|_| bad(SET_COOKIE, WHAT))?;
        let (mut ticket, mut sync) = (None, None);
        let (sync_cookie, sync_keyring) = &config.sync;
        for line in &lines {
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let (name, value) = pair.split_once('=').unwrap_or_default();
            if name == config.cookie.name() && ticket.is_none() {
                let opened = config.open_ticket(value, now);
                let opened = opened.map_err(|_| bad(SET_COOKIE, SIGNED))?;
                ticket = Some(with_lifetime(opened.ticket, attributes, now));
            } else if name == sync_cookie.name() && sync.is_none() && sync::is_ours(value, sync_keyring) {
                sync = Some(value.to_owned());
            } else {
                return Err(bad(SET_COOKIE, WHAT));
            }
        }
        Ok(Self { ticket: ticket.ok_or_else(|| bad(SET_COOKIE, WHAT))?, sync })
    }
}

/// A ticket of another application's format with the lifetime of its cookie, of which it says nothing itself.
fn with_lifetime(ticket: Ticket, attributes: &str, now: Time) -> Ticket {
    if ticket.foreign.is_none() {
        return ticket;
    }
    let mut attributes = attributes.split(';').filter_map(|attribute| attribute.split_once('='));
    let max_age = attributes.find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"));
    let seconds = max_age.and_then(|(_, seconds)| seconds.trim().parse().ok());
    match seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST)) {
        Some(lifetime) => Ticket { remember: true, ends: now + lifetime, ..ticket },
        None => ticket,
    }
}

/// 502: a header of the origin's is something else than `what`. The value goes nowhere.
fn bad(header: &str, what: &str) -> Problem {
    let message = format!("{header} of the origin's answer must be {what}");
    Problem::bad_answer().logged(Line::new(log::Event::GatewayAnswerBad, message))
}
