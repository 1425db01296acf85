//! Sessions that end because their user has logged out at the provider (OpenID Connect Back-Channel Logout 1.0).
//!
//! All of a user's end by the revocation mark, as with any other revocation. Those that began with one session at the provider
//! are found by an index, a hash under that session's name: `<tag>` for each user who has begun one with it, and once it has
//! ended `ended`, or `ended:<tag>` if the provider has said so of this user alone. A login writes there in the transaction that
//! writes its session, and reads what else is there: either it is found by the logout, or it finds that.

use std::time::Duration;

use super::{Entry, Error, Record, Retry, Session, Sessions, StoredSession, UserState, list::MAX_READ};
use crate::{
    base64url,
    host::Host,
    id::{Family, Handle, Nonce},
    store::{Batch, Failure},
    ticket::UserTag,
    time::Time,
};

/// The field of the index that says that the session at the provider has ended, whoever's it was.
const ENDED: &str = "ended";

/// What a provider has said.
pub(crate) struct ProviderLogout<'l> {
    /// The name of the token that says it, and until when that is good.
    pub(crate) token: &'l str,
    pub(crate) until: Time,
    /// What began after this goes on: it began after the logout, too. A token can be late.
    pub(crate) certainly_past: Time,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogoutOutcome {
    /// The sessions have ended, or had.
    Ended,
    /// The token was used before. Nothing was done.
    Replayed,
}

