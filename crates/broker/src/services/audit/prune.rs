use audit::{BUNDLE_WIDTH, Checkpoint, Hash, Kind, ProofPlan, Record, VerifierKey, timestamp};
use strongroom_proto::v1;

use crate::{
    caller::Caller,
    core::Core,
    custody::OwnRow as _,
    refused::{Refused, Why},
};

/// How many records one call takes out. Leases wait while it does, so it is a matter of
/// milliseconds; whoever has more to prune calls again.
const STEP: u64 = 16 * BUNDLE_WIDTH;

impl Core {
    /// Takes records out of the log that are old enough, and that a signed export is shown to cover.
    pub(crate) async fn prune_records(
        &self,
        caller: &Caller,
        request: &v1::PruneRecordsRequest,
    ) -> Result<v1::PruneRecordsResponse, Refused> {
        self.access.permit_all(caller)?;
        let before = request.before_index;
        if before == 0 || !before.is_multiple_of(BUNDLE_WIDTH) {
            return Err(invalid("before_index must be a multiple of 256: whole bundles").into());
        }
        self.catch_up().await?;
        let first = self.store.first_kept().await?;
        if before <= first {
            return Ok(v1::PruneRecordsResponse { first_index: first, log_index: 0 });
        }
        self.check_covered(before, &request.checkpoint).await?;
        self.check_old(before).await?;
        self.check_sent(before).await?;
        let step = before.min(first + STEP);
        let record = Record {
            kind: Kind::LogPruned.into(),
            tree_size: step,
            tree_root: self.root_at(step).await?.to_vec().into(),
            ..Record::default()
        };
        let entry = self.log.prune(step, caller.stamp(record)).await?;
        Ok(v1::PruneRecordsResponse { first_index: step, log_index: entry.index })
    }

    /// Whether an export that ends in this checkpoint holds what is to be pruned: this very log
    /// signed it, and it reaches that far.
    async fn check_covered(&self, before: u64, checkpoint: &str) -> Result<(), Why> {
        let key: VerifierKey = self
            .verifier_key
            .parse()
            .map_err(|_| Why::Internal("the verifier key does not parse".to_owned()))?;
        let checkpoint = Checkpoint::verify(checkpoint, &key)
            .map_err(|_| invalid("the checkpoint is not signed by this log's key"))?;
        if checkpoint.size < before {
            return Err(invalid(
                "the export's checkpoint does not cover before_index; export anew",
            ));
        }
        self.in_tree(checkpoint.size)?;
        if self.root_at(checkpoint.size).await? == checkpoint.root {
            Ok(())
        } else {
            Err(invalid("the checkpoint is of another history than this log's; prune nothing"))
        }
    }

    /// Whether all that is to be pruned is older than what the configuration keeps.
    async fn check_old(&self, before: u64) -> Result<(), Why> {
        let keep = self.keep.ok_or_else(|| {
            invalid("this broker prunes nothing; set `keep` in [log] of its configuration")
        })?;
        let last = self.store.records(before - 1, 1, None).await?;
        let last = last.into_iter().next().ok_or(Why::NotInTree)?;
        let last = last.record().map_err(|error| Why::Corrupt(error.to_string()))?;
        let time = last.time.as_ref().and_then(timestamp).unwrap_or_default();
        if time + keep <= self.clock.now() {
            Ok(())
        } else {
            Err(invalid("records before before_index are younger than `keep` in [log] allows"))
        }
    }

    /// Whether every sink of the configuration has been sent what is to be pruned. A sink that is to go
    /// on without it is taken out of the configuration.
    async fn check_sent(&self, before: u64) -> Result<(), Why> {
        for name in &self.sinks {
            // Of one that was changed past the broker, nobody knows what it has been sent.
            let row = self.store.sink(name).await?.filter(|row| row.is_genuine(&self.row_key));
            let next = row.map_or(0, |row| row.next_index);
            if next < before {
                return Err(invalid(&format!(
                    "the sink `{name}` has been sent the records before {next} only; wait for it, or \
                     take it out of the configuration"
                )));
            }
        }
        Ok(())
    }

    async fn root_at(&self, size: u64) -> Result<Hash, Why> {
        let hashes = self.prove(&ProofPlan::root(size)).await?;
        let root = hashes.first().and_then(|hash| Hash::try_from(hash.as_ref()).ok());
        root.ok_or(Why::NotInTree)
    }
}

fn invalid(what: &str) -> Why {
    Why::InvalidField(what.to_owned())
}

#[cfg(test)]
mod tests;
