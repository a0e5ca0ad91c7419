use std::{fmt, str::FromStr};

use thiserror::Error;

/// An amount of money at rest: whole micro-USD, from nothing to 9.2 million million USD, so that it
/// fits a signed 64-bit column of any database.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Money(u64);

/// What something costs, exactly: pico-USD (10⁻¹² USD). A token's price is a whole number of them, so
/// no sum of prices is ever rounded.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cost(u128);

/// Why an amount cannot be held.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidMoney {
    /// It is more than a database's 64-bit column holds.
    #[error("the amount is larger than 9.2 million million USD")]
    TooLarge,
    /// It is not an amount of USD.
    #[error("an amount is a number of USD, not negative, as in 12.50")]
    NotANumber,
    /// It has a part of a micro-USD, which no budget can hold.
    #[error("an amount has at most six digits behind the point")]
    TooFine,
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that can be held.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// This many micro-USD.
    pub const fn from_micros(micros: u64) -> Result<Self, InvalidMoney> {
        if micros > Self::MAX.0 { Err(InvalidMoney::TooLarge) } else { Ok(Self(micros)) }
    }

    /// It in micro-USD: at most `i64::MAX`.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The sum, unless it is more than can be held.
    pub fn checked_add(self, other: Self) -> Result<Self, InvalidMoney> {
        self.0.checked_add(other.0).map_or(Err(InvalidMoney::TooLarge), Self::from_micros)
    }

    /// What is left when `other` is taken away; nothing when that is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The same amount, exactly.
    pub const fn cost(self) -> Cost {
        Cost(self.0 as u128 * PICOS)
    }
}

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// This many pico-USD.
    pub const fn from_picos(picos: u128) -> Self {
        Self(picos)
    }

    /// It in pico-USD.
    pub const fn picos(self) -> u128 {
        self.0
    }

    /// The sum. Costs are sums of 64-bit numbers times 64-bit prices; should one ever not fit, it is
    /// the largest there is, which every cap refuses.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `count` things at `price` pico-USD each.
    pub const fn of(count: u64, price: u64) -> Self {
        Self(count as u128 * price as u128)
    }

    /// What is left when `other` is taken away; nothing when that is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `parts` of 10,000 of it, a part of a pico-USD counted as a whole one.
    #[must_use]
    pub const fn parts_of_ten_thousand(self, parts: u32) -> Self {
        Self(self.0.saturating_mul(parts as u128).div_ceil(10_000))
    }

    /// Enough whole micro-USD to pay it: what a reservation of it holds. Larger costs than
    /// [`Money::MAX`] are that.
    pub fn rounded_up(self) -> Money {
        Money(u64::try_from(self.0.div_ceil(PICOS)).map_or(Money::MAX.0, |it| it.min(Money::MAX.0)))
    }

    /// The whole micro-USD of it, and the pico-USD above them, fewer than a million.
    pub fn split(self) -> (u64, u32) {
        let whole = u64::try_from(self.0 / PICOS).map_or(Money::MAX.0, |it| it.min(Money::MAX.0));
        (whole, u32::try_from(self.0 % PICOS).unwrap_or(0))
    }

    /// Reads a decimal number of USD as a provider states it, such as `0.00014` or `1.4e-4`. Digits
    /// behind the twelfth are rounded to the nearest.
    pub fn from_usd(text: &str) -> Result<Self, InvalidMoney> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => {
                (digits, exponent.parse::<i32>().map_err(|_| InvalidMoney::NotANumber)?)
            }
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || text.len() > 64 {
            return Err(InvalidMoney::NotANumber);
        }
        let places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let mut value = 0_u128;
        for digit in whole.bytes().chain(fraction.bytes()) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u128::from(digit - b'0')))
                .ok_or(InvalidMoney::TooLarge)?;
        }
        let power = exponent.saturating_sub(places).saturating_add(12);
        if value == 0 {
            return Ok(Self::ZERO);
        }
        let scale = |power: u32| 10_u128.checked_pow(power);
        if let Ok(power) = u32::try_from(power) {
            let factor = scale(power).ok_or(InvalidMoney::TooLarge)?;
            return value.checked_mul(factor).map(Self).ok_or(InvalidMoney::TooLarge);
        }
        Ok(Self(
            scale(power.unsigned_abs())
                .map_or(0, |by| value / by + u128::from(value % by >= by / 2)),
        ))
    }
}

