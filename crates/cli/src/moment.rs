use std::{str::FromStr, time::Duration};

use domain::Timestamp;
use jiff::{civil, tz::TimeZone};

use crate::expiry;

/// A time as people write it: `24h` ago, a day or a local time such as `2026-11-01` or
/// `2026-11-01T09:30`, or RFC 3339 with an offset.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Moment {
    Ago(Duration),
    Local(civil::DateTime),
    Exact(jiff::Timestamp),
}

/// A time zone by its IANA name, such as `Europe/Berlin`.
#[derive(Clone, Debug)]
pub(crate) struct Zone(pub(crate) TimeZone);

impl Moment {
    /// The moment in time, for who is in this zone. A local time that a change of clocks skips or
    /// repeats is taken as RFC 5545 has it.
    pub(crate) fn at(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Ago(time) => {
                let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(millis))
            }
            Self::Local(local) => {
                let exact = zone.to_ambiguous_timestamp(*local).compatible();
                Timestamp::from_millis(exact.map_or(0, jiff::Timestamp::as_millisecond))
            }
            Self::Exact(exact) => Timestamp::from_millis(exact.as_millisecond()),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ago) = expiry::parse(text) {
            return Ok(Self::Ago(ago));
        }
        if let Ok(exact) = text.parse() {
            return Ok(Self::Exact(exact));
        }
        if let Ok(local) = text.parse::<civil::DateTime>() {
            return Ok(Self::Local(local));
        }
        match text.parse::<civil::Date>() {
            Ok(date) => Ok(Self::Local(date.to_datetime(civil::Time::midnight()))),
            Err(_) => Err("a time is `24h` (ago), `2026-11-01`, or RFC 3339"),
        }
    }
}

impl Zone {
    /// The zone of this machine, or UTC if it does not say.
    pub(crate) fn local() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    /// A moment as people of the zone read it, with the offset, so that nobody has to guess.
    pub(crate) fn show(&self, time: Option<prost_types::Timestamp>) -> String {
        let time = time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok());
        time.map(|time| {
            let zoned = time.to_zoned(self.0.clone());
            zoned.strftime("%Y-%m-%d %H:%M:%S%.3f %:z").to_string()
        })
        .unwrap_or_default()
    }
}

impl FromStr for Zone {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        TimeZone::get(name)
            .map(Self)
            .map_err(|_| "not a time zone; one is `Europe/Berlin` or `UTC`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[track_caller]
    fn check(text: &str, zone: &str, expected: Option<&str>) {
        let zone: Zone = zone.parse().unwrap();
        let at = text.parse::<Moment>().ok().map(|moment| moment.at(NOW, &zone.0).as_millis());
        let expected: Option<jiff::Timestamp> = expected.map(|text| text.parse().unwrap());
        assert_eq!(at, expected.map(jiff::Timestamp::as_millisecond), "{text:?}");
    }

    #[test]
    fn a_moment_is_ago_a_local_time_or_exact() {
        check("24h", "UTC", Some("2023-11-13T22:13:20Z"));
        check("2026-11-01", "UTC", Some("2026-11-01T00:00:00Z"));
        check("2026-11-01", "America/New_York", Some("2026-11-01T04:00:00Z"));
        check("2026-06-01T09:30", "Europe/Berlin", Some("2026-06-01T07:30:00Z"));
        check("2026-06-01T09:30:00Z", "Europe/Berlin", Some("2026-06-01T09:30:00Z"));
        check("2026-06-01T09:30:00+05:30", "UTC", Some("2026-06-01T04:00:00Z"));
        // The hour that the change of clocks skips: the same time by the offset before it.
        check("2026-03-29T02:30", "Europe/Berlin", Some("2026-03-29T01:30:00Z"));
        for wrong in ["", "yesterday", "2026-13-01", "24", "2026-11-01T25:00"] {
            check(wrong, "UTC", None);
        }
    }

    #[test]
    fn a_shown_time_has_its_offset() {
        let time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 });
        let zone: Zone = "Asia/Kolkata".parse().unwrap();
        assert_eq!(zone.show(time), "2023-11-15 03:43:20.005 +05:30");
        assert_eq!(zone.show(None), "");
        assert!("Mars/Olympus".parse::<Zone>().is_err());
    }
}
