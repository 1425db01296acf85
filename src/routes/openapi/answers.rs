//! The answers, with their headers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas;
use crate::{
    http::{
        CACHEABLE,
        Code::{self, *},
    },
    session::change::MEDIA_TYPES,
};

/// Of every answer, beside those that are no business of a program's: CORS (Fetch standard), `X-Content-Type-Options`.
const COMMON: &[&str] = &["Cache-Control", "Vary", "RateLimit-Policy", "RateLimit"];

/// Of an answer that may bring a ticket or take it away.
const TICKET: &[&str] = &["Set-Cookie", "Session-Token"];

/// An answer of [`components`].
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/responses/{name}")})
}

/// An answer with a body.
pub(super) fn json(description: &str, schema: Value, has_ticket: bool) -> Value {
    let more = if has_ticket { TICKET } else { &[] };
    answer(description, "application/json", Some(schema), more)
}

/// An answer that is the same for everybody.
pub(super) fn public(schema: &str) -> Value {
    json!({
        "description": "",
        "headers": {
            "Cache-Control": {"required": true, "schema": {"const": CACHEABLE}},
            "Vary": {"$ref": "#/components/headers/Vary"},
        },
        "content": {"application/jwk-set+json": {"schema": schemas::reference(schema)}},
    })
}

/// The answer to a proxy.
fn identity() -> Value {
    let headers = headers(COMMON.iter().chain(&[
        "X-Session-User",
        "X-Session-Name",
        "X-Session-Roles",
        "X-Session-Handle",
        "X-Session-Authenticated-At",
    ]));
    json!({"description": "Percent-encoded", "headers": headers})
}

fn answer(description: &str, media_type: &str, schema: Option<Value>, more: &[&'static str]) -> Value {
    let mut answer = json!({"description": description, "headers": headers(COMMON.iter().chain(more))});
    if let Some(schema) = schema {
        answer["content"] = json!({media_type: {"schema": schema}});
    }
    answer
}

fn headers<'a>(names: impl Iterator<Item = &'a &'static str>) -> Map<String, Value> {
    names.map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}))).collect()
}

/// By status, what is answered with these codes.
pub(super) fn problems(codes: &[Code]) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().0).or_default().push(*code);
    }
    let answer = |(status, codes): (u16, Vec<Code>)| (status.to_string(), reference(&name(&codes)));
    by_status.into_iter().map(answer).collect()
}

/// What these codes are called together: by their status, as in `401`, `401c`, `401uc`. The names are short because they
/// are many.
fn name(codes: &[Code]) -> String {
    let status = codes.first().map_or(0, |code| code.status().0);
    let more = match codes {
        [InvalidCredentials] => "c",
        [Unauthenticated, InvalidCredentials] => "uc",
        [CrossSite, Reauthenticate] => "r",
        [Forbidden] => "f",
        [StoreUnavailable, ProviderUnavailable] => "p",
        _ => "",
    };
    format!("{status}{more}")
}

/// The answers that several operations share.
pub(super) fn components() -> Map<String, Value> {
    let of_session = [TICKET, &["ETag"]].concat();
    let session = |description: &str, schema: &str| {
        answer(description, "application/json", Some(schemas::reference(schema)), &of_session)
    };
    let mut components: Map<String, Value> = [
        ("Session", session("", "SessionAnswer")),
        ("Profile", session("", "Document")),
        ("NotModified", answer("", "", None, &of_session)),
        ("Done", answer("", "", None, TICKET)),
        ("Identity", identity()),
        ("Redirect", answer("", "", None, &["Location", "Set-Cookie", "Session-Token"])),
        ("Devices", json("", schemas::reference("List"), true)),
    ]
    .map(|(name, answer)| (name.to_owned(), answer))
    .into_iter()
    .collect();
    // There is no tag of no session.
    let mut maybe = session("", "SessionOrNull");
    maybe["headers"]["ETag"] = json!({"schema": {"type": "string"}});
    components.insert("SessionOrNull".to_owned(), maybe);

    for codes in [
        &[BadRequest][..],
        &[Unauthenticated],
        &[InvalidCredentials],
        &[Unauthenticated, InvalidCredentials],
        &[CrossSite],
        &[CrossSite, Reauthenticate],
        &[Forbidden],
        &[NotFound],
        &[Conflict],
        &[PreconditionFailed],
        &[TooLarge],
        &[UnsupportedMediaType],
        &[Unprocessable],
        &[RateLimited],
        &[Internal, Misconfigured],
        &[StoreUnavailable],
        &[StoreUnavailable, ProviderUnavailable],
    ] {
        components.insert(name(codes), problem(codes));
    }
    components
}

fn problem(codes: &[Code]) -> Value {
    let is_failure = codes.iter().all(|code| code.is_failure());
    let more: &[&str] = match codes {
        [Unauthenticated] => &["WWW-Authenticate"],
        [RateLimited | StoreUnavailable] | [StoreUnavailable, ProviderUnavailable] => &["Retry-After"],
        _ => &[],
    };
    let more = if is_failure { more.to_vec() } else { [TICKET, more].concat() };
    let schema = json!({
        "$ref": "#/components/schemas/Problem",
        "properties": {"code": {"enum": codes}},
    });
    let mut problem = answer("", "application/problem+json", Some(schema), &more);
    if codes == [UnsupportedMediaType] {
        problem["headers"]["Accept-Encoding"] = json!({"schema": {"const": "identity"}});
        problem["headers"]["Accept-Patch"] = json!({"schema": {"const": MEDIA_TYPES}});
    }
    if codes.len() > 1 && codes.contains(&Unauthenticated) {
        problem["headers"]["WWW-Authenticate"] = json!({"schema": {"const": "Bearer"}});
    }
    problem
}

/// The headers that several answers share.
pub(super) fn headers_of_components() -> Value {
    let constant = |value: &str| json!({"required": true, "schema": {"const": value}});
    let text = || json!({"schema": {"type": "string"}});
    let required = || json!({"required": true, "schema": {"type": "string"}});
    json!({
        "Cache-Control": constant("no-store, no-transform"),
        "Vary": text(),
        "RateLimit-Policy": text(),
        "RateLimit": text(),
        "Set-Cookie": text(),
        "Location": required(),
        "Session-Token": text(),
        "ETag": {"required": true, "schema": {"type": "string"}},
        "Retry-After": {"required": true, "schema": {"type": "integer"}},
        "WWW-Authenticate": constant("Bearer"),
        "X-Session-User": required(),
        "X-Session-Name": text(),
        "X-Session-Roles": text(),
        "X-Session-Handle": required(),
        "X-Session-Authenticated-At": {"schema": {"type": "string", "format": "date-time"}},
    })
}
