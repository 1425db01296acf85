//! The service API's look at a visitor's cookie: [`crate::app`] lets nobody in without the `ADMIN_TOKEN`.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    context::{Context, MAX_DEAD_TICKETS, open_old},
    host::Host,
    http::{Problem, Response},
    id::Handle,
    session::{Fate, Reason},
    ticket::{
        Rejected, Ticket, UserTag, Verified,
        cookie::{Cookie, unquoted},
    },
    time::Time,
};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Inspection {
    #[cfg_attr(test, schemars(length(min = 1), description = "The cookie's value, or NAME=VALUE"))]
    cookie: String,
}

/// What a cookie is.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Inspected<'a> {
    alive: bool,
    /// Why it is not alive.
    reason: Option<Reason>,
    /// Of the session or, if there is none any more, of the ticket. `None` if no secret of ours signed it.
    handle: Option<Handle>,
    /// When the ticket was issued, if it says so.
    #[serde(serialize_with = "as_rfc3339")]
    #[cfg_attr(test, schemars(with = "Option<Time>"))]
    issued_at: Option<Time>,
    /// The fingerprint of the secret that signed it, as the counters of the day show it; `application` if that is the
    /// application's, whose format the sessions have.
    key: Option<&'a str>,
}

/// `POST /auth/admin/inspect`: what a visitor's cookie or ticket is. Looking leaves no trace. Of several, as a `Cookie` header
/// may hold them, the one counts that would count in a request.
pub(super) async fn inspect<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let Inspection { cookie: text } = cx.request.json()?;
    let (config, now, sessions) = (&cx.app.config, cx.app.host.now(), cx.sessions());
    let formats = &config.session.formats;
    let text = text.trim();
    // 1. Tickets of ours, or of the application's beside us: the latest first.
    let own = Values::of(&config.cookie, text);
    let (mut verified, mut is_named, mut reason) = (Vec::new(), own.are_named, Reason::Forged);
    for value in own.values {
        let opened = match formats.own() {
            None => Ticket::verify(value, &config.keyring),
            // Whether another secret of the application's has signed it, nobody can tell.
            Some(_) => config.open_ticket(value, now).map_err(|_| Rejected::Forged),
        };
        match opened {
            Ok(ticket) => verified.push(ticket),
            Err(Rejected::UnknownKey) => reason = Reason::UnknownKey,
            Err(_) => {}
        }
    }
    verified.sort_by_key(|verified| Reverse(verified.ticket.issued));
    let mut dead = None;
    for Verified { ticket, key, .. } in verified.into_iter().take(MAX_DEAD_TICKETS) {
        let fate = sessions.inspect(&ticket).await?;
        let issued_at = Some(ticket.issued).filter(|_| ticket.foreign.is_none());
        let inspected = Inspected { issued_at, key: Some(key), ..Inspected::from(fate) };
        if inspected.alive {
            return Ok(Response::json(&inspected));
        }
        dead.get_or_insert(inspected);
    }
    // 2. Cookies of an application that is being replaced.
    for accepted in formats.accepted_at(now) {
        let old = Values::of(&accepted.cookie, text);
        is_named |= old.are_named;
        // What has the form of a ticket is one, unless it is said to be something else.
        let values = old.values.into_iter().filter(|value| old.are_named || !Ticket::has_form(value));
        for old in values.filter_map(|value| open_old(accepted, value, now)).take(MAX_DEAD_TICKETS) {
            let is_disabled = async |user: &UserTag| cx.is_disabled(user).await;
            let inspected = Inspected::from(sessions.inspect_old(&old, &config.keyring, is_disabled).await?);
            if inspected.alive {
                return Ok(Response::json(&inspected));
            }
            dead.get_or_insert(inspected);
        }
    }
    // 3. None that lives. Without its name an old cookie cannot be told from a forged ticket.
    if let Some(dead) = dead {
        return Ok(Response::json(&dead));
    }
    if text.is_empty() || (text.contains('=') && !is_named) {
        let name = config.cookie.name();
        return Err(Problem::bad_request(format!(
            "\"cookie\" holds no cookie of a session here: send the value, or {name}=VALUE"
        )));
    }
    Ok(Response::json(&Inspected {
        alive: false,
        reason: Some(reason),
        handle: None,
        issued_at: None,
        key: None,
    }))
}

impl From<Fate> for Inspected<'_> {
    fn from(Fate { reason, handle }: Fate) -> Self {
        Self { alive: reason.is_none(), reason, handle: Some(handle), issued_at: None, key: None }
    }
}

/// What a text gives a cookie.
struct Values<'t> {
    values: Vec<&'t str>,
    /// Whether it says the cookie's name: it is `NAME=VALUE`, or a whole `Cookie` header. Otherwise it may be the value.
    are_named: bool,
}

impl<'t> Values<'t> {
    fn of(cookie: &Cookie, text: &'t str) -> Self {
        let named: Vec<_> = cookie.values(text).chain(cookie.values_of_joined_lines(text)).collect();
        match named.as_slice() {
            [] => Self { values: vec![unquoted(text)], are_named: false },
            _ => Self { values: named, are_named: true },
        }
    }
}

fn as_rfc3339<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => crate::time::as_rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}
