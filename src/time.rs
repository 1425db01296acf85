//! Moments: milliseconds in the store and in tickets, RFC 3339 in answers.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z. Stored as that number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Six bytes, big-endian; enough until the year 10889.
    pub fn six_bytes(self) -> [u8; 6] {
        let [_, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    /// From six bytes, big-endian.
    pub fn from_six_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The day, in UTC: `2026-01-01`.
    pub fn date(self) -> String {
        jiff::tz::Offset::UTC.to_datetime(self.timestamp()).date().to_string()
    }

    /// RFC 3339 in UTC, to the second: `2026-01-01T00:00:00Z`. What it cannot write (after 9999) is its last moment.
    pub fn rfc3339(self) -> String {
        self.timestamp().to_string()
    }

    /// The same to the millisecond, as JavaScript writes dates: `2026-01-01T00:00:00.000Z`.
    pub fn rfc3339_milliseconds(self) -> String {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX).min(Timestamp::MAX.as_millisecond());
        format!("{:.3}", Timestamp::from_millisecond(milliseconds).unwrap_or_default())
    }

    fn timestamp(self) -> Timestamp {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds.min(Timestamp::MAX.as_second())).unwrap_or_default()
    }
}

/// For `#[serde(serialize_with)]`: a moment as RFC 3339.
pub fn as_rfc3339<S: serde::Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.timestamp())
}

/// As answers show it.
#[cfg(test)]
impl schemars::JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

/// A later moment; saturates.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(duration)))
    }
}

/// The time since an earlier moment; zero if it is not earlier.
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
        Self(self.0.saturating_sub(milliseconds(duration)))
    }
}

/// A duration in whole milliseconds; saturates.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Parses `200ms`, `90s`, `30m`, `24h`, `30d`: a whole number and one unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|digit: char| !digit.is_ascii_digit())?)?;
    let unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        for (text, result) in [("90s", 90), ("30m", 1800), ("24h", 86_400), ("30d", 2_592_000), ("1500ms", 1)]
        {
            assert_eq!(seconds(text), Some(result), "{text}");
        }
        for text in [
            "",
            "s",
            "90",
            "90 s",
            "-1s",
            "+1s",
            "1.5h",
            "1h30m",
            "1y",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_written_as_rfc_3339_to_the_second() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_225_600_999, "2026-01-01T00:00:00Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00Z"),
            (253_370_764_800_000, "9999-01-01T00:00:00Z"),
        ] {
            assert_eq!(Time(milliseconds).rfc3339(), text);
            assert_eq!(Time(milliseconds).date(), text[..10]);
        }
        assert!(Time(u64::MAX).rfc3339().starts_with("9999-12-"));
        assert_eq!(Time(1_767_225_600_020).rfc3339_milliseconds(), "2026-01-01T00:00:00.020Z");
    }

    #[test]
    fn six_bytes_hold_a_moment() {
        let time = Time(1_767_225_600_123);
        assert_eq!(Time::from_six_bytes(time.six_bytes()), time);
    }
}
