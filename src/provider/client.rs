//! What is asked of a provider: what it says about itself (OpenID Connect Discovery 1.0), its keys, a token for a code, who the
//! user is.

use std::{rc::Rc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure, Identity, Kind, Memory, Params, Pending, Provider,
    id_token::{Claims, Expected, Names},
    jose::{self, Key, Untrusted},
    logout_token::{LOGOUT_TOKEN, Logout},
    web::{append_query, encode, encode_form, is_safe_url},
};
use crate::host::{Document, Host, Query, VerifyingAlgorithm};

/// How long a visitor waits for each answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

/// A provider, as one request asks it.
pub(crate) struct Client<'a, H> {
    /// The provider.
    pub(crate) provider: &'a Provider,
    /// The machine.
    pub(crate) host: &'a H,
    /// What the isolate remembers of it.
    pub(crate) memory: &'a Memory,
}

/// Where it is asked.
#[derive(Debug)]
pub(super) struct Endpoints {
    authorize: String,
    token: String,
    /// Who the user is, beside the ID token or instead of it.
    user: Option<String>,
    /// Where the user logs out (OpenID Connect RP-Initiated Logout section 2.1).
    end_session: Option<String>,
    /// Its keys, if it is one of OpenID Connect.
    keys: Option<String>,
    /// Whether the client's secret goes into `Authorization: Basic`, and not into the form.
    has_basic: bool,
    /// Whether it always says who it is (RFC 9207 section 3).
    sends_issuer: bool,
}

#[cfg(test)]
impl Endpoints {
    pub(super) fn of_nobody() -> Self {
        let [authorize, token] = ["https://acme.example/x"; 2].map(str::to_owned);
        Self {
            authorize,
            token,
            user: None,
            end_session: None,
            keys: None,
            has_basic: true,
            sends_issuer: false,
        }
    }
}

/// What is read of its own description (OpenID Connect Discovery section 3, RFC 8414).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The answer to a code (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    token_type: String,
    id_token: Option<String>,
}

