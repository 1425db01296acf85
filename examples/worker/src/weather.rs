//! What takes long: asking another server.

use std::time::Duration;

use cloakroom::Sessions;
use worker::{Env, Fetch, Response, Result, Url};

/// `GET /weather`: asked once in ten minutes, whoever and wherever the visitors are.
pub async fn show(env: &Env) -> Result<Response> {
    let cache = Sessions::from_env(env)?.cache();
    let weather = cache.get_or_compute("weather", Duration::from_secs(600), || ask(env)).await?;
    Response::ok(weather)
}

async fn ask(env: &Env) -> Result<String> {
    let url: Url = env.var("WEATHER_URL")?.to_string().parse()?;
    let mut answer = Fetch::Url(url).send().await?;
    match answer.status_code() {
        200 => Ok(answer.text().await?),
        status => Err(worker::Error::RustError(format!("the weather answers {status}"))),
    }
}
