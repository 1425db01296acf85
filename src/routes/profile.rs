//! The profile: the user's own document, which outlives sessions.

use crate::{
    account::{Account, StoredAccount},
    context::Context,
    host::Host,
    http::{Preconditions, Problem, Response},
    session::{Session, change::Change},
};

/// `GET /auth/profile`; 304 to an `If-None-Match` that names its ETag.
pub(super) async fn show<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let (session, user) = cx.require_user().await?;
    let stored = cx.accounts().of_user(&user).await?;
    let answer = Preconditions::of(&cx.request).answer(answer(cx, &session, &stored));
    answer.map_err(Problem::precondition_failed)
}

/// `PATCH /auth/profile`: the same rules as for session data.
pub(super) async fn change<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let change = Change::parse(&cx.request.header("content-type"), cx.request.body()?)?;
    let preconditions = Preconditions::of(&cx.request);
    let (session, user) = cx.require_user().await?;
    let max_bytes = cx.app.config.session.max_bytes;
    let apply = |account: &mut Account| {
        preconditions.check(Some(&account.profile_etag()))?;
        account.profile = change.apply(&account.profile, max_bytes)?;
        Ok(())
    };
    let accounts = cx.accounts();
    let stored = accounts.update(accounts.of_user(&user).await?, &apply).await?;
    Ok(answer(cx, &session, &stored))
}

fn answer<H: Host>(cx: &Context<'_, H>, session: &Session, stored: &StoredAccount) -> Response {
    cx.issue_ticket(session);
    stored.account.profile_response()
}
