//! What responses say of limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, structured
//! fields of RFC 9651).

use std::time::Duration;

use super::Policy;
use crate::http::Response;

/// How a request stands with one limit.
pub(super) struct Standing<'a> {
    pub(super) policy: Policy<'a>,
    pub(super) remaining: u32,
    /// Until there is more.
    pub(super) reset: Duration,
}

/// Adds both fields, the tightest policy first.
pub(super) fn write<'a>(response: Response, standings: impl Iterator<Item = Standing<'a>>) -> Response {
    let mut sorted: Vec<Standing<'a>> = Vec::new();
    for standing in standings {
        let index = sorted.iter().position(|other| standing.remaining < other.remaining);
        sorted.insert(index.unwrap_or(sorted.len()), standing);
    }
    if sorted.is_empty() {
        return response;
    }
    let (mut policies, mut limits) = (String::new(), String::new());
    for Standing { policy: Policy { name, quota }, remaining, reset } in sorted {
        let separator = if policies.is_empty() { "\"" } else { ", \"" };
        let (count, window) = (quota.limit().to_string(), seconds(quota.window).to_string());
        policies.extend([separator, name, "\";q=", &count, ";w=", &window]);
        let (remaining, reset) = (remaining.to_string(), seconds(reset).to_string());
        limits.extend([separator, name, "\";r=", &remaining, ";t=", &reset]);
    }
    response.header("RateLimit-Policy", policies).header("RateLimit", limits)
}

/// Whole seconds, rounded up: who waits that long has waited long enough.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_policy_comes_first() {
        let policies =
            ["session", "ip"].map(|name| Policy { name, quota: "300/1m".parse().expect("a quota") });
        let standings = policies.into_iter().zip([299, 12]).map(|(policy, remaining)| Standing {
            policy,
            remaining,
            reset: Duration::from_millis(41_001),
        });
        let response = write(Response::new(200), standings);
        let expected = [
            ("RateLimit-Policy", "\"ip\";q=300;w=60, \"session\";q=300;w=60"),
            ("RateLimit", "\"ip\";r=12;t=42, \"session\";r=299;t=42"),
        ];
        assert_eq!(response.headers, expected.map(|(name, value)| (name, value.into())));
    }
}
