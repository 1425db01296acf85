//! Reading a session's data and changing it.

use std::cell::RefCell;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::Session;
use crate::{
    http::{Preconditions, Problem},
    id::Handle,
    library::{
        Error,
        data::{Data, to_json},
        members::Edit,
    },
    session::{self, change::empty_data},
};

impl Session {
    /// Whether there is a session: one that was loaded, or begun by this request and written.
    pub fn exists(&self) -> bool {
        self.loaded.is_some()
    }

    /// The session's public name: it finds the session in the device list, and nobody can log in with it.
    pub fn handle(&self) -> Option<Handle> {
        self.loaded.as_ref().map(|session| session.ticket.id.handle())
    }

    /// A member of the data, with the changes that are not written yet; `None` if there is none, or if it is null and `T` knows
    /// no null. Errors: it is no `T`.
    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.data.get(key)
    }

    /// All data, with the changes that are not written yet; without a session it is `{}`. Errors: it is no `T`.
    #[track_caller]
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.data.all()
    }

    // Changes, to be written by `respond` or `save`.

    /// Gives a member of the data this value. Errors: 413 `too_large` if the data would be larger than `session.max_bytes`,
    /// 422 if it would have more than 10,000 values or nest deeper than 100 levels; a value that cannot be JSON. What was there
    /// stays.
    pub fn insert(&mut self, key: &str, value: impl Serialize) -> Result<(), Error> {
        self.data.change(Edit::insert(key, &to_json(value)?))
    }

    /// Removes a member of the data, and returns it; `None` if there was none. Errors: it is no `T`; it stays.
    #[track_caller]
    pub fn remove<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, Error> {
        let removed = self.data.get(key)?;
        self.data.change(Ok(Edit::Remove(key.to_owned())))?;
        Ok(removed)
    }

    /// Adds to a number in the data, which is zero if it is missing, and returns the sum. Requests at the same time are all
    /// counted; the sum is the one that this request sees. For the one that is stored, [`Session::save`] and
    /// [`Session::get`]. Errors: 422 `unprocessable` if it is no number or too large; the sum is no `N`.
    #[track_caller]
    pub fn increment<N: DeserializeOwned>(&mut self, key: &str, by: impl Into<Value>) -> Result<N, Error> {
        self.data.change(Edit::increment(key, by.into()))?;
        let sum = self.data.get(key)?;
        sum.ok_or_else(|| Problem::internal("something went wrong here").into())
    }

    /// Merges into the data (RFC 7396): members that are null are removed, objects are merged, all else is replaced. Errors: as
    /// [`Session::insert`].
    pub fn patch(&mut self, merge_patch: impl Serialize) -> Result<(), Error> {
        self.data.change(Edit::merge(&to_json(merge_patch)?))
    }

    /// Forgets the changes that are not written.
    pub fn discard_changes(&mut self) {
        self.data.discard_changes();
    }

    /// Computes new data from old: `change` sees the newest data as a `T`, and runs again on newer data if another request was
    /// faster. Returns what the run has returned whose result is stored. Members of the data that `T` does not know stay as
    /// they are; without a session `T` is read from `{}`. To refuse, leave the data as it is and return why.
    ///
    /// Written at once, with the changes before it: one call, none if nothing changes.
    pub async fn update<T, R>(&mut self, change: impl FnMut(&mut T) -> R) -> Result<R, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        let change = RefCell::new(change);
        self.write_computed(|data, newest| data.update(newest, &mut *change.borrow_mut())).await
    }

    /// The same for one member of the data; a missing one is `T`'s default.
    pub async fn update_key<T, R>(&mut self, key: &str, change: impl FnMut(&mut T) -> R) -> Result<R, Error>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let change = RefCell::new(change);
        self.write_computed(|data, newest| data.update_key(newest, key, &mut *change.borrow_mut())).await
    }

    /// Writes the changes now: one call, none if there are none. [`Session::respond`] does so otherwise.
    ///
    /// Errors, after which the changes are still there, and not written unless it says so:
    /// - 401 `unauthenticated`: the session has ended meanwhile. The changes are gone.
    /// - 409 `conflict`: others kept changing it for five times `store.timeout`.
    /// - 413, 422: they do not fit the newest data any more.
    /// - 429: `limits.mint`, for a session that would begin.
    /// - 503: the store does not answer as expected. The changes may have been written: saving them again may make them twice.
    pub async fn save(&mut self) -> Result<(), Error> {
        if self.data.has_changes() {
            let written = self.write(&|newest| self.data.apply_to(newest)).await;
            self.take_over(written)?;
        }
        Ok(())
    }

    /// Writes the data that `apply` makes. Errors: as [`Session::save`].
    async fn write(
        &self,
        apply: &dyn Fn(&RawValue) -> Result<Box<RawValue>, session::Error>,
    ) -> Result<session::Session, session::Error> {
        self.begin();
        self.cx.change(self.loaded.clone(), apply, &Preconditions::default()).await
    }

    /// Writes what `compute` makes of the newest data, and returns what it has returned with it.
    async fn write_computed<R>(
        &mut self,
        compute: impl Fn(&Data, &RawValue) -> Result<(Box<RawValue>, R), Error>,
    ) -> Result<R, Error> {
        if self.loaded.is_none() {
            // No session begins if nothing changes.
            let empty = empty_data();
            let (next, result) = compute(&self.data, &self.data.apply_to(&empty)?)?;
            if next.get() != empty.get() {
                let written = self.write(&|_| Ok(next.clone())).await;
                self.take_over(written)?;
            }
            return Ok(result);
        }
        let (outcome, failure) = (RefCell::new(None), RefCell::new(None));
        let apply = |newest: &RawValue| {
            let current = self.data.apply_to(newest)?;
            match compute(&self.data, &current) {
                Ok((next, result)) => {
                    outcome.replace(Some(result));
                    // It may have failed on a state that was then not written.
                    failure.replace(None);
                    Ok(next)
                }
                Err(error) => {
                    failure.replace(Some(error));
                    Err(session::Error::Conflict)
                }
            }
        };
        let written = self.write(&apply).await;
        match failure.take() {
            Some(error) => return Err(error),
            None => self.take_over(written)?,
        }
        outcome.take().ok_or_else(|| Problem::internal("something went wrong here").into())
    }
}
