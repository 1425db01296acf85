//! The type that tower-sessions is given: what it asks for, [`records`] does.

use std::{cell::OnceCell, fmt};

use async_trait::async_trait;
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record},
    session_store::Result,
};
use worker::{
    Env,
    send::{SendFuture, SendWrapper},
};

use super::records;
use crate::{
    app::App,
    config::Config,
    platform::{Platform, environment_json},
};

/// A `SessionStore` for `SessionManagerLayer`. Each of its methods is one call to the store, and one billed command.
///
/// Errors: `Backend` if the store failed, `Encode` if the record's JSON has more bytes than `session.max_bytes`, `Decode`
/// if what is stored cannot be read. What happened is in the log; no text holds an id or data. `SessionManagerLayer`
/// answers 500 if it cannot save. What a handler answers if it cannot read is its own decision.
#[derive(Clone)]
pub struct Store(SendWrapper<&'static App<Platform>>);

impl Store {
    /// From the environment, which is read once per isolate. Errors: it is misconfigured; the text lists every fault.
    pub fn from_env(env: &Env) -> worker::Result<Self> {
        thread_local! {
            static APP: OnceCell<&'static App<Platform>> = const { OnceCell::new() };
        }
        if let Some(app) = APP.with(|app| app.get().copied()) {
            return Ok(Self(SendWrapper::new(app)));
        }
        let config = Config::from_json(&environment_json(env)).map_err(|faults| faults.join("; "))?;
        let platform = Platform::new(env).map_err(|_| "UPSTASH_REDIS_REST_TOKEN cannot be sent")?;
        let app = Box::leak(Box::new(App::new(config, platform)));
        Ok(Self(SendWrapper::new(APP.with(|first| *first.get_or_init(|| app)))))
    }

    /// With the time of now: nobody has told this crate that a request has arrived.
    fn app(&self) -> &'static App<Platform> {
        self.0.host.refresh_clock();
        self.0.0
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store(…)")
    }
}

#[async_trait]
impl SessionStore for Store {
    async fn create(&self, record: &mut Record) -> Result<()> {
        SendFuture::new(records::create(self.app(), record)).await
    }

    async fn save(&self, record: &Record) -> Result<()> {
        SendFuture::new(records::save(self.app(), record)).await
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        SendFuture::new(records::load(self.app(), id)).await
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        SendFuture::new(records::delete(self.app(), id)).await
    }
}
