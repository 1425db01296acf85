//! Where accounts are kept. Every change is a compare-and-set on what was read, as with sessions.

use std::cell::Cell;

use super::{
    Account, Reset, ResetToken,
    name::Name,
    password::{self, Params, Verification, Verified},
};
use crate::{
    base64url,
    encryption::Unopened,
    events::{self, Event},
    host::{Host, random},
    id::Nonce,
    session::{Error, Retry, Sessions, Task, UNREADABLE, User, UserState, Versioned, update},
    store::Batch,
    ticket::UserTag,
};

/// The accounts of a deployment, as one request reads and changes them.
pub struct Accounts<'a, H> {
    /// The sessions of their users.
    pub sessions: Sessions<'a, H>,
    /// How passwords are hashed today.
    pub params: Params,
}

/// An account, as last read from the store or written to it.
#[derive(Clone, Debug)]
pub struct StoredAccount {
    /// Its key.
    pub key: String,
    /// What the store holds.
    pub account: Account,
    /// The same to the letter.
    pub(super) stored: String,
}

impl Versioned for StoredAccount {
    fn revision(&self) -> Nonce {
        self.account.revision
    }

    fn includes(&self, revision: &Nonce) -> bool {
        self.account.includes(revision)
    }
}

impl<H: Host> Accounts<'_, H> {
    /// The key of the account with this name.
    pub fn key(&self, name: &Name) -> String {
        self.key_of(&name.folded)
    }

    /// The same from the folded name alone.
    pub(super) fn key_of(&self, folded_name: &str) -> String {
        [&self.sessions.rules.key_prefix, "account:", folded_name].concat()
    }

    /// The key that holds the name of a user's account.
    pub fn name_key(&self, user: &UserTag) -> String {
        [&self.sessions.rules.key_prefix, "user:", &base64url::encode(user), ":account"].concat()
    }

    /// From what is stored under a key, if anything is. Errors: it cannot be read.
    pub fn open(&self, key: String, stored: Option<String>) -> Result<Option<StoredAccount>, Error> {
        let Some(stored) = stored else { return Ok(None) };
        let json = self.sessions.rules.encryption.open(&key, &stored);
        let json = json.map_err(|Unopened(why)| Error::UnreadableAccount(why))?;
        let account = Account::parse(&json).ok_or(Error::UnreadableAccount(UNREADABLE))?;
        if !self.sessions.rules.encryption.is_current(&stored) {
            self.sessions.isolate.defer(Task::Reseal(key.clone()));
        }
        Ok(Some(StoredAccount { key, account, stored }))
    }

    /// What is to be stored of an account.
    pub(super) fn seal(&self, key: &str, account: &Account) -> String {
        self.sessions.rules.encryption.seal(key, account.to_json(), self.sessions.host)
    }

    /// Makes an account, unless the name is taken. Without a password it can only be entered through a reset. One call.
    pub async fn create(
        &self,
        name: &Name,
        password: Option<&str>,
        roles: Vec<String>,
    ) -> Result<Account, Error> {
        let hash = password.map_or(Ok(String::new()), |password| self.hash(password))?;
        let id = Nonce(random(self.sessions.host)).to_string();
        let (revision, now) = (self.sessions.nonce(), self.sessions.host.now());
        let account = Account::new(revision, id, name.shown.clone(), hash, roles, now);
        let (key, name_key) = (self.key(name), self.name_key(&account.user().tag()));
        let (stored, mut retry) = (self.seal(&key, &account), Retry::default());
        loop {
            let pairs = [(&*key, &*stored), (&*name_key, &*name.folded)];
            match self.sessions.store.run(Batch::default().create_all(pairs)).await {
                Ok([made]) if made.integer()? > 0 => return Ok(account),
                Ok(_) => {
                    // It exists: perhaps an attempt of ours whose answer was lost has made it.
                    let existing = self.read(&key).await?;
                    let is_ours = existing.is_some_and(|existing| existing.account.id == account.id);
                    return if is_ours { Ok(account) } else { Err(Error::NameTaken) };
                }
                Err(failure) => retry.after(failure, self.sessions.store).await?,
            }
        }
    }

    /// The account under this key, as the primary has it.
    pub async fn read(&self, key: &str) -> Result<Option<StoredAccount>, Error> {
        let [values] = self.sessions.store.run(Batch::default().get([key]).at_primary(key)).await?;
        self.open(key.to_owned(), values.values(1)?.pop().flatten())
    }

    /// The account of this user, by name and id: the name may belong to somebody else by now.
    pub async fn of_user(&self, user: &User) -> Result<StoredAccount, Error> {
        let name = Name::parse(&user.name, self.sessions.host).map_err(|_| Error::NoAccount)?;
        let stored = self.read(&self.key(&name)).await?;
        stored.filter(|stored| stored.account.id == user.id).ok_or(Error::NoAccount)
    }

    /// The account of the user with this tag. Two calls.
    pub async fn by_tag(&self, user: &UserTag) -> Result<StoredAccount, Error> {
        let name_key = self.name_key(user);
        let [name] = self.sessions.store.run(Batch::default().get_from_primary(&name_key)).await?;
        let name = name.value()?;
        let is_named = name.is_some();
        let stored = self.by_stored_name(name, user).await?;
        if is_named && stored.is_none() {
            // A deletion broke off before its end.
            self.sessions.isolate.defer(Task::Delete(vec![name_key]));
        }
        stored.ok_or(Error::NoAccount)
    }

    /// The same, when the value of [`Self::name_key`] is known already. `None` if there is no account.
    pub async fn by_stored_name(
        &self,
        name: Option<String>,
        user: &UserTag,
    ) -> Result<Option<StoredAccount>, Error> {
        let Some(name) = name else { return Ok(None) };
        let stored = self.read(&self.key_of(&name)).await?;
        Ok(stored.filter(|stored| stored.account.user().tag() == *user))
    }

    /// Whether this user has an account here that is disabled: then no session may begin, whoever has authenticated them. One
    /// call; one more if there is an account.
    pub async fn is_disabled(&self, user: &UserTag) -> Result<bool, Error> {
        let name_key = self.name_key(user);
        let [name] = self.sessions.store.run(Batch::default().get_from_primary(&name_key)).await?;
        let stored = self.by_stored_name(name.value()?, user).await?;
        Ok(stored.is_some_and(|stored| stored.account.disabled))
    }

    /// Changes an account: `change` is applied to its newest state.
    pub async fn update(
        &self,
        current: StoredAccount,
        change: &dyn Fn(&mut Account) -> Result<(), Error>,
    ) -> Result<StoredAccount, Error> {
        let (key, id) = (current.key.clone(), current.account.id.clone());
        let make = |current: &StoredAccount| {
            let mut account = current.account.clone();
            change(&mut account)?;
            let is_same = account.to_json() == current.account.to_json();
            if is_same && self.sessions.rules.encryption.is_current(&current.stored) {
                return Ok(None);
            }
            let account = account.with_revision(self.sessions.nonce());
            Ok(Some(StoredAccount { key: key.clone(), stored: self.seal(&key, &account), account }))
        };
        let write = async |read: &StoredAccount, next: &StoredAccount| {
            let batch = Batch::default().replace(&key, &read.stored, &next.stored, None);
            let [replaced] = self.sessions.store.run(batch).await?;
            Ok(replaced.is_ok()?)
        };
        let reload = async |_| {
            let reloaded = self.read(&key).await?;
            reloaded.filter(|reloaded| reloaded.account.id == id).ok_or(Error::Ended)
        };
        update(&self.sessions, current, &make, write, reload).await
    }

    /// Deletes the account. Its sessions are ended before and after, unless it is disabled: then it has none. Errors: Conflict
    /// if such a one was enabled meanwhile.
    pub async fn delete(&self, stored: StoredAccount) -> Result<(), Error> {
        let name_key = self.name_key(&stored.account.user().tag());
        let (mut next, mut retry) = (Some(stored), Retry::default());
        // 1. The account, with what is tied to it: as long as it is there it must be found by its id, so that this can be
        // repeated.
        while let Some(stored) = next {
            match self.delete_with_links(&stored).await {
                Ok(true) => break,
                Ok(false) => self.sessions.check_deadline()?,
                Err(failure) => retry.after(failure, self.sessions.store).await?,
            }
            let StoredAccount { key, account, .. } = stored;
            next = self.read(&key).await?.filter(|stored| stored.account.id == account.id);
            if account.disabled && next.as_ref().is_some_and(|changed| !changed.account.disabled) {
                return Err(Error::Conflict);
            }
        }
        // 2. What leads to it.
        loop {
            let outcome = self.sessions.store.run(Batch::default().delete([&*name_key])).await;
            let Err(failure) = outcome.and_then(|[deleted]| deleted.integer()) else { return Ok(()) };
            if let Err(error) = retry.after(failure, self.sessions.store).await {
                self.sessions.isolate.defer(Task::Delete(vec![name_key]));
                return Err(error);
            }
        }
    }

    /// Gives a user other roles, from the next request on.
    pub async fn set_roles(&self, id: &str, roles: &[String]) -> Result<(), Error> {
        self.sessions.check_native("roles are read from the application's record (cookie.format)")?;
        let tag = User::tag_of(id);
        let change = |account: &mut Account| {
            account.roles = roles.to_vec();
            Ok(())
        };
        let mut current = self.update(self.by_tag(&tag).await?, &change).await.map_err(deleted)?;
        loop {
            let roles = current.account.roles;
            // Written also if they are the same: they must outlast the sessions that have begun since.
            let change = |state| Ok(Some(UserState { roles: Some(roles.clone()), ..state }));
            self.sessions.update_user_state(&tag, &change).await?;
            // Of two changes at once the account has the later one, and whoever writes the state last sees it here.
            let reloaded = self.read(&current.key).await?;
            current = reloaded
                .filter(|reloaded| reloaded.account.id == current.account.id)
                .ok_or(Error::NoAccount)?;
            if current.account.roles == roles {
                return Ok(());
            }
        }
    }

    /// Disables an account, or enables it again. A disabled one has no sessions, and no reset under way. If it fails, it
    /// can be repeated.
    pub async fn set_disabled(&self, id: &str, disabled: bool) -> Result<StoredAccount, Error> {
        let (updated, has_changed) = self.write_disabled(id, disabled).await?;
        if has_changed {
            let event = if disabled { Event::Disabled } else { Event::Enabled };
            events::tell(self.sessions.host, self.sessions.isolate, Some(&updated.account.user()), &event);
        }
        if disabled {
            // Logins that are under way looked at the account before, and so began before this mark.
            self.sessions.end_all(&User::tag_of(id), None).await?;
        }
        Ok(updated)
    }

    /// Disables an account that is to be deleted: no session begins from then on.
    pub async fn close(&self, id: &str) -> Result<StoredAccount, Error> {
        let (updated, _) = self.write_disabled(id, true).await?;
        self.sessions.end_all(&User::tag_of(id), None).await?;
        Ok(updated)
    }

    /// The account as it is then, and whether it was otherwise before.
    async fn write_disabled(&self, id: &str, disabled: bool) -> Result<(StoredAccount, bool), Error> {
        self.sessions.check_can_end_all()?;
        let tag = User::tag_of(id);
        let was_disabled = Cell::new(disabled);
        let change = |account: &mut Account| {
            was_disabled.set(account.disabled);
            account.set_disabled(disabled);
            account.reset = account.reset.take().filter(|_| !disabled);
            Ok(())
        };
        let updated = self.update(self.by_tag(&tag).await?, &change).await.map_err(deleted)?;
        Ok((updated, was_disabled.get() != disabled))
    }

    /// Begins a reset of an account's password. The one before it ends.
    pub async fn begin_reset(&self, id: &str) -> Result<(User, ResetToken, Reset), Error> {
        let tag = User::tag_of(id);
        let token = ResetToken::new(tag, random(self.sessions.host));
        let reset = token.begin(self.sessions.host.now());
        let change = |account: &mut Account| {
            account.reset = Some(reset.clone());
            Ok(())
        };
        let updated = self.update(self.by_tag(&tag).await?, &change).await.map_err(deleted)?;
        Ok((updated.account.user(), token, reset))
    }

    /// Ends the reset that is under way, if one is: its owner has given the password. Error: it is another one meanwhile, or
    /// the account is disabled.
    pub async fn end_reset(&self, verified: StoredAccount) -> Result<StoredAccount, Error> {
        if verified.account.reset.is_none() {
            return Ok(verified);
        }
        let (password, tag) = (verified.account.password_tag(), verified.account.user().tag());
        let change = |account: &mut Account| {
            if account.password_tag() != password || account.disabled {
                return Err(Error::InvalidCredentials);
            }
            account.reset = None;
            Ok(())
        };
        let updated = self.update(verified, &change).await?;
        // Whoever is about to end all sessions by its token must not end the one that begins now.
        let renamed = Some(self.sessions.nonce());
        let rename = |state| Ok(Some(UserState { revision: renamed, ..state }));
        self.sessions.update_user_state(&tag, &rename).await?;
        Ok(updated)
    }

    /// Ends all sessions of the token's user, as long as it opens the account under this key.
    pub async fn end_all_for_reset(&self, key: &str, token: &ResetToken) -> Result<(), Error> {
        let is_opened = async || {
            let stored = self.read(key).await?;
            let is_opened = stored.is_some_and(|stored| self.is_opened_by(&stored.account, token));
            if is_opened { Ok(()) } else { Err(Error::InvalidCredentials) }
        };
        self.sessions.end_all_while(&token.user, is_opened).await
    }

    /// Whether the token opens the account now.
    pub fn is_opened_by(&self, account: &Account, token: &ResetToken) -> bool {
        !account.disabled
            && account.user().tag() == token.user
            && token.opens(account.reset.as_ref(), self.sessions.host.now())
    }

    /// Stores another password by a token of [`Self::begin_reset`], which opens nothing from then on.
    pub async fn reset_password(
        &self,
        current: StoredAccount,
        token: &ResetToken,
        password: &str,
    ) -> Result<StoredAccount, Error> {
        let is_allowed = |account: &Account| self.is_opened_by(account, token);
        self.replace_hash(current, password, Some(self.sessions.nonce()), &is_allowed).await
    }

    /// Stores another password, unless it was changed since the account was read.
    pub async fn set_password(&self, current: StoredAccount, password: &str) -> Result<StoredAccount, Error> {
        let old = current.account.hash.clone();
        let is_allowed = |account: &Account| account.hash == old && !account.disabled;
        self.replace_hash(current, password, Some(self.sessions.nonce()), &is_allowed).await
    }

    /// Stores a new hash of a password: of another one if that has a name, which ends the reset that is under way.
    async fn replace_hash(
        &self,
        current: StoredAccount,
        password: &str,
        name: Option<Nonce>,
        is_allowed: &dyn Fn(&Account) -> bool,
    ) -> Result<StoredAccount, Error> {
        let new = self.hash(password)?;
        let change = |account: &mut Account| {
            if !is_allowed(account) {
                return Err(Error::InvalidCredentials);
            }
            account.hash.clone_from(&new);
            account.password_revision = name.or(account.password_revision);
            account.reset = account.reset.take().filter(|_| name.is_none());
            Ok(())
        };
        self.update(current, &change).await
    }

    /// The account, if the password is right and it is not disabled; without an account it does the same work, and fails. An
    /// outdated hash is renewed, which only who gives the right password can notice.
    pub async fn verify_password(
        &self,
        mut stored: Option<StoredAccount>,
        password: &str,
    ) -> Result<StoredAccount, Error> {
        loop {
            let hash = stored.as_ref().map(|stored| stored.account.hash.as_str());
            let seen = &self.sessions.isolate.costliest_hash;
            let verification = Verification::new(hash, self.params, seen.get());
            seen.set(Some(verification.costliest()));
            let verified = verification.run(password);
            match (verified, stored.filter(|stored| !stored.account.disabled)) {
                (Some(Verified { is_outdated: true }), Some(outdated)) => {
                    let key = outdated.key.clone();
                    let old = outdated.account.hash.clone();
                    let is_allowed = |account: &Account| account.hash == old && !account.disabled;
                    match self.replace_hash(outdated, password, None, &is_allowed).await {
                        // The hash is another one by now: of the same password, if another login renewed it.
                        Err(Error::InvalidCredentials | Error::Ended) => stored = self.read(&key).await?,
                        outcome => return outcome,
                    }
                }
                (Some(_), Some(stored)) => return Ok(stored),
                _ => {
                    self.sessions.isolate.count("failed_logins", self.sessions.host.now());
                    return Err(Error::InvalidCredentials);
                }
            }
        }
    }

    /// The hash of a password under a new salt.
    fn hash(&self, password: &str) -> Result<String, Error> {
        let salt = random(self.sessions.host);
        // The parameters were checked when the configuration was read.
        password::hash(password, salt, self.params).ok_or(Error::Conflict)
    }
}

/// The account was deleted meanwhile: that says nothing about the session of the caller.
fn deleted(error: Error) -> Error {
    if error == Error::Ended { Error::NoAccount } else { error }
}
