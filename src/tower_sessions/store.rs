//! The type that tower-sessions is given: what it asks for, [`records`] does.

use std::fmt;

use async_trait::async_trait;
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record},
    session_store::Result,
};
use worker::send::{SendFuture, SendWrapper};

use super::records;
use crate::{Sessions, app::App, platform::Platform};

/// A `SessionStore` for `SessionManagerLayer`. Each of its methods is one call to the store, and one billed command.
///
/// Errors: `Backend` if the store failed, `Encode` if the record's JSON has more bytes than `session.max_bytes`, `Decode`
/// if what is stored cannot be read. What happened is in the log; no text holds an id or data. `SessionManagerLayer`
/// answers 500 if it cannot save. What a handler answers if it cannot read is its own decision.
#[derive(Clone)]
pub struct Store(SendWrapper<&'static App<Platform>>);

impl Store {
    /// For the deployment of these sessions: its database, `key_prefix`, `store.timeout` and `session.max_bytes`.
    pub fn new(sessions: Sessions) -> Self {
        Self(SendWrapper::new(sessions.app))
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
