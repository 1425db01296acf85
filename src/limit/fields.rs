//! The response fields of rate limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, structured
//! fields of RFC 9651).

use std::time::Duration;

use super::Policy;
use crate::http::Response;

/// The state of one limit after a request.
pub(super) struct State<'a> {
    pub(super) policy: Policy<'a>,
    pub(super) remaining: u32,
    /// How long until more requests can pass.
    pub(super) reset: Duration,
}

/// Adds both fields, the limit with the least remaining first. `states`: the latest first. Of several of one name, which an
/// application's own limit has if it is asked several times, that one is shown.
pub(super) fn write<'a>(response: Response, states: impl Iterator<Item = State<'a>>) -> Response {
    let mut sorted: Vec<State<'a>> = Vec::new();
    for state in states {
        if sorted.iter().any(|other| other.policy.name == state.policy.name) {
            continue;
        }
        let index = sorted.iter().position(|other| state.remaining <= other.remaining);
        sorted.insert(index.unwrap_or(sorted.len()), state);
    }
    if sorted.is_empty() {
        return response;
    }
    let (mut policies, mut limits) = (String::new(), String::new());
    for State { policy: Policy { name, quota }, remaining, reset } in sorted {
        let separator = if policies.is_empty() { "\"" } else { ", \"" };
        let (count, window) = (quota.limit().to_string(), seconds(quota.window).to_string());
        policies.extend([separator, name, "\";q=", &count, ";w=", &window]);
        let (remaining, reset) = (remaining.to_string(), seconds(reset).to_string());
        limits.extend([separator, name, "\";r=", &remaining, ";t=", &reset]);
    }
    response.header("RateLimit-Policy", policies).header("RateLimit", limits)
}

/// Whole seconds, rounded up: waiting that long is enough.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_with_the_least_remaining_comes_first() {
        let policies =
            ["session", "ip"].map(|name| Policy { name, quota: "300/1m".parse().expect("a quota") });
        let states = policies.into_iter().zip([299, 12]).map(|(policy, remaining)| State {
            policy,
            remaining,
            reset: Duration::from_millis(41_001),
        });
        let response = write(Response::new(200), states);
        let expected = [
            ("RateLimit-Policy", "\"ip\";q=300;w=60, \"session\";q=300;w=60"),
            ("RateLimit", "\"ip\";r=12;t=42, \"session\";r=299;t=42"),
        ];
        assert_eq!(response.headers, expected.map(|(name, value)| (name, value.into())));
    }
}
