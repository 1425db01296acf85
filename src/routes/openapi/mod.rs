//! The description of the routes for programs: OpenAPI 3.1.
//!
//! A test writes it, into `src/openapi.json`, from `Routes::ALL`, from the types that the routes read and answer, and from
//! what `operations` says of each route. Another test fails if it is not current. The Worker holds it in a shorter form.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod document;
#[cfg(test)]
mod operations;
mod packing;
#[cfg(test)]
mod schemas;

use crate::{
    context::Context,
    host::Host,
    http::{Problem, Response},
};

const PACKED: &str = include_str!("../../openapi.packed");

/// `GET /auth/openapi.json`
pub(super) fn show<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let config = &cx.app.config;
    // To OpenAPI no path is a slash. Neither text holds anything that JSON would escape.
    let base_path = if config.base_path.is_empty() { "/" } else { &config.base_path };
    let body = packing::unpack(PACKED, [base_path, config.cookie.name()]);
    Ok(Response { body, ..Response::new(200) }.media_type("application/json"))
}
