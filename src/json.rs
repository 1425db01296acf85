//! JSON that this crate writes.

use serde::Serialize;

/// The JSON of a value of ours.
#[allow(clippy::expect_used, reason = "fails only for maps whose keys are not strings, and there are none")]
pub(crate) fn to_string(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a value of ours is JSON")
}

/// The version of what is stored: `"v":1`. Another one cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, serde::Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct Version;

impl From<Version> for u64 {
    fn from(_: Version) -> Self {
        1
    }
}

impl TryFrom<u64> for Version {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number == 1 { Ok(Self) } else { Err("another version") }
    }
}
