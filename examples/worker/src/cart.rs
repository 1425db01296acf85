//! The cart: how many of which product. It is the member `cart` of the session's data.

use std::collections::BTreeMap;

use cloakroom::Session;
use serde::Deserialize;
use worker::{Request, Response, Result};

use crate::products::PRODUCTS;

/// How many of a product one may buy.
const MAX_QUANTITY: u32 = 20;

type Cart = BTreeMap<String, u32>;

#[derive(Deserialize)]
struct Line {
    item: String,
    quantity: u32,
}

#[derive(Deserialize)]
struct Quantity {
    quantity: u32,
}

/// `GET /cart`: `{"coat": 1}`
pub fn show(session: &Session) -> Result<Response> {
    let cart: Cart = session.get("cart")?.unwrap_or_default();
    Response::from_json(&cart)
}

/// `POST /cart` with `{"item": "coat", "quantity": 1}`: so many more.
pub async fn add(request: &Request, session: &mut Session) -> Result<Response> {
    let Ok(Line { item, quantity }) = json(request).await else { return malformed() };
    change(session, &item, |before| before.saturating_add(quantity)).await
}

/// `PATCH /cart/ITEM` with `{"quantity": 2}`: so many and no more.
pub async fn set_quantity(request: &Request, session: &mut Session, item: &str) -> Result<Response> {
    let Ok(Quantity { quantity }) = json(request).await else { return malformed() };
    change(session, item, |_| quantity).await
}

/// `DELETE /cart/ITEM`
pub async fn remove(session: &mut Session, item: &str) -> Result<Response> {
    change(session, item, |_| 0).await
}

/// Changes how many of a product there are. If another tab was faster, `quantity` is computed again, from what that tab has
/// left: this is what `Session::update_key` is for.
async fn change(session: &mut Session, item: &str, quantity: impl Fn(u32) -> u32) -> Result<Response> {
    if !PRODUCTS.contains(&item) {
        return Response::error("We do not sell that.", 404);
    }
    let changed = session.update_key("cart", |cart: &mut Cart| {
        let quantity = quantity(cart.get(item).copied().unwrap_or(0));
        match quantity {
            0 => drop(cart.remove(item)),
            1..=MAX_QUANTITY => drop(cart.insert(item.to_owned(), quantity)),
            _ => return false,
        }
        true
    });
    if changed.await? { show(session) } else { Response::error("We do not have that many.", 422) }
}

/// A request's body. `clone_mut` takes it over: the session's loader still borrows the request itself.
async fn json<T: for<'de> Deserialize<'de>>(request: &Request) -> Result<T> {
    request.clone_mut()?.json().await
}

fn malformed() -> Result<Response> {
    Response::error("The body is not what this needs.", 400)
}
