use std::time::Duration;

use domain::Unit;
use http::{HeaderMap, HeaderName, HeaderValue};
use strongroom_client::LimitState;

/// Says on an answer how the key's own limits stand, in the headers that OpenAI's SDKs read and in others
/// like them. Where they take names that providers use, the provider's headers go on under
/// `x-provider-ratelimit-`.
pub(crate) fn tell_limits(headers: &mut HeaderMap, limits: &[LimitState]) {
    // No provider speaks of micro-USD here.
    if limits.iter().any(|limit| limit.unit != Unit::Money) {
        make_room(headers);
    }
    for unit in Unit::ALL {
        let Some(limit) = tightest(limits, unit) else { continue };
        let word = word(unit);
        set(headers, &format!("x-ratelimit-limit-{word}"), &limit.cap.to_string());
        set(headers, &format!("x-ratelimit-remaining-{word}"), &limit.left.to_string());
        if let Some(after) = limit.renews_after {
            set(headers, &format!("x-ratelimit-reset-{word}"), &written(after));
        }
    }
}

fn word(unit: Unit) -> &'static str {
    match unit {
        Unit::Money => "micro-usd",
        Unit::Requests => "requests",
        Unit::InputTokens => "input-tokens",
        Unit::OutputTokens => "output-tokens",
        Unit::Tokens => "tokens",
        Unit::Concurrent => "concurrent-requests",
    }
}

/// Of several limits of one unit, the one that is reached first.
fn tightest(limits: &[LimitState], unit: Unit) -> Option<&LimitState> {
    limits.iter().filter(|limit| limit.unit == unit).min_by_key(|limit| limit.left)
}

fn make_room(headers: &mut HeaderMap) {
    let taken = headers.keys().filter(|name| name.as_str().starts_with(PREFIX));
    let taken: Vec<HeaderName> = taken.cloned().collect();
    for name in taken {
        let rest = name.as_str().strip_prefix(PREFIX).unwrap_or_default();
        if let (Some(value), Ok(moved)) =
            (headers.remove(&name), format!("x-provider-ratelimit-{rest}").parse::<HeaderName>())
        {
            headers.insert(moved, value);
        }
    }
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// As OpenAI writes it: `6m0s`, `1s`, `20ms`.
fn written(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match (seconds, millis) {
        (0, millis) => format!("{millis}ms"),
        (1..=59, 0) => format!("{seconds}s"),
        (1..=59, millis) => format!("{seconds}.{millis:03}s"),
        (60..=3599, _) => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

const PREFIX: &str = "x-ratelimit-";

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(unit: Unit, cap: u64, left: u64) -> LimitState {
        let renews_after = Some(Duration::from_millis(61_500));
        LimitState { unit, cap, left, renews_after, is_rate: true }
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        set(&mut headers, "x-ratelimit-limit-requests", "5000");
        set(&mut headers, "x-ratelimit-reset-tokens", "6m0s");
        set(&mut headers, "anthropic-ratelimit-requests-limit", "50");
        headers
    }

    #[test]
    fn our_limits_take_the_usual_names_and_the_providers_move() {
        let mut told = headers();
        let limits = [limit(Unit::Requests, 100, 7), limit(Unit::Requests, 10, 9)];
        tell_limits(&mut told, &limits);
        let of = |name: &str| told.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(of("x-ratelimit-limit-requests"), Some("100"));
        assert_eq!(of("x-ratelimit-remaining-requests"), Some("7"));
        assert_eq!(of("x-ratelimit-reset-requests"), Some("1m1s"));
        assert_eq!(of("x-provider-ratelimit-limit-requests"), Some("5000"));
        assert_eq!(of("x-provider-ratelimit-reset-tokens"), Some("6m0s"));
        assert_eq!(of("x-ratelimit-reset-tokens"), None);
        assert_eq!(of("anthropic-ratelimit-requests-limit"), Some("50"));
    }

    #[test]
    fn without_limits_of_ours_by_their_names_the_providers_keep_them() {
        let mut told = headers();
        tell_limits(&mut told, &[]);
        assert_eq!(told, headers());
        tell_limits(&mut told, &[limit(Unit::Money, 5_000_000, 1_250_000)]);
        assert_eq!(told["x-ratelimit-limit-micro-usd"], "5000000");
        assert_eq!(told["x-ratelimit-remaining-micro-usd"], "1250000");
        assert_eq!(told["x-ratelimit-limit-requests"], "5000");
    }

    #[test]
    fn each_unit_has_headers_of_its_own() {
        let mut told = HeaderMap::new();
        tell_limits(&mut told, &Unit::ALL.map(|unit| limit(unit, 9, 1)));
        assert_eq!(told.len(), 3 * Unit::ALL.len(), "{told:?}");
    }

    #[test]
    fn times_are_written_as_sdks_read_them() {
        for (millis, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.500s"),
            (360_000, "6m0s"),
            (3_661_000, "1h1m1s"),
        ] {
            assert_eq!(written(Duration::from_millis(millis)), text);
        }
    }
}
