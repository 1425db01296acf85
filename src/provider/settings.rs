//! The settings `[[vars.CLOAKROOM.accounts.providers]]`, and the secret of each.

use serde_json::Value;

use super::{Kind, MAX_PROVIDER_ID, Provider, web::is_safe_url};
use crate::{bindings, config::missing, fields::Table};

/// Parameters of the request to log in that are ours to say.
const OWN_PARAMS: [&str; 13] = [
    "client_id",
    "client_secret",
    "response_type",
    "response_mode",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
    "max_age",
];

/// Reads the list. What is wrong with secrets is added to `faults`, which never repeat one.
pub(crate) fn settings(
    table: &mut Table<'_>,
    environment: &Value,
    faults: &mut Vec<String>,
) -> Vec<Provider> {
    const WHAT: &str = "a list of tables, [[vars.CLOAKROOM.accounts.providers]]";
    let mut providers: Vec<Provider> = Vec::new();
    table.tables("providers", None, WHAT, |_, table| {
        let mut provider = read(table);
        if !is_id(&provider.id) {
            table.fault("id", "a name like \"google\": 1 to 32 lower-case letters, digits and dashes; it is part of user ids");
        } else if providers.iter().any(|other| other.id == provider.id) {
            table.fault("id", "stands here twice: it says which provider a path and a user are of");
        } else {
            let name = bindings::provider_secret(&provider.id);
            let secret = environment.get(&name).and_then(Value::as_str).unwrap_or_default().trim();
            if secret.is_empty() {
                faults.push(missing(environment, &name));
            }
            secret.clone_into(&mut provider.client_secret);
        }
        providers.push(provider);
    });
    providers
}

fn is_id(id: &str) -> bool {
    let is_right = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_PROVIDER_ID).contains(&id.len()) && id.bytes().all(is_right)
}

fn read(table: &mut Table<'_>) -> Provider {
    let id = table.text("id", "");
    let is_openid = table.choice("type", &[("oidc", true), ("oauth2", false)], true);
    let name = table.text("label", &id);
    let client_id = table.text("client_id", "");
    if client_id.is_empty() {
        table.fault("client_id", "the name that the provider has given this client");
    }
    let scopes = table.list("scopes", if is_openid { &["openid", "email", "profile"] } else { &[] });
    let is_scope = |scope: &String| {
        !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
    };
    if !scopes.iter().all(is_scope) {
        table.fault("scopes", "each a word without spaces, as in [\"openid\", \"email\"]");
    }
    if is_openid && !scopes.iter().any(|scope| scope == "openid") {
        table.fault("scopes", "\"openid\" must be among them: without it there is no ID token");
    }
    let mut params = params(table);
    let prompt = table.text("prompt", "");
    if !prompt.is_empty() {
        params.push(("prompt".to_owned(), prompt));
    }
    let kind = if is_openid { openid(table) } else { oauth2(table) };
    table.refuse(
        "client_secret",
        "is no setting, as wrangler.toml is read by many: take it out, and set PROVIDER_<ID>_SECRET with `npx wrangler secret put`",
    );
    table.refuse(
        "redirect_uri",
        "is no setting: it is https://YOUR-HOST/auth/callback/ID, with your base_path and id, to be registered at the provider",
    );
    Provider { id, name, client_id, client_secret: String::new(), scopes: scopes.join(" "), params, kind }
}

fn openid(table: &mut Table<'_>) -> Kind {
    let issuer = table.text("issuer", "");
    if !is_safe_url(&issuer) || issuer.contains('?') || issuer.contains("/.well-known/") {
        let what = "the provider's own name, like \"https://accounts.google.com\" (http:// for this machine alone), without a query \
                    and without /.well-known/openid-configuration; a provider that has none, like GitHub, needs type = \"oauth2\"";
        table.fault("issuer", what);
    }
    Kind::OpenId { issuer }
}

fn oauth2(table: &mut Table<'_>) -> Kind {
    let mut url = |name| {
        let url = table.text(name, "");
        if !is_safe_url(&url) {
            table.fault(name, "an address like \"https://github.com/login/oauth/authorize\" (http:// for this machine alone)");
        }
        url
    };
    let (authorize_url, token_url, user_url) = (url("authorize_url"), url("token_url"), url("user_url"));
    let mut pointer = |name, default| {
        let pointer = table.text(name, default);
        if !pointer.starts_with('/') {
            table.fault(name, "where it stands in the document at user_url, as a JSON Pointer like \"/id\"");
        }
        pointer
    };
    // It must be what never changes and is never used again: only the operator knows which member that is.
    let subject = pointer("subject", "");
    let name = pointer("name", "/name");
    Kind::OAuth2 { authorize_url, token_url, user_url, subject, name }
}

