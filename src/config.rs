//! The configuration: the `CLOAKROOM` table and the secrets, validated as a whole once per isolate.
//!
//! Either a [`Config`] in which nothing contradicts anything, or the complete list of what is wrong: every
//! entry names the setting, what it takes and so what to change. None holds a secret.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    account::{self, AccountSettings, BreachCheck, password::Params},
    bindings::{Defaults, misspelt},
    document,
    encryption::EncryptionKeys,
    events,
    fields::Table,
    foreign::{self, Application, Formats},
    gateway::{self, Gateway, jwt},
    http::cors::{self, AllowedOrigin, is_origin},
    limit::{By, Limits, Pattern, Quota, RouteLimit},
    provider::SLOTS,
    routes::Switches,
    session::{Lifetimes, RecordIp, Rules},
    ticket::{
        Keyring, Rejected, Ticket, Verified,
        cookie::{Cookie, LONGEST, SameSite, Settings},
    },
    time::Time,
};

/// Everything an operator can set, and that is in use.
#[derive(Debug)]
pub struct Config {
    /// What stands before the path of every route of ours; empty or like `/auth`.
    pub base_path: String,
    /// The ticket's cookie.
    pub cookie: Cookie,
    /// The keys that sign and verify tickets.
    pub keyring: Keyring,
    /// The cookie of read-your-writes, and its keys.
    pub sync: (Cookie, Keyring),
    /// What is passed on to an origin, if anything is.
    pub gateway: Option<Gateway>,
    /// The session rules.
    pub session: Rules,
    /// The rate limits.
    pub limits: Limits,
    /// How passwords are hashed.
    pub passwords: Params,
    /// What knows breached passwords, if new ones are to be checked.
    pub breach_check: Option<BreachCheck>,
    /// Whether the Worker keeps usernames and passwords itself, and who can have one.
    pub accounts: AccountSettings,
    /// The cookie by which a device is known to its accounts, and its keys.
    pub device: (Cookie, Keyring),
    /// The cookies in which logins with others are remembered that are under way, and their keys; none without providers.
    pub(crate) logins: (Vec<Cookie>, Keyring),
    /// Whether clients without a cookie jar may have their tickets in headers of their own.
    pub has_bearer: bool,
    /// Who is told of events, if anybody is.
    pub events: Option<events::Receiver>,
    /// Which pages of other origins may call with credentials.
    pub cors: cors::Policy,
    /// How long one call to the store may take.
    pub store_timeout: Duration,
    /// What opens the service API, if it is to be there.
    pub admin_token: Option<Secret>,
    /// The keys that sign who asks, the first of them; all are published.
    pub jwt_keys: Vec<jwt::Key>,
    /// What is no fault, and may not be meant: a sentence each, for the log.
    pub notices: Vec<String>,
}

impl Config {
    /// Which routes there are.
    pub(crate) fn switches(&self) -> Switches {
        Switches {
            has_admin: self.admin_token.is_some(),
            has_login: self.accounts.has_login,
            has_registration: self.accounts.is_open,
            has_keys: !self.jwt_keys.is_empty(),
            has_providers: !self.accounts.providers.is_empty(),
        }
    }

    /// Verifies the value of a cookie of ours, or of the application's.
    pub fn open_ticket(&self, value: &str, now: Time) -> Result<Verified<'_>, Rejected> {
        match self.session.formats.own() {
            None => Ticket::open(value, &self.keyring, now),
            // A secret of the application's that is not known here, perhaps.
            Some(format) => match format.open(value, now) {
                Some(ticket) => Ok(Verified { ticket, outdated: false, key: "application" }),
                None => Err(Rejected::UnknownKey),
            },
        }
    }

    /// Whether these credentials are for us alone: a ticket, or the admin token.
    pub fn is_own_bearer(&self, credentials: &str) -> bool {
        Ticket::has_form(credentials)
            || self.admin_token.as_ref().is_some_and(|token| Secret::new(credentials) == *token)
    }

    /// A `Cookie` header without our cookies; `None` if it has none of them. In another application's format the session's
    /// own is that application's, and stays.
    pub fn without_own_cookies(&self, header: &str) -> Option<String> {
        // Two `Cookie` lines arrive as one, joined by a comma.
        let is_own = |pair: &&str| {
            let mut names = pair.split(',').map(|pair| pair.split('=').next().unwrap_or_default());
            names.any(|name| self.is_own_cookie(name.trim_matches([' ', '\t'])))
        };
        let (own, others): (Vec<&str>, Vec<&str>) = header.split(';').partition(is_own);
        (!own.is_empty()).then(|| others.join(";").trim().to_owned())
    }

    /// Whether a cookie of this name is ours alone.
    pub fn is_own_cookie(&self, name: &str) -> bool {
        let is_session = name == self.cookie.name() && self.session.formats.own().is_none();
        let is_login = || self.logins.0.iter().any(|cookie| name == cookie.name());
        is_session || name == self.sync.0.name() || name == self.device.0.name() || is_login()
    }

    /// The name of the session's cookie, if an application sets it, too: in that application's format.
    pub fn foreign_cookie(&self) -> Option<&str> {
        self.session.formats.own().map(|_| self.cookie.name())
    }

    /// The `Set-Cookie` line of a ticket: for a "remember me" session persistent until its end.
    pub fn set_ticket(&self, ticket: &Ticket, now: Time) -> String {
        let lifetime = ticket.remember.then(|| ticket.ends - now);
        let value = match (self.session.formats.own(), &ticket.foreign) {
            (Some(format), Some(sid)) => format.seal(sid),
            _ => ticket.seal(&self.keyring),
        };
        self.cookie.set(&value, lifetime)
    }
}

/// A secret that others present: kept as a hash, compared in constant time, never printed.
pub struct Secret([u8; 32]);

