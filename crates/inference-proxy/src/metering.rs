mod answer;
mod bound;
mod drain;
mod kind;
mod prices;
mod tab;
mod waiting;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{Amounts, Clock, Uid};
use strongroom_client::{Held, LeaseError, LeaseKey, PurseKey, Purses, Till};

use crate::{
    Leases, Loan, MeteringConfig, body::Frames, lease_refusal::lease_refusal, refusal::Refusal,
};

pub(crate) use answer::Answer;
pub(crate) use bound::PlanFor;
pub(crate) use kind::ask_for_usage;
pub(crate) use tab::Tab;
pub(crate) use waiting::Waiting;

use bound::{Plan, plan};
use drain::Drains;
use prices::PriceShelf;
use tab::{Attempt, Course};

/// What calls come to: reserved before, read while the answer passes, told after.
#[derive(Debug)]
pub(crate) struct Metering {
    pub(crate) config: MeteringConfig,
    leases: Arc<dyn Leases>,
    prices: PriceShelf,
    purses: Purses,
    drains: Drains,
    clock: Arc<dyn Clock>,
    /// The ids of records: random letters of this process, and a number.
    process: [u8; 8],
    next: AtomicU64,
}

impl Metering {
    pub(crate) fn new(
        config: MeteringConfig,
        leases: Arc<dyn Leases>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let uid = Uid::random().map_err(io::Error::other)?;
        let mut process = [0; 8];
        process.iter_mut().zip(uid.as_bytes()).for_each(|(to, from)| *to = *from);
        Ok(Self {
            prices: PriceShelf::new().map_err(io::Error::other)?,
            purses: Purses::new(Arc::clone(&leases) as Arc<dyn Till>, Arc::clone(&clock)),
            leases,
            drains: Drains::new(config.drains),
            config,
            clock,
            process,
            next: AtomicU64::new(1),
        })
    }

    /// Begins an attempt: bounds it, and reserves what it may come to where something is limited. That is
    /// no I/O as long as there is room in the slices at hand.
    pub(crate) async fn begin(
        &self,
        attempt: &PlanFor<'_>,
        frames: &mut Frames,
        tab: &mut Option<Tab>,
    ) -> Result<(), Refusal> {
        let prices = self.prices.of(&*self.leases, &**attempt.loan, &*self.clock).await;
        let plan = plan(self, attempt, prices.as_deref(), frames)?;
        let held = match self.reserve(attempt.key, &**attempt.loan, plan.need.as_ref()).await {
            Ok(held) => held,
            Err(error) => {
                if let Some(tab) = tab {
                    tab.refused(self.purses.states(&purse_key(attempt.key)));
                }
                return Err(lease_refusal(error));
            }
        };
        if let Some(tab) = tab {
            tab.begin(Attempt {
                loan: Arc::clone(attempt.loan),
                upstream: Arc::clone(attempt.upstream),
                model: attempt.target.model.clone(),
                plan,
                prices,
                held,
                course: Course::Planned,
            });
        }
        Ok(())
    }

    async fn reserve(
        &self,
        key: &LeaseKey,
        loan: &dyn Loan,
        need: Option<&Amounts>,
    ) -> Result<Held, LeaseError> {
        let Some(need) = need else { return Ok(Held::nothing()) };
        self.purses.reserve(&purse_key(key), need, loan.as_of()).await
    }

    /// Waits for answers that are read to their end without their callers, gives every slice back, and
    /// tells what there is to tell.
    pub(crate) async fn shutdown(&self, drain: Duration) {
        self.drains.finish(drain).await;
        self.purses.shutdown(TELL_WITHIN).await;
    }

    fn usage_id(&self) -> [u8; 16] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        let bytes = self.process.into_iter().chain(number.to_be_bytes());
        id.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        id
    }
}

fn purse_key(key: &LeaseKey) -> PurseKey {
    PurseKey { virtual_key: key.virtual_key.clone(), digest: key.digest }
}

const TELL_WITHIN: Duration = Duration::from_secs(5);
