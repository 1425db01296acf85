//! The service API, for back ends and operators. [`crate::app`] lets nobody in without the `ADMIN_TOKEN`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    context::Context,
    document,
    host::Host,
    http::{Problem, Response},
    session::{Error, User, change::empty_data},
    stats,
};

/// The longest user id, name and role, in bytes, and how many roles a user may have.
const MAX_NAME: usize = 256;
const MAX_ROLES: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSession {
    #[serde(deserialize_with = "document::object")]
    user: NewUser,
    data: Option<Box<RawValue>>,
    #[serde(default)]
    remember: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    id: String,
    name: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    roles: Vec<String>,
}

/// `POST /auth/admin/sessions`: a session for a user who was authenticated elsewhere.
pub(super) async fn create_session<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let NewSession { user: NewUser { id, name, roles }, data, remember } = cx.request.json()?;
    if id.is_empty() {
        return Err(Problem::bad_request("\"user.id\" must not be empty"));
    }
    let name = name.unwrap_or_else(|| id.clone());
    for (field, text) in [("user.id", &id), ("user.name", &name)] {
        if text.len() > MAX_NAME {
            return Err(Problem::bad_request(format!("\"{field}\" must have at most {MAX_NAME} bytes")));
        }
    }
    check_roles("user.roles", &roles)?;
    let data = data.unwrap_or_else(empty_data);
    if !data.get().starts_with('{') {
        return Err(Problem::bad_request("\"data\" must be an object"));
    }
    let max_bytes = cx.app.config.session.max_bytes;
    if data.get().len() > max_bytes {
        return Err(Problem::too_large(format!("\"data\" must have at most {max_bytes} bytes of JSON")));
    }
    let user = User { id, name, roles };
    let session = cx.sessions().create_for_user(user, data, remember, cx.device()).await?;
    let set_cookie = cx.app.config.set_ticket(&session.ticket, cx.app.host.now());
    Ok(session.response_with_cookie(&cx.app.config.session.lifetimes, &set_cookie).status(201))
}

/// `GET /auth/admin/sessions/{handle}`
pub(super) async fn show_session<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let stored = cx.sessions().find(&cx.handle_param()?).await?;
    Ok(stored.response(cx.app.host.now()))
}

/// `DELETE /auth/admin/sessions/{handle}`
pub(super) async fn end_session<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    match cx.sessions().end_by_handle(&cx.handle_param()?, None).await {
        Err(Error::Unreadable(handle)) => cx.sessions().delete_unreadable(&handle).await?,
        outcome => outcome?,
    }
    Ok(Response::no_content())
}

/// `GET /auth/admin/users/{id}/sessions`
pub(super) async fn list_sessions<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    Ok(cx.sessions().list(&User::tag_of(&cx.text_param()?), None).await?)
}

/// `DELETE /auth/admin/users/{id}/sessions`
pub(super) async fn end_sessions<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    cx.sessions().end_all(&User::tag_of(&cx.text_param()?), None).await?;
    Ok(Response::no_content())
}

/// `PUT /auth/admin/users/{id}/roles`: an account's roles; they hold from its next request.
pub(super) async fn set_roles<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let (id, Roles { roles }) = (cx.text_param()?, cx.request.json()?);
    check_roles("roles", &roles)?;
    cx.accounts().set_roles(&id, &roles).await?;
    Ok(Response::no_content())
}

/// `GET /auth/admin/stats`
pub(super) async fn stats<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let config = &cx.app.config;
    let report = stats::report(cx.app.host.now(), &cx.store, &config.keyring, &config.session.key_prefix);
    Ok(report.await.map_err(Error::Store)?)
}

fn check_roles(field: &str, roles: &[String]) -> Result<(), Problem> {
    if roles.len() > MAX_ROLES || roles.iter().any(|role| role.len() > MAX_NAME) {
        let detail =
            format!("\"{field}\" must be at most {MAX_ROLES} roles of at most {MAX_NAME} bytes each");
        return Err(Problem::bad_request(detail));
    }
    Ok(())
}
