use std::{sync::Arc, time::Duration};

use domain::Failure;
use strongroom_client::{FailedAttempt, LeaseKey};

use crate::{Leases, Loan, meters::Meters, reply::CutShort};

/// Tells what went wrong with an answer on its way: in the log with whose it was, in the metrics, and
/// to the broker what is a matter of record. An answer passes when its request's span is over, so what
/// names the call is kept here.
pub(crate) struct Reporter {
    pub(crate) leases: Arc<dyn Leases>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) loan: Arc<dyn Loan>,
    pub(crate) key: LeaseKey,
    pub(crate) request_id: String,
    /// When the call began, on the clock's `elapsed`.
    pub(crate) began: Duration,
}

impl Reporter {
    /// The leased secret stood in this part of the answer. Each time is an incident.
    pub(crate) fn secret_in(&self, part: &'static str) {
        self.meters.leaks.increment(1);
        let (loan, account) = (&self.loan, self.loan.account());
        tracing::error!(
            credential = %loan.credential(),
            version = loan.credential_version(),
            provider = %loan.provider(),
            tenant = account.tenant,
            virtual_key = account.virtual_key,
            request_id = self.request_id,
            part,
            "a provider's answer held the leased secret, and that part of it was withheld"
        );
        self.leases.report(
            &self.key,
            FailedAttempt {
                credential: loan.credential().clone(),
                version: loan.credential_version(),
                failure: Failure::SecretInAnswer,
                began: self.began,
            },
        );
    }

    /// The answer ended before its end.
    pub(crate) fn cut(&self, why: CutShort) {
        self.meters.cut.increment(1);
        tracing::warn!(
            credential = %self.loan.credential(),
            provider = %self.loan.provider(),
            request_id = self.request_id,
            reason = %why,
            "an answer was cut short"
        );
    }
}
