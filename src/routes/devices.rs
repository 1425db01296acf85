//! A user's own sessions: the device list and its "end" buttons.

use super::{Param, Plan, Route};
use crate::{
    host::Host,
    http::{Code, Method, Problem, Request, Response},
    id::Handle,
    session::{Desk, Error, Session},
};

pub(super) const SESSIONS: Route = Route {
    path: "/sessions",
    methods: "GET, HEAD, DELETE",
    plan: |request, _| match request.method {
        Method::Get | Method::Head => Some(Ok(Plan::List)),
        Method::Delete => Some(keep(request).map(|keep_current| Plan::EndAll { keep_current })),
        _ => None,
    },
};

pub(super) const ONE: Route = Route {
    path: "/sessions/*",
    methods: "DELETE",
    plan: |request, param| (request.method == Method::Delete).then(|| param.handle().map(Plan::EndOne)),
};

/// `?keep=current`; anything else would be a mistake with consequences.
fn keep(request: &Request<'_>) -> Result<bool, Problem> {
    match request.query {
        "" => Ok(false),
        "keep=current" => Ok(true),
        _ => Err(Problem::new(Code::BadRequest, "the only query here is ?keep=current")),
    }
}

/// Carries such a plan out, for the user of `session`. True when the session itself is over.
pub async fn serve<H: Host>(
    plan: Plan,
    session: Session,
    desk: &Desk<'_, H>,
) -> Result<(Response, bool), Error> {
    let user = session.ticket.user.ok_or(Error::NoUser)?;
    let current = session.ticket.id.handle();
    let done = Response::new(204);
    match plan {
        Plan::EndOne(handle) if handle == current => {
            desk.end(session).await?;
            Ok((done, true))
        }
        Plan::EndOne(handle) => {
            desk.check_fresh(&session)?;
            desk.end_by_handle(&handle, Some(&user)).await?;
            Ok((done, false))
        }
        Plan::EndAll { keep_current } => {
            desk.check_fresh(&session)?;
            if keep_current {
                desk.end_others(&user, session).await?;
            } else {
                desk.end_all(&user, Some(&session.record)).await?;
            }
            Ok((done, !keep_current))
        }
        _ => Ok((Response::json(desk.list(&user, Some(&current)).await?), false)),
    }
}

impl Param<'_> {
    /// A handle. Something that has not its form names no session.
    pub(super) fn handle(&self) -> Result<Handle, Problem> {
        Handle::parse(self.0)
            .ok_or_else(|| Problem::new(Code::NotFound, "there is no session with this handle"))
    }
}
