//! A user's own sessions: the device list and its "end" buttons.

use super::{Done, Param, Plan, Route};
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

/// Carries such a plan out, for the user of `session`.
pub async fn serve<H: Host>(plan: Plan, session: Session, desk: &Desk<'_, H>) -> Result<Done, Error> {
    let user = session.ticket.user.ok_or(Error::NoUser)?;
    let current = session.ticket.id.handle();
    let mut response = Response::new(204);
    let session = match plan {
        Plan::EndOne(handle) if handle == current => {
            desk.end(session).await?;
            None
        }
        Plan::EndOne(handle) => {
            desk.check_fresh(&session)?;
            desk.end_by_handle(&handle, Some(&user)).await?;
            Some(session)
        }
        Plan::EndAll { keep_current: true } => {
            desk.check_fresh(&session)?;
            Some(desk.end_others(&user, session).await?)
        }
        Plan::EndAll { keep_current: false } => {
            desk.check_fresh(&session)?;
            desk.end_all(&user, Some(&session.record)).await?;
            None
        }
        _ => {
            response = Response::json(desk.list(&user, Some(&current)).await?);
            Some(session)
        }
    };
    Ok(Done { response: Some(response), session, device: None })
}

impl Param<'_> {
    /// A handle. Something that has not its form names no session.
    pub(super) fn handle(&self) -> Result<Handle, Problem> {
        Handle::parse(self.0)
            .ok_or_else(|| Problem::new(Code::NotFound, "there is no session with this handle"))
    }
}
