//! The keys with which origins verify who asks.

use crate::{
    context::Context,
    gateway::jwt::KeySet,
    host::Host,
    http::{Problem, Response},
};

/// `GET /auth/jwks.json`: the same for everybody, so that it is not counted, and caches may keep it. No call to the store.
pub(super) async fn show<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    cx.app.check_keys().await?;
    let keys = KeySet::new(&cx.app.config.jwt_keys);
    Ok(Response::json(&keys).media_type("application/jwk-set+json").cacheable())
}
