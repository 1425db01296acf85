//! Where accounts are kept. Every change is a compare-and-set on what was read, as with sessions.

use super::{
    Account,
    name::Name,
    password::{self, Params, Verification, Verified},
};
use crate::{
    base64url,
    host::{Host, random},
    id::Nonce,
    session::{Error, Retry, Sessions, User, UserState, Versioned, update},
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
    stored: String,
}

impl StoredAccount {
    /// From what is stored under a key, if anything is. Errors: it cannot be read.
    pub fn parse(key: String, stored: Option<String>) -> Result<Option<Self>, Error> {
        let Some(stored) = stored else { return Ok(None) };
        let account = Account::parse(&stored).ok_or(Error::UnreadableAccount)?;
        Ok(Some(Self { key, account, stored }))
    }
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

    fn key_of(&self, folded_name: &str) -> String {
        [&self.sessions.rules.key_prefix, "account:", folded_name].concat()
    }

    /// The key that holds the name of a user's account.
    fn name_key(&self, user: &UserTag) -> String {
        [&self.sessions.rules.key_prefix, "user:", &base64url::encode(user), ":account"].concat()
    }

    /// Makes an account, unless the name is taken. One call.
    pub async fn create(&self, name: &Name, password: &str) -> Result<Account, Error> {
        let hash = self.hash(password)?;
        let id = Nonce(random(self.sessions.host)).to_string();
        let account =
            Account::new(self.sessions.nonce(), id, name.shown.clone(), hash, self.sessions.host.now());
        let (key, name_key) = (self.key(name), self.name_key(&account.user().tag()));
        let (stored, mut retry) = (account.to_json(), Retry::default());
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
        StoredAccount::parse(key.to_owned(), values.values(1)?.pop().flatten())
    }

    /// The account of this user, by name and id: the name may belong to somebody else by now.
    pub async fn of_user(&self, user: &User) -> Result<StoredAccount, Error> {
        let name = Name::parse(&user.name, self.sessions.host).map_err(|_| Error::NoAccount)?;
        let stored = self.read(&self.key(&name)).await?;
        stored.filter(|stored| stored.account.id == user.id).ok_or(Error::NoAccount)
    }

    /// The account of the user with this tag.
    async fn by_tag(&self, user: &UserTag) -> Result<StoredAccount, Error> {
        let name_key = self.name_key(user);
        let [name] = self.sessions.store.run(Batch::default().get_from_primary(&name_key)).await?;
        let name = name.value()?.ok_or(Error::NoAccount)?;
        let stored = self.read(&self.key_of(&name)).await?;
        stored.filter(|stored| stored.account.user().tag() == *user).ok_or(Error::NoAccount)
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
            if account.to_json() == current.stored {
                return Ok(None);
            }
            let account = account.with_revision(self.sessions.nonce());
            Ok(Some(StoredAccount { key: key.clone(), stored: account.to_json(), account }))
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

    /// Deletes the account. Its sessions are ended before and after.
    pub async fn delete(&self, stored: StoredAccount) -> Result<(), Error> {
        let name_key = self.name_key(&stored.account.user().tag());
        let (mut next, mut retry) = (Some(stored), Retry::default());
        while let Some(StoredAccount { key, account, stored }) = next {
            let batch = Batch::default().delete_if(&key, &stored).delete([&*name_key]).atomic();
            match self.sessions.store.run(batch).await {
                Ok([deleted, _]) if deleted.integer()? > 0 => break,
                Ok(_) => self.sessions.check_deadline()?,
                Err(failure) => retry.after(failure, self.sessions.store).await?,
            }
            next = self.read(&key).await?.filter(|stored| stored.account.id == account.id);
        }
        Ok(())
    }

    /// Gives a user other roles, from the next request on.
    pub async fn set_roles(&self, id: &str, roles: &[String]) -> Result<(), Error> {
        self.sessions.check_native("roles are read from the application's record (cookie.format)")?;
        let tag = User::tag_of(id);
        let change = |account: &mut Account| {
            account.roles = roles.to_vec();
            Ok(())
        };
        let updated = self.update(self.by_tag(&tag).await?, &change).await;
        // The account was deleted meanwhile: that says nothing about the session of the caller.
        let mut current =
            updated.map_err(|error| if error == Error::Ended { Error::NoAccount } else { error })?;
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

    /// Stores another password, unless it was changed since the account was read.
    pub async fn set_password(&self, current: StoredAccount, password: &str) -> Result<StoredAccount, Error> {
        self.replace_hash(current, password, Some(self.sessions.nonce())).await
    }

    /// Stores a new hash of a password: of another one if that has a name.
    async fn replace_hash(
        &self,
        current: StoredAccount,
        password: &str,
        name: Option<Nonce>,
    ) -> Result<StoredAccount, Error> {
        let (old, new) = (current.account.hash.clone(), self.hash(password)?);
        let change = |account: &mut Account| {
            if account.hash != old {
                return Err(Error::InvalidCredentials);
            }
            account.hash.clone_from(&new);
            account.password_revision = name.or(account.password_revision);
            Ok(())
        };
        self.update(current, &change).await
    }

    /// The account, if the password is right; without an account it does the same work, and fails. An outdated hash is
    /// renewed, which only who gives the right password can notice.
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
            match (verification.run(password), stored) {
                (Some(Verified { is_outdated: true }), Some(outdated)) => {
                    let key = outdated.key.clone();
                    match self.replace_hash(outdated, password, None).await {
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
