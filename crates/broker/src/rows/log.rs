use std::{
    collections::{BTreeSet, VecDeque},
    mem,
};

use audit::{Checkpoint, Hash, Reason, VerifierKey};
use store::{Head, StoreError};
use tokio::{sync::watch, time};

use super::{Bounds, RowCheck, RowFinding, tree::Walk};
use crate::refused::Why;
use strongroom_proto::v1;

/// What is known of the log while it is looked at.
struct Seen {
    head: Head,
    signed: Option<Checkpoint>,
    /// Records that may be looked at still.
    left: u64,
    /// Access rules that records name.
    policies: BTreeSet<Hash>,
    found: Vec<RowFinding>,
}

impl RowCheck {
    /// Looks at the log: at what is new, and again at what is old. Says whether it was seen to its end.
    pub(super) async fn look_at_log(
        &mut self,
        bounds: Bounds,
        tell: &watch::Sender<v1::CheckRowsResponse>,
        found: &mut BTreeSet<RowFinding>,
    ) -> Result<bool, Why> {
        let Some(head) = self.look_at_head(found).await? else { return Ok(false) };
        let size = head.frontier.size();
        self.progress.tree_size = size;
        let signed = self.signed(found).await?;
        let policies = BTreeSet::new();
        let mut seen = Seen { head, signed, left: bounds.rows, policies, found: Vec::new() };
        let mut newest = mem::take(&mut self.newest);
        let mut whole = self.walk(&mut newest, &mut seen, (bounds, tell)).await?;
        self.newest = newest;
        // What this turn has not seen, is seen again some time.
        if self.progress.records < size {
            let mut again = mem::take(&mut self.again);
            if again.size() >= size {
                again = Walk::default();
            }
            whole &= self.walk(&mut again, &mut seen, (bounds, tell)).await?;
            self.again = again;
        }
        found.extend(seen.found);
        for sha256 in seen.policies {
            let document = self.core.store.policy(&sha256).await?;
            let name = format!("policy {}", hex::encode(sha256));
            found.extend(self.document(("policy", ""), name, &sha256, document));
        }
        Ok(whole)
    }

    /// Looks at what there is one of. Gives the head, if it can be read.
    async fn look_at_head(
        &mut self,
        found: &mut BTreeSet<RowFinding>,
    ) -> Result<Option<Head>, Why> {
        let changed = |column| RowFinding::of_log(Reason::RowChanged, column, 0);
        let head = match self.core.store.head().await {
            Ok(head) => head,
            Err(StoreError::Corrupt(what)) => {
                found.insert(changed("head").because(what));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if self.core.store.stored().await?.deployment != self.core.store.deployment() {
            found.insert(changed("head.deployment"));
        }
        self.expected.catch_up(&*self.core.store).await?;
        let last = self.expected.changed;
        // A change that was recorded since then moves it on.
        if last != head.changed && self.core.store.head().await?.changed != last {
            self.expected.catch_up(&*self.core.store).await?;
            if self.expected.changed == last {
                found.insert(changed("head.changed"));
            }
        }
        Ok(Some(head))
    }

    /// The newest signed checkpoint, if the one that is kept is genuine.
    async fn signed(&self, found: &mut BTreeSet<RowFinding>) -> Result<Option<Checkpoint>, Why> {
        let changed = |column| RowFinding::of_log(Reason::RowChanged, column, 0);
        let kept = self.core.store.stored().await?.checkpoint;
        let Some((size, note)) = kept else { return Ok(None) };
        let key: Option<VerifierKey> = self.core.verifier_key.parse().ok();
        let checkpoint = key.and_then(|key| Checkpoint::verify(&note, &key).ok());
        match &checkpoint {
            None => found.insert(changed("checkpoint.note")),
            Some(signed) if signed.size != size => found.insert(changed("checkpoint.size")),
            Some(_) => false,
        };
        Ok(checkpoint)
    }

    /// Goes on with a walk, to the end of the log if that may be. Says whether it is there.
    async fn walk(
        &mut self,
        walk: &mut Walk,
        seen: &mut Seen,
        (bounds, tell): (Bounds, &watch::Sender<v1::CheckRowsResponse>),
    ) -> Result<bool, Why> {
        let size = seen.head.frontier.size();
        // Stops where something was signed, to compare.
        let signed = seen.signed.as_ref().map(|signed| signed.size);
        let mut stops: VecDeque<u64> = signed.into_iter().chain([size]).collect();
        while let Some(stop) = stops.pop_front() {
            while walk.size() < stop && seen.left > 0 {
                let from = walk.size();
                let step = walk.step(&*self.core.store, stop).await?;
                seen.found.extend(step.findings);
                seen.policies.extend(step.policies);
                let walked = walk.size() - from;
                seen.left = seen.left.saturating_sub(walked.max(1));
                self.progress.records += walked;
                tell.send_replace(self.progress.clone());
                time::sleep(bounds.rest).await;
                if step.ended {
                    // From the beginning the next time.
                    *walk = Walk::default();
                    return Ok(false);
                }
            }
            if let Some(signed) = seen.signed.as_ref().filter(|it| it.size == walk.size())
                && signed.root != walk.root()
            {
                let forked = RowFinding::of_log(Reason::RowChanged, "record", signed.size);
                let what = "the tree up to here is not the one that was signed";
                seen.found.push(forked.because(what.to_owned()));
            }
        }
        if walk.size() != size {
            return Ok(false);
        }
        let changed = |column| RowFinding::of_log(Reason::RowChanged, column, size);
        if walk.root() != seen.head.frontier.root() {
            seen.found.push(changed("head.frontier"));
            *walk = Walk::default();
        } else if walk.last().is_some_and(|last| last != seen.head.time) {
            seen.found.push(changed("head.time"));
        }
        Ok(true)
    }
}