/// Pico-USD in a micro-USD.
pub(crate) const PICOS: u128 = 1_000_000;

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const USD: u128 = PICOS * 1_000_000;
        write!(f, "{}.{:012}", self.0 / USD, self.0 % USD)
    }
}

impl FromStr for Money {
    type Err = InvalidMoney;

    /// Reads USD, such as `12.5`.
    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        let cost = Cost::from_usd(text)?;
        if text.contains(['e', 'E']) {
            return Err(InvalidMoney::NotANumber);
        }
        let places = text.split_once('.').map_or(0, |(_, places)| places.len());
        if places > 6 {
            return Err(InvalidMoney::TooFine);
        }
        u64::try_from(cost.0 / PICOS).map_or(Err(InvalidMoney::TooLarge), Self::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_rounded_up_to_whole_micros_and_by_less_than_one() {
        for (picos, micros) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            let rounded = Cost::from_picos(picos).rounded_up();
            assert_eq!(rounded.micros(), micros, "{picos}");
            assert!(rounded.cost().picos() - picos < PICOS);
        }
        assert_eq!(Cost::from_picos(u128::MAX).rounded_up(), Money::MAX);
        assert_eq!(Cost::from_picos(2_000_007).split(), (2, 7));
    }

    #[test]
    fn money_never_wraps() {
        let one = Money::from_micros(1).unwrap();
        assert_eq!(Money::MAX.checked_add(one), Err(InvalidMoney::TooLarge));
        assert_eq!(Money::from_micros(u64::MAX), Err(InvalidMoney::TooLarge));
        assert_eq!(Money::ZERO.less(one), Money::ZERO);
        let all = Cost::from_picos(u128::MAX);
        assert_eq!(all.plus(all), all);
        assert_eq!(
            Cost::of(u64::MAX, u64::MAX).picos(),
            u128::from(u64::MAX) * u128::from(u64::MAX)
        );
    }

    #[test]
    fn what_a_provider_states_is_read_exactly() {
        let read = |text: &str| Cost::from_usd(text).map(Cost::picos);
        assert_eq!(read("0.00014"), Ok(140_000_000));
        assert_eq!(read("1.4e-4"), Ok(140_000_000));
        assert_eq!(read("1.4E-4"), Ok(140_000_000));
        assert_eq!(read("0.95"), Ok(950_000_000_000));
        assert_eq!(read("19"), Ok(19_000_000_000_000));
        assert_eq!(read("2e1"), Ok(20_000_000_000_000));
        assert_eq!(read("0"), Ok(0));
        assert_eq!(read("0e-99"), Ok(0));
        assert_eq!(read("1e-12"), Ok(1));
        assert_eq!(read("1e-99"), Ok(0));
        assert_eq!(read("0.00013999999999999999"), Ok(140_000_000));
        assert_eq!(read("0.0000000000005"), Ok(1));
        for wrong in ["", "-1", "+1", ".5", "1.2.3", "NaN", "1e", "1e+", "0x1", "1 "] {
            assert_eq!(read(wrong), Err(InvalidMoney::NotANumber), "{wrong:?}");
        }
        assert_eq!(read("1e99"), Err(InvalidMoney::TooLarge));
    }

    #[test]
    fn money_reads_back_as_written() {
        assert_eq!("12.5".parse::<Money>().unwrap().to_string(), "12.500000");
        assert_eq!("0.000001".parse::<Money>().unwrap().micros(), 1);
        assert_eq!("0.0000001".parse::<Money>(), Err(InvalidMoney::TooFine));
        assert_eq!("1e2".parse::<Money>(), Err(InvalidMoney::NotANumber));
        assert_eq!("10000000000000".parse::<Money>(), Err(InvalidMoney::TooLarge));
        assert_eq!(Cost::from_picos(140_000_000).to_string(), "0.000140000000");
    }

    #[test]
    fn a_discount_never_makes_a_cost_vanish() {
        let cost = Cost::from_picos(1);
        assert_eq!(cost.parts_of_ten_thousand(8_500).picos(), 1);
        assert_eq!(Cost::from_picos(20_000).parts_of_ten_thousand(8_500).picos(), 17_000);
    }
}
