//! Known devices: those from which an account was logged in to before (OWASP: device cookies against online guessing).
//! They have a quota of their own, so that guessing from elsewhere cannot lock the owner out.

use std::time::Duration;

use super::name::NameTag;
use crate::{
    base64url,
    id::Family,
    ticket::{Keyring, signed_text},
    time::Time,
};

/// The age at which a login renews the device's cookie.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// A device from which this account was logged in to before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownDevice {
    /// Its random name.
    pub name: Family,
    /// Whether its cookie must be renewed.
    pub is_due: bool,
}

impl KnownDevice {
    /// How long a device is known after a login.
    pub const LIFETIME: Duration = Duration::from_secs(180 * 86_400);

    /// The cookie's value: the account and the device's name, signed.
    pub fn sign(name: Family, account: &NameTag, keyring: &Keyring, now: Time) -> Option<String> {
        let text = format!("{}.{name}", base64url::encode(account));
        signed_text::sign(&text, keyring, now)
    }

    /// Opens a cookie: `None` if it was not signed here, is another account's, or is too old.
    pub fn open(value: &str, account: &NameTag, keyring: &Keyring, now: Time) -> Option<Self> {
        let (text, issued) = signed_text::open(value, keyring)?;
        let (owner, name) = text.split_once('.')?;
        let is_theirs = owner == base64url::encode(account);
        let is_valid = now - issued <= Self::LIFETIME;
        let is_due = now - issued >= RENEW_AFTER;
        (is_theirs && is_valid).then_some(Self { name: Family::parse(name)?, is_due })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_to_its_account_and_for_its_time() {
        let keyring = Keyring::new(&["a newer secret of this deployment, 2026"], "a-device");
        let (name, now) = (Family([7; 9]), Time(1_767_225_600_000));
        let value = KnownDevice::sign(name, &[1; 16], &keyring, now).expect("signed");
        let open = |account, now| KnownDevice::open(&value, &account, &keyring, now);
        assert_eq!(open([1; 16], now), Some(KnownDevice { name, is_due: false }));
        assert_eq!(open([1; 16], now + RENEW_AFTER), Some(KnownDevice { name, is_due: true }));
        assert_eq!(open([2; 16], now), None);
        assert_eq!(open([1; 16], now + KnownDevice::LIFETIME + Duration::from_millis(1)), None);
        let other = Keyring::new(&["a newer secret of this deployment, 2026"], "a");
        assert_eq!(KnownDevice::open(&value, &[1; 16], &other, now), None);
    }
}
