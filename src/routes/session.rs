//! The session itself: show, change, rotate, log out.

use crate::{
    context::Context,
    host::Host,
    http::{Preconditions, Problem, Response},
    session::{Error, change::Change, no_session},
};

/// `GET /auth/session`; 304 to an `If-None-Match` that names its ETag.
pub(super) async fn show<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let response = match cx.session().await? {
        Some(session) => cx.show(&session),
        None => no_session(),
    };
    Preconditions::of(cx.request).answer(response).map_err(Problem::precondition_failed)
}

/// `PATCH /auth/session/data`. Without a session it begins an anonymous one, subject to `limits.mint`.
pub(super) async fn change<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let change = Change::parse(&cx.request.header("content-type"), cx.request.body()?)?;
    let preconditions = Preconditions::of(cx.request);
    let session = match cx.session().await? {
        Some(session) => cx.sessions().change(session, &change, &preconditions).await?,
        None => {
            let data = cx.sessions().initial_data(&change, &preconditions)?;
            cx.store.limiter.add("mint", cx.app.config.limits.mint, cx.address());
            cx.sessions().create(data).await?
        }
    };
    Ok(cx.show(&session))
}

/// `POST /auth/session/rotate`
pub(super) async fn rotate<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let session = cx.require_session().await?;
    let Some(presented) = cx.presented() else { return Err(Problem::no_session()) };
    // If its rotation was due, it has a new id already.
    let session = cx.sessions().rotate(session, &presented.ticket.id).await?;
    Ok(cx.show(&session))
}

/// `DELETE /auth/session` and `POST /auth/logout`: ends the session of every ticket that came along. Without a session there
/// is nothing to do.
pub(super) async fn log_out<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let mut has_ended = false;
    loop {
        match cx.load().await {
            Ok(None) => break,
            Ok(Some(session)) => cx.sessions().end(session).await?,
            Err(Error::Unreadable(handle)) => cx.sessions().delete_unreadable(&handle).await?,
            Err(error) => return Err(error.into()),
        }
        has_ended = true;
        cx.pass_ticket();
    }
    if has_ended {
        cx.app.isolate.count("logouts", cx.app.host.now());
    }
    cx.remove_cookie();
    Ok(Response::no_content())
}
