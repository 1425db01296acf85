//! A small shop as a Cloudflare Worker. Its sessions, logins, limits and cache are Cloakroom's.
//!
//! Every request passes through [`fetch`], which loads the visitor's session, and answers with what [`route`] makes of it.
//! `?` passes an error of Cloakroom's on, and the visitor gets it as a problem: 401, 429, 503 and so on.

mod account;
mod cart;
mod identity_provider;
mod login;
mod page;
mod products;
mod weather;

use cloakroom::{Session, Sessions};
use maud::html;
use worker::{Context, Env, Method, Request, Response, Result, event};

use crate::page::page;

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    Sessions::handle(&request, &env, &context, async |session| Ok(route(&request, &env, session).await?))
        .await
}

async fn route(request: &Request, env: &Env, session: &mut Session) -> Result<Response> {
    // Once for all routes, so that none forgets it. It lets safe methods pass, of which none changes anything that another
    // site could want: the login's callback has its own check.
    Sessions::from_env(env)?.check_origin(request)?;
    let path = request.path();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), segments.as_slice()) {
        (Method::Get, [""]) => visits(session),

        (Method::Get, ["cart"]) => cart::show(session),
        (Method::Post, ["cart"]) => cart::add(request, session).await,
        (Method::Patch, ["cart", item]) => cart::set_quantity(request, session, item).await,
        (Method::Delete, ["cart", item]) => cart::remove(session, item).await,

        (Method::Get, ["login"]) => login::begin(request, env, session),
        (Method::Get, ["callback"]) => login::finish(request, env, session).await,
        (Method::Get, ["login", provider]) => login::begin_with(request, session, provider).await,
        (Method::Get, ["login", "done", _]) => login::finish_with(request, session).await,
        (Method::Post, ["logout"]) => login::log_out(request, session).await,

        (Method::Get, ["dashboard"]) => account::dashboard(request, session),
        (Method::Get, ["admin"]) => account::admin(session),
        (Method::Get, ["sessions"]) => account::list_sessions(session).await,
        (Method::Delete, ["sessions", handle]) => account::end_session(session, handle).await,

        (Method::Get, ["search"]) => products::search(request, session).await,
        (Method::Get, ["weather"]) => weather::show(env).await,

        (Method::Get, ["idp", "authorize"]) => identity_provider::authorize(request),
        (Method::Get, ["idp", "user"]) => identity_provider::user(request),

        _ => Response::error("There is nothing here.", 404),
    }
}

/// `GET /`
fn visits(session: &mut Session) -> Result<Response> {
    let visits: u64 = session.increment("visits", 1)?;
    page(html! {
        h1 { "Visits: " (visits) }
        p { a href="/login" { "Log in" } " · " a href="/dashboard" { "Your account" } }
    })
}
