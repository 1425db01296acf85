//! So many in so long: `300/1m`.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use crate::time::parse_duration;

/// A limit. Zero of either cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// How many.
    pub count: NonZeroU32,
    /// In how long: a second at least, 31 days at most.
    pub window: Duration,
}

impl Quota {
    /// The same quota so many times over.
    pub fn times(self, factor: u32) -> Self {
        Self { count: self.count.saturating_mul(NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN)), ..self }
    }

    pub(super) fn limit(self) -> u64 {
        self.count.get().into()
    }

    pub(super) fn window_ms(self) -> u64 {
        u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Quota {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "a limit is COUNT/WINDOW, like \"300/1m\", with a window from 1s to 31d, or \"\" for none";
        let (count, window) = text.split_once('/').ok_or(FORM)?;
        let count = count.parse().map_err(|_| FORM)?;
        let window = parse_duration(window).ok_or(FORM)?;
        let allowed = Duration::from_secs(1)..=Duration::from_secs(31 * 86_400);
        if allowed.contains(&window) { Ok(Self { count, window }) } else { Err(FORM) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_count_and_a_window() {
        let quota: Quota = "300/1m".parse().expect("a quota");
        assert_eq!((quota.count.get(), quota.window), (300, Duration::from_secs(60)));
        for text in ["1/1s", "1/25h", "1/31d", "1/744h"] {
            assert!(text.parse::<Quota>().is_ok(), "{text}");
        }
        for text in [
            "",
            "300",
            "0/1m",
            "-1/1m",
            "1/0s",
            "1/999ms",
            "1/32d",
            "1/2678401s",
            "1/x",
            "1/1m/2",
            "99999999999/1m",
        ] {
            assert!(text.parse::<Quota>().is_err(), "{text}");
        }
    }
}
