//! Where accounts are kept. Every change is a compare-and-set on what was read, as with sessions.

use base64ct::{Base64UrlUnpadded, Encoding};

use super::{
    Account,
    name::Name,
    password::{self, Params},
};
use crate::{
    host::{self, Host},
    id::Nonce,
    session::{Desk, Error, Lost, Revisions, Standing, User},
    store::{Batch, Failure},
    ticket::UserTag,
};

/// Where accounts are read and changed during one request.
pub struct Registry<'a, H> {
    /// Where sessions are.
    pub desk: &'a Desk<'a, H>,
    /// How passwords are hashed today.
    pub params: Params,
}

/// An account as last read from the store or written to it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where.
    pub key: String,
    /// What the store holds, taken apart.
    pub account: Account,
    /// The same to the letter.
    stored: String,
}

impl Kept {
    /// Reads what stands under a key; `None` when nothing of ours does.
    pub fn read(key: String, stored: Option<String>) -> Option<Self> {
        let stored = stored?;
        Account::parse(&stored).map(|account| Self { key, account, stored })
    }
}

impl<H: Host> Registry<'_, H> {
    /// Where the account of this name is.
    pub fn key(&self, name: &Name) -> String {
        format!("{}account:{}", self.desk.rules.key_prefix, name.folded)
    }

    /// What leads there from the user.
    fn owner_key(&self, user: &UserTag) -> String {
        format!("{}user:{}:account", self.desk.rules.key_prefix, Base64UrlUnpadded::encode_string(user))
    }

    /// Makes an account, if nobody has the name, and the way to it from its id. One call.
    pub async fn create(&self, name: &Name, password: &str) -> Result<Account, Error> {
        let hash = self.hash(password)?;
        let id = Nonce(host::random(self.desk.host)).to_string();
        let revisions = Revisions::first(self.desk.nonce());
        let account = Account::new(revisions, id, name.shown.clone(), hash, self.desk.host.now());
        let (key, owner_key) = (self.key(name), self.owner_key(&account.user().tag()));
        let (stored, mut lost) = (account.to_json(), Lost::default());
        loop {
            let pairs = [&*key, &stored, &owner_key, &name.folded];
            match self.desk.store.run(Batch::default().claim(&pairs)).await {
                Ok([made]) if made.count()? > 0 => return Ok(account),
                Ok(_) => {
                    // Somebody has it: this very attempt, perhaps, whose answer was lost.
                    let kept = self.read(&key).await?;
                    let is_ours = kept.is_some_and(|kept| kept.account.id == account.id);
                    return if is_ours { Ok(account) } else { Err(Error::Taken) };
                }
                Err(failure) => lost.bear(failure, self.desk.store).await?,
            }
        }
    }

    /// The account under this key, as the primary has it.
    pub async fn read(&self, key: &str) -> Result<Option<Kept>, Failure> {
        let [_, values] = self.desk.store.run(Batch::default().at_primary(key).get(&[key])).await?;
        let [stored] = values.values()?;
        Ok(Kept::read(key.to_owned(), stored))
    }

    /// The account of this user, by name and id: a name may have gone to somebody else.
    pub async fn of(&self, user: &User, name: &Name) -> Result<Kept, Error> {
        let kept = self.read(&self.key(name)).await?;
        kept.filter(|kept| kept.account.id == user.id).ok_or(Error::NoAccount)
    }

    /// The account of the user with this tag.
    async fn by_tag(&self, user: &UserTag) -> Result<Kept, Error> {
        let owner_key = self.owner_key(user);
        let [_, values] =
            self.desk.store.run(Batch::default().at_primary(&owner_key).get(&[&owner_key])).await?;
        let [folded] = values.values()?;
        let key = format!("{}account:{}", self.desk.rules.key_prefix, folded.ok_or(Error::NoAccount)?);
        let kept = self.read(&key).await?;
        kept.filter(|kept| kept.account.user().tag() == *user).ok_or(Error::NoAccount)
    }

    /// Changes an account by what `change` makes of its last state.
    pub async fn update(
        &self,
        mut kept: Kept,
        change: &dyn Fn(&mut Account) -> Result<(), Error>,
    ) -> Result<Kept, Error> {
        let mut lost = Lost::default();
        let mut unsettled: Vec<Nonce> = Vec::new();
        loop {
            if unsettled.iter().any(|revision| kept.account.revisions.contains(revision)) {
                return Ok(kept);
            }
            let revision = self.desk.nonce();
            let mut account = kept.account.clone();
            change(&mut account)?;
            if account.to_json() == kept.stored {
                return Ok(kept);
            }
            account.revisions = account.revisions.followed_by(revision);
            let stored = account.to_json();
            match self.desk.store.run(Batch::default().replace(&kept.key, &kept.stored, &stored)).await {
                Ok([done]) if done.is_done()? => return Ok(Kept { account, stored, ..kept }),
                Ok(_) => self.desk.check_deadline()?,
                Err(failure) => {
                    lost.bear(failure, self.desk.store).await?;
                    unsettled.push(revision);
                }
            }
            let id = kept.account.id;
            kept = self.read(&kept.key).await?.filter(|kept| kept.account.id == id).ok_or(Error::Ended)?;
        }
    }

    /// Takes the account away, and the way to it. Its sessions are ended before and after.
    pub async fn delete(&self, kept: Kept) -> Result<(), Error> {
        let owner_key = self.owner_key(&kept.account.user().tag());
        let (mut next, mut lost) = (Some(kept), Lost::default());
        while let Some(Kept { key, account, stored }) = next {
            let batch = Batch::default().delete_if(&key, &stored).delete(&[&owner_key]).as_one();
            match self.desk.store.run(batch).await {
                Ok([deleted, _]) if deleted.count()? > 0 => break,
                Ok(_) => self.desk.check_deadline()?,
                Err(failure) => lost.bear(failure, self.desk.store).await?,
            }
            next = self.read(&key).await?.filter(|kept| kept.account.id == account.id);
        }
        Ok(())
    }

    /// Gives a user other roles, from their next request on.
    pub async fn set_roles(&self, id: &str, roles: &[String]) -> Result<(), Error> {
        let tag = User::tag_of(id);
        let change = |account: &mut Account| {
            account.roles = roles.to_vec();
            Ok(())
        };
        let mut kept = self.update(self.by_tag(&tag).await?, &change).await?;
        loop {
            let roles = kept.account.roles;
            // Also when it has them already: it is to outlast whoever logged in since.
            let change = |standing| Ok(Some(Standing { roles: Some(roles.clone()), ..standing }));
            self.desk.set_standing(&tag, &change).await?;
            // Of two changes at once the account has the later one, and whoever comes last to the standing sees it.
            let again = self.read(&kept.key).await?.filter(|again| again.account.id == kept.account.id);
            kept = again.ok_or(Error::NoAccount)?;
            if kept.account.roles == roles {
                return Ok(());
            }
        }
    }

    /// Keeps another password, or the same under today's parameters; unless it was changed since the account was read.
    pub async fn set_password(&self, kept: Kept, password: &str) -> Result<Kept, Error> {
        let (old, new) = (kept.account.hash.clone(), self.hash(password)?);
        let change = |account: &mut Account| {
            if account.hash != old {
                return Err(Error::Credentials);
            }
            account.hash.clone_from(&new);
            Ok(())
        };
        self.update(kept, &change).await
    }

    /// The hash of a password under a new salt.
    fn hash(&self, password: &str) -> Result<String, Error> {
        let salt = host::random(self.desk.host);
        // Parameters were checked when the configuration was read.
        password::hash(password, salt, self.params).ok_or(Error::Conflict)
    }
}
