use crate::{
    Timestamp, Uid,
    budget::{Amounts, Place, Spending, Unit},
};

/// Names an account. The order is the one in which accounts are locked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AccountKey {
    /// The budget whose limit it counts.
    pub budget: Uid,
    /// The limit.
    pub unit: Unit,
    /// When the window began.
    pub window: Timestamp,
}

/// An amount held of several accounts at once: for one call, or as a slice for many.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reservation {
    /// What was held at first. Of a unit that nobody limits, nothing.
    pub granted: Amounts,
    /// What has been replaced by spending.
    pub covered: Amounts,
    /// What has been given back.
    pub returned: Amounts,
    /// What has been spent.
    pub spent: Spending,
    /// What of it was spent on managed credentials.
    pub managed: Spending,
    /// The last settlement's number; 0 when there was none.
    pub sequence: u64,
    /// When it is unknown what became of it, unless it was settled.
    pub expires_at: Timestamp,
    /// When that happened.
    pub expired_at: Option<Timestamp>,
    /// How far it is.
    pub state: ReservationState,
    /// What it holds of which accounts.
    pub holds: Vec<Hold>,
}

/// A reservation's part in one account.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hold {
    /// The account.
    pub key: AccountKey,
    /// Where in it the rest stands.
    pub place: Place,
    /// Whether it was granted although the cap had no room for it, as a shadow does.
    pub over: bool,
}

/// How far a reservation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReservationState {
    /// Calls may be under way.
    Open,
    /// It expired: the rest counts as spent until it is known better.
    Unknown,
    /// Nothing is held for it any more.
    Closed,
}

/// What a holder says of its reservation so far. All figures are totals since the reservation was
/// made, so that a repeated or overtaken settlement changes nothing, and a lost one is made up for by
/// the next.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Settlement {
    /// Larger than that of every settlement before. With the reservation's id it is the idempotency
    /// key.
    pub sequence: u64,
    /// How much of what was granted is to be replaced by `spent`: each call's spending rounded up to
    /// whole units.
    pub covered: Amounts,
    /// How much of it is not needed any more.
    pub returned: Amounts,
    /// What was spent.
    pub spent: Spending,
    /// What of it was spent on managed credentials.
    pub managed: Spending,
}

impl Reservation {
    /// What is still held.
    pub fn rest(&self) -> Amounts {
        self.granted.less(&self.covered).less(&self.returned)
    }

    /// Whether no account holds anything for it any more.
    pub(crate) fn is_spent_up(&self) -> bool {
        let rest = self.rest();
        self.holds.iter().all(|hold| hold.place == Place::Gone || rest.of(hold.key.unit) == 0)
    }
}

impl Settlement {
    /// The only settlement of a reservation that was made for one call with a tenant's own credential.
    pub fn of_call(granted: &Amounts, spent: Spending) -> Self {
        let covered = granted.each(|unit, held| spent.of(unit).rounded_up().min(held));
        let (returned, managed) = (granted.less(&covered), Spending::default());
        Self { sequence: 1, covered, returned, spent, managed }
    }
}
