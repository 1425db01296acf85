//! The path of a request, top to bottom. Pure: what it needs of the machine it asks of the [`Host`].

use std::{cell::Cell, pin::Pin};

use crate::{
    config::Config,
    host::Host,
    http::{Code, Problem, Request, Response, cors, cross_site},
    isolate::Isolate,
    limit::{self, Meter},
    routes::{self, Done, Plan, Route, accounts, admin, devices},
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
    let mut meter = Meter::new(&isolate.limits, &config.session.key_prefix, config.limits.fails_open);
    let mut outcome = serve(request, config, host, isolate, &store, &mut cookie, &mut meter).await;
    if outcome.is_err()
        && let Err(problem) = count(&mut meter, &store, host).await
    {
        // Who is refused for another reason is counted all the same.
        outcome = Err(problem);
    }
    let response = match outcome {
        Ok(response) => response,
        Err(problem) => {
            if problem.code == Code::RateLimited {
                isolate.count("rate_limited", host.now());
            }
            problem.into()
        }
    };
    if let Some(failure) = meter.uncounted {
        host.log(&format_args!("a request passed without being counted (store.on_failure): {failure}"));
        isolate.count("passed_uncounted", host.now());
    }
    let response = meter.write_fields(response);
    let response = set_cookies(response, request, config, host.now(), cookie, store.written());
    cors::expose(response.header("Vary", "Cookie").not_for_caches(), request, &config.origins)
}

/// What happens to the visitor's cookie.
enum Cookie {
    Keep,
    Set(Ticket),
    Remove,
}

