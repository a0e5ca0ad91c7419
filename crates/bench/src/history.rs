use std::{
    collections::{BTreeSet, HashMap},
    fs,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use audit::{
    Checkpoint, Frontier, Kind, Record, RecordDraft, Report, SignerKey, Verifier, VerifierKey,
    decode_record, leaf_hash, timestamp,
};
use bytes::Bytes;
use domain::{Clock as _, SystemClock};
use strongroom_client::Broker;
use strongroom_proto::v1::{GetCheckpointRequest, ListRecordsRequest};
use tokio::time::sleep;

use crate::fleet::Fleet;

/// All that is in a log, as an auditor reads it, with a checkpoint that covers it.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    key: VerifierKey,
    checkpoint: String,
    bodies: Vec<Bytes>,
}

/// A log that was verified, down to its meaning: nothing is missing, and no lease was granted that
/// had to be refused.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) report: Report,
    /// The hash of each lease, by the index of the record that grants it.
    pub(crate) grants: HashMap<u64, Bytes>,
}

impl Records {
    /// Reads all that is in the log now, and what comes until that is signed.
    pub(crate) async fn of(fleet: &Fleet) -> anyhow::Result<Self> {
        let key = fs::read_to_string(&fleet.layout.log_verifier)?.trim().parse()?;
        let admin = &fleet.connect(0, "admin")?;
        let size = page(admin, 0, 1).await?.tree_size;
        let (checkpoint, end) = signed(admin, &key, size).await?;
        let (mut bodies, mut from) = (Vec::new(), 0);
        while from < end {
            let page = page(admin, from, PAGE).await?;
            ensure!(page.next_index > from, "the log ends before its checkpoint, at {from}");
            let covered = page.entries.into_iter().filter(|entry| entry.index < end);
            bodies.extend(covered.map(|entry| entry.body));
            from = page.next_index;
        }
        Ok(Self { key, checkpoint, bodies })
    }

    /// Verifies it, and that it continues earlier checkpoints.
    pub(crate) fn verify(&self, earlier: &BTreeSet<String>) -> anyhow::Result<History> {
        let mut verifier = Verifier::open(&self.key, &self.checkpoint)?;
        for note in earlier {
            verifier.expect_earlier(note)?;
        }
        let mut grants = HashMap::new();
        for body in &self.bodies {
            verifier.push(body)?;
            let record = decode_record(body)?;
            if record.kind() == Kind::LeaseGranted {
                grants.insert(record.index, record.lease_hash);
            }
        }
        Ok(History { report: verifier.finish()?, grants })
    }

    /// The same log with one record taken out.
    pub(crate) fn without(&self, index: u64) -> Self {
        let kept = (0..).zip(&self.bodies).filter(|(at, _)| *at != index);
        Self { bodies: kept.map(|(_, body)| body.clone()).collect(), ..self.clone() }
    }

    /// What whoever holds the log's key could show in its place: one record is taken out, those
    /// behind it are moved up, and everything is signed anew.
    pub(crate) fn rewritten_without(&self, index: u64, key: &SignerKey) -> anyhow::Result<Self> {
        let (mut bodies, mut tree) = (Vec::new(), Frontier::default());
        for (at, body) in (0..).zip(self.without(index).bodies) {
            let record = decode_record(&body)?;
            let time = record.time.as_ref().and_then(timestamp).context("a record has a time")?;
            let draft = RecordDraft::new(Record { index: 0, time: None, ..record })?;
            let body = draft.seal_at(at, time).body;
            tree.push(leaf_hash(&body));
            bodies.push(body.into());
        }
        let checkpoint = Checkpoint::sign(tree.size(), &tree.root(), key)?;
        Ok(Self { key: self.key.clone(), checkpoint, bodies })
    }

    /// Shows that a log from which any one record is missing would not have passed.
    pub(crate) fn control(&self) -> anyhow::Result<()> {
        let end = u64::try_from(self.bodies.len())?;
        for index in [0, end / 2, end.saturating_sub(1)] {
            let passed = self.without(index).verify(&BTreeSet::new()).is_ok();
            ensure!(!passed, "the log verifies without its record {index}: the check is worthless");
        }
        Ok(())
    }
}

/// A checkpoint of that size at least, which is signed within a second, and its size.
async fn signed(admin: &Broker, key: &VerifierKey, size: u64) -> anyhow::Result<(String, u64)> {
    let began = SystemClock.elapsed();
    loop {
        let newest = admin.audit().get_checkpoint(GetCheckpointRequest {}).await;
        if let Ok(newest) = newest {
            let note = newest.into_inner().checkpoint;
            let covered = Checkpoint::verify(&note, key)?.size;
            if covered >= size {
                return Ok((note, covered));
            }
        }
        if SystemClock.elapsed().saturating_sub(began) > PATIENCE {
            bail!("no checkpoint covers the log: see what the brokers said");
        }
        sleep(POLL).await;
    }
}

async fn page(
    admin: &Broker,
    from_index: u64,
    page_size: i32,
) -> anyhow::Result<strongroom_proto::v1::ListRecordsResponse> {
    let request = ListRecordsRequest { from_index, page_size, ..ListRecordsRequest::default() };
    Ok(admin.audit().list_records(request).await?.into_inner())
}

const PAGE: i32 = 4096;
const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_mins(1);