impl Secret {
    /// From its text.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is wrong with a configuration, a sentence each.
pub type Faults = Vec<String>;

impl Config {
    /// From JSON: an object of the Worker's environment, `{"CLOAKROOM": {…}, "SESSION_SECRET": "…", …}`. Of bindings that
    /// are no settings only the names are looked at, and those of a table's fields: one may be a misspelt setting.
    pub fn from_json(json: &str) -> Result<Self, Faults> {
        let environment: Value = serde_json::from_str(json).unwrap_or_default();

        // 1. Secrets.
        let signing: Vec<_> = secret(&environment, "SESSION_SECRET").split(',').map(str::trim).collect();
        let mut faults = secret_faults(&environment, &signing);

        let jwt_keys = jwt::keys(environment.get("JWT_KEYS"), &mut faults);

        // 2. The table. As a plain variable (in .dev.vars) it is the same as JSON text.
        let text = environment.get("CLOAKROOM").and_then(Value::as_str);
        let parsed = text.map(|text| serde_json::from_str(text).unwrap_or_default());
        let mut table = Table::new("CLOAKROOM", parsed.as_ref().or(environment.get("CLOAKROOM")));
        let base_path = base_path(&mut table);
        let key_prefix = table.text("key_prefix", "");
        let (cookie, formats) = cookie(&mut table, &base_path, &environment, &signing, &mut faults);
        let encryption = encryption(&environment, &signing, &formats, &mut faults);
        let session = session(&mut table, key_prefix, formats, encryption);
        let limits = limits(&mut table);
        let (passwords, breach_check) = password(&mut table);
        let accounts = account::settings(&mut table, &environment, &mut faults);
        let has_bearer = bearer(&mut table);
        let cors = cors(&mut table);
        let gateway = gateway::settings(&mut table, &base_path, environment.get("ORIGIN").is_some());
        if gateway.as_ref().is_some_and(Gateway::signs) && environment.get("JWT_KEYS").is_none() {
            let missing = missing(&environment, "JWT_KEYS");
            faults.push(format!(
                "{missing}; gateway.identity signs with it, and docs/gateway.md says how to make one"
            ));
        }
        if let Some(gateway) = &gateway {
            let keeps_sessions = cookie.same_site != SameSite::Strict;
            faults.extend(gateway.provider_faults(&base_path, &accounts.providers, keeps_sessions));
        }
        let events_url = events::settings(&mut table);
        let (store_timeout, fails_open) = store(&mut table);
        let limits = Limits { fails_open, ..limits };
        if has_bearer && session.formats.own().is_some() {
            faults.push(
                "CLOAKROOM.bearer.enabled: only with cookie.format = \"cloakroom\": an application's ids are for its cookie"
                    .to_owned(),
            );
        }
        let events_secret = environment.get("EVENTS_SECRET").and_then(Value::as_str);
        if !events_url.is_empty() || environment.get("EVENTS_SECRET").is_some() {
            faults.extend(secret_fault(&environment, "EVENTS_SECRET", events_secret.unwrap_or_default()));
        }
        let known = table.known().to_vec();
        faults.extend(table.finish());

        // 3. A crate of the same build could change how numbers are read.
        if !document::is_sound() {
            faults.push(
                "this Worker is built with serde_json's feature arbitrary_precision, under which numbers cannot be told \
                 from objects: find the crate that turns it on with `cargo tree -e features -i serde_json`"
                    .to_owned(),
            );
        }

        // 4. What may be misspelt, although it is not needed. Running on the defaults is worth a word, but no fault.
        let token = misspelt(&environment, "ADMIN_TOKEN");
        let token = token.map(|other| format!("ADMIN_TOKEN is not bound: there is no service API; {other}"));
        let unsealed = misspelt(&environment, "SESSION_ENCRYPTION_KEY").map(|other| {
            format!("SESSION_ENCRYPTION_KEY is not bound: what is stored is not encrypted; {other}")
        });
        let defaults = Defaults::new(&environment, &known);
        let defaults = defaults.filter(|defaults| faults.is_empty() || defaults.has_hint());
        let notices = token.into_iter().chain(unsealed).chain(defaults.map(|defaults| defaults.notice()));
        let mut notices: Vec<_> = notices.collect();

        // 5. All or nothing.
        if !faults.is_empty() {
            faults.extend(notices);
            return Err(faults);
        }
        notices.extend(foreign::notices(&session.formats));
        if events_url.is_empty() && events_secret.is_some() {
            notices.push(
                "EVENTS_SECRET is bound, but no events are sent: set events.url, or remove the secret"
                    .to_owned(),
            );
        }
        if !session.encryption.is_empty() && !session.encryption.seals() {
            notices.push(
                "SESSION_ENCRYPTION_KEY begins with \"none\": what is stored from now on is not encrypted"
                    .to_owned(),
            );
        }
        let events = events_secret.filter(|_| !events_url.is_empty());
        let events = events.map(|secret| events::Receiver::new(events_url, secret));
        let keyring = Keyring::new(&signing, &cookie.name);
        let admin_token = environment.get("ADMIN_TOKEN").and_then(Value::as_str).map(Secret::new);
        let logins = login_cookies(&cookie, &signing, accounts.providers.is_empty());
        let beside = |name: &str| {
            let settings = Settings { name: format!("{}-{name}", cookie.name), ..cookie.clone() };
            let keyring = Keyring::new(&signing, &settings.name);
            (Cookie::new(settings), keyring)
        };
        let (sync, device) = (beside("sync"), beside("device"));
        Ok(Self {
            base_path,
            cookie: Cookie::new(cookie),
            keyring,
            sync,
            gateway,
            session,
            limits,
            passwords,
            breach_check,
            accounts,
            device,
            logins,
            has_bearer,
            events,
            cors,
            store_timeout,
            admin_token,
            jwt_keys,
            notices,
        })
    }
}

/// The cookies of logins under way, one for each that a browser can have. They are for this host alone, and `Lax`: the visitor
/// comes back from another site. A path of their own would keep `/login` from seeing which are in use, and `__Host-` forbids it.
fn login_cookies(session: &Settings, signing: &[&str], are_none: bool) -> (Vec<Cookie>, Keyring) {
    let name = format!("{}-login", session.name);
    let settings = |slot| Settings {
        name: format!("{name}-{slot}"),
        same_site: SameSite::Lax,
        domain: String::new(),
        partitioned: false,
        ..session.clone()
    };
    let slots = if are_none { 0 } else { SLOTS };
    ((0..slots).map(|slot| Cookie::new(settings(slot))).collect(), Keyring::new(signing, &name))
}

/// A secret's text; empty if it is not bound.
fn secret<'e>(environment: &'e Value, name: &str) -> &'e str {
    environment.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What is wrong with the secrets. `signing`: those of `SESSION_SECRET`.
