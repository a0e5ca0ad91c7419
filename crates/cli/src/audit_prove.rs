use std::path::{Path, PathBuf};

use audit::{Hash, Kind, RecordProof};
use clap::Args;
use serde_json::json;
use strongroom_client::Transport;
use strongroom_proto::v1::{ListRecordsRequest, ProveInclusionRequest, audit_client::AuditClient};

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
    /// The record that granted this lease, by the lease's hash in hex. This reads through the log.
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
            (None, Some(lease)) => find_grant(&mut client, lease, context.output).await?,
            (None, None) => return Err(Failure::Usage("name a record by its index or --lease")),
        };
        let request = ProveInclusionRequest { index, tree_size: 0 };
        let answer = client.prove_inclusion(request).await?.into_inner();
        let entry = answer.entry.ok_or(Failure::BadAnswer("the proof comes without the record"))?;
        let hashes: Option<Vec<Hash>> =
            answer.hashes.iter().map(|hash| (&**hash).try_into().ok()).collect();
        let hashes = hashes.ok_or(Failure::BadAnswer("a hash has not 32 bytes"))?;
        let proof = RecordProof { index, hashes, checkpoint: answer.checkpoint };
        // The record first: a proof without it proves nothing.
        files::write(&record_of(&self.output), &entry.body)?;
        files::write(&self.output, proof.encode().as_bytes())?;
        let record = audit_tail::read(&entry)?;
        let result = json!({ "index": index, "file": self.output, "record": record });
        context.output.show(&result, |_| audit_tail::human(&record))
    }
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

async fn find_grant(
    client: &mut AuditClient<Transport>,
    lease: &Hex,
    output: Output,
) -> Result<u64, Failure> {
    let mut from_index = 0;
    loop {
        let request = ListRecordsRequest { from_index, page_size: 4096, ..Default::default() };
        let page = client.list_records(request).await?.into_inner();
        for entry in &page.entries {
            let granted = audit::decode_record(&entry.body).is_ok_and(|record| {
                record.kind() == Kind::LeaseGranted && *record.lease_hash == *lease.0
            });
            if granted {
                output.progress("");
                return Ok(entry.index);
            }
        }
        if page.next_index <= from_index || page.next_index >= page.tree_size {
            output.progress("");
            return Err(Failure::NoSuchGrant);
        }
        from_index = page.next_index;
        output.progress(&format!("{from_index} of {} entries", page.tree_size));
    }
}