impl<H: Host> Client<'_, H> {
    /// Where the visitor logs in. `redirect_uri`: where they come back to.
    pub(crate) async fn login_url(&self, pending: &Pending, redirect_uri: &str) -> Result<String, Failure> {
        let (endpoints, provider) = (self.endpoints().await?, self.provider);
        let (state, nonce, challenge) = (pending.state(), pending.nonce(), pending.challenge());
        let mut params = vec![
            ("response_type", "code"),
            ("client_id", &*provider.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &*provider.scopes),
            ("state", &*state),
            ("code_challenge", &*challenge),
            ("code_challenge_method", "S256"),
        ];
        if endpoints.keys.is_some() {
            params.push(("nonce", &nonce));
        }
        let own = provider.params.iter().map(|(name, value)| (&**name, &**value));
        params.extend(own.filter(|(name, _)| !(pending.is_fresh() && *name == "prompt")));
        if pending.is_fresh() {
            params.extend([("prompt", "login"), ("max_age", "0")]);
        }
        params.retain(|(name, value)| !(*name == "scope" && value.is_empty()));
        Ok(append_query(&endpoints.authorize, &encode_form(params)))
    }

    /// The code of the query with which the visitor has come back, if it is the provider's own (RFC 9207).
    pub(crate) async fn code<'p>(&self, params: &'p Params) -> Result<&'p str, Failure> {
        let endpoints = self.endpoints().await?;
        match (params.get("iss"), &self.provider.kind) {
            (Some(iss), Kind::OpenId { issuer }) if iss != issuer => {
                return Err(Failure::InvalidResponse("the visitor came back from another provider (iss)"));
            }
            (None, _) if endpoints.sends_issuer => {
                return Err(Failure::InvalidResponse("the visitor came back without the iss that it sends"));
            }
            _ => {}
        }
        if let Some(error) = params.get("error") {
            return Err(Failure::from_error(error));
        }
        params.get("code").ok_or(Failure::InvalidResponse("the visitor came back without a code"))
    }

    /// Who has logged in, by the code.
    pub(crate) async fn identify(
        &self,
        pending: &Pending,
        code: &str,
        redirect_uri: &str,
    ) -> Result<Identity, Failure> {
        let endpoints = self.endpoints().await?;
        let tokens = self.exchange(&endpoints, pending, code, redirect_uri).await?;
        match (&self.provider.kind, tokens.id_token.as_deref()) {
            (Kind::OAuth2 { subject, name, .. }, _) => {
                self.identify_by_document(&endpoints, &tokens, subject, name).await
            }
            (Kind::OpenId { issuer }, Some(id_token)) => {
                self.identify_by_token(&endpoints, &tokens, id_token, issuer, pending).await
            }
            (Kind::OpenId { .. }, None) => {
                Err(Failure::InvalidResponse("it sent no ID token: is \"openid\" among the scopes?"))
            }
        }
    }

    /// Exchanges a code for tokens. It has answered: whatever it says but 200 and tokens is a refusal, unless it says that it
    /// failed.
    async fn exchange(
        &self,
        endpoints: &Endpoints,
        pending: &Pending,
        code: &str,
        redirect_uri: &str,
    ) -> Result<Tokens, Failure> {
        let Provider { client_id, client_secret, .. } = self.provider;
        let verifier = pending.verifier();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", &*verifier),
        ];
        let mut headers = Vec::new();
        if endpoints.has_basic {
            // Both are encoded before they are joined (RFC 6749 section 2.3.1).
            let credentials = [encode(client_id), encode(client_secret)].join(":");
            headers.push(("authorization", ["Basic ", &STANDARD.encode(credentials)].concat()));
        } else {
            form.extend([("client_id", &**client_id), ("client_secret", client_secret)]);
        }
        let answer = self.ask(&endpoints.token, headers, Some(encode_form(form))).await?;
        match answer {
            Document { status: 200, text: Some(text), .. } => {
                let tokens = serde_json::from_str(&text).ok();
                let tokens =
                    tokens.filter(|tokens: &Tokens| tokens.token_type.eq_ignore_ascii_case("bearer"));
                tokens.ok_or(Failure::InvalidResponse("it gave no tokens for the code"))
            }
            Document { status: 401, .. } => Err(Failure::InvalidResponse(
                "it does not know this client: check client_id and the provider's secret",
            )),
            Document { status: 400..500, .. } => Err(Failure::InvalidResponse("it refused the code")),
            _ => Err(Failure::Unavailable("its token endpoint failed")),
        }
    }

    async fn identify_by_token(
        &self,
        endpoints: &Endpoints,
        tokens: &Tokens,
        id_token: &str,
        issuer: &str,
        pending: &Pending,
    ) -> Result<Identity, Failure> {
        // 1. The signature.
        if Untrusted::parse(id_token)?.kind().is_some_and(|kind| kind == LOGOUT_TOKEN) {
            return Err(Failure::InvalidResponse("it sent a logout token for an ID token (typ)"));
        }
        let (payload, algorithm) = self.verify(endpoints, id_token).await?;
        // 2. What it says.
        let now = self.host.now();
        let nonce = pending.nonce();
        let claims = Claims::parse(
            &payload,
            &Expected {
                issuer,
                client_id: &self.provider.client_id,
                nonce: &nonce,
                access_token: &tokens.access_token,
                algorithm,
                authenticated_since: pending.is_fresh().then_some(pending.begun),
                now,
            },
        )?;
        // 3. What the user is called: many providers tell it apart (OpenID Connect Core section 5.3). A login does not fail
        // for the lack of it, but does if it is somebody else's.
        let auth_time = claims.auth_time(now);
        let more = match &endpoints.user {
            Some(url) if claims.names.first().is_none() => self.names(url, tokens, &claims.sub).await?,
            _ => Names::default(),
        };
        let name = claims.names.first().or_else(|| more.first());
        let user = self.provider.user(&claims.sub, name);
        let user = user.ok_or(Failure::InvalidResponse("its user has a sub that can be none"))?;
        let session = claims.session().map(|sid| self.provider.session_name(sid));
        Ok(Identity { user, auth_time, session })
    }

    /// What a logout token says (OpenID Connect Back-Channel Logout section 2.6), if this provider has issued it for this client.
    /// What is no token costs nobody a call.
    pub(crate) async fn verify_logout(&self, token: &str) -> Result<Logout, Failure> {
        let Kind::OpenId { issuer } = &self.provider.kind else {
            return Err(Failure::InvalidResponse("it speaks OAuth 2.0, which has no logout tokens"));
        };
        if Untrusted::parse(token)?.kind().is_some_and(|kind| kind != LOGOUT_TOKEN && kind != "jwt") {
            return Err(Failure::InvalidResponse("its logout token is of another kind (typ)"));
        }
        let endpoints = self.endpoints().await?;
        let (payload, _) = self.verify(&endpoints, token).await?;
        Logout::parse(&payload, issuer, &self.provider.client_id, self.host.now())
    }

    /// Where the user logs out at the provider, who comes back to `return_to`; `None` if it has no such place.
    pub(crate) async fn logout_url(&self, return_to: &str) -> Result<Option<String>, Failure> {
        let endpoints = self.endpoints().await?;
        let query =
            encode_form([("client_id", &*self.provider.client_id), ("post_logout_redirect_uri", return_to)]);
        Ok(endpoints.end_session.as_ref().map(|url| append_query(url, &query)))
    }

    async fn names(&self, url: &str, tokens: &Tokens, subject: &str) -> Result<Names, Failure> {
        #[derive(Deserialize)]
        struct UserInfo {
            sub: String,
            #[serde(flatten)]
            names: Names,
        }
        let Ok(Document { status: 200, text: Some(text), .. }) = self.ask(url, bearer(tokens), None).await
        else {
            return Ok(Names::default());
        };
        match serde_json::from_str::<UserInfo>(&text) {
            Ok(info) if info.sub == subject => Ok(info.names),
            Ok(_) => Err(Failure::InvalidResponse("its userinfo is somebody else's (sub)")),
            Err(_) => Ok(Names::default()),
        }
    }

    async fn identify_by_document(
        &self,
        endpoints: &Endpoints,
        tokens: &Tokens,
        subject: &str,
        name: &str,
    ) -> Result<Identity, Failure> {
        const NONE: Failure =
            Failure::InvalidResponse("its document of the user has no subject where it should be");
        let Some(url) = &endpoints.user else { return Err(NONE) };
        let text = match self.ask(url, bearer(tokens), None).await? {
            Document { status: 200, text: Some(text), .. } => text,
            Document { status: 400..500, .. } => {
                return Err(Failure::InvalidResponse("it refused to say who the user is: check scopes"));
            }
            _ => return Err(Failure::Unavailable("it failed to say who the user is")),
        };
        let document: Value = serde_json::from_str(&text).map_err(|_| NONE)?;
        let subject = match document.pointer(subject) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_u64() || number.is_i64() => number.to_string(),
            _ => return Err(NONE),
        };
        let name = document.pointer(name).and_then(Value::as_str);
        let user = self.provider.user(&subject, name).ok_or(NONE)?;
        Ok(Identity { user, auth_time: None, session: None })
    }

    /// What a token says, and how it is signed, if the provider has signed it. A key of the same name, or without one, may be
    /// another by now: where those that are known have not signed it, newer ones may have.
    async fn verify(
        &self,
        endpoints: &Endpoints,
        token: &str,
    ) -> Result<(Vec<u8>, VerifyingAlgorithm), Failure> {
        let untrusted = Untrusted::parse(token)?;
        let keys = self.keys_for(endpoints, &untrusted).await?;
        let verified = untrusted.verify(&keys, self.host).await;
        match self.memory.keys(&self.provider.id, self.host.now()) {
            Some((_, may_look_again)) if verified.is_err() && may_look_again => {
                let keys = self.fetch_keys(endpoints).await?;
                Untrusted::parse(token)?.verify(&keys, self.host).await
            }
            _ => verified,
        }
    }

    /// The keys of which one may have signed a token. If none of those that are known may, they are fetched again, but not
    /// often: providers change their keys, and anybody can make up the name of one.
    async fn keys_for(&self, endpoints: &Endpoints, token: &Untrusted<'_>) -> Result<Rc<Vec<Key>>, Failure> {
        let known = self.memory.keys(&self.provider.id, self.host.now());
        if let Some((keys, may_look_again)) = known
            && (!token.candidates(&keys).is_empty() || !may_look_again)
        {
            return Ok(keys);
        }
        self.fetch_keys(endpoints).await
    }

    async fn fetch_keys(&self, endpoints: &Endpoints) -> Result<Rc<Vec<Key>>, Failure> {
        let url = endpoints.keys.as_deref().unwrap_or_default();
        let (keys, cache_control) = self
            .document(url, |text| jose::keys(text).ok_or("what is at its jwks_uri is no key set"))
            .await?;
        let keys = Rc::new(keys);
        self.memory.keep_keys(&self.provider.id, &keys, &cache_control, self.host.now());
        Ok(keys)
    }

    async fn endpoints(&self) -> Result<Rc<Endpoints>, Failure> {
        let issuer = match &self.provider.kind {
            Kind::OpenId { issuer } => issuer,
            Kind::OAuth2 { authorize_url, token_url, user_url, .. } => {
                return Ok(Rc::new(Endpoints {
                    authorize: authorize_url.clone(),
                    token: token_url.clone(),
                    user: Some(user_url.clone()),
                    end_session: None,
                    keys: None,
                    has_basic: false,
                    sends_issuer: false,
                }));
            }
        };
        if let Some(endpoints) = self.memory.endpoints(&self.provider.id, self.host.now()) {
            return Ok(endpoints);
        }
        let url = [issuer.trim_end_matches('/'), "/.well-known/openid-configuration"].concat();
        let (endpoints, cache_control) = self.document(&url, |text| Endpoints::parse(text, issuer)).await?;
        let endpoints = Rc::new(endpoints);
        self.memory.keep_endpoints(&self.provider.id, &endpoints, &cache_control, self.host.now());
        Ok(endpoints)
    }

    /// A document that the provider publishes, and its `Cache-Control`.
    async fn document<T>(
        &self,
        url: &str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<(T, String), Failure> {
        let id = &self.provider.id;
        if self.memory.is_down(id, self.host.now()) {
            return Err(Failure::Unavailable("it was not asked again so soon after it had failed"));
        }
        let outcome = match self.ask(url, Vec::new(), None).await {
            Ok(Document { status: 200, text: Some(text), cache_control }) => {
                parse(&text).map(|parsed| (parsed, cache_control)).map_err(Failure::Unavailable)
            }
            Ok(Document { status: 200, text: None, .. }) => {
                Err(Failure::Unavailable("a document of its is longer than 256 KiB"))
            }
            Ok(_) => Err(Failure::Unavailable("it has no document where one should be: check the issuer")),
            Err(failure) => Err(failure),
        };
        if outcome.is_err() {
            self.memory.failed(id, self.host.now());
        }
        outcome
    }

    async fn ask(
        &self,
        url: &str,
        mut headers: Vec<(&'static str, String)>,
        form: Option<String>,
    ) -> Result<Document, Failure> {
        headers.push(("accept", "application/json".to_owned()));
        let query = Query { url: url.to_owned(), headers, form, timeout: TIMEOUT, max_bytes: MAX_ANSWER };
        self.host
            .ask(query)
            .await
            .map_err(|_| Failure::Unavailable("it cannot be reached, or did not answer within 5 s"))
    }
}

fn bearer(tokens: &Tokens) -> Vec<(&'static str, String)> {
    vec![("authorization", ["Bearer ", &tokens.access_token].concat())]
}

impl Endpoints {
    /// From the provider's own description, which must be of this issuer (section 4.3).
    fn parse(text: &str, issuer: &str) -> Result<Self, &'static str> {
        const FAULT: &str = "its openid-configuration is not as OpenID Connect Discovery wants it";
        let metadata: Metadata = serde_json::from_str(text).map_err(|_| FAULT)?;
        if metadata.issuer != issuer {
            return Err(
                "its openid-configuration names another issuer: write that into accounts.providers, to the letter",
            );
        }
        let urls = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        let more = [&metadata.userinfo_endpoint, &metadata.end_session_endpoint].into_iter().flatten();
        if !urls.into_iter().chain(more).all(|url| is_safe_url(url)) {
            return Err("an address in its openid-configuration is not https://");
        }
        let methods = metadata.token_endpoint_auth_methods_supported;
        let has = |name: &str| methods.as_ref().is_none_or(|methods| methods.iter().any(|own| own == name));
        if !has("client_secret_basic") && !has("client_secret_post") {
            return Err("it takes neither client_secret_basic nor client_secret_post");
        }
        Ok(Self {
            authorize: metadata.authorization_endpoint,
            token: metadata.token_endpoint,
            user: metadata.userinfo_endpoint,
            end_session: metadata.end_session_endpoint,
            keys: Some(metadata.jwks_uri),
            has_basic: has("client_secret_basic"),
            sends_issuer: metadata.authorization_response_iss_parameter_supported,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_description_must_be_the_issuer_s_own_and_lead_nowhere_unsafe() {
        let good = json!({
            "issuer": "https://a.example",
            "authorization_endpoint": "https://a.example/login?p=1",
            "token_endpoint": "https://a.example/token",
            "jwks_uri": "https://keys.example/a",
        });
        let parse = |name: &str, value: Value| {
            let mut changed = good.clone();
            changed[name] = value;
            Endpoints::parse(&changed.to_string(), "https://a.example")
        };
        assert!(parse("x", json!(1)).is_ok_and(|endpoints| endpoints.has_basic && !endpoints.sends_issuer));
        let methods = "token_endpoint_auth_methods_supported";
        assert!(parse(methods, json!(["client_secret_post"])).is_ok_and(|endpoints| !endpoints.has_basic));
        for (name, value) in [
            ("issuer", json!("https://a.example/")),
            ("issuer", json!("https://b.example")),
            ("issuer", Value::Null),
            ("token_endpoint", json!("http://a.example/token")),
            ("jwks_uri", json!("file:///etc/passwd")),
            ("jwks_uri", Value::Null),
            ("authorization_endpoint", json!("javascript:alert(1)")),
            ("userinfo_endpoint", json!("http://a.example/me")),
            ("end_session_endpoint", json!("javascript:alert(1)")),
            (methods, json!(["private_key_jwt"])),
        ] {
            assert!(parse(name, value.clone()).is_err(), "{name}: {value}");
        }
    }
}
