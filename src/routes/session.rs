//! The session itself: look, change, rotate, end.

use super::{Done, Plan, Route};
use crate::{
    config::Config,
    host::Host,
    http::{Code, IfMatch, Method, Problem, Request},
    limit::{Meter, Subject},
    session::{
        Desk, Error, Session,
        change::{Change, Invalid},
    },
    ticket::Verified,
};

pub(super) const SESSION: Route = Route {
    path: "/session",
    methods: "GET, HEAD, DELETE",
    plan: |request, _| match request.method {
        Method::Get | Method::Head => Some(Ok(Plan::Look)),
        Method::Delete => Some(Ok(Plan::End)),
        _ => None,
    },
};

pub(super) const DATA: Route = Route {
    path: "/session/data",
    methods: "PATCH",
    plan: |request, _| {
        (request.method == Method::Patch)
            .then(|| change(request).map(|(change, if_match)| Plan::Change(change, if_match)))
    },
};

pub(super) const ROTATE: Route = Route {
    path: "/session/rotate",
    methods: "POST",
    plan: |request, _| (request.method == Method::Post).then_some(Ok(Plan::Rotate)),
};

/// A change and its condition.
pub(super) fn change(request: &Request<'_>) -> Result<(Change, IfMatch), Problem> {
    const ACCEPTED: &str = "application/json, application/merge-patch+json, application/json-patch+json";
    let change = Change::parse(request.content_type, request.body()?).map_err(|invalid| match invalid {
        Invalid::Malformed(detail) => Problem::new(Code::BadRequest, detail),
        Invalid::TooLarge(detail) => Problem::new(Code::TooLarge, detail),
        Invalid::MediaType => {
            Problem::new(Code::UnsupportedMediaType, format!("a change is one of {ACCEPTED}"))
                .with_header("Accept-Patch", ACCEPTED)
        }
    })?;
    Ok((change, IfMatch::parse(request.if_match)))
}

/// Changes the session, gives it a new id or ends it. Without one, a change begins one.
pub async fn serve<H: Host>(
    plan: Plan,
    session: Option<Session>,
    presented: Option<&Verified<'_>>,
    request: &Request<'_>,
    config: &Config,
    desk: &Desk<'_, H>,
    meter: &mut Meter<'_>,
) -> Result<Done, Error> {
    match (plan, session, presented) {
        (Plan::Change(change, if_match), Some(session), _) => {
            Ok(desk.change(session, &change, &if_match).await?.into())
        }
        (Plan::Change(change, if_match), None, _) => {
            let data = desk.draft(&change, &if_match)?;
            meter.add("mint", config.limits.mint, Subject::address(request.address));
            meter.recall(desk.host.now())?;
            desk.count(meter).await?;
            Ok(desk.create(data).await?.into())
        }
        (Plan::Rotate, Some(session), Some(carried)) => {
            Ok(desk.rotate(session, &carried.ticket.id).await?.into())
        }
        (Plan::End, Some(session), _) => {
            desk.end(session).await?;
            desk.isolate.count("logouts", desk.host.now());
            Ok(Done::default())
        }
        _ => Err(Error::Ended),
    }
}
