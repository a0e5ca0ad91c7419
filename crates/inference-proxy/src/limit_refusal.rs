use std::{collections::HashMap, time::Duration};

use http::StatusCode;

use crate::refusal::Refusal;

/// What a budget or a rate limit without room means to an application: which limit it is, what is left
/// of it, and when there will be more.
pub(crate) fn limit_refusal(
    reason: &str,
    metadata: &HashMap<String, String>,
    retry_after: Option<Duration>,
) -> Refusal {
    let of = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
    let unit = of("unit");
    let amount = |name: &str| written(unit, of(name));
    let is_rate = reason == "RATE_LIMIT_REACHED";
    let renews_at = of("renews_at");
    // Some call ends sooner or later; when, nobody knows.
    let is_concurrent = unit == "concurrent";
    let retry_after = retry_after.or_else(|| is_concurrent.then_some(SOME_CALL_ENDS));
    let renews = match (renews_at, retry_after) {
        ("", _) if is_concurrent => "there is room when a call under way has ended".to_owned(),
        ("", None) => {
            "it does not renew by waiting: ask whoever keeps the key to raise it".to_owned()
        }
        ("", Some(wait)) => format!("there will be more in {} s", wait.as_secs().max(1)),
        (at, _) => format!("there will be more at {at}"),
    };
    let which = match (is_rate, of("budget")) {
        (true, _) => "the virtual key's rate limit".to_owned(),
        (false, "") => "a budget of the virtual key".to_owned(),
        (false, budget) => format!("the budget {budget}"),
    };
    let message = format!(
        "{which} of {} has no room for this call, of which nothing was sent: {} left; {renews}",
        amount("cap"),
        amount("left"),
    );
    let waits = !renews_at.is_empty() || retry_after.is_some();
    let (status, code) = match (is_rate, waits) {
        (true, _) => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        (false, true) => (StatusCode::TOO_MANY_REQUESTS, "budget_exhausted"),
        (false, false) => (StatusCode::PAYMENT_REQUIRED, "budget_exhausted"),
    };
    let mut refusal = Refusal::new(status, code, message);
    if let Some(wait) = retry_after {
        refusal = refusal.retry_after(wait);
    }
    // SDKs try again by themselves; it is of use only where the wait is short.
    if retry_after.is_some_and(|wait| wait <= WORTH_WAITING) {
        refusal
    } else {
        refusal.and_final()
    }
}

fn written(unit: &str, amount: &str) -> String {
    let Ok(number) = amount.parse::<u64>() else { return "a limit".to_owned() };
    match unit {
        "micro_usd" => format!("{}.{:06} USD", number / 1_000_000, number % 1_000_000),
        "requests" => format!("{number} requests"),
        "input_tokens" => format!("{number} input tokens"),
        "output_tokens" => format!("{number} output tokens"),
        "tokens" => format!("{number} tokens"),
        "concurrent" => format!("{number} calls at once"),
        _ => number.to_string(),
    }
}

const WORTH_WAITING: Duration = Duration::from_mins(1);
const SOME_CALL_ENDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        reason: &str,
        renews_at: &str,
        wait: Option<u64>,
        status: u16,
        is_final: bool,
    ) -> Refusal {
        let metadata = [
            ("unit", "micro_usd"),
            ("cap", "5000000"),
            ("left", "1250000"),
            ("budget", "tenants/acme/budgets/monthly"),
            ("renews_at", renews_at),
        ];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let refusal = limit_refusal(reason, &metadata, wait.map(Duration::from_secs));
        assert_eq!((refusal.status.as_u16(), refusal.is_final), (status, is_final), "{refusal:?}");
        refusal
    }

    #[test]
    fn a_limit_says_what_is_left_and_when_there_will_be_more() {
        let refusal = check("BUDGET_EXHAUSTED", "2026-12-01T00:00:00Z", Some(86_400), 429, true);
        assert!(refusal.message.contains("tenants/acme/budgets/monthly of 5.000000 USD"));
        assert!(refusal.message.contains("1.250000 USD left"));
        assert!(refusal.message.contains("more at 2026-12-01T00:00:00Z"));
        check("BUDGET_EXHAUSTED", "", None, 402, true);
        let refusal = check("RATE_LIMIT_REACHED", "", Some(3), 429, false);
        assert_eq!(refusal.code, "rate_limit_exceeded");
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn where_calls_under_way_are_too_many_it_is_worth_to_come_back_soon() {
        let metadata = [("unit", "concurrent"), ("cap", "2"), ("left", "0")];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let refusal = limit_refusal("RATE_LIMIT_REACHED", &metadata, None);
        assert_eq!((refusal.status.as_u16(), refusal.is_final), (429, false));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
        assert!(refusal.message.contains("when a call under way has ended"), "{refusal:?}");
    }
}
