//! Plain values for HTTP: no I/O, no knowledge of sessions.

pub mod cors;
pub mod cross_site;
mod if_match;
mod problem;
mod request;
mod response;

pub use self::{
    if_match::IfMatch,
    problem::{Code, Problem},
    request::{Body, HEADERS, MAX_BODY, Method, Request},
    response::Response,
};
