//! The routes: CONTRACT.md's tables. Each decides what is to be done; none does any I/O.

mod session;

use crate::{
    http::{Code, IfMatch, Method, Problem, Request},
    session::change::Change,
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
    /// Ask the store whether it is there.
    Health,
}

/// One path and the methods it takes.
#[derive(Debug)]
pub struct Route {
    path: &'static str,
    methods: &'static str,
    plan: fn(&Request<'_>) -> Option<Result<Plan, Problem>>,
}

const ROUTES: &[Route] = &[session::SESSION, session::DATA, session::ROTATE, HEALTH];

const HEALTH: Route = Route {
    path: "/health",
    methods: "GET, HEAD",
    plan: |request| matches!(request.method, Method::Get | Method::Head).then_some(Ok(Plan::Health)),
};

impl Route {
    /// The route of a path under `base_path`.
    pub fn find(path: &str, base_path: &str) -> Result<&'static Self, Problem> {
        let below = path.strip_prefix(base_path);
        let route = below.and_then(|below| ROUTES.iter().find(|route| route.path == below));
        route.ok_or_else(|| Problem::new(Code::NotFound, "there is nothing at this path"))
    }

    /// The methods it takes, as in `Allow`.
    pub fn methods(&self) -> &'static str {
        self.methods
    }

    /// What the request asks for.
    pub fn plan(&self, request: &Request<'_>) -> Result<Plan, Problem> {
        (self.plan)(request).unwrap_or_else(|| {
            let detail = format!("{} is not for this path; it takes {}", request.method.name(), self.methods);
            Err(Problem::new(Code::MethodNotAllowed, detail).with_header("Allow", self.methods))
        })
    }
}
