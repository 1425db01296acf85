//! A visit counter with axum on Cloudflare Workers. The sessions are `tower-sessions`', kept in Upstash Redis.

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use cloakroom::{Sessions, tower_sessions::Store};
use tower_service::Service;
use tower_sessions::{
    Expiry, Session, SessionManagerLayer,
    cookie::{SameSite, time::Duration},
    session,
};
use worker::{Context, Env, HttpRequest, Result, event};

#[event(fetch)]
async fn fetch(
    request: HttpRequest,
    env: Env,
    _context: Context,
) -> Result<http::Response<axum::body::Body>> {
    let sessions = SessionManagerLayer::new(Store::new(Sessions::from_env(&env)?))
        .with_same_site(SameSite::Lax) // with a link from another site, too, it is the same visitor
        .with_expiry(Expiry::OnInactivity(Duration::days(1)));
    let mut app =
        Router::new().route("/", get(count).delete(forget)).route("/renew", post(renew)).layer(sessions);
    Ok(app.call(request).await?)
}

/// Counts the visitor's visits.
async fn count(session: Session) -> Result<String, StatusCode> {
    let visits = session.get::<u64>("visits").await.map_err(failed)?.unwrap_or(0) + 1;
    session.insert("visits", visits).await.map_err(failed)?;
    Ok(format!("Visits: {visits}\n"))
}

/// Gives the session a new id, as one does at a login: whoever knows the old one has nothing.
async fn renew(session: Session) -> Result<(), StatusCode> {
    session.cycle_id().await.map_err(failed)
}

/// Ends the session.
async fn forget(session: Session) -> Result<(), StatusCode> {
    session.flush().await.map_err(failed)
}

/// What happened is in the log; it is nothing for the visitor.
fn failed(_: session::Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}
