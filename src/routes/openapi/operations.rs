//! What each route takes and answers. Its answers to what is wrong follow from what it needs: see [`Operation::codes`].

use serde_json::{Value, json};

use super::{super::PUBLIC_KEYS, answers, schemas};
use crate::http::{
    Code::{self, *},
    Method::{self, Delete, Get, Patch, Post, Put},
};

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever comes; a session makes no difference.
    Nobody,
    /// Whoever comes, and the answer is the same for all; it is not counted.
    Everybody,
    /// Whoever comes; a session makes a difference.
    Anybody,
    /// Who has a session.
    Session,
    /// A proxy, for who has a session.
    Proxy,
    /// Who has the admin token.
    Admin,
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    who: Who,
    parameters: &'static [&'static str],
    /// The schemas of its body, by their media types.
    body: Vec<(&'static str, Value)>,
    success: Vec<(u16, Value)>,
    codes: Vec<Code>,
}

/// What the route in the table does. `None` if nobody has described it.
pub(super) fn of(method: Method, pattern: &str) -> Option<Operation> {
    let session = |id, summary| Operation::new(id, summary, Who::Session);
    let account = |id, summary| session(id, summary).refusing(&[InvalidCredentials, NotFound]);
    let admin = |id, summary| Operation::new(id, summary, Who::Admin);
    let account_view = |is_write| answers::json("", schemas::reference("AccountView"), is_write);
    Some(match (method, pattern) {
        (Get, "/session") => Operation::new("session", "", Who::Anybody)
            .conditional()
            .answering(200, answers::reference("SessionOrNull"))
            .answering(304, answers::reference("NotModified"))
            .refusing(&[PreconditionFailed]),
        (Delete, "/session") => Operation::new("endSession", "", Who::Anybody).done(),
        (Post, "/logout") => Operation::new("logout", "", Who::Anybody).done(),
        (Patch, "/session/data") => Operation::new("patch", "Changes data; begins a session", Who::Anybody)
            .changing()
            .answering(200, answers::reference("Session"))
            .refusing(&[Unauthenticated]),
        (Post, "/session/rotate") => {
            session("rotate", "A new id").answering(200, answers::reference("Session"))
        }
        (Post, "/register") => Operation::new("register", "", Who::Anybody)
            .reading("Registration")
            .answering(201, answers::reference("Session"))
            .refusing(&[NotFound]),
        (Post, "/login") => Operation::new("login", "", Who::Anybody)
            .reading("Credentials")
            .answering(200, answers::reference("Session"))
            .refusing(&[InvalidCredentials, NotFound]),
        (Post, "/reauthenticate") => account("reauthenticate", "")
            .reading("Confirmation")
            .answering(200, answers::reference("Session")),
        (Post, "/password") => account("changePassword", "Other sessions end")
            .reading("PasswordChange")
            .answering(200, answers::reference("Session"))
            .refusing(&[Reauthenticate]),
        (Post, "/reset") => Operation::new("reset", "By an operator's token", Who::Anybody)
            .reading("PasswordReset")
            .answering(200, answers::reference("Session"))
            .refusing(&[InvalidCredentials, NotFound]),
        (Delete, "/account") => {
            account("deleteAccount", "").reading("Confirmation").done().refusing(&[Reauthenticate])
        }
        (Get, "/profile") => session("profile", "")
            .conditional()
            .answering(200, answers::reference("Profile"))
            .answering(304, answers::reference("NotModified"))
            .refusing(&[NotFound, PreconditionFailed]),
        (Patch, "/profile") => session("changeProfile", "")
            .changing()
            .answering(200, answers::reference("Profile"))
            .refusing(&[NotFound]),
        (_, "/verify" | "/verify/**") => Operation {
            parameters: if pattern == "/verify" { &["role"] } else { &["path"] },
            ..Operation::new("", "For proxies, by any method", Who::Proxy)
        }
        .answering(200, answers::reference("Identity"))
        .refusing(&[Forbidden]),
        (Get, "/sessions") => session("devices", "").answering(200, answers::reference("Devices")),
        (Delete, "/sessions") => {
            Operation { parameters: &["keep"], ..session("endDevices", "All, or all others") }
                .done()
                .refusing(&[Reauthenticate])
        }
        (Delete, "/sessions/*") => Operation { parameters: &["handle"], ..session("endDevice", "") }
            .done()
            .refusing(&[NotFound, Reauthenticate]),
        (Post, "/admin/sessions") => admin("createSession", "")
            .reading("NewSession")
            .answering(201, answers::json("Pass set_cookie on", schemas::reference("CreatedSession"), true)),
        (Get, "/admin/sessions/*") => Operation { parameters: &["handle"], ..admin("showSession", "") }
            .answering(200, answers::json("", schemas::reference("StoredSession"), false)),
        (Delete, "/admin/sessions/*") => {
            Operation { parameters: &["handle"], ..admin("endAnySession", "") }.done()
        }
        (Get, "/admin/users") => Operation { parameters: &["name"], ..admin("findAccount", "") }
            .answering(200, account_view(false)),
        (Post, "/admin/users") => {
            admin("createAccount", "").reading("NewAccount").answering(201, account_view(true))
        }
        (Get, "/admin/users/*") => {
            Operation { parameters: &["id"], ..admin("showAccount", "") }.answering(200, account_view(false))
        }
        (Patch, "/admin/users/*") => Operation { parameters: &["id"], ..admin("changeAccount", "") }
            .reading("AccountChange")
            .answering(200, account_view(true)),
        (Delete, "/admin/users/*") => Operation { parameters: &["id"], ..admin("deleteAnyAccount", "") }
            .done()
            .refusing(&[Unprocessable]),
        (Post, "/admin/users/*/reset") => Operation { parameters: &["id"], ..admin("beginReset", "") }
            .answering(201, answers::json("", schemas::reference("ResetView"), true))
            .refusing(&[Unprocessable]),
        (Get, "/admin/users/*/sessions") => Operation { parameters: &["id"], ..admin("userSessions", "") }
            .answering(200, answers::json("", schemas::reference("List"), false)),
        (Delete, "/admin/users/*/sessions") => {
            Operation { parameters: &["id"], ..admin("endUserSessions", "") }
                .answering(200, answers::json("", schemas::reference("Ended"), true))
        }
        (Put, "/admin/users/*/roles") => {
            Operation { parameters: &["id"], ..admin("setRoles", "") }.reading("Roles").done()
        }
        (Post, "/admin/inspect") => admin("inspect", "What a cookie is")
            .reading("Inspection")
            .answering(200, answers::json("", schemas::reference("Inspected"), false)),
        (Get, "/admin/stats") => {
            admin("stats", "").answering(200, answers::json("", schemas::reference("Report"), false))
        }
        (Get, "/providers") => Operation::new("providers", "Where users can log in", Who::Anybody)
            .answering(200, answers::json("", schemas::reference("Providers"), true)),
        (Get, "/login/*") => Operation {
            parameters: &["provider", "return_to", "remember", "fresh"],
            ..Operation::new("logInWith", "For the browser: to a provider", Who::Anybody)
        }
        .answering(303, answers::reference("Redirect"))
        .refusing(&[NotFound, Unprocessable]),
        (Get, "/callback/*") => Operation {
            parameters: &["provider", "state", "code"],
            ..Operation::new("comeBack", "For the browser: from a provider", Who::Anybody)
        }
        .answering(303, answers::reference("Redirect"))
        .refusing(&[NotFound, Unprocessable]),
        (Post, "/link/*") => Operation {
            parameters: &["provider", "return_to"],
            ..session("tie", "Ties the account to a provider: go to location")
        }
        .answering(200, answers::json("", schemas::reference("Begun"), true))
        .refusing(&[NotFound, Reauthenticate, Conflict, Unprocessable]),
        (Delete, "/link/*") => Operation { parameters: &["provider"], ..session("untie", "") }
            .done()
            .refusing(&[NotFound, Reauthenticate, Conflict, Unprocessable]),
        (Get, "/health") => Operation::new("health", "", Who::Nobody)
            .answering(200, answers::json("", schemas::reference("Health"), false)),
        (Get, PUBLIC_KEYS) => Operation::new("keys", "Who asks is signed with these", Who::Everybody)
            .answering(200, answers::public("KeySet")),
        (Get, "/openapi.json") => Operation::new("openapi", "", Who::Nobody)
            .answering(200, answers::json("", json!({"type": "object"}), false)),
        _ => return None,
    })
}

