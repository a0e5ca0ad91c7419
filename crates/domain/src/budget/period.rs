use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    ToSpan as _,
    civil::{Date, Time},
    tz::{TimeZone, TimeZoneDatabase},
};
use thiserror::Error;

use crate::Timestamp;

/// How long a budget's window is, and where it begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Period {
    /// From midnight to midnight, where the tenant is.
    Day(Zone),
    /// From Monday's midnight to the next Monday's.
    Week(Zone),
    /// From the first of a month to the first of the next.
    Month(Zone),
    /// The time just gone by, always. What is spent is counted for this long, and for up to a
    /// sixtieth of it longer.
    Rolling(Duration),
    /// Once, without an end.
    Total,
}

/// From when to when an account counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// The first moment in it.
    pub start: Timestamp,
    /// The first moment after it; none when it has no end of its own.
    pub end: Option<Timestamp>,
}

/// A time zone of the IANA database, such as `Europe/Lisbon`. Its rules come with this build, so that
/// all brokers of one release agree on when a day begins, whatever is installed beside them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Zone(TimeZone);

/// A text that names no time zone.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a time zone is a name of the IANA database, such as Europe/Lisbon or UTC")]
pub struct InvalidZone;

impl Period {
    /// The window that holds this moment. Windows of a calendar follow each other without a gap,
    /// through every change of the clocks.
    pub fn window(&self, at: Timestamp) -> Window {
        let (zone, first, next) = match self {
            Self::Day(zone) => {
                let date = zone.date(at);
                (zone, date, date.checked_add(1.day()))
            }
            Self::Week(zone) => {
                let monday = monday(zone.date(at));
                (zone, monday, monday.checked_add(7.days()))
            }
            Self::Month(zone) => {
                let first = zone.date(at).first_of_month();
                (zone, first, first.checked_add(1.month()))
            }
            Self::Rolling(_) | Self::Total => {
                return Window { start: Timestamp::from_millis(0), end: None };
            }
        };
        Window {
            start: zone.midnight(first).unwrap_or(Timestamp::from_millis(0)),
            end: next.ok().and_then(|next| zone.midnight(next)),
        }
    }

    /// How long a rolling period is.
    pub const fn rolling(&self) -> Option<Duration> {
        match self {
            Self::Rolling(length) => Some(*length),
            Self::Day(_) | Self::Week(_) | Self::Month(_) | Self::Total => None,
        }
    }

    /// The bucket in which a rolling period counts this moment, and when that leaves the window.
    pub(crate) fn bucket(length: Duration, at: Timestamp) -> (Timestamp, Timestamp) {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let step = (millis(length) / BUCKETS).max(1);
        let start = at.as_millis().div_euclid(step).saturating_mul(step);
        let leaves = start.saturating_add(step).saturating_add(millis(length));
        (Timestamp::from_millis(start), Timestamp::from_millis(leaves))
    }
}

/// In how many parts a rolling window moves on.
const BUCKETS: i64 = 60;

fn monday(date: Date) -> Date {
    let days = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(days.days()).unwrap_or(date)
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone's name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    fn date(&self, at: Timestamp) -> Date {
        jiff::Timestamp::from_millisecond(at.as_millis())
            .map_or(Date::ZERO, |at| self.0.to_datetime(at).date())
    }

    /// The first moment of a date. Where the clocks go forward at midnight that is later than 00:00,
    /// and where they go back it is the earlier of the two.
    fn midnight(&self, date: Date) -> Option<Timestamp> {
        let at = self.0.to_ambiguous_timestamp(date.to_datetime(Time::midnight())).compatible();
        Some(Timestamp::from_millis(at.ok()?.as_millisecond()))
    }
}

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(name: &str) -> Result<Self, InvalidZone> {
        TimeZoneDatabase::bundled().get(name).map(Self).map_err(|_| InvalidZone)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    #[track_caller]
    fn check(period: &Period, moment: &str, start: &str, end: &str) {
        let window = period.window(at(moment));
        assert_eq!(window, Window { start: at(start), end: Some(at(end)) }, "{moment}");
    }

    #[test]
    fn a_day_is_the_tenants_own() {
        let day = Period::Day(zone("Asia/Kolkata"));
        check(&day, "2026-11-21T18:29:59.999Z", "2026-11-20T18:30:00Z", "2026-11-21T18:30:00Z");
        check(&day, "2026-11-21T18:30:00Z", "2026-11-21T18:30:00Z", "2026-11-22T18:30:00Z");
        let utc = Period::Day(Zone::UTC);
        check(&utc, "2026-12-31T23:00:00Z", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z");
    }

    #[test]
    fn a_day_may_have_23_or_25_hours() {
        let day = Period::Day(zone("Europe/Berlin"));
        check(&day, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(&day, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    }

    #[test]
    fn a_day_without_a_midnight_begins_later_and_one_with_two_begins_once() {
        // Beirut's clocks go from 00:00 to 01:00, Havana's from 01:00 back to 00:00.
        let day = Period::Day(zone("Asia/Beirut"));
        check(&day, "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z");
        let day = Period::Day(zone("America/Havana"));
        check(&day, "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        check(&day, "2026-11-01T04:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        // On Apia there was no 30 December 2011.
        let day = Period::Day(zone("Pacific/Apia"));
        check(&day, "2011-12-30T09:59:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        check(&day, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let week = Period::Week(Zone::UTC);
        check(&week, "2026-11-22T23:59:59Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(&week, "2027-01-01T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z");
        let month = Period::Month(zone("America/New_York"));
        check(&month, "2026-03-15T12:00:00Z", "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z");
        check(&month, "2028-02-29T12:00:00Z", "2028-02-01T05:00:00Z", "2028-03-01T05:00:00Z");
    }

    #[test]
    fn windows_follow_each_other_without_a_gap_for_ten_years() {
        for name in ["Europe/Berlin", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe", "UTC"]
        {
            for period in [Period::Day, Period::Week, Period::Month].map(|of| of(zone(name))) {
                let mut window = period.window(at("2020-01-01T12:00:00Z"));
                while window.start < at("2030-01-01T00:00:00Z") {
                    let end = window.end.unwrap();
                    assert!(window.start < end);
                    let last = Timestamp::from_millis(end.as_millis() - 1);
                    assert_eq!(period.window(last), window, "{name}");
                    window = period.window(end);
                    assert_eq!(window.start, end, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_total_has_one_window_only() {
        let forever = Window { start: Timestamp::from_millis(0), end: None };
        assert_eq!(Period::Total.window(at("2026-11-21T00:00:00Z")), forever);
        assert_eq!(
            Period::Rolling(Duration::from_mins(1)).window(at("1999-01-01T00:00:00Z")),
            forever
        );
    }

    #[test]
    fn a_zone_is_known_by_its_name() {
        assert_eq!(zone("Europe/Lisbon").to_string(), "Europe/Lisbon");
        assert_eq!(Zone::UTC.to_string(), "UTC");
        assert_eq!("Europe/Nowhere".parse::<Zone>(), Err(InvalidZone));
        assert_eq!("../etc/passwd".parse::<Zone>(), Err(InvalidZone));
    }
}
