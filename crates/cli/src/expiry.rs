use std::time::Duration;

/// Reads `30d`, `12h`, `90m`, `45s` or `2w`.
pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
    let wrong = "a time is a number and one of s, m, h, d, w: `30d`";
    let unit = text.chars().last().ok_or(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong),
    };
    let count: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong)?;
    match count.checked_mul(seconds) {
        Some(0) | None => Err(wrong),
        Some(total) if total > LONGEST_SECONDS => Err("a time is at most 100 years"),
        Some(total) => Ok(Duration::from_secs(total)),
    }
}

/// The same, or `0`.
pub(crate) fn parse_or_none(text: &str) -> Result<Duration, &'static str> {
    if text == "0" { Ok(Duration::ZERO) } else { parse(text) }
}

const LONGEST_SECONDS: u64 = 36_525 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: Option<u64>) {
        assert_eq!(parse(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
    }

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        check("30d", Some(2_592_000));
        check("12h", Some(43_200));
        check("2w", Some(1_209_600));
        check("45s", Some(45));
        check("0d", None);
        check("30", None);
        check("d", None);
        check("", None);
        check("-1d", None);
        check("1.5h", None);
        check("99999999999999999999d", None);
        check("101w", Some(61_084_800));
        check("9999w", None);
        check("3ä", None);
    }
}
