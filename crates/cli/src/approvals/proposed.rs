use std::collections::BTreeSet;

use audit::{PolicyDocument, request_sha256};
use domain::{ADMIT_POLICY, AccessPolicy, PolicyFile};
use prost::Message;
use serde::Serialize;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    AdmitPolicyRequest, Approval, Erasure, GetPolicyRequest, RewrapKeysRequest, RotateKekRequest,
    ShredCredentialRequest, ShredTenantRequest,
};

use crate::failure::Failure;

/// A call that needs a second person, as it was proposed.
#[derive(Debug)]
pub(crate) enum Proposed {
    AdmitPolicy(AdmitPolicyRequest),
    RewrapKeys(RewrapKeysRequest),
    RotateKek(RotateKekRequest),
    ShredCredential(ShredCredentialRequest),
    ShredTenant(ShredTenantRequest),
}

/// What came of making it.
#[derive(Serialize)]
pub(crate) struct Done {
    /// The record of it; none if another call made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_index: Option<u64>,
    #[serde(skip)]
    pub(crate) text: String,
}

impl Done {
    /// It was made, by another call than this one.
    pub(crate) fn before() -> Self {
        Self { log_index: None, text: "it was done already".to_owned() }
    }
}

impl Proposed {
    /// Whether the call can be made again to ask how it stands.
    pub(crate) fn is_erasure(&self) -> bool {
        matches!(self, Self::ShredCredential(_) | Self::ShredTenant(_))
    }

    /// Reads it, and holds it against the digest that is approved.
    pub(crate) fn read(approval: &Approval) -> Result<Self, Failure> {
        if *approval.request_sha256 != request_sha256(&approval.method, &approval.request) {
            return Err(Failure::BadAnswer("the proposed request is not what its digest is of"));
        }
        match approval.method.as_str() {
            ADMIT_POLICY => decode(approval).map(Self::AdmitPolicy),
            "Kms/RewrapKeys" => decode(approval).map(Self::RewrapKeys),
            "Kms/RotateKek" => decode(approval).map(Self::RotateKek),
            "Credentials/ShredCredential" => decode(approval).map(Self::ShredCredential),
            "Tenants/ShredTenant" => decode(approval).map(Self::ShredTenant),
            _ => Err(Failure::BadAnswer("the method is unknown here: use a newer `strongroom`")),
        }
    }

    /// What it would do, in lines.
    pub(crate) async fn describe(&self, broker: &Broker) -> Vec<String> {
        match self {
            Self::AdmitPolicy(request) => {
                let after = PolicyFile::parse(&request.policy, &strongroom_proto::methods());
                match (after, in_force(broker).await) {
                    (Err(fault), _) => vec![format!("it is no policy: {fault}")],
                    (Ok(after), before) => {
                        let mut lines = compare(before.as_ref(), after.policy());
                        lines.extend(words(&after));
                        lines
                    }
                }
            }
            Self::RewrapKeys(request) => {
                let root = if request.root.is_empty() { "the deployment" } else { &request.root };
                vec![format!("wraps every key under the root of {root} by its current key")]
            }
            Self::ShredCredential(request) => {
                vec![format!("erases {} for good; no backup opens it any more", request.name)]
            }
            Self::ShredTenant(request) => vec![format!(
                "erases {} with all that it owns, for good; no backup opens it any more",
                request.name
            )],
            Self::RotateKek(request) if request.tenant.is_empty() => {
                vec!["makes a new version of every tenant's key".to_owned()]
            }
            Self::RotateKek(request) => {
                vec![format!("makes a new version of {}'s key", request.tenant)]
            }
        }
    }

    /// Makes the call.
    pub(crate) async fn run(self, broker: &Broker) -> Result<Done, Failure> {
        match self {
            Self::AdmitPolicy(request) => admit(broker, request).await,
            Self::RewrapKeys(request) => {
                Ok(begun(broker.kms().rewrap_keys(request).await?.into_inner().log_index))
            }
            Self::RotateKek(request) => {
                Ok(begun(broker.kms().rotate_kek(request).await?.into_inner().log_index))
            }
            Self::ShredCredential(request) => {
                erased(broker.credentials().shred_credential(request).await?.into_inner())
            }
            Self::ShredTenant(request) => {
                erased(broker.tenants().shred_tenant(request).await?.into_inner())
            }
        }
    }
}

fn begun(log_index: u64) -> Done {
    // The first record is none of these.
    if log_index == 0 {
        return Done::before();
    }
    let text =
        format!("begun, as entry {log_index} tells; strongroom kms status shows how far it is");
    Done { log_index: Some(log_index), text }
}

fn erased(Erasure { name, log_index, receipt_index, .. }: Erasure) -> Result<Done, Failure> {
    let Some(receipt) = receipt_index else { return Err(Failure::SharesStand { name }) };
    let text =
        format!("{name} is erased, as entry {log_index} tells; the receipt is entry {receipt}");
    Ok(Done { log_index: Some(log_index), text })
}

/// Has a policy admitted.
pub(crate) async fn admit(broker: &Broker, request: AdmitPolicyRequest) -> Result<Done, Failure> {
    let admitted = broker.approvals().admit_policy(request).await?.into_inner();
    let sha256 = hex::encode(&admitted.policy_sha256);
    let text = format!(
        "the policy {sha256} is admitted, as entry {} tells; roll its file out to the brokers",
        admitted.log_index
    );
    Ok(Done { log_index: Some(admitted.log_index), text })
}

