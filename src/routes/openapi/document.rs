//! The document as a whole, and the test that writes it.

use serde_json::{Map, Value, json};

use super::{
    super::{ANY, PAGE, Routes},
    answers, operations, packing, schemas,
};
use crate::{host::tests::Machine, http::Method};

const DESCRIPTION: &str = "HEAD is as GET, OPTIONS 204, another method 405, with Allow. With a gateway \
                           other paths are its origin's, or 502 and 504 bad_gateway";

fn document() -> Value {
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Cloakroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
        },
        "servers": [{"url": DEFAULTS[0]}],
        "security": [{}, {"cookie": []}, {"ticket": []}],
        "paths": paths(),
        "components": {
            "schemas": schemas::components(),
            "responses": answers::components(),
            "headers": answers::headers_of_components(),
            "parameters": parameters(),
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": DEFAULTS[1]},
                "ticket": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Session-Token, with Session-Transport: bearer",
                },
                "admin": {"type": "http", "scheme": "bearer", "description": "ADMIN_TOKEN"},
            },
        },
    })
}

fn parameters() -> Value {
    let text = || json!({"type": "string"});
    let parameter = |place: &str, name: &str, schema: Value| {
        let mut parameter = json!({"in": place, "name": name, "schema": schema});
        if place == "path" || name == "name" {
            parameter["required"] = true.into();
        }
        parameter
    };
    json!({
        "If-Match": parameter("header", "If-Match", text()),
        "If-None-Match": parameter("header", "If-None-Match", text()),
        "Session-Client-Address": parameter("header", "Session-Client-Address", json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})),
        "role": parameter("query", "role", json!({"type": "string", "pattern": "^[^&=]+$"})),
        "name": parameter("query", "name", json!({"type": "string", "pattern": "^[^&=]+$"})),
        "keep": parameter("query", "keep", json!({"const": "current"})),
        "provider": parameter("path", "provider", text()),
        "return_to": parameter("query", "return_to", text()),
        "remember": parameter("query", "remember", json!({"const": "1"})),
        "fresh": parameter("query", "fresh", json!({"const": "1"})),
        "state": parameter("query", "state", text()),
        "code": parameter("query", "code", text()),
        "path": parameter("path", "path", text()),
        "handle": parameter("path", "handle", schemas::handle()),
        "id": parameter("path", "id", schemas::user_id()),
    })
}

/// From the table of the routes. Fails if one has no description.
fn paths() -> Map<String, Value> {
    let mut paths = Map::new();
    // A page is for people.
    for (method, pattern, _) in Routes::<Machine>::ALL.iter().filter(|route| !PAGE.contains(&route.1)) {
        let operation = operations::of(*method, pattern);
        let Some(operation) = operation else {
            panic!("{} {pattern} has no description in src/routes/openapi/operations.rs", method.name())
        };
        // OpenAPI has no word for any method.
        let method = if *method == ANY { Method::Get } else { *method };
        let path = paths.entry(path(pattern)).or_insert_with(|| json!({}));
        path[method.name().to_lowercase()] = operation.to_json(method);
    }
    paths
}

/// A pattern as OpenAPI writes it.
fn path(pattern: &str) -> String {
    let name = if pattern.ends_with("**") {
        "{path}"
    } else if pattern.ends_with("/sessions/*") {
        "{handle}"
    } else if ["/login/*", "/callback/*", "/link/*"].contains(&pattern) {
        "{provider}"
    } else {
        "{id}"
    };
    pattern.replace("**", "*").replace('*', name)
}

/// `OPENAPI=write cargo test --lib openapi` writes it.
#[test]
fn the_document_is_current() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let document = document().to_string();
    if std::env::var_os("OPENAPI").is_some_and(|wish| wish == "write") {
        let write = |name: &str, text: &str| std::fs::write(format!("{folder}/{name}"), text).expect(name);
        write("openapi.json", &document);
        write("openapi.packed", &packing::pack(&document, DEFAULTS));
        return;
    }
    let written = std::fs::read_to_string(format!("{folder}/openapi.json"));
    assert!(
        written.is_ok_and(|written| written == document)
            && packing::unpack(super::PACKED, DEFAULTS) == document,
        "src/openapi.json is not current: write it with OPENAPI=write cargo test --lib openapi"
    );
}

/// What the configuration says in the document, if it says nothing.
const DEFAULTS: [&str; 2] = ["/auth", "__Host-session"];

#[test]
fn the_document_says_what_the_configuration_does() {
    let document = packing::unpack(super::PACKED, ["/a/b", "__Secure-id"]);
    let document: Value = serde_json::from_str(&document).expect("a document");
    assert_eq!(document["servers"], json!([{"url": "/a/b"}]));
    assert_eq!(document["components"]["securitySchemes"]["cookie"]["name"], "__Secure-id");
}