/// More parameters of the request to log in.
fn params(table: &mut Table<'_>) -> Vec<(String, String)> {
    let Some(value) = table.get("params") else { return Vec::new() };
    let pairs = value.as_object().into_iter().flatten();
    let pairs: Option<Vec<_>> =
        pairs.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
    match pairs.filter(|_| value.is_object()) {
        None => table.fault("params", "a table of strings, like { hd = \"example.com\" }"),
        Some(pairs) if pairs.iter().any(|(name, _)| OWN_PARAMS.contains(&&**name) || name == "prompt") => {
            table.fault(
                "params",
                "one of them is sent by this Worker itself, or has a setting of its own (prompt, scopes)",
            );
        }
        Some(pairs) => return pairs,
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn openid() -> Value {
        json!({"id": "acme-1", "issuer": "https://acme.example", "client_id": "client"})
    }

    fn oauth2() -> Value {
        json!({
            "id": "github", "type": "oauth2", "client_id": "client", "subject": "/id", "name": "/login",
            "authorize_url": "https://github.com/login/oauth/authorize",
            "token_url": "https://github.com/login/oauth/access_token",
            "user_url": "https://api.github.com/user",
        })
    }

    fn with(mut provider: Value, name: &str, value: Value) -> Value {
        provider[name] = value;
        provider
    }

    fn read(providers: &Value, environment: &Value) -> (Vec<Provider>, Vec<String>) {
        let accounts = json!({"providers": providers});
        let (mut table, mut faults) = (Table::new("CLOAKROOM.accounts", Some(&accounts)), Vec::new());
        let providers = settings(&mut table, environment, &mut faults);
        faults.extend(table.finish());
        (providers, faults)
    }

    fn secrets() -> Value {
        json!({"PROVIDER_ACME_1_SECRET": "one", "PROVIDER_GITHUB_SECRET": " two\n"})
    }

    #[test]
    fn both_kinds_are_read_with_their_secrets() {
        let acme =
            with(with(openid(), "params", json!({"hd": "acme.example"})), "prompt", json!("select_account"));
        let (providers, faults) = read(&json!([acme, oauth2()]), &secrets());
        assert_eq!(faults, Vec::<String>::new());
        let [acme, github] = &providers[..] else { panic!("{providers:?}") };
        assert_eq!((&*acme.client_secret, &*github.client_secret), ("one", "two"));
        assert_eq!((&*acme.scopes, &*github.scopes), ("openid email profile", ""));
        assert_eq!((&*acme.name, acme.params.len()), ("acme-1", 2));
        assert!(acme.can_renew() && !github.can_renew());
        assert!(
            acme.is_of("acme-1:5")
                && acme.is_of("acme-1~x")
                && !acme.is_of("acme-12:5")
                && !acme.is_of("acme-1")
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_by_its_name() {
        for (provider, field) in [
            (with(openid(), "id", json!("Acme")), "id"),
            (with(openid(), "id", json!("a_b")), "id"),
            (with(openid(), "id", json!("a".repeat(33))), "id"),
            (with(openid(), "id", json!("")), "id"),
            (with(openid(), "type", json!("saml")), "type"),
            (with(openid(), "client_id", json!("")), "client_id"),
            (with(openid(), "issuer", json!("http://acme.example")), "issuer"),
            (with(openid(), "issuer", json!("https://acme.example?a=b")), "issuer"),
            (with(openid(), "issuer", json!("acme.example")), "issuer"),
            (
                with(openid(), "issuer", json!("https://acme.example/.well-known/openid-configuration")),
                "issuer",
            ),
            (with(openid(), "client_secret", json!("x")), "client_secret: is no setting, as"),
            (with(oauth2(), "client_secret", json!("x")), "client_secret: is no setting, as"),
            (with(openid(), "redirect_uri", json!("https://a.example/x")), "redirect_uri: is no setting: it"),
            (with(openid(), "scopes", json!(["email"])), "scopes"),
            (with(openid(), "scopes", json!(["openid email"])), "scopes"),
            (with(openid(), "params", json!({"state": "x"})), "params"),
            (with(openid(), "params", json!({"prompt": "x"})), "params"),
            (with(openid(), "params", json!({"hd": 1})), "params"),
            (with(openid(), "params", json!("hd=x")), "params"),
            (with(openid(), "token_url", json!("https://acme.example/token")), "token_url is not known"),
            (with(oauth2(), "token_url", json!("http://github.com/token")), "token_url"),
            (with(oauth2(), "user_url", json!("")), "user_url"),
            (with(oauth2(), "subject", json!("id")), "subject"),
            (with(oauth2(), "name", json!("login")), "name"),
            (with(oauth2(), "issuer", json!("https://github.com")), "issuer is not known"),
        ] {
            let (_, faults) = read(&json!([provider]), &secrets());
            let beginning = format!("CLOAKROOM.accounts.providers[0].{field}");
            assert!(faults.iter().any(|fault| fault.starts_with(&beginning)), "{provider}: {faults:?}");
        }
        let (_, faults) = read(&json!([openid(), openid()]), &secrets());
        assert!(
            faults.iter().any(|fault| fault.starts_with("CLOAKROOM.accounts.providers[1].id")),
            "{faults:?}"
        );
        let (_, faults) = read(&json!([openid()]), &json!({"PROVIDER_ACME_SECRET": "one"}));
        assert!(
            faults.iter().any(|fault| fault.starts_with("PROVIDER_ACME_1_SECRET is missing")),
            "{faults:?}"
        );
        let (_, faults) = read(&json!({"acme": openid()}), &secrets());
        assert!(faults.iter().any(|fault| fault.starts_with("CLOAKROOM.accounts.providers:")), "{faults:?}");
    }
}
