//! The path of a request, top to bottom. Pure: what it needs of the machine it asks of the [`Host`].

use crate::{
    config::Config,
    host::Host,
    http::{Code, Problem, Request, Response, cors, cross_site},
    isolate::Isolate,
    routes::{Plan, Route, admin, devices},
    session::{Desk, Error, NO_SESSION, Session, change::Unfit},
    stats,
    store::{Batch, Failure, Store},
    ticket::{Ticket, Verified, sync},
    time::Time,
};

/// How many times `store.timeout` a change is tried again while others change the same session.
const PATIENCE: u32 = 5;

/// Answers a request.
pub async fn answer<H: Host>(
    request: &Request<'_>,
    config: &Config,
    host: &H,
    isolate: &Isolate,
) -> Response {
    let sync_token = sync_token(request, config, host);
    let store = Store::new(host, config.store_timeout, sync_token.unwrap_or_default());
    let mut cookie = Cookie::Keep;
    let response = match serve(request, config, host, isolate, &store, &mut cookie).await {
        Ok(response) => response,
        Err(problem) => problem.into(),
    };
    let response = set_cookies(response, request, config, host.now(), cookie, store.written());
    cors::expose(response.header("Vary", "Cookie").not_for_caches(), request, &config.origins)
}

/// What happens to the visitor's cookie.
enum Cookie {
    Keep,
    Set(Ticket),
    Remove,
}

async fn serve<H: Host>(
    request: &Request<'_>,
    config: &Config,
    host: &H,
    isolate: &Isolate,
    store: &Store<'_, H>,
    cookie: &mut Cookie,
) -> Result<Response, Problem> {
    // 1. Where to? A preflight is answered from the path alone.
    let (route, param) = Route::find(request.path, &config.base_path)?;
    if let Some(response) = cors::preflight(request, route.methods(), &config.origins) {
        return Ok(response);
    }

    // 2. Is it the visitor's own wish?
    cross_site::check(request, &config.origins)?;

    // 3. Who, going by the ticket? A cookie that is no ticket is dropped, unless the store fails.
    let presented = present(request, config, host);
    if let Some(presented) = &presented {
        stats::count_ticket(isolate, &presented.key, host.now());
    }
    if presented.is_none() && config.cookie.values(request.cookie).next().is_some() {
        *cookie = Cookie::Remove;
    }

    // 4. What is asked for? All that the request alone can tell.
    request.body()?;
    if route.is_admin() {
        admin::authorise(request, config)?;
    }
    let plan = route.plan(request, param)?;
    let began = host.now();
    let deadline = began + config.store_timeout * PATIENCE;
    let desk = Desk { host, store, isolate, rules: &config.session, began, deadline };

    let refused = |error| refuse(host, error);

    // 5. Some plans need no session in hand: the store's health, the service API, and leaving, which looks for itself.
    match plan {
        Plan::Health => return health(store).await.map_err(Error::Store).map_err(refused),
        Plan::Admin(plan) => return admin::serve(plan, request, config, &desk).await.map_err(refused),
        Plan::End => {
            if let Some(Verified { ticket, .. }) = presented {
                desk.end(ticket).await.map_err(refused)?;
                *cookie = Cookie::Remove;
            }
            return Ok(Response::new(204));
        }
        _ => {}
    }

    // 6. The session, in one call to the store; none without a ticket.
    let session = match &presented {
        None => None,
        Some(Verified { ticket, .. }) => {
            desk.load(ticket.clone()).await.map_err(Error::Store).map_err(refused)?
        }
    };

    // 7. An id that has had its time is replaced, whatever the plan; a ticket whose session has ended is dropped.
    let session = match (session, &presented) {
        (Some(session), Some(carried)) if session.is_due(config.session.rotate_every, host.now()) => {
            match desk.rotate(session, &carried.ticket.id).await {
                Err(Error::Ended) => None,
                rotated => Some(rotated.map_err(refused)?),
            }
        }
        (session, _) => session,
    };
    if let Some(presented) = &presented {
        *cookie = match &session {
            Some(session) => renew(Some(presented), session),
            None => Cookie::Remove,
        };
    }

    // 8. The plan is carried out, and what it changes is written. The session may end meanwhile.
    let outcome = match (plan, session, &presented) {
        (Plan::Change(change, if_match), Some(session), _) => {
            desk.change(session, &change, &if_match).await.map(Some)
        }
        (Plan::Change(change, if_match), None, _) => desk.create(&change, &if_match).await.map(Some),
        (Plan::Rotate, Some(session), Some(carried)) => {
            desk.rotate(session, &carried.ticket.id).await.map(Some)
        }
        (Plan::Look, session, _) => Ok(session),
        (Plan::Rotate, ..) => Err(Error::Ended),
        (plan, Some(session), _) => {
            let served = devices::serve(plan, session, &desk).await;
            if matches!(served, Ok((_, true)) | Err(Error::Ended)) {
                *cookie = Cookie::Remove;
            }
            return served.map(|(response, _)| response).map_err(refused);
        }
        (_, None, _) => Err(Error::Ended),
    };
    if presented.is_some() && matches!(outcome, Err(Error::Ended)) {
        *cookie = Cookie::Remove;
    }

    // 9. The answer, and the ticket if it is another one now.
    let Some(session) = outcome.map_err(refused)? else { return Ok(Response::json(NO_SESSION.to_owned())) };
    let response =
        Response::json(session.to_json(&config.session.lifetimes, None)).header("ETag", session.etag());
    *cookie = renew(presented.as_ref(), &session);
    Ok(response)
}

