use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    CredentialName, KeyTerms, Origin, ProviderId, Secret, Source, Unit, VirtualKeyDigest,
    VirtualKeyId,
};
use http::{HeaderName, Uri};
use strongroom_client::{FailedAttempt, LeaseError, LeaseKey, Till, UnsealError};
use strongroom_proto::v1::{ExplainRouteResponse, ListModelsResponse};

/// Where the proxy gets its leases from, and slices of budgets: the broker, or a test's script.
#[async_trait]
pub trait Leases: Till {
    /// A live lease for a call; from memory while there is one.
    async fn lease(&self, key: &LeaseKey) -> Result<Arc<dyn Loan>, LeaseError>;

    /// The lease to go on with when these attempts at a call have failed, in order.
    async fn fall_back(
        &self,
        key: &LeaseKey,
        failed: &[FailedAttempt],
    ) -> Result<Arc<dyn Loan>, LeaseError>;

    /// Tells of a failed call that no other credential stands in for; does not wait for anyone.
    fn report(&self, key: &LeaseKey, failed: FailedAttempt);

    /// What a call would go out with and why; nothing is lent.
    async fn explain(&self, key: &LeaseKey) -> Result<ExplainRouteResponse, LeaseError>;

    /// Drops what is known of a key, so that the next call asks the broker.
    fn forget(&self, key: &LeaseKey);

    /// The models that a virtual key can reach.
    async fn models(
        &self,
        id: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<ListModelsResponse, LeaseError>;

    /// The document of a tenant's prices.
    async fn prices(&self, tenant: &str) -> Result<Bytes, LeaseError>;

    /// Why no call can be served, if that is so. Asked often: it waits for nobody.
    fn trouble(&self) -> Option<String>;

    /// Gives every lease back.
    async fn shutdown(&self);
}

/// For whom the calls under a lease are counted.
#[derive(Clone, Debug, Default)]
pub struct LoanAccount<'a> {
    /// `tenants/{tenant}`.
    pub tenant: &'a str,
    /// `tenants/{tenant}/virtualKeys/{id}`, or empty.
    pub virtual_key: &'a str,
    /// The version of the credential.
    pub credential_version: u64,
    /// What records call the lease.
    pub lease_hash: Bytes,
    /// The prices that calls have; empty for those of this build.
    pub price_version: &'a str,
}

/// A lease as the proxy uses it: where a secret may go, in which header, and the secret while needed.
pub trait Loan: fmt::Debug + Send + Sync {
    /// The provider's address for the dialect, of one of the origins.
    fn base_uri(&self) -> &Uri;
    /// The only places to which the secret may be sent.
    fn origins(&self) -> &[Origin];
    /// The header that carries the secret.
    fn header_name(&self) -> &HeaderName;
    /// What stands before the secret in that header.
    fn header_prefix(&self) -> &str;
    /// Whose API it is.
    fn provider(&self) -> &ProviderId;
    /// Whose credential it is.
    fn source(&self) -> Source;
    /// The credential's name.
    fn credential(&self) -> &CredentialName;
    /// The credential's version.
    fn credential_version(&self) -> u64;
    /// The model as the provider knows it; empty for calls that name none.
    fn model(&self) -> &str;
    /// The kind of the credential, as the catalogue calls it.
    fn credential_kind(&self) -> &str;
    /// What the credential says beside its secret, by name.
    fn settings(&self) -> &[(String, String)];
    /// The address in the place of the provider's own, if there is one.
    fn address(&self) -> Option<&str>;
    /// Whether there is another credential, or another version of it, for when this one fails.
    fn has_fallback(&self) -> bool;
    /// Why this credential, in a word.
    fn because(&self) -> &str;
    /// For which kinds of calls, and from which networks.
    fn key_terms(&self) -> &KeyTerms;
    /// Whether it may still be used.
    fn is_live(&self) -> bool;
    /// What some budget or rate limit of the virtual key counts; nothing where there is none.
    fn limited(&self) -> Vec<Unit> {
        Vec::new()
    }
    /// When that was so, on the clock's `elapsed`. The lease does not outlive a change of it.
    fn as_of(&self) -> Duration {
        Duration::ZERO
    }
    /// For whom calls under it are counted.
    fn account(&self) -> LoanAccount<'_> {
        LoanAccount::default()
    }
    /// The secret, for as long as the caller keeps it.
    fn unseal(&self) -> Result<Secret, UnsealError>;
}
