//! The routes: CONTRACT.md's tables. Each says from the request alone what is to be done, as a [`Plan`]; those of
//! `devices` and `admin` also carry theirs out, at the session's desk.

pub mod accounts;
pub mod admin;
pub mod devices;
pub mod session;

use self::{
    accounts::{Entry, Errand},
    admin::Admin,
};
use crate::{
    http::{Code, IfMatch, Method, Problem, Request, Response},
    id::Handle,
    session::{Session, change::Change},
};

/// What a request asks for, as far as the request alone can tell: paths, methods and bodies are judged before
/// the store is called.
#[derive(Debug)]
pub enum Plan {
    /// Look at the session.
    Look,
    /// Change its data, on a condition.
    Change(Change, IfMatch),
    /// Give it a new id.
    Rotate,
    /// Log out.
    End,
    /// List the user's sessions.
    List,
    /// End one of them.
    EndOne(Handle),
    /// End all of them, or all others.
    EndAll {
        /// All others.
        keep_current: bool,
    },
    /// Register or log in.
    Enter(Entry),
    /// Something that needs an account.
    Errand(Errand),
    /// Something of the service API.
    Admin(Admin),
    /// Ask the store whether it is there.
    Health,
}

/// What came of a plan for a session.
#[derive(Debug, Default)]
pub struct Done {
    /// The answer, when it is not the session.
    pub response: Option<Response>,
    /// The session, when it lives on.
    pub session: Option<Session>,
    /// The `Set-Cookie` line by which the device is known from now on.
    pub device: Option<String>,
}

impl From<Session> for Done {
    fn from(session: Session) -> Self {
        Self { session: Some(session), ..Self::default() }
    }
}

/// One path and the methods it takes.
#[derive(Debug)]
pub struct Route {
    path: &'static str,
    methods: &'static str,
    plan: fn(&Request<'_>, Param<'_>) -> Option<Result<Plan, Problem>>,
}

/// What stands in the path where the route has `*`, still percent-encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Param<'a>(&'a str);

impl Param<'_> {
    /// The percent-decoded text.
    fn text(&self) -> Result<String, Problem> {
        let text = percent_encoding::percent_decode_str(self.0).decode_utf8();
        text.map(String::from).map_err(|_| Problem::new(Code::BadRequest, "the URL is not UTF-8"))
    }
}

const ROUTES: &[Route] = &[
    session::SESSION,
    session::DATA,
    session::ROTATE,
    accounts::REGISTER,
    accounts::LOGIN,
    accounts::LOGOUT,
    accounts::REAUTHENTICATE,
    accounts::PASSWORD,
    accounts::PROFILE,
    accounts::ACCOUNT,
    accounts::VERIFY,
    devices::SESSIONS,
    devices::ONE,
    admin::SESSIONS,
    admin::SESSION,
    admin::USER_SESSIONS,
    admin::USER_ROLES,
    admin::STATS,
    HEALTH,
];

const HEALTH: Route = Route {
    path: "/health",
    methods: "GET, HEAD",
    plan: |request, _| matches!(request.method, Method::Get | Method::Head).then_some(Ok(Plan::Health)),
};

impl Route {
    /// The route of a path under `base_path`, and what stands where it has a `*`.
    pub fn find<'p>(path: &'p str, base_path: &str) -> Result<(&'static Self, Param<'p>), Problem> {
        let below = path.strip_prefix(base_path);
        let found =
            below.and_then(|below| ROUTES.iter().find_map(|route| Some((route, route.matches(below)?))));
        found.ok_or_else(|| Problem::new(Code::NotFound, "there is nothing at this path"))
    }

    fn matches<'p>(&self, path: &'p str) -> Option<Param<'p>> {
        let Some((before, after)) = self.path.split_once('*') else {
            return (self.path == path).then_some(Param::default());
        };
        let param = path.strip_prefix(before)?.strip_suffix(after)?;
        (!param.is_empty() && !param.contains('/')).then_some(Param(param))
    }

    /// Whether it belongs to the service API.
    pub fn is_admin(&self) -> bool {
        self.path.starts_with("/admin/")
    }

    /// The methods it takes, as in `Allow`.
    pub fn methods(&self) -> &'static str {
        self.methods
    }

    /// What the request asks for.
    pub fn plan(&self, request: &Request<'_>, param: Param<'_>) -> Result<Plan, Problem> {
        (self.plan)(request, param).unwrap_or_else(|| {
            let detail = format!("{} is not for this path; it takes {}", request.method.name(), self.methods);
            Err(Problem::new(Code::MethodNotAllowed, detail).with_header("Allow", self.methods))
        })
    }
}
