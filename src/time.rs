//! Moments and their two spellings: milliseconds in the store, RFC 3339 for people.

use std::{
    ops::{Add, Sub},
    time::{Duration, SystemTime},
};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

/// The last moment RFC 3339 can spell, 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799_000;

impl Time {
    /// In six bytes, big-endian; enough until the year 10889.
    pub fn six_bytes(self) -> [u8; 6] {
        let [_, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    /// Out of six bytes.
    pub fn from_six_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The day, in UTC: `2026-01-01`.
    pub fn date(self) -> String {
        let mut text = self.rfc3339();
        text.truncate(10);
        text
    }

    /// The moment as RFC 3339 in UTC, to the second: `2026-01-01T00:00:00Z`.
    pub fn rfc3339(self) -> String {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        humantime::format_rfc3339_seconds(time).to_string()
    }
}

/// A later moment; saturates.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The time between an earlier moment and this one; zero when it is not earlier.
impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// An earlier moment; saturates.
impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}
