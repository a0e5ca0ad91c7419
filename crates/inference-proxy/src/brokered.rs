use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    CredentialName, Dialect, KeyTerms, Origin, ProviderId, Secret, Source, Unit, VirtualKeyDigest,
    VirtualKeyId,
};
use http::{HeaderMap, HeaderName, Uri};
use strongroom_client::{
    Broker, FailedAttempt, HeldLease, LeaseCache, LeaseError, LeaseKey, PurseKey, Till, UnsealError,
};
use strongroom_proto::v1::{
    self, Allowance, AllowanceRequest, ExplainRouteRequest, ExplainRouteResponse, GetPricesRequest,
    ListModelsRequest, ListModelsResponse, NotAccepted, Settlement, UsageRecord, VirtualKeyTarget,
    explain_route_request::Target,
};
use tonic::metadata::MetadataMap;

use crate::{Leases, Loan, LoanAccount};

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

    async fn fall_back(
        &self,
        key: &LeaseKey,
        failed: &[FailedAttempt],
    ) -> Result<Arc<dyn Loan>, LeaseError> {
        Ok(self.cache.fall_back(key, failed).await?)
    }

    fn report(&self, key: &LeaseKey, failed: FailedAttempt) {
        self.cache.report(key, failed);
    }

    async fn explain(&self, key: &LeaseKey) -> Result<ExplainRouteResponse, LeaseError> {
        let target = VirtualKeyTarget {
            virtual_key_id: key.virtual_key.to_string(),
            key_sha256: key.digest.as_bytes().to_vec().into(),
            model: key.model.clone(),
            provider: key.provider.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let dialect = match key.dialect {
            Dialect::OpenAi => v1::Dialect::Openai,
            Dialect::Anthropic => v1::Dialect::Anthropic,
            Dialect::Native => v1::Dialect::Native,
        };
        let request = ExplainRouteRequest {
            target: Some(Target::VirtualKey(target)),
            dialect: dialect.into(),
        };
        let answer = self.broker.leases().explain_route(request).await;
        Ok(answer.map_err(|status| LeaseError::from(&status))?.into_inner())
    }

    fn forget(&self, key: &LeaseKey) {
        self.cache.forget(key);
    }

    async fn models(
        &self,
        id: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<ListModelsResponse, LeaseError> {
        let request = ListModelsRequest {
            virtual_key_id: id.to_string(),
            key_sha256: digest.as_bytes().to_vec().into(),
        };
        let answer = self.broker.leases().list_models(request).await;
        Ok(answer.map_err(|status| LeaseError::from(&status))?.into_inner())
    }

    async fn prices(&self, tenant: &str) -> Result<Bytes, LeaseError> {
        let request = GetPricesRequest { tenant: tenant.to_owned(), known_version: String::new() };
        let answer = self.broker.prices().get_prices(request).await;
        Ok(answer.map_err(|status| LeaseError::from(&status))?.into_inner().document)
    }

    fn trouble(&self) -> Option<String> {
        self.cache.outage().map(|outage| outage.to_string())
    }

    async fn shutdown(&self) {
        self.cache.shutdown().await;
    }
}

#[async_trait]
impl Till for Brokered {
    async fn draw(
        &self,
        key: &PurseKey,
        request: AllowanceRequest,
    ) -> Result<Allowance, LeaseError> {
        self.broker.draw(key, request).await
    }

    async fn settle(
        &self,
        settlements: &[Settlement],
        usage: &[UsageRecord],
    ) -> Result<Vec<NotAccepted>, LeaseError> {
        self.broker.settle(settlements, usage).await
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

    fn credential_version(&self) -> u64 {
        self.credential_version()
    }

    fn model(&self) -> &str {
        self.model()
    }

    fn credential_kind(&self) -> &str {
        self.credential_kind()
    }

    fn settings(&self) -> &[(String, String)] {
        self.settings()
    }

    fn address(&self) -> Option<&str> {
        self.address()
    }

    fn has_fallback(&self) -> bool {
        self.has_fallback()
    }

    fn because(&self) -> &str {
        self.because()
    }

    fn key_terms(&self) -> &KeyTerms {
        self.key_terms()
    }

    fn is_live(&self) -> bool {
        self.is_live()
    }

    fn limited(&self) -> Vec<Unit> {
        self.limited()
    }

    fn as_of(&self) -> Duration {
        self.as_of()
    }

    fn account(&self) -> LoanAccount<'_> {
        LoanAccount {
            tenant: self.tenant_name(),
            virtual_key: self.virtual_key_name(),
            credential_version: self.credential_version(),
            lease_hash: self.lease_hash_bytes(),
            price_version: self.price_version(),
        }
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
