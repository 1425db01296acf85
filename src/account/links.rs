//! Identities at providers by which an account's owner can log in, too.
//!
//! An identity is tied to an account while both say so: the account's record holds `"links":{"<provider>":"<identity>"}`, and
//! `user:<tag of the identity>:linked` holds the account's name, as `user:<tag>:account` does. The identity is the id that its
//! user has without an account, such as `google:1094563`.
//!
//! Why no identity ever has two accounts, nor an account two identities of one provider: there is one key for an identity, and
//! one place for a provider in a record. Both are written by one script, which looks at everything that was read before: the
//! record to be changed, the key, and the record of the account that the key names, if that is another. So no write can be made
//! half, and a script whose answer was lost was made if the record knows its revision. What contradicts itself (an account
//! that was deleted by hand, or changed by a version of this Worker that knows no links) is not tied, and gives way to the next
//! account that asks.

use super::{Account, Accounts, PasswordTag, StoredAccount};
use crate::{
    base64url,
    host::Host,
    http::Problem,
    session::{Error, User, update},
    store::{Batch, Failure},
};

/// Ties: the account, the identity's key, the account that this key names, if it is another; the account as it was read and as
/// it is to be, the key's value as it was read and as it is to be, the other account as it was read. What does not exist is
/// empty. 1, or 0 if the account has changed, or -1 if anything else has.
const TIE: &str = "#!lua flags=allow-key-locking
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return -1 end
if KEYS[3] and (redis.call('GET', KEYS[3]) or '') ~= ARGV[5] then return -1 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
redis.call('SET', KEYS[2], ARGV[4])
return 1";

/// Unties: the account, and keys of identities; the account as it was read and as it is to be, empty: deleted; its name, which the
/// keys hold. A key that names another account stays. 1, or 0 if the account has changed.
const UNTIE: &str = "#!lua flags=allow-key-locking
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[3] then redis.call('DEL', KEYS[i]) end
end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
return 1";

