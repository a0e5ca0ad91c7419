use domain::{Period, Timestamp, Zone};
use store::{quarter_of, quarter_start};
use strongroom_proto::v1::query_usage_request::Per;

/// A run of stretches of time that are equally long, in quarters of an hour: one question to the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Run {
    /// Where the first of them begins.
    pub(super) origin: u64,
    /// How long each is.
    pub(super) length: u64,
    /// Where the last of them ends.
    pub(super) end: u64,
}

/// The stretches that cover the quarters from `from` to `until`. Days have 23 to 25 hours and months
/// have 28 to 31 days, so there are few runs of them: a year of days is five.
pub(super) fn runs(from: u64, until: u64, per: Per, zone: &Zone) -> Vec<Run> {
    let period = match per {
        Per::Unspecified => {
            return vec![Run { origin: from, length: (until - from).max(1), end: until }];
        }
        Per::Hour | Per::Day => Period::Day(zone.clone()),
        Per::Month => Period::Month(zone.clone()),
    };
    let mut runs: Vec<Run> = Vec::new();
    let mut at = from;
    while at < until {
        let window = period.window(quarter_start(at));
        let origin = quarter_of(window.start);
        let end = window.end.map_or(until, quarter_of).max(at + 1);
        let length = if per == Per::Hour { HOUR } else { end - origin };
        match runs.last_mut() {
            Some(last) if last.end == origin && last.goes_on_with(length) => last.end = end,
            Some(_) | None => runs.push(Run { origin, length, end }),
        }
        at = end;
    }
    runs
}

impl Run {
    /// Whether it can have more stretches of a length: none of its own is cut short.
    fn goes_on_with(&self, length: u64) -> bool {
        self.length == length && (self.end - self.origin).is_multiple_of(length)
    }

    /// When one of them begins.
    pub(super) fn start_of(&self, stretch: u64) -> Timestamp {
        quarter_start(self.origin.saturating_add(stretch.saturating_mul(self.length)))
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        (self.end - self.origin).div_ceil(self.length)
    }
}

const HOUR: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn quarter(text: &str) -> u64 {
        let text = text.replace(' ', "T");
        let (date, time) = text.split_once('T').unwrap();
        let days: u64 = match date {
            "2026-03-01" => 20_513,
            "2026-03-28" => 20_540,
            "2026-03-29" => 20_541,
            "2026-04-01" => 20_544,
            other => panic!("{other}"),
        };
        let (hours, minutes) = time.split_once(':').unwrap();
        days * 96 + hours.parse::<u64>().unwrap() * 4 + minutes.parse::<u64>().unwrap() / 15
    }

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    #[test]
    fn all_of_the_time_is_one_stretch() {
        let runs = runs(10, 20, Per::Unspecified, &Zone::UTC);
        assert_eq!(runs, [Run { origin: 10, length: 10, end: 20 }]);
    }

    #[test]
    fn a_day_with_23_hours_is_a_run_of_its_own() {
        let from = quarter("2026-03-28 12:00");
        let runs = runs(from, from + 3 * 96, Per::Day, &zone("Europe/Berlin"));
        let first = quarter("2026-03-28 00:00") - 4;
        assert_eq!(
            runs,
            [
                Run { origin: first, length: 96, end: first + 96 },
                Run { origin: first + 96, length: 92, end: first + 188 },
                Run { origin: first + 188, length: 96, end: first + 188 + 2 * 96 },
            ]
        );
        assert_eq!((runs[2].count(), quarter_of(runs[2].start_of(1))), (2, first + 284));
    }

    #[test]
    fn days_begin_on_quarters_where_the_zone_says_so() {
        let from = quarter("2026-03-28 12:00");
        let runs = runs(from, from + 1, Per::Day, &zone("Asia/Kathmandu"));
        // 00:00 at +05:45.
        assert_eq!(runs[0].origin, quarter("2026-03-28 00:00") - 23);
    }

    #[test]
    fn hours_follow_each_other_through_a_change_of_clocks() {
        let from = quarter("2026-03-28 12:00");
        let until = from + 2 * 96;
        let runs = runs(from, until, Per::Hour, &zone("Europe/Berlin"));
        assert_eq!(runs.len(), 1);
        assert!(runs[0].origin <= from && until <= runs[0].end);
        assert_eq!(runs[0].length, 4);
    }

    #[test]
    fn months_are_as_long_as_they_are() {
        let from = quarter("2026-03-01 00:00");
        let runs = runs(from, from + 60 * 96, Per::Month, &Zone::UTC);
        let april = quarter("2026-04-01 00:00");
        assert_eq!(
            runs,
            [
                Run { origin: from, length: 31 * 96, end: april },
                Run { origin: april, length: 30 * 96, end: april + 30 * 96 },
            ]
        );
    }
}
