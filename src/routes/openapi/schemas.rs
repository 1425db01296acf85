//! The schemas, of the types that the routes read and answer.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::{account, admin, devices, health, inspect, link, provider, users};
use crate::{
    account::AccountView,
    gateway::jwt::KeySet,
    http::ProblemBody,
    id::Handle,
    session::{Body, change},
    stats,
};

/// A schema of [`components`].
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// All schemas.
pub(super) fn components() -> Map<String, Value> {
    // What is read and what is answered: only of the latter every member is there.
    let settings = |settings: SchemaSettings| {
        settings.with(|settings| settings.definitions_path = "/components/schemas".into())
    };
    let mut read = settings(SchemaSettings::draft2020_12()).into_generator();
    let mut schemas = collect(&mut read, |read| {
        add::<account::Registration>(read);
        add::<account::Credentials>(read);
        add::<account::Confirmation>(read);
        add::<account::PasswordChange>(read);
        add::<account::PasswordReset>(read);
        add::<admin::NewSession>(read);
        add::<inspect::Inspection>(read);
        add::<users::NewAccount>(read);
        add::<users::AccountChange>(read);
        add::<users::Roles>(read);
    });
    let mut answered = settings(SchemaSettings::draft2020_12().for_serialize()).into_generator();
    schemas.extend(collect(&mut answered, |answered| {
        add::<ProblemBody<'_>>(answered);
        add::<Body<'_>>(answered);
        add::<devices::List>(answered);
        add::<AccountView<'_>>(answered);
        add::<inspect::Inspected<'_>>(answered);
        add::<users::Ended>(answered);
        add::<users::ResetView>(answered);
        add::<provider::Providers<'_>>(answered);
        add::<link::Begun>(answered);
        add::<health::Health>(answered);
        add::<stats::Report>(answered);
        add::<KeySet<'_>>(answered);
    }));
    schemas.insert("MergePatch".to_owned(), json!({"description": "RFC 7396", "type": "object"}));
    let mut patch = change::json_patch_schema(&reference("Pointer"));
    patch["description"] = json!("RFC 6902 and increment");
    schemas.insert("Pointer".to_owned(), change::json_pointer_schema());
    schemas.insert("JsonPatch".to_owned(), patch);
    schemas.insert("Document".to_owned(), json!({"type": "object"}));
    split_session(&mut schemas);
    schemas
}

/// A session's handle in a path.
pub(super) fn handle() -> Value {
    inline::<Handle>()
}

/// A user's id in a path.
pub(super) fn user_id() -> Value {
    inline::<admin::NewUser>()["properties"]["id"].clone()
}

fn inline<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema.as_object_mut().expect("a schema").remove("$schema");
    schema
}

/// The one type of answers with a session is several: which members it has depends on the route.
fn split_session(schemas: &mut Map<String, Value>) {
    let (Some(_), Some(mut view)) = (schemas.remove("Body"), schemas.remove("View")) else {
        panic!("the types of a session have other names");
    };
    let stored = ["ttl_seconds", "stored_bytes"];
    let members = view["properties"].as_object_mut().expect("members");
    let extra: Map<String, Value> =
        stored.iter().map(|name| ((*name).to_owned(), members.remove(*name).expect(name))).collect();
    schemas.insert("Session".to_owned(), view);
    let session = || reference("Session");
    let body = |session: Value| json!({"type": "object", "properties": {"session": session}, "required": ["session"]});
    schemas.insert("SessionAnswer".to_owned(), body(session()));
    schemas.insert("SessionOrNull".to_owned(), body(json!({"anyOf": [session(), {"type": "null"}]})));
    let stored = json!({"$ref": "#/components/schemas/Session", "properties": extra, "required": stored});
    schemas.insert("StoredSession".to_owned(), body(stored));
    let mut created = body(session());
    created["properties"]["set_cookie"] = json!({"type": "array", "items": {"type": "string"}});
    created["required"] = json!(["session", "set_cookie"]);
    schemas.insert("CreatedSession".to_owned(), created);
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn collect(generator: &mut SchemaGenerator, add_all: impl Fn(&mut SchemaGenerator)) -> Map<String, Value> {
    add_all(generator);
    let mut schemas = generator.take_definitions(true);
    schemas.values_mut().for_each(tidy);
    schemas
}

/// Without what says nothing: names of Rust's types, and the comments for those who work on them.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members
                .get("description")
                .is_some_and(|text| text.as_str().is_some_and(|text| text.ends_with('.')))
            {
                members.remove("description");
            }
            // A number of Rust's that is not negative counts something; and an object is open unless it says that it is not.
            members.retain(|name, value| {
                !(name == "minimum" && value == 0 || name == "additionalProperties" && value == true)
            });
            if members.get("title").is_some_and(Value::is_string) {
                members.remove("title");
            }
            let is_width = |format: &Value| {
                format.as_str().is_some_and(|format| format.starts_with("uint") || format.starts_with("int"))
            };
            if members.get("type").is_some_and(|kind| kind != "string")
                && members.get("format").is_some_and(is_width)
            {
                members.remove("format");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
