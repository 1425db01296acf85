//! The device list: a user's sessions.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{Entry, Error, Record, Sessions, User, UserState, change::empty_data};
use crate::{
    host::Host,
    id::{Family, Handle},
    store::{Batch, Failure},
    ticket::UserTag,
    time::{Time, as_rfc3339},
};

/// A session as its user's device list shows it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedSession {
    /// Its public name, by which it can be ended.
    pub handle: Handle,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When it began.
    #[serde(serialize_with = "as_rfc3339")]
    pub created_at: Time,
    /// When it was last used, to within `session.touch_every`.
    #[serde(serialize_with = "as_rfc3339")]
    pub last_seen_at: Time,
    /// Whether it is a "remember me" session.
    pub remember: bool,
    /// The browser that logged in, as it calls itself.
    pub user_agent: Option<String>,
    /// The address it logged in from, as far as `session.record_ip` keeps it.
    pub ip: Option<String>,
    /// The provider that has said who the user is, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub provider: Option<String>,
}

/// How many bytes of data one call may read: its answer is in memory as a whole. By default these are 16 sessions.
pub(super) const MAX_READ: usize = 1024 * 1024;

/// A session in a user's list.
pub(super) struct Listed {
    pub(super) handle: Handle,
    /// Without its data.
    record: Box<Record>,
    ttl_ms: u64,
}

impl<H: Host> Sessions<'_, H> {
    /// A user's sessions, the oldest first. Two calls, and one more if some have expired; and more
    /// for sessions that could have more than 1 MiB of data.
    pub async fn list(&self, user: &UserTag, current: Option<&Handle>) -> Result<Vec<ListedSession>, Error> {
        self.check_native("another application's format has no list of a user's sessions")?;
        let now = self.host.now();
        let item = |Listed { handle, record, ttl_ms }| {
            // Use renews the time to live: what is missing of it is how long ago that was.
            let full = self.rules.lifetimes.ttl(record.expires_at, record.remember, now);
            let unused_for = full.saturating_sub(Duration::from_millis(ttl_ms));
            ListedSession {
                handle,
                current: current == Some(&handle),
                created_at: record.created_at,
                last_seen_at: now - unused_for,
                remember: record.remember,
                user_agent: record.device.user_agent,
                ip: record.device.ip,
                provider: record.device.provider,
            }
        };
        Ok(self.of_user(user, current).await?.into_iter().map(item).collect())
    }

    /// The sessions in a user's list that live, the oldest first; and `current`, if the list has lost it.
    pub(super) async fn of_user(
        &self,
        user: &UserTag,
        current: Option<&Handle>,
    ) -> Result<Vec<Listed>, Error> {
        // 1. The handles, as the primary has them: a session that is missing here is shown as ended.
        let list_key = self.list_key(user);
        let state_key = self.state_key(user);
        let [listed] = self.store.run(Batch::default().hash(&*list_key).at_primary(&state_key)).await?;
        let listed = listed.pairs()?;
        let mut handles: Vec<Handle> = listed.iter().filter_map(|(name, _)| Handle::parse(name)).collect();
        handles.extend(current.filter(|current| !handles.contains(current)).copied());
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        // 2. Their records.
        let (mut alive, mut gone): (BTreeMap<_, Listed>, _) = (BTreeMap::new(), Vec::new());
        for handles in handles.chunks((MAX_READ / self.rules.max_bytes).max(1)) {
            let keys: Vec<String> = handles.iter().map(|handle| self.key(handle)).collect();
            let batch = Batch::default().get(keys.iter().chain([&state_key]).map(String::as_str));
            let batch = keys.iter().fold(batch, |batch, key| batch.ttl(key)).at_primary(&state_key);
            let mut replies = self.store.run_all(batch).await?.into_iter();
            let mut values = replies.next().ok_or(Failure::Garbled)?.values(keys.len() + 1)?;
            let state = UserState::parse(values.pop().flatten().as_deref());
            if replies.len() != handles.len() {
                return Err(Failure::Garbled.into());
            }
            for (((handle, key), value), ttl) in handles.iter().zip(&keys).zip(values).zip(replies) {
                let ttl_ms = u64::try_from(ttl.integer()?).unwrap_or(0);
                match (value.as_deref().and_then(|stored| self.open(key, stored).ok()), value) {
                    (Some(Entry::Session(mut record)), _) if self.is_alive(&record, user, &state) => {
                        record.data = empty_data();
                        alive
                            .insert((record.created_at, *handle), Listed { handle: *handle, record, ttl_ms });
                    }
                    (Some(Entry::Session(_) | Entry::Replaced(_)), _) | (_, None) => {
                        gone.push(handle.to_string());
                    }
                    // A redirect stays in the list while it exists, and what cannot be read: a revocation must delete it.
                    _ => {}
                }
            }
        }
        // 3. The list without those that have ended, and the store without the heads of their families.
        if !gone.is_empty() {
            let family = |name| listed.iter().find(|(listed, _)| listed == name).map(|(_, family)| family);
            let ended = gone.iter().filter_map(family).filter_map(|family| Family::parse(family));
            let is_alive = |family: &Family| alive.values().any(|listed| listed.record.family == *family);
            let heads: Vec<String> =
                ended.filter(|family| !is_alive(family)).map(|family| self.family_key(family)).collect();
            let batch = Batch::default().hash_delete(&list_key, gone);
            self.store.run_all(if heads.is_empty() { batch } else { batch.delete(heads) }).await?;
        }
        Ok(alive.into_values().collect())
    }

    pub(super) fn is_alive(&self, record: &Record, user: &UserTag, state: &UserState) -> bool {
        let is_theirs = record.user.as_ref().map(User::tag).as_ref() == Some(user);
        is_theirs && self.host.now() < record.expires_at && record.survives(state)
    }
}
