use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use audit::{Hash, Kind, PolicyDocument, Verifier};
use strongroom_client::Transport;
use strongroom_proto::v1::{GetPolicyRequest, audit_client::AuditClient};

use crate::{failure::Failure, files};

/// The access rules that the records of an export name, for the folder beside them.
#[derive(Default)]
pub(crate) struct Policies(BTreeSet<Hash>);

impl Policies {
    /// Takes note of the rules that a record names.
    pub(crate) fn push(&mut self, body: &[u8]) {
        let record = audit::decode_record(body).ok();
        let record = record.filter(|record| record.kind() == Kind::PolicyLoaded);
        self.0.extend(record.and_then(|record| Hash::try_from(&*record.policy_sha256).ok()));
    }

    /// Saves what is not there yet.
    pub(crate) async fn save(
        &self,
        client: &mut AuditClient<Transport>,
        directory: &Path,
    ) -> Result<(), Failure> {
        for sha256 in &self.0 {
            let path = path(directory, sha256);
            if path.exists() {
                continue;
            }
            let request = GetPolicyRequest { policy_sha256: sha256.to_vec().into() };
            let document = client.get_policy(request).await?.into_inner().document;
            let policy = PolicyDocument::parse(document.to_vec())
                .map_err(|_| Failure::BadAnswer("the access rules are malformed"))?;
            if policy.sha256() != sha256 {
                return Err(Failure::BadAnswer("the access rules are not those of the record"));
            }
            files::write(&path, policy.as_bytes())?;
        }
        Ok(())
    }
}

/// Gives a verifier the access rules that lie in an export. The records say which count, by their
/// hashes, so that a file that was changed is as good as none.
pub(crate) fn load(directory: &Path, verifier: &mut Verifier) -> Result<(), Failure> {
    let directory = directory.join(POLICIES);
    if !directory.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(&directory).map_err(files::failed(&directory))?;
    for entry in entries {
        let path = entry.map_err(files::failed(&directory))?.path();
        if let Ok(policy) = PolicyDocument::parse(files::read(&path)?) {
            verifier.know_policy(policy);
        }
    }
    Ok(())
}

fn path(directory: &Path, sha256: &Hash) -> PathBuf {
    directory.join(POLICIES).join(format!("{}.json", hex::encode(sha256)))
}

/// Where access rules are kept in an export.
const POLICIES: &str = "policies";