impl<H: Host> Sessions<'_, H> {
    /// Ends all sessions of a user, once for each token: that is remembered in the transaction that sets the mark. Two calls if
    /// there is nothing to delete; more if the token is a minute late, for sessions that began since then.
    pub(crate) async fn end_all_at_logout(
        &self,
        user: &UserTag,
        logout: &ProviderLogout<'_>,
    ) -> Result<LogoutOutcome, Error> {
        self.check_can_end_all()?;
        let mark = self.new_mark();
        let (state_key, list_key) = (self.state_key(user), self.list_key(user));
        let token_key = self.logout_token_key(logout.token);
        let (mark_text, longest) = (mark.to_string(), self.rules.lifetimes.longest());
        let (mut retry, mut kept) = (Retry::default(), Vec::new());
        let mut is_first = true;
        let listed = loop {
            // 1. Whether it was done: the token names the mark that it was to set. If the user has an older one still, it was not,
            // whatever became of that attempt; with a later one, all that was to end has ended.
            let batch = Batch::default().get_from_primary(&state_key).get_from_primary(&token_key);
            let [state, token] = self.store.run(batch.atomic()).await?;
            let (state, token) = (state.value()?, token.value()?);
            let current = UserState::parse(state.as_deref());
            if let Some(used) = token.as_deref().and_then(base64url::decode_array).map(Nonce)
                && current.revocation_mark.is_some_and(|set| set.time() >= used.time())
            {
                if used != mark {
                    return Ok(LogoutOutcome::Replayed);
                }
                // An attempt whose answer was lost. Sessions in the list now may be newer.
                break Vec::new();
            }
            // 2. Sessions that began after the logout survive.
            if std::mem::take(&mut is_first) && logout.certainly_past < self.host.now() {
                kept = self.survive_later(user, logout.certainly_past, &mark).await?;
            }
            // 3. The mark, and the list in that moment.
            let next = UserState { revocation_mark: Some(mark), ..current }.to_json();
            let batch = match &state {
                Some(state) => Batch::default().replace(&state_key, state, &next, Some(longest)),
                None => Batch::default().create(&state_key, &next, longest),
            };
            let ttl = self.token_ttl(logout);
            let batch = match &token {
                // Of an attempt that did not get that far.
                Some(_) => batch.set(&token_key, &mark_text, ttl),
                None => batch.create(&token_key, &mark_text, ttl),
            };
            match self.store.run(batch.hash(&*list_key).atomic()).await {
                Ok([written, _, listed]) if written.is_ok()? => break listed.pairs()?,
                Ok(_) => self.check_deadline()?,
                Err(failure) => retry.after(failure, self.store).await?,
            }
        };
        self.isolate.count("revocations", self.host.now());
        self.delete_records(user, listed, &kept).await;
        Ok(LogoutOutcome::Ended)
    }

    /// Ends the sessions that began with the one at the provider that has this name; of these users alone, if any is given. The
    /// token is remembered once they have ended: until then it can be sent again. Four calls, and more for each session.
    pub(crate) async fn end_provider_session(
        &self,
        name: &str,
        users: &[UserTag],
        logout: &ProviderLogout<'_>,
    ) -> Result<LogoutOutcome, Error> {
        self.check_can_end_all()?;
        let token_key = self.logout_token_key(logout.token);
        let [token] = self.store.run(Batch::default().get_from_primary(&token_key)).await?;
        if token.value()?.is_some() {
            return Ok(LogoutOutcome::Replayed);
        }
        // 1. No login with it counts any more that is under way, and these are those who had one.
        let now = self.host.now();
        let ended = now.min(logout.certainly_past).0.to_string();
        let key = self.provider_session_key(name);
        let fields = match users {
            [] => vec![ENDED.to_owned()],
            users => users.iter().map(ended_for).collect(),
        };
        let longest = self.rules.lifetimes.longest();
        let mut retry = Retry::default();
        let index = loop {
            let mut batch = Batch::default();
            for field in &fields {
                batch = batch.hash_set(&key, field, &ended, longest);
            }
            let batch = batch.hash(&*key).atomic();
            match self.store.run_all(batch).await {
                Ok(replies) => break replies.into_iter().next_back().ok_or(Failure::Garbled)?.pairs()?,
                Err(failure) => retry.after(failure, self.store).await?,
            }
        };
        let users = match users {
            [] => index.iter().filter_map(|(tag, _)| base64url::decode_array(tag)).collect(),
            users => users.to_vec(),
        };
        // 2. Their sessions.
        let is_meant = |record: &Record| {
            record.provider_session.as_deref() == Some(name) && record.created_at <= logout.certainly_past
        };
        for user in &users {
            self.end_listed(user, &is_meant).await?;
        }
        // 3. It is done.
        let mark = self.new_mark().to_string();
        let batch = Batch::default().create(&token_key, &mark, self.token_ttl(logout));
        let [_created] = self.store.run(batch).await?;
        self.isolate.count("revocations", now);
        Ok(LogoutOutcome::Ended)
    }

    /// How long a token is remembered: while it is good, and at most as long as a session lasts. Later it would end nothing, as
    /// what is left began after it.
    fn token_ttl(&self, logout: &ProviderLogout<'_>) -> Duration {
        (logout.until - self.host.now()).min(self.rules.lifetimes.longest())
    }

    /// Ends those of a user's sessions of which `is_meant` says so, also those that are being rotated.
    async fn end_listed(&self, user: &UserTag, is_meant: &dyn Fn(&Record) -> bool) -> Result<(), Error> {
        for handle in self.listed(user, is_meant).await? {
            match self.find(&handle).await {
                Ok(stored) if is_meant(&stored.record) => self.end_stored(user, stored).await?,
                Ok(_) | Err(Error::NotFound | Error::Unreadable(..)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets the sessions of a user that began after this time survive a mark that will be set. Returns their families.
    async fn survive_later(&self, user: &UserTag, time: Time, mark: &Nonce) -> Result<Vec<Family>, Error> {
        let is_later = |record: &Record| record.created_at > time;
        let mut kept = Vec::new();
        for handle in self.listed(user, &is_later).await? {
            let mut retry = Retry::default();
            loop {
                let StoredSession { handle, record, stored, .. } = match self.find(&handle).await {
                    Ok(found) if is_later(&found.record) => found,
                    Ok(_) | Err(Error::NotFound | Error::Unreadable(..)) => break,
                    Err(error) => return Err(error),
                };
                if record.marks.contains(mark) {
                    kept.push(record.family);
                    break;
                }
                let (key, next) = (self.key(&handle), self.seal(&handle, &record.surviving(mark)));
                match self.store.run(Batch::default().replace(&key, &stored, &next, None)).await {
                    Ok([written]) if written.is_ok()? => {
                        kept.push(record.family);
                        break;
                    }
                    Ok(_) => self.check_deadline()?,
                    Err(failure) => retry.after(failure, self.store).await?,
                }
            }
        }
        Ok(kept)
    }

    /// The handles in a user's list of which `is_meant` says so, and those that lead on: to what, the list may not know yet.
    async fn listed(&self, user: &UserTag, is_meant: &dyn Fn(&Record) -> bool) -> Result<Vec<Handle>, Error> {
        let (list_key, state_key) = (self.list_key(user), self.state_key(user));
        let [listed] = self.store.run(Batch::default().hash(&*list_key).at_primary(&state_key)).await?;
        let listed = listed.pairs()?;
        let handles: Vec<Handle> = listed.iter().filter_map(|(handle, _)| Handle::parse(handle)).collect();
        let mut meant = Vec::new();
        for handles in handles.chunks((MAX_READ / self.rules.max_bytes).max(1)) {
            let keys: Vec<String> = handles.iter().map(|handle| self.key(handle)).collect();
            let [values] = self.store.run(Batch::default().get(&keys).at_primary(&state_key)).await?;
            for ((handle, key), value) in handles.iter().zip(&keys).zip(values.values(keys.len())?) {
                match value.map(|stored| self.open(key, &stored)) {
                    Some(Ok(Entry::Session(record))) if !is_meant(&record) => {}
                    Some(Ok(Entry::Session(_) | Entry::Redirect(_))) => meant.push(*handle),
                    _ => {}
                }
            }
        }
        Ok(meant)
    }

    /// Whether a session at the provider has ended after a login to it began, so that this does not count. One call.
    pub(crate) async fn has_ended_since(
        &self,
        name: &str,
        user: &UserTag,
        begun: Time,
    ) -> Result<bool, Error> {
        let ended = self.ended_at(&self.provider_session_key(name), user).await?;
        Ok(ended.is_some_and(|ended| begun < ended))
    }

    /// The key of the index that a session belongs to, and its user there.
    pub(super) fn provider_session_of(&self, session: &Session) -> Option<(String, String)> {
        let name = session.record.provider_session.as_ref()?;
        Some((self.provider_session_key(name), base64url::encode(&session.ticket.user?)))
    }

    /// When the session at the provider ended that a session belongs to, if that has. One call, if it belongs to one.
    pub(super) async fn logged_out(&self, session: &Session) -> Result<Option<Time>, Failure> {
        let (Some((key, _)), Some(user)) = (self.provider_session_of(session), session.ticket.user) else {
            return Ok(None);
        };
        self.ended_at(&key, &user).await
    }

    /// When the session at the provider ended whose index has this key, for this user, if it has.
    async fn ended_at(&self, key: &str, user: &UserTag) -> Result<Option<Time>, Failure> {
        let [index] = self.store.run(Batch::default().hash(key).at_primary(self.state_key(user))).await?;
        Ok(logged_out_since(&index.pairs()?, &base64url::encode(user)))
    }
}

/// When the session at the provider has ended, as the index of a user with this tag says.
pub(super) fn logged_out_since(index: &[(String, String)], tag: &str) -> Option<Time> {
    let is_theirs = |field: &str| {
        field.strip_prefix(ENDED).is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':') == Some(tag))
    };
    let times = index.iter().filter(|(field, _)| is_theirs(field)).filter_map(|(_, time)| time.parse().ok());
    times.max().map(Time)
}

fn ended_for(user: &UserTag) -> String {
    [ENDED, ":", &base64url::encode(user)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_at_a_provider_has_ended_for_all_or_for_one() {
        let (tag, other) = (base64url::encode(&[7; 16]), base64url::encode(&[8; 16]));
        let since = |fields: &[(String, &str)]| {
            let index: Vec<_> =
                fields.iter().map(|(field, time)| (field.clone(), (*time).to_owned())).collect();
            logged_out_since(&index, &tag)
        };
        assert_eq!(since(&[(tag.clone(), ""), (other.clone(), "")]), None);
        assert_eq!(since(&[(ended_for(&[8; 16]), "5")]), None);
        assert_eq!(since(&[(ended_for(&[7; 16]), "5"), (tag.clone(), "")]), Some(Time(5)));
        assert_eq!(since(&[(ENDED.to_owned(), "9"), (ended_for(&[7; 16]), "5")]), Some(Time(9)));
    }
}
