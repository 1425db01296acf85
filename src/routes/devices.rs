//! A user's own sessions: the device list and its "end" buttons.

use serde::Serialize;

use crate::{
    context::Context,
    host::Host,
    http::{Problem, Response, unknown_query},
    session::ListedSession,
};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct List {
    sessions: Vec<ListedSession>,
}

/// The answer that lists sessions.
pub(super) fn answer(sessions: Vec<ListedSession>) -> Response {
    Response::json(&List { sessions })
}

/// `GET /auth/sessions`
pub(super) async fn list<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let (session, user) = cx.require_user_at_primary().await?;
    Ok(answer(cx.sessions().list(&user.tag(), Some(&session.ticket.id.handle())).await?))
}

/// `DELETE /auth/sessions/{handle}`: ends one session of the user. The current one needs no recent login: that is a logout,
/// also by a handle that it had before a rotation.
pub(super) async fn end_one<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let handle = cx.handle_param()?;
    let (session, user) = cx.require_user().await?;
    let current = session.ticket.id.handle();
    let is_stale = cx.sessions().check_fresh(&session);
    // Only who may not end another session asks whether an old handle is this one's: it costs a call.
    if handle == current || (is_stale.is_err() && cx.sessions().leads_to(&handle, &current).await?) {
        cx.sessions().end(session).await?;
        cx.forget_old_cookies(true).await?;
        cx.forget_session();
        return Ok(Response::no_content());
    }
    is_stale?;
    cx.sessions().end_by_handle(&handle, Some(&user.tag())).await?;
    Ok(Response::no_content())
}

/// `DELETE /auth/sessions`, `?keep=current`: ends all sessions of the user, or all others.
pub(super) async fn end_all<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    const KEEP: &str = "keep=current";
    let keep_current = match cx.request.only_param("keep", KEEP)? {
        None => false,
        Some("current") => true,
        Some(_) => return Err(unknown_query(KEEP)),
    };
    cx.sessions().check_can_end_all()?;
    let (session, user) = cx.require_fresh_user().await?;
    if keep_current {
        let session = cx.sessions().end_others(&user.tag(), session).await?;
        cx.issue_ticket(&session);
    } else {
        cx.sessions().end_all(&user.tag(), Some(session)).await?;
        cx.forget_old_cookies(true).await?;
        cx.forget_session();
    }
    Ok(Response::no_content())
}
