//! Usage, read from answers as they pass: in which dialect, in which framing, and what it says.

mod events;
mod figures;
mod format;
mod frames;
mod meter;
mod spots;

pub use format::{Format, Reading};
pub use meter::{Ended, Framing, Meter, Metered};

pub(crate) use events::{WORD, data_of, has_object, may_be_an_object};

use domain::{Cost, Tokens};

/// What a provider says that a call took.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Tokens, by kinds that do not overlap.
    pub tokens: Tokens,
    /// Searches, or search units.
    pub searches: u64,
    /// What the call cost, where the provider says so itself.
    pub stated: Option<Cost>,
}
