//! Moments and their two spellings: milliseconds in the store, RFC 3339 for people.

use std::{
    ops::{Add, Sub},
    time::Duration,
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
        let seconds = self.0.min(LAST) / 1000 % 86_400;
        let (year, month, day) = self.day();
        let mut text = *b"0000-00-00T00:00:00Z";
        let numbers = [
            (4, year),
            (7, month),
            (10, day),
            (13, seconds / 3600),
            (16, seconds / 60 % 60),
            (19, seconds % 60),
        ];
        for (end, mut number) in numbers {
            // Its digits, from the last one to the sign before it.
            for digit in text.iter_mut().take(end).rev().take_while(|digit| digit.is_ascii_digit()) {
                *digit += u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        }
        String::from_utf8(text.to_vec()).unwrap_or_default()
    }

    /// Year, month and day.
    fn day(self) -> (u64, u64, u64) {
        // Years here begin in March, so that the leap day is the last of one; 400 years have 146,097 days.
        let day = self.0.min(LAST) / 86_400_000 + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (next_year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
        (era * 400 + year + next_year, month, day)
    }
}

/// A later moment; saturates.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(duration)))
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
        Self(self.0.saturating_sub(milliseconds(duration)))
    }
}

/// A duration in whole milliseconds; saturates.
pub fn milliseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis().into())
}

/// Reads `200ms`, `90s`, `30m`, `24h`, `30d`.
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
    use std::time::SystemTime;

    use proptest::prelude::*;

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
    fn times_beyond_rfc_3339_are_its_last() {
        assert_eq!(Time(u64::MAX).rfc3339(), "9999-12-31T23:59:59Z");
        assert_eq!(Time(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Time(1_709_164_800_000).date(), "2024-02-29");
    }

    proptest! {
        #[test]
        fn a_moment_is_spelt_as_others_spell_it(milliseconds in 0..=LAST) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            prop_assert_eq!(Time(milliseconds).rfc3339(), humantime::format_rfc3339_seconds(time).to_string());
        }
    }
}
