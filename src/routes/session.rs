//! The session itself: look, change, rotate, end.

use super::{Plan, Route};
use crate::{
    http::{Code, IfMatch, Method, Problem, Request},
    session::change::{Change, Invalid},
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
