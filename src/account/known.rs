//! Devices that somebody logged in from before (OWASP: slow down online guessing with device cookies). They have a
//! budget of their own, so that whoever hammers an account from elsewhere cannot lock its owner out.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};

use super::name::NameTag;
use crate::{
    id::Family,
    ticket::{Keyring, sealed},
    time::Time,
};

/// How old its cookie gets before a login renews it.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// A device that this account was logged in to from before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownDevice {
    /// Its random name.
    pub name: Family,
    /// Whether its cookie is to be made anew at the next login.
    pub is_due: bool,
}

impl KnownDevice {
    /// How long a device is known after a login.
    pub const LIFETIME: Duration = Duration::from_secs(180 * 86_400);

    /// The cookie's value: whose device it is, and its name.
    pub fn seal(name: Family, account: &NameTag, keyring: &Keyring, now: Time) -> Option<String> {
        let text = format!("{}.{name}", Base64UrlUnpadded::encode_string(account));
        sealed::seal(&text, keyring, now)
    }

    /// Reads a cookie: `None` when it is not ours, not this account's, or too old.
    pub fn open(value: &str, account: &NameTag, keyring: &Keyring, now: Time) -> Option<Self> {
        let (text, issued) = sealed::open(value, keyring)?;
        let (owner, name) = text.split_once('.')?;
        let is_theirs = owner == Base64UrlUnpadded::encode_string(account);
        let is_young = now - issued <= Self::LIFETIME;
        let is_due = now - issued >= RENEW_AFTER;
        (is_theirs && is_young).then_some(Self { name: Family::parse(name)?, is_due })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_to_its_account_and_for_its_time() {
        let keyring = Keyring::new(&["a newer secret of this deployment, 2026"], "a-device");
        let (name, now) = (Family([7; 9]), Time(1_767_225_600_000));
        let value = KnownDevice::seal(name, &[1; 16], &keyring, now).expect("sealed");
        let open = |account, now| KnownDevice::open(&value, &account, &keyring, now);
        assert_eq!(open([1; 16], now), Some(KnownDevice { name, is_due: false }));
        assert_eq!(open([1; 16], now + RENEW_AFTER), Some(KnownDevice { name, is_due: true }));
        assert_eq!(open([2; 16], now), None);
        assert_eq!(open([1; 16], now + KnownDevice::LIFETIME + Duration::from_millis(1)), None);
        let other = Keyring::new(&["a newer secret of this deployment, 2026"], "a");
        assert_eq!(KnownDevice::open(&value, &[1; 16], &other, now), None);
    }
}
