use std::time::Duration;

use audit::{Finding, Kind, PolicyDocument, Record, Report, Verifier, VerifierKey, decode_record};
use strongroom_proto::v1::{GetCheckpointRequest, GetPolicyRequest, ListRecordsRequest};
use tokio::time::{Instant, sleep_until};

/// A log as an auditor has it: records, a signed checkpoint, and the key that verifies it.
#[derive(Clone, Debug)]
pub struct Export {
    /// The records' bytes, in order.
    pub bodies: Vec<Vec<u8>>,
    /// The signed checkpoint over all of them.
    pub checkpoint: String,
    /// The access rules that the records name.
    pub policies: Vec<PolicyDocument>,
    key: VerifierKey,
}

impl Export {
    /// What the log holds, or the first thing that is wrong with it.
    pub fn verify(&self) -> Result<Report, Finding> {
        let mut verifier = Verifier::open(&self.key, &self.checkpoint).expect("it is signed");
        for policy in &self.policies {
            verifier.know_policy(policy.clone());
        }
        for body in &self.bodies {
            verifier.push(body)?;
        }
        let report = verifier.finish()?;
        assert!(report.unknown_policies.is_empty(), "all access rules are at hand");
        Ok(report)
    }

    /// The records, read.
    pub fn records(&self) -> Vec<Record> {
        self.bodies.iter().map(|body| decode_record(body).unwrap()).collect()
    }
}

/// Reads the whole log as of now, and waits until a checkpoint covers it.
pub async fn export(broker: &strongroom_client::Broker, verifier_key: &str) -> Export {
    let key: VerifierKey = verifier_key.parse().unwrap();
    let mut bodies = all(broker).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let checkpoint = broker.audit().get_checkpoint(GetCheckpointRequest {}).await;
        if let Ok(answer) = checkpoint {
            let checkpoint = answer.into_inner().checkpoint;
            let signed = Verifier::open(&key, &checkpoint).expect("it is signed");
            let size = usize::try_from(signed.checkpoint().size).unwrap();
            if size >= bodies.len() {
                bodies = all(broker).await;
                bodies.truncate(size);
                let policies = policies(broker, &bodies).await;
                return Export { bodies, checkpoint, policies, key };
            }
        }
        assert!(Instant::now() < deadline, "no checkpoint covers the log");
        sleep_until(Instant::now() + Duration::from_millis(50)).await;
    }
}

async fn policies(broker: &strongroom_client::Broker, bodies: &[Vec<u8>]) -> Vec<PolicyDocument> {
    let mut policies = Vec::new();
    for body in bodies {
        let record = decode_record(body).unwrap();
        if record.kind() == Kind::PolicyLoaded {
            let request = GetPolicyRequest { policy_sha256: record.policy_sha256 };
            let policy = broker.audit().get_policy(request).await.unwrap().into_inner();
            policies.push(PolicyDocument::parse(policy.document.to_vec()).unwrap());
        }
    }
    policies
}

async fn all(broker: &strongroom_client::Broker) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    loop {
        let from_index = u64::try_from(bodies.len()).unwrap();
        let request = ListRecordsRequest { from_index, page_size: 4096, ..Default::default() };
        let page = broker.audit().list_records(request).await.unwrap().into_inner();
        bodies.extend(page.entries.into_iter().map(|entry| entry.body.to_vec()));
        if page.next_index >= page.tree_size {
            return bodies;
        }
    }
}
