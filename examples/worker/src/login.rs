//! Logging in at an identity provider: off to it, and back with a code that says who it was (OAuth 2.0, RFC 6749).

use cloakroom::{Session, User};
use serde::{Deserialize, Serialize};
use worker::{Env, Fetch, Request, Response, Result, Url};

/// The member of an anonymous session's data that waits for the visitor's return.
const PENDING: &str = "pending_login";

/// A login under way.
#[derive(Serialize, Deserialize)]
struct Pending {
    /// Known to this visitor's session and to the provider, and to nobody else.
    state: String,
    remember: bool,
}

#[derive(Default, Deserialize)]
struct Begin {
    #[serde(default)]
    remember: bool,
}

/// `GET /login?remember=true`
///
/// It does not ask for `response_mode=form_post`: that would be another site's POST, with which the browser sends no
/// `SameSite=Lax` cookie. With the usual redirect it does.
pub fn begin(request: &Request, env: &Env, session: &mut Session) -> Result<Response> {
    let Begin { remember } = request.query().unwrap_or_default();
    let state = random_text()?;
    let mut provider = provider(env, "authorize")?;
    provider
        .query_pairs_mut()
        .append_pair("redirect_uri", request.url()?.join("/callback")?.as_str())
        .append_pair("state", &state);
    session.insert(PENDING, Pending { state, remember })?;
    Response::redirect(provider)
}

#[derive(Deserialize)]
struct Callback {
    code: String,
    state: String,
}

/// `GET /callback?code=CODE&state=STATE`
pub async fn finish(request: &Request, env: &Env, session: &mut Session) -> Result<Response> {
    let Ok(Callback { code, state }) = request.query() else { return refused() };
    // 1. Did this visitor ask for it? Otherwise somebody else could log them in to an account of their own, and read there
    //    what they do.
    let pending: Option<Pending> = session.get(PENDING)?;
    let Some(Pending { remember, .. }) = pending.filter(|pending| pending.state == state) else {
        return refused();
    };
    // 2. Who is it? A real provider also wants the shop's own password, and PKCE.
    let mut user_url = provider(env, "user")?;
    user_url.query_pairs_mut().append_pair("code", &code);
    let mut answer = Fetch::Url(user_url).send().await?;
    if answer.status_code() != 200 {
        return refused();
    }
    let user: User = answer.json().await?;
    // 3. A new session, which holds what the anonymous one has held: the cart and the visits. Not the state, which is good
    //    once.
    session.remove::<Pending>(PENDING)?;
    session.log_in(user, remember).await?;
    Response::redirect(request.url()?.join("/dashboard")?)
}

/// `GET /login/PROVIDER`: off to Google, GitHub or whichever provider the settings have. What is done by hand above (and PKCE, ID
/// tokens, their keys) is Cloakroom's there.
pub async fn begin_with(request: &Request, session: &mut Session, provider: &str) -> Result<Response> {
    let callback = format!("/login/done/{provider}");
    let location = session.log_in_with(provider).callback(&callback).return_to("/dashboard").await?;
    Response::redirect_with_status(request.url()?.join(&location)?, 303)
}

/// `GET /login/done/PROVIDER`: back to the dashboard, logged in or with `login_error`.
pub async fn finish_with(request: &Request, session: &mut Session) -> Result<Response> {
    let login = session.finish_login(async |user| Ok(user)).await?;
    Response::redirect_with_status(request.url()?.join(&login.location())?, 303)
}

/// `POST /logout`
pub async fn log_out(request: &Request, session: &mut Session) -> Result<Response> {
    session.log_out().await?;
    Response::redirect_with_status(request.url()?.join("/")?, 303)
}

fn refused() -> Result<Response> {
    Response::error("This login was not begun here, or is over. Please log in again.", 403)
}

fn provider(env: &Env, route: &str) -> Result<Url> {
    let base = env.var("IDENTITY_PROVIDER")?.to_string();
    Ok(Url::parse(&format!("{base}/{route}"))?)
}

/// 128 random bits.
fn random_text() -> Result<String> {
    let random = || getrandom::u64().map_err(|error| worker::Error::RustError(error.to_string()));
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}
