use std::{sync::Arc, time::Duration};

use audit::Kind;
use domain::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{core::Core, leadership, refused::Why};

/// How often to look for what time has made due.
const EVERY: Duration = Duration::from_secs(1);

/// Gives allowances up whose time is over and raises alerts, as long as this broker leads. Nothing
/// is wrong when two brokers do it: what one has done, the other does not find.
pub(crate) async fn sweep(core: Arc<Core>, leads: watch::Receiver<bool>, stop: CancellationToken) {
    while leadership::next_turn(EVERY, &leads, &stop).await {
        while *leads.borrow() && !stop.is_cancelled() {
            match core.sweep(None).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => {
                    metrics::counter!("strongroom_budget_sweep_failures_total").increment(1);
                    tracing::warn!(%why, "allowances that have ended wait");
                    break;
                }
            }
        }
    }
}

impl Core {
    /// Does a page of what is due, and says whether there may be more.
    pub(crate) async fn sweep(&self, at: Option<Timestamp>) -> Result<bool, Why> {
        let swept = self.log.sweep(at).await?;
        for entry in &swept.entries {
            let record = entry.record().map_err(|error| Why::Corrupt(error.to_string()))?;
            let tenant = record.tenant.clone();
            if record.kind() == Kind::BudgetAlert {
                let (budget, percent) = (record.budget.clone(), record.percent.to_string());
                metrics::counter!("strongroom_budget_alerts_total", "tenant" => tenant,
                    "budget" => budget, "percent" => percent)
                .increment(1);
            } else if record.kind() == Kind::AllowanceExpired {
                metrics::counter!("strongroom_allowances_expired_total", "tenant" => tenant)
                    .increment(1);
            }
        }
        Ok(swept.more)
    }
}