/// The ticket that came with the request; no call to the store. Of several cookies with our name (another host
/// of the domain may have set one) the valid one counts, and of several valid ones the latest.
fn present<H: Host>(request: &Request<'_>, config: &Config, host: &H) -> Option<Verified> {
    let values = config.cookie.values(request.cookie);
    values
        .filter_map(|value| Ticket::open(value, &config.keyring, host.now()).ok())
        .max_by_key(|verified| verified.ticket.issued)
}

/// The cookie is set only when the ticket in it is not the session's, or is signed with an older secret.
fn renew(presented: Option<&Verified>, session: &Session) -> Cookie {
    match presented {
        Some(presented) if !presented.outdated && presented.ticket == session.ticket => Cookie::Keep,
        _ => Cookie::Set(session.ticket.clone()),
    }
}

async fn health<H: Host>(store: &Store<'_, H>) -> Result<Response, Failure> {
    let [pong] = store.run(Batch::default().ping()).await?;
    pong.text()?;
    Ok(Response::json(r#"{"status":"ok"}"#.to_owned()))
}

/// Says why the plan was not carried out.
fn refuse(host: &impl Host, error: Error) -> Problem {
    match error {
        // Nothing is known, so nobody is logged out and no cookie is touched (see `set_cookies`).
        Error::Store(failure) => {
            host.log(&format_args!("the store failed: {failure}"));
            Problem::new(Code::StoreUnavailable, "the session store did not answer as it should; try again")
                .with_header("Retry-After", "1")
        }
        Error::Ended => Problem::new(Code::Unauthenticated, "there is no session, or it has ended"),
        Error::NoUser => Problem::new(Code::Unauthenticated, "nobody is logged in to this session"),
        Error::NotFound => Problem::new(Code::NotFound, "there is no session with this handle"),
        Error::Conflict => {
            let detail = "others kept changing the same until the deadline, or ended it meanwhile; try again";
            Problem::new(Code::Conflict, detail)
        }
        Error::Precondition => Problem::new(
            Code::PreconditionFailed,
            "the session is not in the state that If-Match names; look again",
        ),
        Error::Unfit(Unfit::Unprocessable(detail)) => Problem::new(Code::Unprocessable, detail),
        Error::Unfit(Unfit::TooLarge(detail)) => Problem::new(Code::TooLarge, detail),
    }
}

/// Sets or removes the ticket's cookie and, after a write, its companion. Never with a failure: then nothing is
/// known, and nobody is to be logged out.
fn set_cookies(
    mut response: Response,
    request: &Request<'_>,
    config: &Config,
    now: Time,
    cookie: Cookie,
    written: Option<String>,
) -> Response {
    let (sync_cookie, sync_keyring) = &config.sync;
    if response.status >= 500 {
        return response;
    }
    let is_leaving = matches!(cookie, Cookie::Remove);
    match cookie {
        Cookie::Keep => {}
        Cookie::Set(ticket) => {
            response = response.header("Set-Cookie", config.set_ticket(&ticket, now));
        }
        Cookie::Remove => response = response.header("Set-Cookie", config.cookie.remove()),
    }
    let token = written.and_then(|token| sync::seal(&token, sync_keyring, now));
    match token {
        Some(token) if !is_leaving => {
            response.header("Set-Cookie", sync_cookie.set(&token, Some(sync::LIFETIME)))
        }
        _ if is_leaving && sync_cookie.values(request.cookie).next().is_some() => {
            response.header("Set-Cookie", sync_cookie.remove())
        }
        _ => response,
    }
}

/// The store's token that came along from the visitor's last write.
fn sync_token(request: &Request<'_>, config: &Config, host: &impl Host) -> Option<String> {
    let (cookie, keyring) = &config.sync;
    cookie.values(request.cookie).find_map(|value| sync::open(value, keyring, host.now()))
}
