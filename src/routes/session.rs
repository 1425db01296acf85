//! The session itself: show, change, rotate, log out.

use serde_json::value::RawValue;

use crate::{
    context::Context,
    host::Host,
    http::{Preconditions, Problem, Response},
    session::{change::Change, no_session},
};

/// `GET /auth/session`; 304 to an `If-None-Match` that names its ETag.
pub(super) async fn show<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let response = match cx.session().await? {
        Some(session) => cx.show(session),
        None => no_session(),
    };
    Preconditions::of(&cx.request).answer(response).map_err(Problem::precondition_failed)
}

/// `PATCH /auth/session/data`. Without a session it begins an anonymous one, subject to `limits.mint`.
pub(super) async fn change<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let change = Change::parse(&cx.request.header("content-type"), cx.request.body()?)?;
    let preconditions = Preconditions::of(&cx.request);
    let max_bytes = cx.app.config.session.max_bytes;
    let format = cx.app.config.session.formats.own();
    let apply = |data: &RawValue| {
        let changed = change.apply(data, max_bytes)?;
        format.map_or(Ok(()), |format| format.check_visitors_change(data, &changed))?;
        Ok(changed)
    };
    Ok(cx.show(cx.load_and_change(&apply, &preconditions).await?))
}

/// `POST /auth/session/rotate`
pub(super) async fn rotate<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let session = cx.require_session().await?;
    // If its rotation was due, it has a new id already. An old cookie carries none of ours.
    let carried = cx.presented().map_or(&session.ticket.id, |presented| &presented.ticket.id).clone();
    let session = cx.sessions().rotate(session, &carried).await?;
    Ok(cx.show(session))
}

/// `DELETE /auth/session` and `POST /auth/logout`: ends the session of every ticket that came along. Without a session there
/// is nothing to do.
pub(super) async fn log_out<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    cx.log_out(None).await?;
    Ok(Response::no_content())
}
