use std::sync::Arc;

use async_trait::async_trait;
use domain::{CredentialName, Origin, ProviderId, Secret, Source, VirtualKeyDigest, VirtualKeyId};
use http::{HeaderMap, HeaderName, Uri};
use strongroom_client::{
    Broker, HeldLease, LeaseCache, LeaseError, LeaseKey, UnsealError, WatchState,
};
use strongroom_proto::v1::{ListModelsRequest, ReachableModel};
use tonic::metadata::MetadataMap;

use crate::{Leases, Loan};

/// Leases of the broker, through the cache.
#[derive(Debug)]
pub(crate) struct Brokered {
    pub(crate) broker: Broker,
    pub(crate) cache: LeaseCache,
}

#[async_trait]
impl Leases for Brokered {
    async fn lease(&self, key: &LeaseKey) -> Result<Arc<dyn Loan>, LeaseError> {
        Ok(self.cache.lease(key).await?)
    }

    fn forget(&self, key: &LeaseKey) {
        self.cache.forget(key);
    }

    async fn models(
        &self,
        id: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<Vec<ReachableModel>, LeaseError> {
        let request = ListModelsRequest {
            virtual_key_id: id.to_string(),
            key_sha256: digest.as_bytes().to_vec().into(),
        };
        let answer = self.broker.leases().list_models(request).await;
        Ok(answer.map_err(|status| LeaseError::from(&status))?.into_inner().models)
    }

    fn trouble(&self) -> Option<String> {
        match self.cache.watch_state() {
            WatchState::Live => None,
            state @ (WatchState::Connecting | WatchState::Lost) => {
                Some(format!("the broker's revocation stream is {state:?}"))
            }
        }
    }

    async fn shutdown(&self) {
        self.cache.shutdown().await;
    }
}

impl Loan for HeldLease {
    fn base_uri(&self) -> &Uri {
        self.base_uri()
    }

    fn origins(&self) -> &[Origin] {
        self.origins()
    }

    fn header_name(&self) -> &HeaderName {
        self.header_name()
    }

    fn header_prefix(&self) -> &str {
        self.header_prefix()
    }

    fn provider(&self) -> &ProviderId {
        self.provider()
    }

    fn source(&self) -> Source {
        self.source()
    }

    fn credential(&self) -> &CredentialName {
        self.credential()
    }

    fn model(&self) -> &str {
        self.model()
    }

    fn is_live(&self) -> bool {
        self.is_live()
    }

    fn unseal(&self) -> Result<Secret, UnsealError> {
        self.unseal()
    }
}

/// Adds the current span to a call of the broker.
pub(crate) fn trace_headers(metadata: &mut MetadataMap) {
    let mut headers = HeaderMap::new();
    telemetry::inject_trace(&mut headers);
    let mut merged = std::mem::take(metadata).into_headers();
    merged.extend(headers);
    *metadata = MetadataMap::from_headers(merged);
}
