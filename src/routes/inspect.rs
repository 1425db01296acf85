//! The service API's look at a visitor's cookie: [`crate::app`] lets nobody in without the `ADMIN_TOKEN`.

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    context::{Context, open_old},
    host::Host,
    http::{Problem, Response},
    id::Handle,
    session::{Fate, Reason},
    ticket::{Rejected, Ticket, cookie::Cookie},
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
    /// The fingerprint of the secret that signed it, as the counters of the day show it.
    key: Option<&'a str>,
}

impl Inspected<'_> {
    fn unsigned(reason: Reason) -> Self {
        Self { alive: false, reason: Some(reason), handle: None, issued_at: None, key: None }
    }
}

/// `POST /auth/admin/inspect`: what a visitor's cookie or ticket is. Looking leaves no trace.
pub(super) async fn inspect<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let Inspection { cookie } = cx.request.json()?;
    let (config, now, sessions) = (&cx.app.config, cx.app.host.now(), cx.sessions());
    let formats = &config.session.formats;
    let own = value_of(&config.cookie, &cookie);
    // 1. A cookie of ours, or of the application's beside us.
    let (opened, is_native) = match (&own, formats.own()) {
        (None, _) => (None, true),
        (Some(value), None) => (Some(Ticket::verify(value, &config.keyring)), true),
        (Some(value), Some(_)) => (Some(config.open_ticket(value, now)), false),
    };
    if let Some(Ok(verified)) = opened {
        let Fate { reason, handle } = sessions.inspect(&verified.ticket).await?;
        let issued_at = Some(verified.ticket.issued).filter(|_| is_native);
        let (alive, handle, key) = (reason.is_none(), Some(handle), Some(verified.key));
        return Ok(Response::json(&Inspected { alive, reason, handle, issued_at, key }));
    }
    // 2. One of an application that is being replaced.
    let mut is_known = own.is_some();
    for accepted in formats.accepted_at(now) {
        let Some(value) = value_of(&accepted.cookie, &cookie) else { continue };
        is_known = true;
        if let Some(old) = open_old(accepted, &value, now) {
            let Fate { reason, handle } = sessions.inspect_old(&old, &config.keyring).await?;
            let (alive, handle) = (reason.is_none(), Some(handle));
            return Ok(Response::json(&Inspected { alive, reason, handle, issued_at: None, key: None }));
        }
    }
    // 3. Nobody's, as far as is known here. Without its name an old cookie cannot be told from a forged ticket.
    if !is_known {
        let name = config.cookie.name();
        return Err(Problem::bad_request(format!(
            "\"cookie\" holds no cookie of a session here: send the value, or {name}=VALUE"
        )));
    }
    let is_unknown = is_native && matches!(opened, Some(Err(Rejected::UnknownKey)));
    let reason = if is_unknown { Reason::UnknownKey } else { Reason::Forged };
    Ok(Response::json(&Inspected::unsigned(reason)))
}

/// What the text gives this cookie: it is the value, `NAME=VALUE`, or a whole `Cookie` header.
fn value_of(cookie: &Cookie, text: &str) -> Option<String> {
    let header =
        if text.contains('=') { text.to_owned() } else { [cookie.name(), "=", text.trim()].concat() };
    cookie.values(&header).next().map(String::from)
}

fn as_rfc3339<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => crate::time::as_rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}
