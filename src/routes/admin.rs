//! The service API's routes of sessions, for back ends and operators. [`crate::app`] lets nobody in without the `ADMIN_TOKEN`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    context::Context,
    document,
    host::Host,
    http::{Problem, Response, parse_address},
    session::{Device, Error, User, change::empty_data},
    stats,
};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewSession {
    #[serde(deserialize_with = "document::object")]
    user: NewUser,
    #[cfg_attr(test, schemars(with = "Option<serde_json::Map<String, serde_json::Value>>"))]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    remember: bool,
    #[serde(default, deserialize_with = "document::optional_object")]
    client: Option<Client>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    #[cfg_attr(test, schemars(length(min = 1, max = crate::session::user::MAX_ID), extend("not" = {"enum": [".", ".."]})))]
    id: String,
    #[cfg_attr(test, schemars(length(max = crate::session::user::MAX_NAME)))]
    name: Option<String>,
    #[serde(default)]
    #[cfg_attr(test, schemars(length(max = crate::session::user::MAX_ROLES), inner(length(min = 1, max = crate::session::user::MAX_ROLE), regex(pattern = "^[^,]+$"))))]
    roles: Vec<String>,
}

/// Whom the back end has authenticated, as the device list shows it.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Client {
    #[cfg_attr(test, schemars(extend("anyOf" = [{"type": "null"}, {"format": "ipv4"}, {"format": "ipv6"}])))]
    address: Option<String>,
    user_agent: Option<String>,
}

/// `POST /auth/admin/sessions`: a session for a user who was authenticated elsewhere.
pub(super) async fn create_session<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let NewSession { user: NewUser { id, name, roles }, data, remember, client } = cx.request.json()?;
    // Without a name people see the id.
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.clone());
    let user = User { id, name, roles };
    user.check("user").map_err(Problem::bad_request)?;
    let device = device(cx, client)?;
    let data = data.unwrap_or_else(empty_data);
    if !data.get().starts_with('{') {
        return Err(Problem::bad_request("\"data\" must be an object"));
    }
    let max_bytes = cx.app.config.session.max_bytes;
    if data.get().len() > max_bytes {
        return Err(Problem::too_large(format!("\"data\" must have at most {max_bytes} bytes of JSON")));
    }
    let state = cx.check_not_disabled(&user.tag()).await?;
    let session = cx.sessions().create_for_user(user, data, remember, device, &state).await?;
    // All lines are the visitor's, to be passed on. The caller's own cookies stay as they are.
    cx.take_cookie_change();
    let ticket = cx.app.config.set_ticket(&session.ticket, cx.app.host.now());
    let set_cookie: Vec<String> = std::iter::once(ticket).chain(cx.take_sync_cookie()).collect();
    Ok(session.response_with_cookies(&cx.app.config.session.lifetimes, &set_cookie).status(201))
}

/// `GET /auth/admin/sessions/{handle}`
pub(super) async fn show_session<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let stored = cx.sessions().find(&cx.handle_param()?).await?;
    Ok(stored.response(cx.app.host.now()))
}

/// `DELETE /auth/admin/sessions/{handle}`
pub(super) async fn end_session<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    match cx.sessions().end_by_handle(&cx.handle_param()?, None).await {
        Err(Error::Unreadable(session)) => cx.sessions().delete_unreadable(&session.handle).await?,
        outcome => drop(outcome?),
    }
    Ok(Response::no_content())
}

/// `GET /auth/admin/stats`
pub(super) async fn stats<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let config = &cx.app.config;
    let (rules, now) = (&config.session, cx.app.host.now());
    let report = stats::report(now, &cx.store, &config.keyring, &rules.lifetimes, &rules.key_prefix);
    Ok(report.await.map_err(Error::Store)?)
}

/// Where the login came from: what the body says of the client or, if it says nothing, the request itself. An address that
/// the body leaves out is that of whom the back end acts for, and never the back end's own.
fn device<H: Host>(cx: &Context<'_, H>, client: Option<Client>) -> Result<Device, Problem> {
    let Some(Client { address, user_agent }) = client else { return Ok(cx.device()) };
    if address.as_deref().is_some_and(|address| parse_address(address).is_none()) {
        let detail =
            "\"client.address\" must be an IPv4 or IPv6 address, like \"203.0.113.7\", without a port";
        return Err(Problem::bad_request(detail));
    }
    let address = address.or_else(|| cx.request.acts_for()).unwrap_or_default();
    let record_ip = cx.app.config.session.record_ip;
    Ok(Device::new(&user_agent.unwrap_or_default(), &address, record_ip))
}
