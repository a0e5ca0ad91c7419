use std::path::{Path, PathBuf};

use audit::{Hash, Kind, Names, RecordProof};
use clap::Args;
use serde_json::json;
use strongroom_client::Transport;
use strongroom_proto::v1::{
    ListRecordsRequest, ProveInclusionRequest, RecordFilter, audit_client::AuditClient,
};

use crate::{
    audit_tail, audit_verify::KeyArgs, context::Context, failure::Failure, files, names::Hex,
    output::Output, views::RecordView,
};

#[derive(Args, Debug)]
pub(crate) struct Prove {
    #[command(flatten)]
    which: Which,
    /// Where the proof is written; the record goes beside it, into `FILE.record`.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// The record's index.
    index: Option<u64>,
    /// The record that granted this lease, by the lease's hash in hex.
    #[arg(long, value_name = "HASH")]
    lease: Option<Hex>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyProof {
    /// The proof; its record stands beside it, in `FILE.record`.
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
}

impl Prove {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut client = context.broker()?.audit();
        let index = match (self.which.index, &self.which.lease) {
            (Some(index), _) => index,
            (None, Some(lease)) => find_grant(&mut client, lease).await?,
            (None, None) => return Err(Failure::Usage("name a record by its index or --lease")),
        };
        let record = save(&mut client, index, &self.output).await?;
        let result = json!({ "index": index, "file": self.output, "record": record });
        context.output.show(&result, |_| audit_tail::human(&record))
    }
}

/// Saves the proof that a record is in the log, and the record beside it.
pub(crate) async fn save(
    client: &mut AuditClient<Transport>,
    index: u64,
    output: &Path,
) -> Result<RecordView, Failure> {
    let request = ProveInclusionRequest { index, tree_size: 0 };
    let answer = client.prove_inclusion(request).await?.into_inner();
    let entry = answer.entry.ok_or(Failure::BadAnswer("the proof comes without the record"))?;
    let hashes: Option<Vec<Hash>> =
        answer.hashes.iter().map(|hash| (&**hash).try_into().ok()).collect();
    let hashes = hashes.ok_or(Failure::BadAnswer("a hash has not 32 bytes"))?;
    let proof = RecordProof { index, hashes, checkpoint: answer.checkpoint };
    // The record first: a proof without it proves nothing.
    files::write(&record_of(output), &entry.body)?;
    files::write(output, proof.encode().as_bytes())?;
    audit_tail::read(&entry, &Names::told(&answer.disclosures))
}

impl VerifyProof {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let key = self.key.load()?;
        let text = files::read_text(&self.file)?;
        let body = files::read(&record_of(&self.file))?;
        let proof = RecordProof::parse(&text).map_err(|error| unverified(error, None))?;
        let record =
            proof.verify(&key, &body).map_err(|error| unverified(error, Some(proof.index)))?;
        let record = RecordView::from(record);
        let result = json!({ "verified": true, "origin": key.name(), "record": record });
        output.show(&result, |_| {
            format!("verified: in the log {}\n{}", key.name(), audit_tail::human(&record))
        })
    }
}

fn unverified(error: audit::RecordProofError, index: Option<u64>) -> Failure {
    Failure::Unverified { what: error.to_string(), index }
}

fn record_of(proof: &Path) -> PathBuf {
    let mut name = proof.as_os_str().to_owned();
    name.push(".record");
    name.into()
}

async fn find_grant(client: &mut AuditClient<Transport>, lease: &Hex) -> Result<u64, Failure> {
    let filter = RecordFilter {
        lease_hash: lease.0.clone().into(),
        kinds: vec![Kind::LeaseGranted.into()],
        ..Default::default()
    };
    let request =
        ListRecordsRequest { filter: Some(filter), newest_first: true, ..Default::default() };
    let page = client.list_records(request).await?.into_inner();
    page.entries.first().map(|entry| entry.index).ok_or(Failure::NoSuchGrant)
}
