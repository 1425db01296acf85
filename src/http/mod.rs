//! HTTP as plain values: no I/O, no knowledge of sessions.

pub mod cors;
pub mod cross_site;
mod precondition;
mod problem;
mod request;
mod response;

#[cfg(test)]
pub(crate) use self::problem::Body as ProblemBody;
pub(crate) use self::request::{parse_address, target_of};
#[cfg(test)]
pub(crate) use self::response::CACHEABLE;
pub use self::{
    precondition::{Failed, Preconditions},
    problem::{Code, Problem, ProblemDetails},
    request::{Body, Headers, MAX_BODY, Method, Request, SMALL_BODY, path_of, unknown_query},
    response::Response,
};