async fn serve<'a, H: Host>(
    request: &Request<'_>,
    config: &'a Config,
    host: &H,
    isolate: &Isolate,
    store: &Store<'_, H>,
    cookie: &mut Cookie,
    meter: &mut Meter<'a>,
) -> Result<Response, Problem> {
    // 1. Where to? A preflight is answered from the path alone.
    let found = Route::find(request.path, &config.base_path);
    let methods = found.as_ref().map_or("", |(route, _)| route.methods());
    if let Some(response) = cors::preflight(request, methods, &config.origins) {
        return found.map(|_| response);
    }

    // 2. Is it the visitor's own wish? What it is not counts for nothing.
    cross_site::check(request, &config.origins)?;

    // 3. Who, going by the ticket? A cookie that is no ticket is dropped, unless the store fails.
    let presented = present(request, config, host);
    if let Some(presented) = &presented {
        stats::count_ticket(isolate, presented, host.now());
    }
    if presented.is_none() && config.cookie.values(request.cookie).next().is_some() {
        *cookie = Cookie::Remove;
    }

    // 4. Within the limits, as far as is known without the store? They are counted in the next call to the store.
    if request.is_over {
        return Err(limit::over_the_edge_limit());
    }
    config.limits.apply(meter, request, presented.as_ref().map(|presented| &presented.ticket));
    meter.recall(host.now())?;

    // 5. What is asked for? All that the request alone can tell.
    let (route, param) = found?;
    request.body()?;
    if route.is_admin() {
        admin::authorise(request, config)?;
    }
    let plan = route.plan(request, param)?;
    let began = host.now();
    let deadline = began + config.store_timeout * PATIENCE;
    let races_lost = Cell::new(0);
    let desk = Desk { host, store, isolate, rules: &config.session, began, deadline, races_lost };

    let refused = |error| refuse(host, error);

    // 6. Some plans need no session: the store's health and the service API. What does not look at the session cannot be
    //    counted with that; an account is looked at as well, and a first change still has to be found fit.
    let is_counted_apart = match &plan {
        Plan::Health | Plan::Admin(_) => true,
        Plan::Enter(_) | Plan::Change(..) => false,
        _ => presented.is_none(),
    };
    if is_counted_apart {
        count(meter, store, host).await?;
    }
    match plan {
        Plan::Health => return aside(health(store)).await.map_err(Error::Store).map_err(refused),
        Plan::Admin(plan) => {
            return aside(admin::serve(plan, request, config, &desk)).await.map_err(refused);
        }
        // Whoever enters gets a new session: the one that is there is looked at with the account.
        Plan::Enter(entry) => {
            let status = if entry.is_new() { 201 } else { 200 };
            let ticket = presented.map(|presented| presented.ticket);
            let done = aside(accounts::admit(entry, ticket, request, config, &desk, meter))
                .await
                .map_err(refused)?;
            return Ok(Response { status, ..finish(done, None, config, cookie) });
        }
        _ => {}
    }

    // 7. The session, in one call to the store, which counts; none without a ticket.
    let session = match &presented {
        None => None,
        Some(Verified { ticket, .. }) => {
            let loaded = desk.load(ticket.clone(), meter).await;
            meter.check()?;
            loaded.map_err(Error::Store).map_err(refused)?
        }
    };

    // 8. An id that has had its time is replaced, whatever the plan; a ticket whose session has ended is dropped.
    let session = match (session, &presented) {
        (Some(session), Some(carried))
            if session.is_due(config.session.rotate_every, host.now()) && !matches!(plan, Plan::End) =>
        {
            match aside(desk.rotate(session, &carried.ticket.id)).await {
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

    // 9. The plan is carried out, and what it changes is written. The session may end meanwhile.
    let presented = presented.as_ref();
    let path = match (plan, session) {
        (Plan::Look, Some(session)) => return Ok(finish(session.into(), presented, config, cookie)),
        (Plan::Look, None) => return Ok(Response::json(NO_SESSION.to_owned())),
        (Plan::End, None) => return Ok(Response::new(204)),
        (plan @ (Plan::Change(..) | Plan::Rotate | Plan::End), session) => {
            aside(routes::session::serve(plan, session, presented, request, config, &desk, meter))
        }
        (_, None) => return Err(refused(Error::Ended)),
        (Plan::Errand(errand), Some(session)) => {
            aside(accounts::serve(errand, session, request, config, &desk, meter))
        }
        (plan, Some(session)) => aside(devices::serve(plan, session, &desk)),
    };
    let done = path.await;
    if presented.is_some() && matches!(done, Err(Error::Ended)) {
        *cookie = Cookie::Remove;
    }

    // 10. The answer, and the ticket if it is another one now.
    Ok(finish(done.map_err(refused)?, presented, config, cookie))
}

/// The answer, by default the session itself; and the ticket, if it is another one now.
fn finish(done: Done, presented: Option<&Verified<'_>>, config: &Config, cookie: &mut Cookie) -> Response {
    let Done { response, session, device } = done;
    *cookie = session.as_ref().map_or(Cookie::Remove, |session| renew(presented, session));
    let whole = |session: Session| {
        Response::json(session.to_json(&config.session.lifetimes, None)).header("ETag", session.etag())
    };
    let response = response.or(session.map(whole)).unwrap_or_else(|| Response::new(204));
    match device {
        Some(device) => response.header("Set-Cookie", device),
        None => response,
    }
}

/// The ticket that came with the request; no call to the store. Of several cookies with our name (another host
/// of the domain may have set one) the valid one counts, and of several valid ones the latest.
fn present<'a, H: Host>(request: &Request<'_>, config: &'a Config, host: &H) -> Option<Verified<'a>> {
    let values = config.cookie.values(request.cookie);
    values
        .filter_map(|value| Ticket::open(value, &config.keyring, host.now()).ok())
        .max_by_key(|verified| verified.ticket.issued)
}

/// The cookie is set only when the ticket in it is not the session's, or is signed with an older secret.
fn renew(presented: Option<&Verified<'_>>, session: &Session) -> Cookie {
    match presented {
        Some(presented) if !presented.outdated && presented.ticket == session.ticket => Cookie::Keep,
        _ => Cookie::Set(session.ticket.clone()),
    }
}

/// Counts what is not counted yet.
async fn count<H: Host>(meter: &mut Meter<'_>, store: &Store<'_, H>, host: &H) -> Result<(), Problem> {
    let counted = meter.count(store).await;
    meter.check()?;
    counted.map_err(Error::Store).map_err(|error| refuse(host, error))
}

async fn health<H: Host>(store: &Store<'_, H>) -> Result<Response, Failure> {
    let [pong] = store.run(Batch::default().ping()).await?;
    pong.text()?;
    Ok(Response::json(r#"{"status":"ok"}"#.to_owned()))
}

/// A rarer path: its code and its state are kept out of those of a read, which begins the sooner for it.
fn aside<'a, T>(path: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(path)
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
        Error::Limited(refusal) => refusal.into(),
        Error::Taken => Problem::new(Code::Conflict, "this username is taken; choose another"),
        Error::Credentials => Problem::new(Code::InvalidCredentials, "the username or the password is wrong"),
        Error::Stale => {
            let detail = "this needs the password again: POST it to reauthenticate, then repeat this";
            Problem::new(Code::Reauthenticate, detail)
        }
        Error::Forbidden => Problem::new(Code::Forbidden, "the user does not hold this role"),
        Error::NoAccount => Problem::new(Code::NotFound, "the user has no account here"),
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