fn secret_faults(environment: &Value, signing: &[&str]) -> Faults {
    let mut faults = Faults::new();
    faults.extend(signing.iter().find_map(|text| secret_fault(environment, "SESSION_SECRET", text)));
    if environment.get("ADMIN_TOKEN").is_some() {
        faults.extend(secret_fault(environment, "ADMIN_TOKEN", secret(environment, "ADMIN_TOKEN")));
    }
    faults.extend(store_url_fault(environment, secret(environment, "UPSTASH_REDIS_REST_URL")));
    let token = secret(environment, "UPSTASH_REDIS_REST_TOKEN");
    if token.is_empty() {
        faults.push(missing(environment, "UPSTASH_REDIS_REST_TOKEN"));
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        faults
            .push("UPSTASH_REDIS_REST_TOKEN holds a space or a line break: copy the token alone".to_owned());
    }
    faults
}

const HOW_TO_SET: &str = "set it with `npx wrangler secret put`, or in .dev.vars for local use";

/// What is said of a secret that is not there.
pub(crate) fn missing(environment: &Value, name: &str) -> String {
    let misspelt = misspelt(environment, name).map_or_else(String::new, |other| format!("; {other}"));
    format!("{name} is missing: {HOW_TO_SET}{misspelt}")
}

/// What is wrong with a secret. Never repeats it.
fn secret_fault(environment: &Value, name: &str, text: &str) -> Option<String> {
    const PLACEHOLDERS: [&str; 7] =
        ["change", "placeholder", "example", "replace", "your", "xxxx", "0123456789"];
    let length = text.chars().count();
    let different = text.char_indices().filter(|(index, one)| text.find(*one) == Some(*index)).count();
    let lower = text.to_ascii_lowercase();
    if length == 0 {
        Some(missing(environment, name))
    } else if length < 32 {
        Some(format!("{name} has {length} characters; at least 32 are needed: try `openssl rand -base64 32`"))
    } else if different < 10 || PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        Some(format!("{name} looks like a placeholder; make one with `openssl rand -base64 32`"))
    } else {
        None
    }
}

fn store_url_fault(environment: &Value, url: &str) -> Option<String> {
    if url.is_empty() {
        return Some(missing(environment, "UPSTASH_REDIS_REST_URL"));
    }
    let is_clear_text_over_the_net = url.starts_with("http://") && url.contains(".upstash.io");
    let is_url = is_origin(url.trim_end_matches('/'));
    (!is_url || is_clear_text_over_the_net).then(|| {
        "UPSTASH_REDIS_REST_URL is the REST URL of the database, like \"https://name.upstash.io\"".to_owned()
    })
}

/// The keys that seal what is stored.
fn encryption(
    environment: &Value,
    signing: &[&str],
    formats: &Formats,
    faults: &mut Faults,
) -> EncryptionKeys {
    const NAME: &str = "SESSION_ENCRYPTION_KEY";
    if environment.get(NAME).is_none() {
        return EncryptionKeys::default();
    }
    if formats.own().is_some() {
        faults.push(format!(
            "{NAME} does not go with cookie.format: the application could not read sessions that are encrypted. Remove the \
             one or the other"
        ));
    }
    let others = ["ADMIN_TOKEN", "EVENTS_SECRET", "UPSTASH_REDIS_REST_TOKEN"];
    let taken = others.iter().map(|name| secret(environment, name)).chain(signing.iter().copied());
    let taken: Vec<_> = taken.filter(|text| !text.is_empty()).collect();
    EncryptionKeys::parse(secret(environment, NAME), &taken).unwrap_or_else(|wrong| {
        faults.extend(wrong);
        EncryptionKeys::default()
    })
}

fn base_path(table: &mut Table<'_>) -> String {
    let path = table.text("base_path", "/auth");
    let is_rooted = path.starts_with('/') && !path.ends_with('/') && !path.contains("//");
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
    let is_right = path.is_empty() || (is_rooted && is_plain);
    if !is_right {
        table.fault("base_path", "a path like \"/auth\", without a slash at its end, or \"\" for none");
    }
    path
}

