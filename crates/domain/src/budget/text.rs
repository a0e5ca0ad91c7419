use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

use crate::budget::{BudgetHolder, Mode, Period, Unit};

/// A text that is not what the store writes of a budget.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the text says nothing of a budget")]
pub struct InvalidBudget;

impl fmt::Display for Period {
    /// The one text of it in the store: `month Europe/Lisbon`, `rolling 60000`, `total`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(zone) => write!(f, "day {zone}"),
            Self::Week(zone) => write!(f, "week {zone}"),
            Self::Month(zone) => write!(f, "month {zone}"),
            Self::Rolling(length) => write!(f, "rolling {}", length.as_millis()),
            Self::Total => f.write_str("total"),
        }
    }
}

impl FromStr for Period {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let zone = |name: &str| name.parse().map_err(|_| InvalidBudget);
        match text.split_once(' ') {
            Some(("day", name)) => zone(name).map(Self::Day),
            Some(("week", name)) => zone(name).map(Self::Week),
            Some(("month", name)) => zone(name).map(Self::Month),
            Some(("rolling", millis)) => {
                let millis = millis.parse().map_err(|_| InvalidBudget)?;
                Ok(Self::Rolling(Duration::from_millis(millis)))
            }
            None if text == "total" => Ok(Self::Total),
            Some(_) | None => Err(InvalidBudget),
        }
    }
}

impl fmt::Display for BudgetHolder {
    /// The one text of it in the store: `tenant`, `group` or `key` with the name behind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::VirtualKey(key) => write!(f, "key {key}"),
        }
    }
}

impl FromStr for BudgetHolder {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        match text.split_once(' ') {
            Some(("group", group)) => group.parse().map(Self::Group).map_err(|_| InvalidBudget),
            Some(("key", key)) => key.parse().map(Self::VirtualKey).map_err(|_| InvalidBudget),
            None if text == "tenant" => Ok(Self::Tenant),
            Some(_) | None => Err(InvalidBudget),
        }
    }
}

impl FromStr for Mode {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let named = [Self::Hard, Self::Shadow].into_iter().find(|mode| mode.as_str() == text);
        named.ok_or(InvalidBudget)
    }
}

impl FromStr for Unit {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == text).ok_or(InvalidBudget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr + fmt::Display>(texts: &[&str], wrong: &[&str]) {
        for text in texts {
            assert_eq!(text.parse::<T>().ok().map(|it| it.to_string()).as_deref(), Some(*text));
        }
        for text in wrong {
            assert!(text.parse::<T>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_of_a_budget_reads_back() {
        check::<Period>(
            &["day UTC", "week Europe/Lisbon", "month Asia/Kolkata", "rolling 60000", "total"],
            &["day", "day Nowhere/Else", "total UTC", "rolling", "rolling 1m", "year UTC", ""],
        );
        check::<BudgetHolder>(
            &["tenant", "group team-a", "key aaaabbbbccccdddd"],
            &["group", "group Team", "key short", "tenant acme", ""],
        );
    }
}
