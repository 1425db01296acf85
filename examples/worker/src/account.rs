//! What needs a user.

use cloakroom::{Handle, Session};
use maud::html;
use worker::{Request, Response, Result};

use crate::page::page;

/// `GET /dashboard`: sends visitors off to log in. A script gets a 401, with which it can do something.
pub fn dashboard(request: &Request, session: &Session) -> Result<Response> {
    let user = match session.require_user() {
        Err(_) if is_navigation(request)? => {
            return Response::redirect(request.url()?.join("/login")?);
        }
        user => user?,
    };
    page(html! {
        h1 { "Hello, " (user.name) }
        form method="post" action="/logout" { button { "Log out" } }
    })
}

/// `GET /admin`: 401 without a user, 403 without the role.
pub fn admin(session: &Session) -> Result<Response> {
    let user = session.require_role("admin")?;
    page(html! { h1 { "Nothing to do today, " (user.name) } })
}

/// `GET /sessions`: where the user is logged in.
pub async fn list_sessions(session: &mut Session) -> Result<Response> {
    Response::from_json(&session.list().await?)
}

/// `DELETE /sessions/HANDLE`: logs the user out there.
pub async fn end_session(session: &mut Session, handle: &str) -> Result<Response> {
    let Some(handle) = Handle::parse(handle) else { return Response::error("No such session.", 404) };
    session.end(&handle).await?;
    Ok(Response::empty()?.with_status(204))
}

fn is_navigation(request: &Request) -> Result<bool> {
    Ok(request.headers().get("Sec-Fetch-Mode")?.as_deref() == Some("navigate"))
}
