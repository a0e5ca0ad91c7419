use std::{fmt, sync::Arc, time::Duration};

use domain::{Clock, SpiffeId};
use mtls::ClientTls;
use strongroom_proto::v1::{
    approvals_client::ApprovalsClient, audit_client::AuditClient, budgets_client::BudgetsClient,
    credentials_client::CredentialsClient, identities_client::IdentitiesClient,
    kms_client::KmsClient, leases_client::LeasesClient, prices_client::PricesClient,
    tenants_client::TenantsClient, usage_client::UsageClient,
    virtual_keys_client::VirtualKeysClient,
};
use tonic::{metadata::MetadataMap, transport::Channel};
use tonic_health::pb::health_client::HealthClient;

use crate::{
    ClientConfig, ClientError, Outgoing, Transport, checkpoints::Checkpoints, session::Sessions,
    tasks::Tasks, transport,
};

/// A broker: its services, and this process's session with it. Clones share both.
#[derive(Clone)]
pub struct Broker {
    channel: Channel,
    tls: Arc<ClientTls>,
    outgoing: Outgoing,
    timeout: Duration,
    sessions: Arc<Sessions>,
    checkpoints: Arc<Checkpoints>,
    /// Watches the TLS files for as long as a clone lives.
    _reloading: Arc<Tasks>,
}

impl Broker {
    /// Loads the TLS files and prepares a channel. The connection is made on first use, and made
    /// again whenever it is lost. Must be called inside a tokio runtime.
    pub fn connect(config: &ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let tls = ClientTls::load(
            config.tls.clone(),
            config.trust_domains.clone(),
            config.broker_id.clone(),
            clock,
        )
        .map_err(ClientError::Identity)?;
        let checkpoints = config.log_key()?.map(Checkpoints::pinned).unwrap_or_default();
        let reloading = Tasks::default();
        reloading.spawn(Arc::clone(&tls).watch(RELOAD_EVERY));
        let channel =
            transport::channel(config.broker.clone(), config.timeout, Arc::clone(&tls)).map_err(
                |source| ClientError::Address { address: config.broker.clone(), source },
            )?;
        Ok(Self {
            channel,
            tls,
            outgoing: Outgoing::new(config.timeout),
            timeout: config.timeout,
            sessions: Arc::default(),
            checkpoints: Arc::new(checkpoints),
            _reloading: Arc::new(reloading),
        })
    }

    /// The same broker, with a hook that adds metadata to every call, such as trace headers.
    #[must_use]
    pub fn with_metadata(self, hook: impl Fn(&mut MetadataMap) + Send + Sync + 'static) -> Self {
        Self { outgoing: self.outgoing.with_metadata(Arc::new(hook)), ..self }
    }

    /// The service that lends credentials. Workloads use [`LeaseCache`](crate::LeaseCache) instead.
    pub fn leases(&self) -> LeasesClient<Transport> {
        LeasesClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that keeps credentials. To store one, use
    /// [`create_credential`](Self::create_credential), which seals it.
    pub fn credentials(&self) -> CredentialsClient<Transport> {
        CredentialsClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that keeps virtual keys.
    pub fn virtual_keys(&self) -> VirtualKeysClient<Transport> {
        VirtualKeysClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that keeps budgets.
    pub fn budgets(&self) -> BudgetsClient<Transport> {
        BudgetsClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that keeps tenants.
    pub fn tenants(&self) -> TenantsClient<Transport> {
        TenantsClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that blocks identities and ends sessions.
    pub fn identities(&self) -> IdentitiesClient<Transport> {
        IdentitiesClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that keeps what needs a second person.
    pub fn approvals(&self) -> ApprovalsClient<Transport> {
        ApprovalsClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service of the keys above the credentials.
    pub fn kms(&self) -> KmsClient<Transport> {
        KmsClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// The service that reads the log. Pages of records are larger than gRPC's usual 4 MiB.
    pub fn audit(&self) -> AuditClient<Transport> {
        AuditClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
            .max_decoding_message_size(LARGEST_PAGE)
    }

    /// The service that tells what calls took and cost.
    pub fn usage(&self) -> UsageClient<Transport> {
        UsageClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
            .max_decoding_message_size(LARGEST_PAGE)
    }

    /// The service that keeps prices. Their documents may be larger than gRPC's usual 4 MiB.
    pub fn prices(&self) -> PricesClient<Transport> {
        PricesClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
            .max_decoding_message_size(LARGEST_PAGE)
    }

    /// The broker's health, by `grpc.health.v1`.
    pub fn health(&self) -> HealthClient<Transport> {
        HealthClient::with_interceptor(self.channel.clone(), self.outgoing.clone())
    }

    /// Who this process is to the broker, by its certificate.
    pub fn own_identity(&self) -> Option<SpiffeId> {
        self.tls.own()
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

const RELOAD_EVERY: Duration = Duration::from_secs(30);
const LARGEST_PAGE: usize = 64 << 20;
