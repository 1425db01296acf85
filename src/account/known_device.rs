//! Known devices: those from which an account was logged in to before (OWASP: device cookies against online guessing).
//! They have quotas of their own, so that guessing from elsewhere cannot lock the owner out. An account has at most
//! [`SLOTS`] of these, whoever logs in how often; they end with its password.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{PasswordTag, name::NameTag};
use crate::{
    base64url,
    host::{Host, random},
    ticket::{Keyring, signed_text},
    time::Time,
};

/// The age at which a login renews the device's cookie.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// How many quotas the devices of an account have. Two devices may share one.
const SLOTS: u8 = 20;

/// A device from which this account was logged in to before, with the password it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownDevice {
    /// The account, whether it still exists or not.
    pub account: NameTag,
    /// The password it was logged in with: perhaps not the present one.
    pub password: PasswordTag,
    /// Which of the account's quotas it has.
    pub slot: u8,
    /// When its cookie was signed.
    pub issued: Time,
}

impl KnownDevice {
    /// How long a device is known after a login.
    pub const LIFETIME: Duration = Duration::from_secs(180 * 86_400);

    /// What a device has instead of a password whose user has none, but logs in with a provider.
    pub(crate) const NO_PASSWORD: PasswordTag = [0; 12];

    /// What such a user has instead of an account's name: no name has this tag.
    pub(crate) fn tag_of_user(id: &str) -> NameTag {
        let hash =
            Sha256::new().chain_update(b"cloakroom user without account v1 ").chain_update(id).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// A device that is known from now on. It keeps the slot it had.
    pub fn new(account: NameTag, password: PasswordTag, known: Option<Self>, host: &impl Host) -> Self {
        let [chosen] = random(host);
        let slot = known.map_or(chosen % SLOTS, |known| known.slot);
        Self { account, password, slot, issued: host.now() }
    }

    /// Whether its cookie must be renewed.
    pub fn is_due(&self, now: Time) -> bool {
        now - self.issued >= RENEW_AFTER
    }

    /// The cookie's value: account, password and slot, signed.
    pub fn sign(&self, keyring: &Keyring) -> Option<String> {
        let (account, password) = (base64url::encode(&self.account), base64url::encode(&self.password));
        signed_text::sign(&format!("{account}.{password}.{}", self.slot), keyring, self.issued)
    }

    /// Opens a cookie: `None` if it was not signed here, is another account's, or is too old. Whether its password is the
    /// present one is not known here.
    pub fn open(value: &str, account: &NameTag, keyring: &Keyring, now: Time) -> Option<Self> {
        let (text, issued) = signed_text::open(value, keyring)?;
        let mut parts = text.split('.');
        let mut next = || parts.next();
        let (owner, password, slot) = (next()?, base64url::decode_array(next()?)?, next()?.parse().ok()?);
        let is_theirs = owner == base64url::encode(account);
        let is_valid = slot < SLOTS && now - issued <= Self::LIFETIME;
        (is_theirs && is_valid).then_some(Self { account: *account, password, slot, issued })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Machine;

    const SECRET: &str = "a newer secret of this deployment, 2026";

    #[test]
    fn a_device_is_known_to_its_account_and_for_its_time() {
        let keyring = Keyring::new(&[SECRET], "a-device");
        let device = KnownDevice::new([1; 16], [2; 12], None, &Machine);
        let (value, now) = (device.sign(&keyring).expect("signed"), device.issued);
        let open = |account, now| KnownDevice::open(&value, &account, &keyring, now);
        assert_eq!(open([1; 16], now), Some(device));
        assert_eq!(open([1; 16], now + KnownDevice::LIFETIME), Some(device));
        assert_eq!(open([2; 16], now), None);
        assert_eq!(open([1; 16], now + KnownDevice::LIFETIME + Duration::from_millis(1)), None);
        assert!(!device.is_due(now) && device.is_due(now + RENEW_AFTER));
        let other = Keyring::new(&[SECRET], "a");
        assert_eq!(KnownDevice::open(&value, &[1; 16], &other, now), None);
    }

    #[test]
    fn an_account_has_so_many_quotas_and_a_device_keeps_its_own() {
        let keyring = Keyring::new(&[SECRET], "a-device");
        let device = KnownDevice::new([1; 16], [2; 12], None, &Machine);
        for slot in 0..=u8::MAX {
            let device = KnownDevice { slot, ..device };
            let value = device.sign(&keyring).expect("signed");
            let opened = KnownDevice::open(&value, &[1; 16], &keyring, device.issued);
            assert_eq!(opened, (slot < SLOTS).then_some(device));
            assert_eq!(KnownDevice::new([1; 16], [3; 12], Some(device), &Machine).slot, slot);
        }
    }

    #[test]
    fn a_cookie_of_another_format_makes_no_device_known() {
        let (keyring, account, now) = (Keyring::new(&[SECRET], "a-device"), [1; 16], Time(1_767_225_600_000));
        let tag = base64url::encode(&account);
        // The first is that of 0.1.0.
        for text in
            [format!("{tag}.BwcHBwcHBwcH"), format!("{tag}..1"), format!("{tag}.AgICAgICAgICAgIC.x"), tag]
        {
            let value = signed_text::sign(&text, &keyring, now).expect("signed");
            assert_eq!(KnownDevice::open(&value, &account, &keyring, now), None, "{text}");
        }
    }
}
