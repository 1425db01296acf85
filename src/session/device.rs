//! What the device list shows of where a login came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Where a login came from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// The first 256 characters of `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The client's address, shortened as [`RecordIp`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The provider that has said who the user is, if it was not a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// How much of a client's address is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordIp {
    /// All of it.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Prefix,
    /// Nothing.
    None,
}

impl Device {
    /// From the request's `User-Agent` and the client's address; empty when they are not known.
    pub fn new(user_agent: &str, address: &str, record_ip: RecordIp) -> Self {
        let user_agent: String = user_agent.chars().take(256).collect();
        let user_agent = (!user_agent.is_empty()).then_some(user_agent);
        Self { user_agent, ip: record_ip.of(address), provider: None }
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.user_agent.is_none() && self.ip.is_none() && self.provider.is_none()
    }
}

impl RecordIp {
    fn of(self, address: &str) -> Option<String> {
        let address: IpAddr = address.parse().ok()?;
        let kept = match (self, address.to_canonical()) {
            (Self::None, _) => return None,
            (Self::Full, address) => address,
            (Self::Prefix, IpAddr::V4(address)) => Ipv4Addr::from_bits(address.to_bits() & (!0 << 8)).into(),
            (Self::Prefix, IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 80)).into(),
        };
        Some(kept.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_as_coarsely_as_asked_for() {
        let cases = [
            ("203.0.113.77", "203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("::ffff:203.0.113.77", "203.0.113.77", "203.0.113.0"),
        ];
        for (address, full, prefix) in cases {
            assert_eq!(RecordIp::Full.of(address).as_deref(), Some(full));
            assert_eq!(RecordIp::Prefix.of(address).as_deref(), Some(prefix));
            assert_eq!(RecordIp::None.of(address), None);
        }
        assert_eq!(RecordIp::Full.of("nonsense"), None);
    }

    #[test]
    fn a_long_user_agent_is_cut_and_an_empty_one_is_unknown() {
        let device = Device::new(&"ä".repeat(300), "", RecordIp::Full);
        assert_eq!(device.user_agent.map(|text| text.chars().count()), Some(256));
        assert!(Device::new("", "x", RecordIp::Full).is_unknown());
    }
}
