//! A toy of an identity provider, to play with. It asks for no password, and its codes are the users' ids: put a real one in
//! its place, anywhere on the web.

use cloakroom::User;
use maud::html;
use serde::Deserialize;
use worker::{Request, Response, Result, Url};

use crate::page::page;

#[derive(Deserialize)]
struct Authorize {
    redirect_uri: String,
    state: String,
}

/// `GET /idp/authorize?redirect_uri=URL&state=STATE`: who are you?
pub fn authorize(request: &Request) -> Result<Response> {
    let Ok(Authorize { redirect_uri, state }) = request.query() else { return malformed() };
    let Ok(redirect_uri) = Url::parse(&redirect_uri) else { return malformed() };
    let back = |id: &str| {
        let mut url = redirect_uri.clone();
        url.query_pairs_mut().append_pair("code", id).append_pair("state", &state);
        url
    };
    page(html! {
        h1 { "Who are you?" }
        @for User { id, name, .. } in users() { p { a href=(back(&id)) { (name) } } }
    })
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

/// `GET /idp/user?code=CODE`: who has been sent back with this code.
pub fn user(request: &Request) -> Result<Response> {
    let Ok(Code { code }) = request.query() else { return malformed() };
    match users().into_iter().find(|user| user.id == code) {
        Some(user) => Response::from_json(&user),
        None => Response::error("No such code.", 404),
    }
}

fn malformed() -> Result<Response> {
    Response::error("The parameters are not what this needs.", 400)
}

fn users() -> [User; 2] {
    let user = |id: &str, name: &str, roles: &[&str]| User {
        id: id.to_owned(),
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    };
    [user("ada", "Ada <Lovelace>", &["admin"]), user("bob", "Bob & Sons", &[])]
}
