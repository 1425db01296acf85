//! The jobs of the comparison, in handlers of one's own.

use cloakroom::{Session, Sessions};
use serde_json::{Value, value::RawValue};
use worker::{Context, Env, Method, Request, Response, Result, event};

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    Sessions::handle(&request, &env, &context, async |session| Ok(answer(&request, session).await?)).await
}

async fn answer(request: &Request, session: &mut Session) -> Result<Response> {
    match (request.method(), request.path().as_str()) {
        (Method::Get, "/session") => {}
        (Method::Post, "/session") => {
            let body = request.clone_mut()?.text().await?;
            session.patch(serde_json::from_str::<Value>(&body)?)?;
        }
        (Method::Post, "/session/increment") => {
            session.increment::<u64>("views", 1)?;
        }
        _ => return Response::error("not found", 404),
    }
    let data: Box<RawValue> = session.data()?;
    let mut response = Response::ok(format!(r#"{{"session":{}}}"#, data.get()))?;
    response.headers_mut().set("Content-Type", "application/json")?;
    Ok(response)
}
