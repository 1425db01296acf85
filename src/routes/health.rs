//! The health check.

use serde::Serialize;

use crate::{
    context::Context,
    host::Host,
    http::{Problem, Response},
    session::Error,
    store::Batch,
};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Health {
    #[cfg_attr(test, schemars(extend("const" = "ok")))]
    status: &'static str,
}

/// `GET /auth/health`: asks the store.
pub(super) async fn check<H: Host>(cx: &Context<'_, H>) -> Result<Response, Problem> {
    let [pong] = cx.store.run(Batch::default().ping()).await.map_err(Error::Store)?;
    pong.text().map_err(Error::Store)?;
    Ok(Response::json(&Health { status: "ok" }))
}