impl<H: Host> Accounts<'_, H> {
    /// The account that an identity at a provider is tied to: disabled ones as well. One call; one more if it is.
    pub(crate) async fn of_identity(
        &self,
        provider: &str,
        identity: &str,
    ) -> Result<Option<StoredAccount>, Error> {
        let key = self.identity_key(identity);
        let [name] = self.sessions.store.run(Batch::default().get_from_primary(&key)).await?;
        let Some(name) = name.value()? else { return Ok(None) };
        let stored = self.read(&self.key_of(&name)).await?;
        Ok(stored.filter(|stored| stored.account.has_link(provider, identity)))
    }

    /// Ties an identity at a provider to an account, as long as that has this password and is not disabled. To do it again does
    /// no harm. Errors: `InvalidCredentials`, it has another password by now; `AlreadyLinked`, the identity is another account's,
    /// or the account has another one of this provider.
    pub(crate) async fn link(
        &self,
        current: StoredAccount,
        provider: &str,
        identity: &str,
        password: PasswordTag,
    ) -> Result<(), Error> {
        let (key, identity_key) = (current.key.clone(), self.identity_key(identity));
        let name = self.name_in(&key).to_owned();
        let make = |current: &StoredAccount| {
            let mut account = current.account.clone();
            if account.disabled || account.password_tag() != password {
                return Err(Error::InvalidCredentials);
            }
            // Written also if it is the same: the key may be missing.
            match account.links.insert(provider.to_owned(), identity.to_owned()) {
                Some(other) if other != identity => Err(Error::AlreadyLinked),
                _ => Ok(Some(self.next(&key, account))),
            }
        };
        let write = async |read: &StoredAccount, next: &StoredAccount| {
            loop {
                // 1. Whose it is.
                let [named] =
                    self.sessions.store.run(Batch::default().get_from_primary(&identity_key)).await?;
                let named = named.value()?.unwrap_or_default();
                if named == name && read.account.has_link(provider, identity) {
                    return Ok(true);
                }
                // 2. An account that it names and that does not say the same has lost it.
                let other_key =
                    Some(&named).filter(|named| !named.is_empty() && **named != name).map(|n| self.key_of(n));
                let other = match &other_key {
                    Some(other_key) => self.read(other_key).await?,
                    None => None,
                };
                if other.as_ref().is_some_and(|other| other.account.has_link(provider, identity)) {
                    return Err(Error::AlreadyLinked);
                }
                // 3. Both at once, if all of this is still so.
                let other = other.map_or_else(String::new, |other| other.stored);
                let keys = [&*key, &*identity_key].into_iter().chain(other_key.as_deref());
                let arguments = [&read.stored, &next.stored, &named, &name, &other].map(String::clone);
                let [tied] = self.sessions.store.run(Batch::default().script(TIE, keys, arguments)).await?;
                match tied.integer()? {
                    1 => return Ok(true),
                    0 => return Ok(false),
                    _ => self.sessions.check_deadline()?,
                }
            }
        };
        let id = current.account.id.clone();
        update(&self.sessions, current, &make, write, async |_| self.reload(&key, &id).await).await.map(drop)
    }

    /// Unties an account from a provider, if it is tied. `is_way_in`: whether one can log in with a provider. Errors: it would be
    /// the last way to log in.
    pub(crate) async fn unlink(
        &self,
        current: StoredAccount,
        provider: &str,
        is_way_in: &dyn Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let key = current.key.clone();
        let make = |current: &StoredAccount| {
            let mut account = current.account.clone();
            if account.links.remove(provider).is_none() {
                return Ok(None);
            }
            if account.hash.is_empty() && !account.links.keys().any(|other| is_way_in(other)) {
                return Err(Error::Refused(Problem::conflict(
                    "this account has no password, and no other provider is tied to it: its owner could not log in any more",
                )));
            }
            Ok(Some(self.next(&key, account)))
        };
        let write = async |read: &StoredAccount, next: &StoredAccount| {
            let identity_key = read.account.links.get(provider).map(|identity| self.identity_key(identity));
            Ok(self.run_untie(read, &next.stored, identity_key).await?)
        };
        let id = current.account.id.clone();
        update(&self.sessions, current, &make, write, async |_| self.reload(&key, &id).await).await.map(drop)
    }

    /// Deletes an account with the keys of its identities. False if it has changed since it was read.
    pub(super) async fn delete_with_links(&self, current: &StoredAccount) -> Result<bool, Failure> {
        if current.account.links.is_empty() {
            let batch = Batch::default().delete_if(&current.key, &current.stored);
            let [deleted] = self.sessions.store.run(batch).await?;
            return Ok(deleted.integer()? > 0);
        }
        let keys = current.account.links.values().map(|identity| self.identity_key(identity));
        self.run_untie(current, "", keys).await
    }

    async fn run_untie(
        &self,
        current: &StoredAccount,
        next: &str,
        identity_keys: impl IntoIterator<Item = String>,
    ) -> Result<bool, Failure> {
        let keys = std::iter::once(current.key.clone()).chain(identity_keys);
        let arguments = [&current.stored, next, self.name_in(&current.key)].map(str::to_owned);
        let [untied] = self.sessions.store.run(Batch::default().script(UNTIE, keys, arguments)).await?;
        Ok(untied.integer()? > 0)
    }

    /// The key that says which account an identity is tied to.
    fn identity_key(&self, identity: &str) -> String {
        let tag = base64url::encode(&User::tag_of(identity));
        [&self.sessions.rules.key_prefix, "user:", &tag, ":linked"].concat()
    }

    /// The folded name in the key of an account.
    fn name_in<'k>(&self, key: &'k str) -> &'k str {
        key.get(self.key_of("").len()..).unwrap_or_default()
    }

    fn next(&self, key: &str, account: Account) -> StoredAccount {
        let account = account.with_revision(self.sessions.nonce());
        StoredAccount { key: key.to_owned(), stored: self.seal(key, &account), account }
    }

    async fn reload(&self, key: &str, id: &str) -> Result<StoredAccount, Error> {
        let reloaded = self.read(key).await?;
        reloaded.filter(|reloaded| reloaded.account.id == id).ok_or(Error::NoAccount)
    }
}
