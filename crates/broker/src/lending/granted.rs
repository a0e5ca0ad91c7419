use std::time::Duration;

use audit::{Entry, proto_time};
use domain::{LeaseId, Timestamp};
use sealing::LeaseContext;
use store::CredentialRow;
use strongroom_proto::v1;

use super::{Decision, proto_source, settings};
use crate::{refused::Why, session::OpenSession, virtual_key::Shown};

/// A lease whose record is durable.
pub(super) struct Granted {
    pub(super) id: LeaseId,
    pub(super) hash: [u8; 32],
    pub(super) renewals: u32,
    pub(super) ttl: Duration,
    pub(super) expires_at: Timestamp,
    pub(super) entry: Entry,
}

/// What a lease says in texts that are kept nowhere as such.
struct Texts {
    tenant: String,
    credential: String,
    origins: Vec<String>,
    virtual_key: String,
    endpoints: Vec<String>,
    networks: Vec<String>,
}

impl Granted {
    /// Seals the secret to the session, with everything that the lease says bound into the seal.
    pub(super) fn seal(
        &self,
        session: &OpenSession,
        decision: &Decision,
        secret: &domain::Secret,
    ) -> Result<v1::Lease, Why> {
        let route = &decision.route;
        let row = &route.held()?.row;
        let texts = Texts::of(decision, row);
        let context = self.context(session, decision, row, &texts);
        let sealed = session.session.seal_lease(&context, secret);
        let sealed = sealed.map_err(|error| Why::Internal(format!("sealing a lease: {error}")))?;
        let Texts { tenant, credential, origins, virtual_key, endpoints, networks } = texts;
        Ok(v1::Lease {
            lease_id: self.id.as_bytes().to_vec().into(),
            lease_hash: self.hash.to_vec().into(),
            credential_version: decision.version,
            provider: row.provider.to_string(),
            source: proto_source(route.source).into(),
            base_url: route.endpoint.base_url.clone(),
            header_name: route.endpoint.header_name.as_str().to_owned(),
            header_prefix: route.endpoint.header_prefix.clone(),
            sealed_secret: sealed.into(),
            renewals: self.renewals,
            expire_time: Some(proto_time(self.expires_at)),
            ttl: prost_types::Duration::try_from(self.ttl).ok(),
            log_index: self.entry.index,
            model: route.model.clone(),
            credential,
            tenant,
            origins,
            virtual_key,
            checkpoint: String::new(),
            credential_kind: row.kind.clone(),
            settings: settings(row),
            address: route.address.clone().unwrap_or_default(),
            has_fallback: route.has_fallback,
            because: route.because.clone(),
            endpoints,
            networks,
            price_version: decision.price_version.clone(),
        })
    }

    fn context<'a>(
        &'a self,
        session: &'a OpenSession,
        decision: &'a Decision,
        row: &'a CredentialRow,
        texts: &'a Texts,
    ) -> LeaseContext<'a> {
        let route = &decision.route;
        LeaseContext {
            lease_id: self.id,
            lease_hash: &self.hash,
            renewals: self.renewals,
            tenant: &texts.tenant,
            credential: &texts.credential,
            credential_version: decision.version,
            provider: row.provider.as_str(),
            source: route.source,
            origins: &texts.origins,
            base_url: &route.endpoint.base_url,
            header_name: route.endpoint.header_name.as_str(),
            header_prefix: &route.endpoint.header_prefix,
            expire_time: self.expires_at,
            ttl: self.ttl,
            log_index: self.entry.index,
            identity: session.identity.as_str(),
            virtual_key: &texts.virtual_key,
            model: &route.model,
            credential_kind: &row.kind,
            settings: &row.settings,
            address: route.address.as_deref().unwrap_or_default(),
            has_fallback: route.has_fallback,
            because: &route.because,
            endpoints: &texts.endpoints,
            networks: &texts.networks,
            price_version: &decision.price_version,
        }
    }
}

impl Texts {
    fn of(decision: &Decision, row: &CredentialRow) -> Self {
        let key = decision.virtual_key.as_ref();
        let (endpoints, networks) = key.map(Shown::places).unwrap_or_default();
        Self {
            tenant: decision.tenant.row.id.resource(),
            credential: row.name().to_string(),
            origins: vec![decision.route.origin.to_string()],
            virtual_key: key.map(|key| key.row.name().to_string()).unwrap_or_default(),
            endpoints,
            networks,
        }
    }
}
