//! The service API's routes of users: their accounts, and all their sessions. [`crate::app`] lets nobody in without the
//! `ADMIN_TOKEN`.

use serde::{Deserialize, Serialize};

use super::{
    account::{check_new_password, check_not_breached},
    devices,
};
use crate::{
    account::{name::Name, password::Password},
    context::Context,
    events::{self, Event},
    host::Host,
    http::{Problem, Response},
    session::{User, user},
    time::{self, Time},
};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewAccount {
    #[cfg_attr(test, schemars(length(min = 1), description = "1 to 128 characters after NFKC and trimming"))]
    username: String,
    #[cfg_attr(test, schemars(with = "Option<String>", length(min = crate::account::new_password::MIN_LENGTH, max = crate::account::new_password::MAX_LENGTH)))]
    password: Option<Password>,
    #[serde(default)]
    #[cfg_attr(test, schemars(length(max = user::MAX_ROLES), inner(length(min = 1, max = user::MAX_ROLE), regex(pattern = "^[^,]+$"))))]
    roles: Vec<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct AccountChange {
    disabled: bool,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Roles {
    #[cfg_attr(test, schemars(length(max = user::MAX_ROLES), inner(length(min = 1, max = user::MAX_ROLE), regex(pattern = "^[^,]+$"))))]
    roles: Vec<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Ended {
    ended: usize,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ResetView {
    token: String,
    #[serde(serialize_with = "time::as_rfc3339")]
    expires_at: Time,
}

/// `GET /auth/admin/users?name=…`: the account of a name, in any spelling of it.
pub(super) async fn find<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    cx.sessions().check_holds_users()?;
    let name = cx.request.only_param("name", "name=NAME")?;
    let name = name.ok_or_else(|| Problem::bad_request("which user? Say it in the query: ?name=NAME"))?;
    let name = crate::context::decode(&name.replace('+', " "))?;
    let accounts = cx.accounts();
    // A name that no account can have is one that none has.
    let key = Name::parse(&name, &cx.app.host).map(|name| accounts.key(&name));
    let stored = match key {
        Ok(key) => accounts.read(&key).await?,
        Err(_) => None,
    };
    Ok(stored.ok_or_else(|| Problem::not_found("there is no account of this name"))?.account.response())
}

/// `POST /auth/admin/users`: an account, also under a reserved name, and while nobody can register.
pub(super) async fn create<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let NewAccount { username, password, roles } = cx.request.json()?;
    cx.sessions().check_holds_users()?;
    let name = Name::parse(&username, &cx.app.host).map_err(Problem::unprocessable)?;
    name.fault(&cx.app.host).map_or(Ok(()), |fault| Err(Problem::unprocessable(fault)))?;
    user::check_roles("roles", &roles).map_err(Problem::bad_request)?;
    if let Some(password) = &password {
        check_new_password(cx, "password", password, &name)?;
        check_not_breached(cx, "password", password).await?;
    }
    let password = password.as_ref().map(|password| password.0.as_str());
    let account = cx.accounts().create(&name, password, roles).await?;
    cx.tell(&account.user(), &Event::Registered);
    Ok(account.response().status(201))
}

/// `GET /auth/admin/users/{id}`
pub(super) async fn show<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let tag = User::tag_of(&id_param(cx)?);
    cx.sessions().check_holds_users()?;
    Ok(cx.accounts().by_tag(&tag).await?.account.response())
}

/// `PATCH /auth/admin/users/{id}`: disables an account, which ends its sessions, or enables it again.
pub(super) async fn change<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let (id, AccountChange { disabled }) = (id_param(cx)?, cx.request.json()?);
    Ok(cx.accounts().set_disabled(&id, disabled).await?.account.response())
}

/// `DELETE /auth/admin/users/{id}`: the account, its profile and all its sessions.
pub(super) async fn delete<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    // Disabled first: no session begins from then on. If it breaks off, it can be repeated, and none is left over.
    let closed = cx.accounts().close(&id_param(cx)?).await?;
    let user = closed.account.user();
    cx.accounts().delete(closed).await?;
    cx.tell(&user, &Event::Deleted);
    Ok(Response::no_content())
}

/// `POST /auth/admin/users/{id}/reset`: a token by which the account's owner chooses a new password.
pub(super) async fn begin_reset<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    cx.sessions().check_can_end_all()?;
    let (user, token, reset) = cx.accounts().begin_reset(&id_param(cx)?).await?;
    let (token, expires_at) = (token.text(), reset.expires_at);
    cx.tell(&user, &Event::ResetRequested(events::Reset { token: token.clone(), expires_at }));
    Ok(Response::json(&ResetView { token, expires_at }).status(201))
}

/// `PUT /auth/admin/users/{id}/roles`: an account's roles; they hold from its next request.
pub(super) async fn set_roles<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let (id, Roles { roles }) = (id_param(cx)?, cx.request.json()?);
    user::check_roles("roles", &roles).map_err(Problem::bad_request)?;
    cx.accounts().set_roles(&id, &roles).await?;
    Ok(Response::no_content())
}

/// `GET /auth/admin/users/{id}/sessions`
pub(super) async fn list_sessions<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    Ok(devices::answer(cx.sessions().list(&User::tag_of(&id_param(cx)?), None).await?))
}

/// `DELETE /auth/admin/users/{id}/sessions`
pub(super) async fn end_sessions<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let ended = cx.sessions().end_all_counted(&User::tag_of(&id_param(cx)?)).await?;
    Ok(Response::json(&Ended { ended }))
}

/// The user id in the path.
fn id_param<H: Host>(cx: &Context<'_, H>) -> Result<String, Problem> {
    let id = cx.text_param()?;
    user::check_id("the user id in the path", &id).map_err(Problem::bad_request)?;
    Ok(id)
}