impl Operation {
    fn new(id: &'static str, summary: &'static str, who: Who) -> Self {
        let mut codes = vec![BadRequest, RateLimited, Internal, Misconfigured, StoreUnavailable];
        match who {
            // 404: no key is configured.
            Who::Everybody => codes = vec![NotFound, Internal, Misconfigured],
            Who::Nobody => {}
            Who::Anybody => codes.push(Conflict),
            Who::Session | Who::Proxy => codes.extend([Unauthenticated, Conflict]),
            // 404: no token is configured, or the thing is not there.
            Who::Admin => codes.extend([Unauthenticated, NotFound]),
        }
        Self { id, summary, who, parameters: &[], body: Vec::new(), success: Vec::new(), codes }
    }

    fn answering(mut self, status: u16, answer: Value) -> Self {
        self.success.push((status, answer));
        self
    }

    fn done(self) -> Self {
        self.answering(204, answers::reference("Done"))
    }

    fn refusing(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// It reads JSON of this schema.
    fn reading(mut self, schema: &str) -> Self {
        self.body = vec![("application/json", schemas::reference(schema))];
        self.refusing(&[Unprocessable])
    }

    /// It changes a document, perhaps under a condition.
    fn changing(mut self) -> Self {
        let merge = || schemas::reference("MergePatch");
        let content = vec![
            ("application/json", merge()),
            ("application/merge-patch+json", merge()),
            ("application/json-patch+json", schemas::reference("JsonPatch")),
        ];
        self.body = content;
        self.conditional().refusing(&[PreconditionFailed, Unprocessable])
    }

    fn conditional(mut self) -> Self {
        self.parameters = &["If-Match", "If-None-Match"];
        self
    }

    /// What it may refuse, or fail with, for this method.
    fn codes(&self, method: Method) -> Vec<Code> {
        let mut codes = self.codes.clone();
        if !matches!(self.who, Who::Proxy | Who::Everybody) {
            // Whatever the method: the body that comes is looked at.
            codes.extend([TooLarge, UnsupportedMediaType]);
            if !method.is_safe() {
                codes.extend([CrossSite, Conflict]);
            }
        }
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// The operation object.
    pub(super) fn to_json(&self, method: Method) -> Value {
        let mut responses = answers::problems(&self.codes(method));
        for (status, answer) in &self.success {
            responses.insert(status.to_string(), answer.clone());
        }
        let mut operation = json!({"responses": responses});
        if !self.summary.is_empty() {
            operation["summary"] = self.summary.into();
        }
        if !self.id.is_empty() {
            operation["operationId"] = self.id.into();
        }
        match self.who {
            // As the document says at its top.
            Who::Anybody => {}
            Who::Nobody | Who::Everybody => operation["security"] = json!([]),
            Who::Session | Who::Proxy => operation["security"] = json!([{"cookie": []}, {"ticket": []}]),
            Who::Admin => operation["security"] = json!([{"admin": []}]),
        }
        let acting_for = (self.who == Who::Admin).then_some("Session-Client-Address");
        let names = self.parameters.iter().copied().chain(acting_for);
        let parameters: Vec<Value> =
            names.map(|name| json!({"$ref": format!("#/components/parameters/{name}")})).collect();
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if !self.body.is_empty() {
            let content = self.body.iter();
            let content =
                content.map(|(media_type, schema)| ((*media_type).to_owned(), json!({"schema": schema})));
            let content: serde_json::Map<_, _> = content.collect();
            operation["requestBody"] = json!({"content": content, "required": true});
        }
        operation
    }
}
