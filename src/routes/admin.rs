//! The service API, for back ends and operators: opened by `ADMIN_TOKEN`, and not there without one.

use serde_json::{Value, value::RawValue};

use super::{Plan, Route};
use crate::{
    account::Registry,
    config::{Config, Secret},
    fields::Table,
    host::Host,
    http::{Code, Method, Problem, Request, Response},
    id::Handle,
    session::{Desk, Device, Error, User, change::Unfit},
    stats,
};

/// What the service API is asked for.
#[derive(Debug)]
pub enum Admin {
    /// A session for a user authenticated elsewhere.
    Admit {
        /// Who.
        user: User,
        /// What it begins with: a JSON object.
        data: Box<RawValue>,
        /// Whether it is a "remember me" session.
        remember: bool,
    },
    /// The sessions of the user with this id.
    List(String),
    /// The end of them.
    EndAll(String),
    /// A session, looked at.
    Look(Handle),
    /// Its end.
    End(Handle),
    /// Other roles for the user with this id.
    SetRoles(String, Vec<String>),
    /// The counters per day.
    Stats,
}

/// The longest user id, name and role, and how many roles a user has.
const MAX_NAME: usize = 256;
const MAX_ROLES: usize = 100;

pub(super) const SESSIONS: Route = Route {
    path: "/admin/sessions",
    methods: "POST",
    plan: |request, _| (request.method == Method::Post).then(|| admit(request).map(Plan::Admin)),
};

pub(super) const SESSION: Route = Route {
    path: "/admin/sessions/*",
    methods: "GET, HEAD, DELETE",
    plan: |request, param| match request.method {
        Method::Get | Method::Head => Some(param.handle().map(|handle| Plan::Admin(Admin::Look(handle)))),
        Method::Delete => Some(param.handle().map(|handle| Plan::Admin(Admin::End(handle)))),
        _ => None,
    },
};

pub(super) const USER_SESSIONS: Route = Route {
    path: "/admin/users/*/sessions",
    methods: "GET, HEAD, DELETE",
    plan: |request, param| match request.method {
        Method::Get | Method::Head => Some(param.text().map(|id| Plan::Admin(Admin::List(id)))),
        Method::Delete => Some(param.text().map(|id| Plan::Admin(Admin::EndAll(id)))),
        _ => None,
    },
};

pub(super) const USER_ROLES: Route = Route {
    path: "/admin/users/*/roles",
    methods: "PUT",
    plan: |request, param| {
        let plan = || Ok(Plan::Admin(Admin::SetRoles(param.text()?, roles(request)?)));
        (request.method == Method::Put).then(plan)
    },
};

pub(super) const STATS: Route = Route {
    path: "/admin/stats",
    methods: "GET, HEAD",
    plan: |request, _| {
        matches!(request.method, Method::Get | Method::Head).then_some(Ok(Plan::Admin(Admin::Stats)))
    },
};

/// Lets only the holder of the token in. Without one configured there is nothing here.
pub fn authorise(request: &Request<'_>, config: &Config) -> Result<(), Problem> {
    let Some(token) = &config.admin_token else {
        return Err(Problem::new(Code::NotFound, "there is nothing at this path"));
    };
    let given =
        request.authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match given {
        Some((_, given)) if *token == Secret::new(given.trim()) => Ok(()),
        _ => {
            let detail = "this needs Authorization: Bearer with the ADMIN_TOKEN";
            Err(Problem::new(Code::Unauthenticated, detail).with_header("WWW-Authenticate", "Bearer"))
        }
    }
}

/// Carries such a plan out.
pub async fn serve<H: Host>(
    plan: Admin,
    request: &Request<'_>,
    config: &Config,
    desk: &Desk<'_, H>,
) -> Result<Response, Error> {
    match plan {
        Admin::Admit { user, data, remember } => {
            let max_bytes = config.session.max_bytes;
            if data.get().len() > max_bytes {
                return Err(Error::Unfit(Unfit::TooLarge(format!(
                    "data has at most {max_bytes} bytes of JSON"
                ))));
            }
            let device = Device::new(request.user_agent, request.address, config.session.record_ip);
            let session = desk.admit(user, data, remember, device).await?;
            let set_cookie = config.set_ticket(&session.ticket, desk.host.now());
            let json = session.to_json(&config.session.lifetimes, Some(&set_cookie));
            Ok(Response { status: 201, ..Response::json(json) })
        }
        Admin::List(id) => Ok(Response::json(desk.list(&User::tag_of(&id), None).await?)),
        Admin::EndAll(id) => {
            desk.end_all(&User::tag_of(&id), None).await?;
            Ok(Response::new(204))
        }
        Admin::SetRoles(id, roles) => {
            Registry { desk, params: config.passwords }.set_roles(&id, &roles).await?;
            Ok(Response::new(204))
        }
        Admin::Look(handle) => Ok(Response::json(desk.find(&handle).await?.to_json(desk.host.now()))),
        Admin::Stats => {
            let key_prefix = &config.session.key_prefix;
            Ok(Response::json(stats::report(desk.host, desk.store, &config.keyring, key_prefix).await?))
        }
        Admin::End(handle) => {
            desk.end_by_handle(&handle, None).await?;
            Ok(Response::new(204))
        }
    }
}

/// `{roles}`
fn roles(request: &Request<'_>) -> Result<Vec<String>, Problem> {
    let body = request.json()?;
    let mut table = Table::new("the body", Some(&body));
    let roles = table.list("roles");
    if roles.len() > MAX_ROLES || roles.iter().any(|role| role.len() > MAX_NAME) {
        table.fault("roles", "a user has at most 100 roles, of at most 256 bytes each");
    }
    if body.get("roles").is_none() {
        table.fault("roles", "is missing: a list of strings");
    }
    table.done()?;
    Ok(roles)
}

/// `{user: {id, name?, roles?}, data?, remember?}`
fn admit(request: &Request<'_>) -> Result<Admin, Problem> {
    let body = request.json()?;
    let mut table = Table::new("the body", Some(&body));
    let mut inner = table.table("user");
    let id = inner.text("id", "");
    if id.is_empty() {
        inner.fault("id", "a string that names the user, and is not empty");
    }
    let name = inner.text("name", &id);
    let roles = inner.list("roles");
    let is_long = |text: &String| text.len() > MAX_NAME;
    if is_long(&id) || is_long(&name) || roles.len() > MAX_ROLES || roles.iter().any(is_long) {
        inner
            .fault("roles", "ids, names and roles have at most 256 bytes each, and a user at most 100 roles");
    }
    table.include(inner);
    let data = table.get("data").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if !data.is_object() {
        table.fault("data", "a JSON object");
    }
    let remember = table.flag("remember", false);
    table.done()?;
    let data = RawValue::from_string(data.to_string())
        .map_err(|_| Problem::new(Code::BadRequest, "data is a JSON object"))?;
    Ok(Admin::Admit { user: User { id, name, roles }, data, remember })
}
