use domain::{AccessPolicy, AccessRule};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::Hash;

/// The access rules by which a broker decided, as they are kept beside the log: a record names them
/// by their SHA-256.
#[derive(Clone, Debug)]
pub struct PolicyDocument {
    sha256: Hash,
    bytes: Vec<u8>,
    policy: AccessPolicy,
}

/// Bytes that are not a document of access rules.
#[derive(Debug, Error)]
#[error("the document does not hold access rules")]
pub struct MalformedPolicy(#[source] serde_json::Error);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: Vec<AccessRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    two_people: Vec<String>,
}

impl PolicyDocument {
    /// Writes a policy down.
    pub fn of(policy: &AccessPolicy) -> Result<Self, MalformedPolicy> {
        let (rules, two_people) = (policy.rules().to_vec(), policy.two_people().to_vec());
        let rules = Rules { rules, two_people };
        Self::parse(serde_json::to_vec(&rules).map_err(MalformedPolicy)?)
    }

    /// Reads a document.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, MalformedPolicy> {
        let Rules { rules, two_people } =
            serde_json::from_slice(&bytes).map_err(MalformedPolicy)?;
        let sha256 = Sha256::digest(&bytes).into();
        let policy = AccessPolicy::new(rules).with_two_people(two_people);
        Ok(Self { sha256, bytes, policy })
    }

    /// What records call it.
    pub fn sha256(&self) -> &Hash {
        &self.sha256
    }

    /// Exactly the bytes that the hash is of.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The rules.
    pub fn policy(&self) -> &AccessPolicy {
        &self.policy
    }
}
