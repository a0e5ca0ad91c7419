use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use domain::LeaseId;

use super::Loan;
use crate::refused::Why;

/// Which seal of which lease this is.
pub(super) struct Turn<'a> {
    pub(super) id: LeaseId,
    pub(super) loan: Option<&'a Loan>,
    pub(super) renewals: u32,
    pub(super) begun: Arc<AtomicU32>,
}

impl<'a> Turn<'a> {
    pub(super) fn take(renewed: Option<(LeaseId, &'a Loan)>) -> Result<Self, Why> {
        let Some((id, loan)) = renewed else {
            let begun = Arc::default();
            return Ok(Self { id: LeaseId::random()?, loan: None, renewals: 0, begun });
        };
        let begun = Arc::clone(&loan.renewals);
        // At the end of the numbers the lease ends; the first one to seal took 0.
        let before = begun.fetch_update(Relaxed, Relaxed, |before| before.checked_add(1));
        let renewals = before.map_err(|_| Why::LeaseEnded)? + 1;
        Ok(Self { id, loan: Some(loan), renewals, begun })
    }
}