fn decode<M: Message + Default>(approval: &Approval) -> Result<M, Failure> {
    let request = M::decode(approval.request.clone());
    request.map_err(|_| Failure::BadAnswer("the proposed request is malformed"))
}

/// Not everybody who approves may read it.
async fn in_force(broker: &Broker) -> Option<AccessPolicy> {
    let answer = broker.audit().get_policy(GetPolicyRequest::default()).await.ok()?;
    let document = PolicyDocument::parse(answer.into_inner().document.to_vec()).ok()?;
    Some(document.policy().clone())
}

/// What a policy takes away and adds; all of it when the one before is not known.
fn compare(before: Option<&AccessPolicy>, after: &AccessPolicy) -> Vec<String> {
    let lines = |policy: &AccessPolicy| -> BTreeSet<String> {
        let grants = policy.rules().iter().map(|rule| {
            let to: Vec<_> = rule.identities.iter().map(ToString::to_string).collect();
            format!(
                "{} to {}, tenants {}, providers {}, {} s: {}",
                rule.role,
                to.join(" "),
                rule.tenants.join(" "),
                rule.providers.join(" "),
                rule.longest_lease_seconds.as_secs(),
                rule.methods.join(" ")
            )
        });
        let two = policy.two_people().iter().map(|method| format!("two people for {method}"));
        grants.chain(two).collect()
    };
    let (old, new) = (before.map(lines).unwrap_or_default(), lines(after));
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    let added = new.difference(&old).map(|line| format!("+ {line}"));
    let changes: Vec<_> = gone.chain(added).collect();
    if changes.is_empty() { vec!["the same rules as now".to_owned()] } else { changes }
}

/// What a policy says beside its rules. What the one in force says there is in no log, so all of it is told,
/// changed or not.
fn words(policy: &PolicyFile) -> Vec<String> {
    let ask = match policy.ask() {
        Some(ask) => format!("whoever is refused will be told to ask: {ask}"),
        None => "whoever is refused will be told to ask whoever keeps the policy".to_owned(),
    };
    let held = |name: &str| policy.policy().rules().iter().any(|rule| rule.role == name);
    let roles = policy.roles().map(|(name, role)| {
        let nobody = if held(name) {
            String::new()
        } else {
            format!(", held by nobody, may {}", role.methods.join(" "))
        };
        format!("the role {name}{nobody}, is said to be: {}", role.says)
    });
    std::iter::once(ask).chain(roles).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(request_of: &str, digest_of: &str) -> Approval {
        let encoded =
            |policy: &str| AdmitPolicyRequest { policy: policy.to_owned() }.encode_to_vec();
        let digest = request_sha256(ADMIT_POLICY, &encoded(digest_of));
        Approval {
            method: ADMIT_POLICY.to_owned(),
            request: encoded(request_of).into(),
            request_sha256: digest.to_vec().into(),
            ..Approval::default()
        }
    }

    #[test]
    fn what_is_shown_is_what_the_digest_is_of() {
        assert!(Proposed::read(&approval("a", "a")).is_ok());
        assert!(Proposed::read(&approval("a", "b")).is_err());
        let other = Approval { method: "Kms/RotateKek".to_owned(), ..approval("a", "a") };
        assert!(Proposed::read(&other).is_err());
    }

    #[test]
    fn a_policy_is_told_by_what_it_changes() {
        let rule = |tenant: &str| {
            let text = format!(
                "role = \"r\"\nidentities = [\"spiffe://a.b/c\"]\nmethods = [\"Audit/*\"]\n\
                 tenants = [\"{tenant}\"]"
            );
            AccessPolicy::new(vec![toml::from_str(&text).unwrap()])
        };
        let told = compare(Some(&rule("acme")), &rule("*"));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("- r to spiffe://a.b/c, tenants acme"), "{told:?}");
        assert!(told[1].starts_with("+ r to spiffe://a.b/c, tenants *"), "{told:?}");
        assert_eq!(compare(Some(&rule("*")), &rule("*")), ["the same rules as now"]);
    }

    #[test]
    fn what_a_policy_says_beside_its_rules_is_told() {
        let parse = |ask: &str| {
            let text = format!(
                "{ask}\n[roles.a]\nsays = \"Reads the log.\"\nmay = [\"Audit/*\"]\n\
                 [roles.b]\nsays = \"Closed.\"\nmay = [\"Kms/*\"]\n\
                 [[grants]]\nrole = \"a\"\nto = [\"spiffe://a.b/c\"]\ntenants = [\"*\"]"
            );
            PolicyFile::parse(&text, &["Audit/GetPolicy".to_owned(), "Kms/GetStatus".to_owned()])
        };
        let told = |ask: &str| words(&parse(ask).unwrap());
        assert_eq!(
            told("ask = \"mallory@example.org\""),
            [
                "whoever is refused will be told to ask: mallory@example.org",
                "the role a, is said to be: Reads the log.",
                "the role b, held by nobody, may Kms/*, is said to be: Closed.",
            ]
        );
        assert!(told("")[0].ends_with("whoever keeps the policy"));
    }
}
