use std::{fmt, sync::Arc};

use async_trait::async_trait;
use domain::{
    CredentialName, KeyTerms, Origin, ProviderId, Secret, Source, VirtualKeyDigest, VirtualKeyId,
};
use http::{HeaderName, Uri};
use strongroom_client::{FailedAttempt, LeaseError, LeaseKey, UnsealError};
use strongroom_proto::v1::{ExplainRouteResponse, ListModelsResponse};

/// Where the proxy gets its leases from: the broker, or a test's script.
#[async_trait]
pub trait Leases: fmt::Debug + Send + Sync {
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

    /// Why no leases can be had, if that is so.
    fn trouble(&self) -> Option<String>;

    /// Gives every lease back.
    async fn shutdown(&self);
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
    /// The secret, for as long as the caller keeps it.
    fn unseal(&self) -> Result<Secret, UnsealError>;
}
