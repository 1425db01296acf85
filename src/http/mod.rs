//! HTTP as plain values: no I/O, no knowledge of sessions.

pub mod cors;
pub mod cross_site;
mod if_match;
mod problem;
mod request;
mod response;

pub(crate) use self::request::parse_address;
pub use self::{
    if_match::IfMatch,
    problem::{Code, Problem},
    request::{Body, Headers, MAX_BODY, Method, Request},
    response::Response,
};
