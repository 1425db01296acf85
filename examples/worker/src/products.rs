//! What the shop sells.

use cloakroom::Session;
use serde::Deserialize;
use worker::{Request, Response, Result};

pub const PRODUCTS: [&str; 5] = ["coat", "gloves", "hat", "scarf", "umbrella"];

#[derive(Default, Deserialize)]
struct Query {
    #[serde(default)]
    q: String,
}

/// `GET /search?q=TEXT`: the products whose names contain the text. Twenty searches a minute; the answer says how many are
/// left.
pub async fn search(request: &Request, session: &mut Session) -> Result<Response> {
    let Query { q } = request.query().unwrap_or_default();
    session.limit("search", "20/1m").await?;
    let found: Vec<_> = PRODUCTS.into_iter().filter(|product| product.contains(&q)).collect();
    Response::from_json(&found)
}