/// The cookie, whose format it has if that is another application's, and which others are accepted.
fn cookie(
    table: &mut Table<'_>,
    base_path: &str,
    environment: &Value,
    signing: &[&str],
    faults: &mut Faults,
) -> (Settings, Formats) {
    let mut inner = table.table("cookie");
    let application = foreign::application(&mut inner);
    let name = application.map_or("__Host-session", Application::cookie_name);
    let same_site = [("Strict", SameSite::Strict), ("Lax", SameSite::Lax), ("None", SameSite::None)];
    let settings = Settings {
        name: inner.text("name", name),
        same_site: inner.choice("same_site", &same_site, SameSite::Lax),
        secure: inner.flag("secure", true),
        domain: inner.text("domain", ""),
        path: inner.text("path", "/"),
        partitioned: inner.flag("partitioned", false),
    };
    inner.faults(settings.faults());
    let covers = settings.path == "/"
        || base_path
            .strip_prefix(settings.path.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !covers {
        inner.fault(
            "path",
            "does not cover base_path: browsers would not send the cookie to this Worker's routes",
        );
    }
    let format_secrets = environment.get("FORMAT_SECRETS");
    let beside = foreign::Environment { format_secrets, signing, cookie: &settings };
    let formats = foreign::settings(&mut inner, application, &beside, faults);
    table.include(inner);
    (settings, formats)
}

fn session(table: &mut Table<'_>, key_prefix: String, formats: Formats, encryption: EncryptionKeys) -> Rules {
    let mut inner = table.table("session");
    let lifetimes = Lifetimes {
        idle: inner.duration("idle", "30m"),
        absolute: inner.duration("absolute", "24h"),
        remember: inner.duration("remember", "30d"),
        touch_every: inner.duration("touch_every", "5m"),
    };
    for (name, lifetime) in [("absolute", lifetimes.absolute), ("remember", lifetimes.remember)] {
        if lifetime > LONGEST && lifetime != Duration::MAX {
            inner.fault(name, "at most \"400d\": browsers keep no cookie longer (RFC 6265bis section 5.5)");
        }
    }
    let rotate_every = inner.optional_duration("rotate_every", "1h");
    let end_on_reuse = inner.choice("on_reuse", &[("end", true), ("ignore", false)], true);
    let fresh_for = inner.duration("fresh_for", "15m");
    // A change holds the data four times while it waits for the store (old and new, in the record and as it is stored),
    // and the requests in an isolate have 128 MB together.
    let max_bytes = size(inner.number("max_bytes", 65_536, 2..=262_144));
    let max_per_user = size(inner.number("max_per_user", 100, 1..=10_000));
    let record_ip = [("full", RecordIp::Full), ("prefix", RecordIp::Prefix), ("none", RecordIp::None)];
    let record_ip = inner.choice("record_ip", &record_ip, RecordIp::Prefix);
    table.include(inner);
    Rules {
        lifetimes,
        rotate_every,
        end_on_reuse,
        fresh_for,
        max_bytes,
        max_per_user,
        record_ip,
        key_prefix,
        encryption,
        formats,
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn limits(table: &mut Table<'_>) -> Limits {
    let mut inner = table.table("limits");
    let limits = Limits {
        session: quota(&mut inner, "session", "300/1m"),
        user: quota(&mut inner, "user", ""),
        ip: quota(&mut inner, "ip", ""),
        mint: quota(&mut inner, "mint", "60/1m"),
        login: quota(&mut inner, "login", "10/5m"),
        routes: routes(&mut inner),
        fails_open: false,
    };
    table.include(inner);
    limits
}

/// The limits of single paths, the most specific first.
fn routes(table: &mut Table<'_>) -> Vec<RouteLimit> {
    const WHAT: &str = "a list of tables, [[vars.CLOAKROOM.limits.routes]]";
    let mut limits: Vec<RouteLimit> = Vec::new();
    table.tables("routes", None, WHAT, |_, route| {
        let pattern = Pattern::parse(&route.text("path", ""), &route.text("method", ""));
        let quota = quota(route, "limit", "");
        let by = [("session", By::Session), ("user", By::User), ("ip", By::Ip)];
        let by = route.choice("by", &by, By::Session);
        match (pattern, quota) {
            (Err((field, what)), _) => route.fault(field, what),
            (Ok(pattern), _) if limits.iter().any(|other| other.pattern == pattern) => {
                route.fault("path", "stands here twice, with the same method: which limit is meant?");
            }
            (Ok(pattern), Some(quota)) => {
                let before = |other: &RouteLimit| pattern.rank() < other.pattern.rank();
                let index = limits.iter().position(before).unwrap_or(limits.len());
                limits.insert(index, RouteLimit { name: pattern.name(), pattern, quota, by });
            }
            // Either a fault already, or switched off.
            (Ok(_), None) => {}
        }
    });
    limits
}

fn quota(table: &mut Table<'_>, name: &'static str, default: &str) -> Option<Quota> {
    let text = table.text(name, default);
    if text.is_empty() {
        return None;
    }
    text.parse().map_err(|fault| table.fault(name, fault)).ok()
}

fn password(table: &mut Table<'_>) -> (Params, Option<BreachCheck>) {
    let mut inner = table.table("password");
    let params = Params {
        // An isolate has 128 MB.
        memory_kib: inner.number("memory_kib", 19_456, 8..=65_536),
        iterations: inner.number("iterations", 2, 1..=100),
        parallelism: inner.number("parallelism", 1, 1..=16),
    };
    if params.memory_kib < 8 * params.parallelism {
        inner.fault("memory_kib", "at least 8 for each of parallelism (RFC 9106)");
    }
    let breach_check = match inner.text("breach_check", "").as_str() {
        "" => None,
        url => BreachCheck::parse(url).map_err(|fault| inner.fault("breach_check", fault)).ok(),
    };
    table.include(inner);
    (params, breach_check)
}

fn bearer(table: &mut Table<'_>) -> bool {
    let mut inner = table.table("bearer");
    let has_bearer = inner.flag("enabled", false);
    table.include(inner);
    has_bearer
}

fn cors(table: &mut Table<'_>) -> cors::Policy {
    let mut inner = table.table("cors");
    let mut origins = Vec::new();
    for text in inner.list("origins", &[]) {
        match AllowedOrigin::parse(&text) {
            Ok(origin) => origins.push(origin),
            Err(fault) => inner.fault("origins", fault),
        }
    }
    let headers = inner.list("headers", &[]);
    if !headers.iter().all(|name| is_field_name(name)) {
        inner.fault("headers", "names of request headers, like \"traceparent\"; \"*\" is refused");
    }
    table.include(inner);
    cors::Policy::new(origins, &headers)
}

/// RFC 9110 section 5.1. `*` would be one, too; but in the answer to a preflight browsers take it for a wildcard.
fn is_field_name(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text != "*" && text.bytes().all(is_token_byte)
}

fn store(table: &mut Table<'_>) -> (Duration, bool) {
    let mut inner = table.table("store");
    let timeout = inner.duration("timeout", "2s");
    if timeout > Duration::from_secs(30) {
        inner.fault("timeout", "at most \"30s\": a visitor is waiting");
    }
    let fails_open = inner.choice("on_failure", &[("closed", false), ("open", true)], false);
    table.include(inner);
    (timeout, fails_open)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn environment(table: Value) -> Value {
        json!({
            "SESSION_SECRET": "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e",
            "UPSTASH_REDIS_REST_URL": "https://db.upstash.io",
            "UPSTASH_REDIS_REST_TOKEN": "token",
            "CLOAKROOM": table,
        })
    }

    fn faults(table: Value) -> Faults {
        Config::from_json(&environment(table).to_string()).err().unwrap_or_default()
    }

    fn faults_with(name: &str, value: Value) -> Faults {
        let mut environment = environment(json!({}));
        environment[name] = value;
        Config::from_json(&environment.to_string()).err().unwrap_or_default()
    }

    #[test]
    fn every_setting_has_a_default() {
        let mut environment = environment(json!({}));
        environment.as_object_mut().expect("an object").remove("CLOAKROOM");
        let config = Config::from_json(&environment.to_string()).expect("a configuration");
        assert_eq!(config.base_path, "/auth");
        assert_eq!(config.session.lifetimes.idle, Duration::from_secs(1800));
        assert_eq!(config.session.max_bytes, 65_536);
        assert_eq!(config.store_timeout, Duration::from_secs(2));
        assert_eq!(config.accounts.reserved_names.len(), 8);
    }

    #[test]
    fn the_longest_lifetimes_and_windows_are_accepted() {
        let session = json!({"absolute": "400d", "remember": "9600h", "idle": "500d"});
        let limits = json!({"session": "1/1s", "ip": "4294967295/31d", "login": "5/744h"});
        assert_eq!(faults(json!({"session": session, "limits": limits})), Faults::new());
    }

    #[test]
    fn running_on_the_defaults_is_no_fault_and_is_told() {
        let mut bindings = environment(json!({}));
        let told =
            |bindings: &Value| Config::from_json(&bindings.to_string()).expect("a configuration").notices;
        assert_eq!(told(&bindings), Vec::<String>::new());
        bindings.as_object_mut().expect("an object").remove("CLOAKROOM");
        bindings["ADMIN_TOKN"] = Value::Null;
        let [token, table] = &told(&bindings)[..] else { panic!("two notices") };
        assert!(token.ends_with("did you mean ADMIN_TOKEN?") && table.starts_with("CLOAKROOM is not bound"));
    }

    #[test]
    fn a_signed_identity_needs_keys_and_says_which_name_is_misspelt() {
        let gateway =
            |identity| environment(json!({"gateway": {"origin": "https://a.example", "identity": identity}}));
        for identity in ["jwt", "both"] {
            let mut bindings = gateway(identity);
            bindings["JWT_KEY"] = Value::Null;
            let faults = Config::from_json(&bindings.to_string()).expect_err("a fault");
            let [fault] = &faults[..] else { panic!("{faults:?}") };
            assert!(
                fault.starts_with("JWT_KEYS is missing: set it with `npx wrangler secret put`"),
                "{fault}"
            );
            assert!(fault.contains("did you mean JWT_KEYS?") && fault.contains("docs/gateway.md"), "{fault}");
        }
        for identity in ["headers", "none"] {
            assert!(Config::from_json(&gateway(identity).to_string()).is_ok(), "{identity}");
        }
        assert!(
            faults(json!({"gateway": {"origin": "https://a.example", "identity": "signed"}}))[0]
                .contains("\"both\"")
        );
    }

    #[test]
    fn a_misspelt_name_is_told_together_with_all_faults() {
        let bindings = json!({
            "CLOAKROM": {}, "SESSION_SECRETS": null, "UPSTASH_REDIS_URL": null, "UPSTASH_REDIS_REST_TOKENS": null,
        });
        let faults = Config::from_json(&bindings.to_string()).expect_err("faults");
        let told = [
            ("SESSION_SECRET is missing", "\"SESSION_SECRETS\" is bound"),
            ("UPSTASH_REDIS_REST_URL is missing", "\"UPSTASH_REDIS_URL\" is bound"),
            ("UPSTASH_REDIS_REST_TOKEN is missing", "\"UPSTASH_REDIS_REST_TOKENS\" is bound"),
            ("CLOAKROOM is not bound", "\"CLOAKROM\" is bound"),
        ];
        assert_eq!(faults.len(), told.len(), "{faults:?}");
        for (fault, (start, hint)) in faults.iter().zip(told) {
            assert!(fault.starts_with(start) && fault.contains(hint), "{fault}");
        }
        let faults = Config::from_json("{}").expect_err("faults");
        assert!(!faults.concat().contains("CLOAKROOM"), "{faults:?}");
    }

    #[test]
    fn the_whole_contract_is_accepted_and_may_be_json_text() {
        let table = json!({
            "base_path": "/auth", "key_prefix": "app:",
            "cookie": {"name": "__Host-session", "format": "cloakroom", "same_site": "Lax", "secure": true, "domain": "", "path": "/", "partitioned": false},
            "session": {"idle": "30m", "absolute": "24h", "remember": "30d", "touch_every": "5m", "rotate_every": "", "on_reuse": "end", "fresh_for": "15m", "max_bytes": 65536, "max_per_user": 100, "record_ip": "prefix"},
            "limits": {"session": "300/1m", "user": "", "ip": "", "mint": "60/1m", "login": "10/5m", "routes": [{"path": "/api/search*", "method": "GET", "limit": "20/1m", "by": "session"}]},
            "password": {"memory_kib": 19456, "iterations": 2, "parallelism": 1, "breach_check": "https://pwned.example/range/"},
            "accounts": {"login": true, "register": "closed", "reserved": ["root", "Wurzel"], "forbidden_words": ["Acme"]},
            "cors": {"origins": ["https://www.example.com", "https://*.preview.example.com", "http://localhost:3000"], "headers": ["traceparent"]},
            "events": {"url": ""},
            "store": {"timeout": "2s", "on_failure": "closed"},
        });
        assert_eq!(faults(table.clone()), Faults::new());
        assert_eq!(faults(json!(table.to_string())), Faults::new());
    }

    #[test]
    fn every_wrong_setting_is_named_with_what_it_takes() {
        let cases = [
            (json!({"base_path": "auth"}), "CLOAKROOM.base_path: a path"),
            (json!({"base_path": "/auth/"}), "CLOAKROOM.base_path: a path"),
            (
                json!({"sesion": {}}),
                "CLOAKROOM.sesion is not known; known here: base_path, key_prefix, cookie, session",
            ),
            (
                json!({"session": {"idel": "1m"}}),
                "CLOAKROOM.session.idel is not known; known here: idle, absolute, remember, touch_every, rotate_every, on_reuse, \
                 fresh_for, max_bytes, max_per_user, record_ip; did you mean idle?",
            ),
            (json!({"session": "30m"}), "CLOAKROOM.session is a table"),
            (json!({"session": {"idle": 30}}), "CLOAKROOM.session.idle: a duration like"),
            (json!({"session": {"idle": "0s"}}), "CLOAKROOM.session.idle: a duration like"),
            (json!({"session": {"idle": ""}}), "CLOAKROOM.session.idle: cannot be empty"),
            (json!({"session": {"absolute": "300000d"}}), "CLOAKROOM.session.absolute: a duration like"),
            (json!({"session": {"absolute": "401d"}}), "CLOAKROOM.session.absolute: at most \"400d\""),
            (json!({"session": {"remember": "9601h"}}), "CLOAKROOM.session.remember: at most \"400d\""),
            (json!({"session": {"remember": ""}}), "CLOAKROOM.session.remember: cannot be empty"),
            (json!({"accounts": {"reserved": "root"}}), "CLOAKROOM.accounts.reserved: a list of strings"),
            (json!({"accounts": {"reserved": ["root", " "]}}), "CLOAKROOM.accounts.reserved: a name in it"),
            (
                json!({"accounts": {"logins": true}}),
                "CLOAKROOM.accounts.logins is not known; known here: login, register, reserved, forbidden_words, providers; did you mean login?",
            ),
            (
                json!({"accounts": {"forbidden_words": ["acme", " it "]}}),
                "CLOAKROOM.accounts.forbidden_words: a word in it",
            ),
            (json!({"accounts": {"forbidden_words": "acme"}}), "CLOAKROOM.accounts.forbidden_words: a list"),
            (
                json!({"password": {"breach_check": "http://pwned.example/range/"}}),
                "CLOAKROOM.password.breach_check: the URL before the digits",
            ),
            (json!({"password": {"breach_check": true}}), "CLOAKROOM.password.breach_check: a string"),
            (json!({"accounts": {"login": "no"}}), "CLOAKROOM.accounts.login: true or false"),
            (
                json!({"accounts": {"register": false}}),
                "CLOAKROOM.accounts.register: one of \"open\", \"closed\"",
            ),
            (json!({"events": {"uri": ""}}), "CLOAKROOM.events.uri is not known; known here: url"),
            (json!({"events": {"url": "https://app.example.com"}}), "EVENTS_SECRET is missing"),
            (json!({"limits": {"mint": "1/32d"}}), "CLOAKROOM.limits.mint: a limit is COUNT/WINDOW"),
            (
                json!({"session": {"on_reuse": "maybe"}}),
                "CLOAKROOM.session.on_reuse: one of \"end\", \"ignore\"",
            ),
            (json!({"session": {"max_bytes": -1}}), "CLOAKROOM.session.max_bytes: a whole number"),
            (
                json!({"session": {"max_bytes": 262_145}}),
                "CLOAKROOM.session.max_bytes: a whole number from 2 to 262144",
            ),
            (json!({"cookie": {"secure": "true"}}), "CLOAKROOM.cookie.secure: true or false"),
            (json!({"cookie": {"secure": false}}), "CLOAKROOM.cookie.name: browsers drop"),
            (
                json!({"cookie": {"format": "php"}}),
                "CLOAKROOM.cookie.format: one of \"cloakroom\", \"express\"",
            ),
            (json!({"cookie": {"record_ttl": "1h"}}), "CLOAKROOM.cookie.record_ttl: only with format"),
            (json!({"cookie": {"accept": "express"}}), "CLOAKROOM.cookie.accept: a list like"),
            (json!({"cookie": {"accept": ["php"]}}), "CLOAKROOM.cookie.accept[0].format: one of"),
            (
                json!({"cookie": {"accept": ["express", "express"]}}),
                "CLOAKROOM.cookie.accept[1].name: another",
            ),
            (
                json!({"cookie": {"accept": [{"format": "express", "until": "2027-13-01"}]}}),
                "CLOAKROOM.cookie.accept[0].until: a date",
            ),
            (
                json!({"cookie": {"format": "express", "accept": ["flask"]}}),
                "CLOAKROOM.cookie.accept: only beside",
            ),
            (json!({"cookie": {"format": "express", "signer": true}}), "CLOAKROOM.cookie.signer: only with"),
            (
                json!({"cookie": {"format": "express", "user_pointer": "userId"}}),
                "CLOAKROOM.cookie.user_pointer: a JSON",
            ),
            (
                json!({"cookie": {"format": "express", "writable": ["/~2"]}}),
                "CLOAKROOM.cookie.writable: a JSON",
            ),
            (
                json!({"cookie": {"format": "flask", "record_ttl": 0}}),
                "CLOAKROOM.cookie.record_ttl: a duration",
            ),
            (
                json!({"cookie": {"format": "flask", "record_prefix": ""}}),
                "CLOAKROOM.cookie.record_prefix: without a signer",
            ),
            (
                json!({"cookie": {"format": "flask", "serializer": "pickle"}}),
                "CLOAKROOM.cookie.serializer: one of",
            ),
            (
                json!({"cookie": {"format": "flask"}, "bearer": {"enabled": true}}),
                "CLOAKROOM.bearer.enabled: only with",
            ),
            (
                json!({"cookie": {"same_site": "lax"}}),
                "CLOAKROOM.cookie.same_site: one of \"Strict\", \"Lax\", \"None\"",
            ),
            (
                json!({"cookie": {"name": "sid", "path": "/app"}}),
                "CLOAKROOM.cookie.path: does not cover base_path",
            ),
            (json!({"limits": {"session": "300"}}), "CLOAKROOM.limits.session: a limit is COUNT/WINDOW"),
            (
                json!({"limits": {"routes": [{"path": "x", "limit": "1/1s"}]}}),
                "CLOAKROOM.limits.routes[0].path: a path",
            ),
            (json!({"limits": {"routes": {}}}), "CLOAKROOM.limits.routes: a list"),
            (json!({"password": {"iterations": 0}}), "CLOAKROOM.password.iterations: a whole number from 1"),
            (json!({"cors": {"origins": ["*"]}}), "CLOAKROOM.cors.origins: exact origins"),
            (json!({"cors": {"origins": ["https://a.example/"]}}), "CLOAKROOM.cors.origins: exact origins"),
            (
                json!({"cors": {"origins": ["https://a.example:443"]}}),
                "CLOAKROOM.cors.origins: exact origins",
            ),
            (json!({"cors": {"origins": "https://a.example"}}), "CLOAKROOM.cors.origins: a list of strings"),
            (json!({"cors": {"origins": ["https://*.com"]}}), "CLOAKROOM.cors.origins: this pattern lets"),
            (json!({"cors": {"origins": ["https://a.*.example"]}}), "CLOAKROOM.cors.origins: a pattern has"),
            (json!({"cors": {"headers": ["*"]}}), "CLOAKROOM.cors.headers: names of request headers"),
            (json!({"cors": {"headers": ["a", "b: c"]}}), "CLOAKROOM.cors.headers: names of request headers"),
            (json!({"cors": {"headers": ["a,b"]}}), "CLOAKROOM.cors.headers: names of request headers"),
            (json!({"cors": {"headers": [""]}}), "CLOAKROOM.cors.headers: names of request headers"),
            (json!({"cors": {"headers": "traceparent"}}), "CLOAKROOM.cors.headers: a list of strings"),
            (
                json!({"gateway": {"origin": "https://a.example", "rules": [{"path": "/auth", "require": "user"}]}}),
                "CLOAKROOM.gateway.rules[0].path: can never match",
            ),
            (
                json!({"gateway": {"origin": "https://a.example", "public": ["//a"]}}),
                "CLOAKROOM.gateway.public: can never",
            ),
            (json!({"gateway": {"origin": "http://a.example"}}), "CLOAKROOM.gateway.origin: an origin like"),
            (
                json!({"gateway": {"origin": "https://a.example", "rules": {"path": "/a"}}}),
                "CLOAKROOM.gateway.rules: a list of tables, [[vars.CLOAKROOM.gateway.rules]]",
            ),
            (
                gateway_to("/auth/login/acme", json!({})),
                "CLOAKROOM.gateway.rules: on_refused = \"redirect:/auth/login/acme\": there is no such provider",
            ),
            (json!({"limits": {"routes": ["/a"]}}), "CLOAKROOM.limits.routes[0] is a table (a JSON object)"),
            (
                json!({"cookie": {"accept": [{"user_pointer": "/userId"}]}}),
                "CLOAKROOM.cookie.accept[0].format: one of \"express\", \"flask\"",
            ),
            (json!({"gateway": {"origin": "binding"}}), "CLOAKROOM.gateway.origin: \"binding\" needs"),
            (json!({"gateway": {"public": ["/a"]}}), "CLOAKROOM.gateway.origin: is missing"),
            (
                json!({"cookie": {"format": "express", "record_prefix": "tower:"}}),
                "CLOAKROOM.cookie.record_prefix: the Worker's",
            ),
            (json!({"store": {"timeout": "1h"}}), "CLOAKROOM.store.timeout: at most"),
            (json!({"store": {"on_failure": "closd"}}), "CLOAKROOM.store.on_failure: one of"),
            (json!("{"), "CLOAKROOM is a table"),
            (json!([]), "CLOAKROOM is a table"),
        ];
        for (table, expected) in cases {
            let shown = table.to_string();
            let faults = faults(table);
            assert!(
                faults.len() == 1 && faults.iter().all(|fault| fault.starts_with(expected)),
                "{shown}: {faults:?}"
            );
        }
    }

    /// A gateway whose visitors are sent there to log in, and more settings.
    fn gateway_to(target: &str, mut more: Value) -> Value {
        let rule = json!({"path": "/app*", "require": "user", "on_refused": format!("redirect:{target}")});
        more["gateway"] = json!({"origin": "https://a.example", "rules": [rule]});
        more
    }

    #[test]
    fn a_rule_may_lead_straight_to_a_provider_that_visitors_come_back_from() {
        let providers = json!({"providers": [
            {"id": "acme", "issuer": "https://acme.example", "client_id": "c"},
            {"id": "hub", "type": "oauth2", "client_id": "c", "authorize_url": "https://hub.example/a",
             "token_url": "https://hub.example/t", "user_url": "https://hub.example/u", "subject": "/id"},
        ]});
        let faults = |target: &str, same_site: &str| {
            let more = json!({"accounts": providers, "cookie": {"same_site": same_site}});
            let mut environment = environment(gateway_to(target, more));
            environment["PROVIDER_ACME_SECRET"] = json!("a secret of acme");
            environment["PROVIDER_HUB_SECRET"] = json!("a secret of hub");
            Config::from_json(&environment.to_string()).err().unwrap_or_default()
        };
        for target in ["/auth/login/acme", "/auth/login/acme?fresh=1", "/auth/login/hub", "/login"] {
            assert!(faults(target, "Lax").is_empty(), "{target}: {:?}", faults(target, "Lax"));
        }
        assert!(faults("/login", "Strict").is_empty());
        for (target, same_site, what) in [
            ("/auth/login/acm", "Lax", "there is no such provider"),
            ("/auth/login/hub?fresh=1", "Lax", "fresh=1 needs OpenID Connect"),
            ("/auth/login/acme", "Strict", "needs cookie.same_site = \"Lax\""),
        ] {
            let faults = faults(target, same_site);
            assert!(faults.len() == 1 && faults.concat().contains(what), "{target}: {faults:?}");
        }
    }

    #[test]
    fn the_list_of_faults_is_complete() {
        let mut environment =
            environment(json!({"session": {"idle": "x", "y": 1}, "cookie": {"same_site": 1}}));
        environment["SESSION_SECRET"] = json!("short");
        environment["UPSTASH_REDIS_REST_URL"] = json!("");
        let faults = Config::from_json(&environment.to_string()).expect_err("faults");
        assert_eq!(faults.len(), 5, "{faults:?}");
    }

    #[test]
    fn short_missing_and_placeholder_secrets_are_refused_and_never_repeated() {
        let good = "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e";
        for secret in [
            "",
            "short-Q8m1dRk7ZtYw5sXb",
            "change-me-change-me-change-me-change-me",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            for text in [secret.to_owned(), format!("{good},{secret}")] {
                let faults = faults_with("SESSION_SECRET", json!(text));
                assert_eq!(faults.len(), 1, "{text}");
                assert!(secret.is_empty() || !faults.concat().contains(secret), "{faults:?}");
            }
            assert_eq!(faults_with("ADMIN_TOKEN", json!(secret)).len(), 1);
            assert_eq!(faults_with("EVENTS_SECRET", json!(secret)).len(), 1);
        }
        assert_eq!(faults_with("SESSION_SECRET", json!(format!("{good} , {good}x"))), Faults::new());
        assert_eq!(faults_with("SESSION_SECRET", Value::Null).len(), 1);
    }

    #[test]
    fn keys_for_what_is_stored_are_looked_at_with_everything_else_and_never_repeated() {
        const NAME: &str = "SESSION_ENCRYPTION_KEY";
        let key = "gdgcUFfg/gicr0fPJsEBCcbA0T5bH5hxAAv0ho5V2JU=";
        assert_eq!(faults_with(NAME, json!(key)), Faults::new());
        let keyed = |table| {
            let mut bindings = environment(table);
            bindings[NAME] = json!(format!("none,{key}"));
            Config::from_json(&bindings.to_string())
        };
        let notices = keyed(json!({})).expect("a configuration").notices;
        assert!(notices.len() == 1 && notices[0].contains("not encrypted"), "{notices:?}");
        // What an application writes it must be able to read; what is taken over from it becomes ours.
        let accepting = json!({"cookie": {"accept": ["express"]}});
        assert!(keyed(accepting).is_ok());
        for format in ["express", "flask"] {
            let faults = keyed(json!({"cookie": {"format": format}})).expect_err(format);
            assert!(faults.len() == 1 && faults[0].contains("does not go with cookie.format"), "{faults:?}");
        }
        for wrong in [json!(""), json!(1), json!({}), Value::Null, json!(format!("{key},short"))] {
            let faults = faults_with(NAME, wrong);
            assert!(
                faults.len() == 1 && faults[0].starts_with(NAME) && !faults[0].contains(key),
                "{faults:?}"
            );
        }
        // A secret for one thing alone.
        let mut bindings = environment(json!({}));
        (bindings["SESSION_SECRET"], bindings[NAME]) = (json!(key), json!(key));
        let faults = Config::from_json(&bindings.to_string()).expect_err("a fault");
        assert!(faults.len() == 1 && faults[0].contains("used in another secret"), "{faults:?}");
    }

    #[test]
    fn the_store_needs_a_url_and_a_token() {
        for url in ["", "db.upstash.io", "redis://db.upstash.io", "http://db.upstash.io", "https://"] {
            assert_eq!(faults_with("UPSTASH_REDIS_REST_URL", json!(url)).len(), 1, "{url}");
        }
        for url in ["https://db.upstash.io/", "http://localhost:8079", "http://[::1]:8080"] {
            assert_eq!(faults_with("UPSTASH_REDIS_REST_URL", json!(url)), Faults::new(), "{url}");
        }
        for token in ["", "two words", "line\n"] {
            assert_eq!(faults_with("UPSTASH_REDIS_REST_TOKEN", json!(token)).len(), 1, "{token:?}");
        }
    }
}
