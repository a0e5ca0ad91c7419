//! Budgets and rate limits: what may still be spent, decided before anything is spent.
//!
//! A [`Budget`] gives limits for a [`Period`]. For each limit and each window of the period there is
//! one [`Account`]; a [`Reservation`] holds an amount of several accounts at once, those of a virtual
//! key, of its group and of its tenant. A slice is a reservation that a proxy spends from by itself,
//! in an [`Allowance`], and reports on in [`Settlement`]s. The [`Ledger`] puts these together in
//! memory: it is what a store has to do, and what a store is tested against.
//!
//! # As rows
//!
//! Each transition is a fixed list of conditional updates in one transaction, accounts in the order of
//! [`AccountKey`], so that no two transactions wait for each other in a circle.
//!
//! | Row | Key | Columns |
//! |---|---|---|
//! | account | budget, unit, window's start | `cap`, `mode`, `spent` and of it `managed` and `over`, each with its millionths, `unknown`, `reserved`, `overrun`, `alerted` |
//! | bucket, of rolling accounts only | account, bucket's start | `spent`, `managed`, `over` |
//! | reservation | id | `granted`, `covered`, `returned` by unit, `spent` and of it `managed` (cost and counts), `sequence`, `state`, `expires_at`, `expired_at` |
//! | hold | reservation, account | `place`, `over` |
//!
//! `used` below is `spent + (spent_millionths > 0) + unknown + reserved`.
//!
//! | Transition | Updates |
//! |---|---|
//! | [`Ledger::reserve`], [`Ledger::slice`] | account, created when missing: `reserved += n WHERE mode = shadow OR n <= cap - used`, for each account; one that matches no row rolls the transaction back. Then insert reservation and holds; the id being there already is the same answer again |
//! | [`Ledger::settle`] | reservation: the new totals `WHERE sequence < new AND state <> closed`; no row: settled already. Account, for each hold: `reserved -= covered + returned` (`unknown` when that is its place), `spent += (spent_millionths + x) / 1000000`, `spent_millionths = (spent_millionths + x) % 1000000`. Bucket of now: the same `spent`. What was not covered, rarely any: `spent += min(over, cap - used)`, `overrun += the rest` |
//! | [`Ledger::expire`] | reservation: `state = unknown, expired_at = now WHERE state = open AND expires_at <= now`. Hold: `place = unknown`. Account: `reserved -= rest, unknown += rest` |
//! | [`Ledger::reconcile`] | reservation: `state = closed WHERE state = unknown`. Account: as in settling, from `unknown` |
//! | [`Ledger::roll`] | rolling accounts only, before a reservation in them: delete buckets before the window and take their `spent` from the account's; give up what has been unknown for longer than the window |
//!
//! A window's row is made when it is first needed and is never reset, so a roll-over loses no update
//! and needs nobody to do it.

mod account;
mod allowance;
mod amounts;
mod ledger;
mod period;
mod rate;
mod reservation;
mod text;

use crate::{GroupId, Uid, VirtualKeyId};

pub use account::{Account, Bucket, Over, Place, Sums};
pub use allowance::{Allowance, Ticket};
pub use amounts::{Amounts, Quantity, Spending, Unit};
pub use ledger::{Exhausted, Ledger, LedgerError, Settled, slice_size};
pub use period::{InvalidZone, Period, Window, Zone};
pub use rate::{RateLimits, RateView};
pub use reservation::{AccountKey, Hold, Reservation, ReservationState, Settlement};
pub use text::InvalidBudget;

/// What may be spent in each window of a period.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Its permanent id.
    pub id: Uid,
    /// Whose spending it counts.
    pub holder: BudgetHolder,
    /// How long a window is, and where it begins.
    pub period: Period,
    /// Whether it refuses.
    pub mode: Mode,
    /// The limits. A unit that stands twice has the smaller one.
    pub limits: Vec<Limit>,
    /// At which percentages of a limit to raise an alert, once a window each.
    pub alerts: Vec<u8>,
}

/// Whose spending a budget counts, within one tenant.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BudgetHolder {
    /// All of the tenant's.
    Tenant,
    /// That of the virtual keys of a group.
    Group(GroupId),
    /// That of one virtual key.
    VirtualKey(VirtualKeyId),
}

/// The most of one unit in a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// What is counted.
    pub unit: Unit,
    /// How much of it, `i64::MAX` at the most; money in micro-USD.
    pub cap: u64,
}

/// What a budget does when a limit is reached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// It refuses: spent and reserved together never exceed the cap.
    #[default]
    Hard,
    /// It counts, raises alerts and says what it would have refused.
    Shadow,
}

impl Mode {
    /// The word in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Shadow => "shadow",
        }
    }
}

impl BudgetHolder {
    /// Whether a call with this virtual key, of this group if it has one, counts. Each call counts with
    /// all holders that cover it.
    pub fn covers(&self, key: &VirtualKeyId, group: Option<&GroupId>) -> bool {
        match self {
            Self::Tenant => true,
            Self::Group(own) => group == Some(own),
            Self::VirtualKey(own) => own == key,
        }
    }
}

impl Budget {
    /// The smallest cap of each unit that has a limit.
    pub fn caps(&self) -> impl Iterator<Item = Limit> {
        Unit::ALL.into_iter().filter_map(|unit| {
            let of_unit = self.limits.iter().filter(|limit| limit.unit == unit);
            of_unit.map(|limit| limit.cap).min().map(|cap| Limit { unit, cap })
        })
    }
}

#[cfg(test)]
mod model;
