use crate::{Cost, Tokens};

/// What a limit counts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Unit {
    /// Micro-USD.
    Money,
    /// Calls.
    Requests,
    /// Tokens of input, of whatever kind.
    InputTokens,
    /// Tokens of output, of whatever kind.
    OutputTokens,
    /// Tokens of both.
    Tokens,
    /// Calls under way. They are held and given back, never spent.
    Concurrent,
}

/// How much of each unit, in whole ones; money in micro-USD.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Amounts([u64; Unit::ALL.len()]);

/// How much of one unit, in its millionths; money in pico-USD. Exact.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Quantity(u128);

/// What calls came to, exactly.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Spending {
    /// What they cost.
    pub cost: Cost,
    /// How many they were.
    pub requests: u64,
    /// What went in.
    pub input_tokens: u64,
    /// What came out.
    pub output_tokens: u64,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Money,
        Self::Requests,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Tokens,
        Self::Concurrent,
    ];

    /// The word in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Money => "micro_usd",
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Tokens => "tokens",
            Self::Concurrent => "concurrent",
        }
    }
}

impl Amounts {
    /// What one call may come to at the most: its cost, one request, its tokens, one under way.
    pub fn of_call(cost: Cost, input_tokens: u64, output_tokens: u64) -> Self {
        let most = Spending { cost, requests: 1, input_tokens, output_tokens };
        let mut amounts = Self::default();
        for unit in Unit::ALL {
            amounts = amounts.with(unit, most.of(unit).rounded_up());
        }
        amounts.with(Unit::Concurrent, 1)
    }

    /// How much of this unit.
    pub fn of(&self, unit: Unit) -> u64 {
        self.0.get(unit as usize).copied().unwrap_or(0)
    }

    /// The same with this much of one unit.
    #[must_use]
    pub fn with(mut self, unit: Unit, amount: u64) -> Self {
        if let Some(at) = self.0.get_mut(unit as usize) {
            *at = amount;
        }
        self
    }

    /// The sums.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        self.each(|unit, amount| amount.saturating_add(other.of(unit)))
    }

    /// What is left when `other` is taken away; nothing where that is more.
    #[must_use]
    pub fn less(self, other: &Self) -> Self {
        self.each(|unit, amount| amount.saturating_sub(other.of(unit)))
    }

    /// Whether none of it is more than in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        Unit::ALL.into_iter().all(|unit| self.of(unit) <= other.of(unit))
    }

    /// Each amount changed by its unit.
    #[must_use]
    pub fn each(self, change: impl Fn(Unit, u64) -> u64) -> Self {
        Unit::ALL.into_iter().fold(self, |all, unit| all.with(unit, change(unit, self.of(unit))))
    }
}

impl Quantity {
    /// Whole units.
    pub const fn whole(units: u64) -> Self {
        Self(units as u128 * MILLION)
    }

    /// A quantity as it is stored: whole units, and millionths of one.
    pub const fn from_parts(units: u64, millionths: u32) -> Self {
        Self(units as u128 * MILLION + millionths as u128)
    }

    /// Whole units, and the millionths above them: how it is stored.
    pub fn parts(self) -> (u64, u32) {
        Cost::from_picos(self.0).split()
    }

    /// Enough whole units to hold it, `i64::MAX` at the most: as much as a column holds.
    pub fn rounded_up(self) -> u64 {
        Cost::from_picos(self.0).rounded_up().micros()
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left when `other` is taken away; nothing when that is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

const MILLION: u128 = crate::money::PICOS;

impl Spending {
    /// What one call came to.
    pub const fn of_call(cost: Cost, tokens: &Tokens) -> Self {
        let (input_tokens, output_tokens) = (tokens.all_input(), tokens.all_output());
        Self { cost, requests: 1, input_tokens, output_tokens }
    }

    /// How much of this unit.
    pub const fn of(&self, unit: Unit) -> Quantity {
        match unit {
            Unit::Money => Quantity(self.cost.picos()),
            Unit::Requests => Quantity::whole(self.requests),
            Unit::InputTokens => Quantity::whole(self.input_tokens),
            Unit::OutputTokens => Quantity::whole(self.output_tokens),
            Unit::Tokens => Quantity::whole(self.input_tokens.saturating_add(self.output_tokens)),
            Unit::Concurrent => Quantity(0),
        }
    }

    /// The sum.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            cost: self.cost.plus(other.cost),
            requests: self.requests.saturating_add(other.requests),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }

    /// What came since `earlier`, which is a part of it; nothing when it is not.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let grew = earlier.cost <= self.cost;
        Some(Self {
            cost: grew.then(|| self.cost.less(earlier.cost))?,
            requests: self.requests.checked_sub(earlier.requests)?,
            input_tokens: self.input_tokens.checked_sub(earlier.input_tokens)?,
            output_tokens: self.output_tokens.checked_sub(earlier.output_tokens)?,
        })
    }
}
