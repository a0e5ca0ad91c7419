use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use audit::SignerKey;
use domain::{Clock, SystemClock};
use egress::Exit;
use envelope::Roots;
use exchange::AwsIdentity;
use mtls::{ServerTls, TlsSource};
use providers::Catalogue;

use crate::{
    access::{Access, InForce},
    bootstrap,
    config::Config,
    endpoints::EndpointRules,
    outside,
    webhook::Webhook,
    witnesses::Remote,
};

/// What a broker is made of besides its databases and its certificate: read from files, and nobody is asked.
pub(crate) struct Prepared {
    pub(crate) access: Arc<Access>,
    pub(crate) aws: Option<Arc<dyn AwsIdentity>>,
    pub(crate) catalogue: Catalogue,
    pub(crate) endpoints: EndpointRules,
    pub(crate) exit: Arc<Exit>,
    pub(crate) keep: Option<Duration>,
    pub(crate) roots: Roots,
    pub(crate) signing_key: SignerKey,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) witnesses: Vec<Remote>,
}

/// Checks all that a broker would refuse when it starts, short of asking its databases, its KMS or anybody
/// else. What a start would only warn of is logged here as it is there.
///
/// # Errors
/// When a broker would not start with this; the text says why not.
pub async fn check_config(config: &Config) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Prepared::of(config, &clock).await?;
    store::check_config(&config.store, &config.shares.store).context("the stores")?;
    match &config.tls {
        TlsSource::Files(_) => tls(config, &clock).map(drop),
        TlsSource::WorkloadApi(api) => {
            let socket = api.socket.display();
            tracing::warn!(%socket, "the certificate was not checked: it comes from the Workload API");
            Ok(())
        }
    }
}

impl Prepared {
    pub(crate) async fn of(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let access = Arc::new(Access::new(InForce::read(&config.policy)?));
        let catalogue = bootstrap::catalogue(config)?;
        let roots = config.open_roots().await.context("opening the KMS")?;
        let signing_key = bootstrap::signing_key(&config.log.signing_key).await?;
        let witnesses =
            config.log.witnesses.iter().map(Remote::open).collect::<Result<Vec<_>, _>>()?;
        let exit = outside::exit(&config.egress)?;
        let mut webhooks = Vec::new();
        for webhook in &config.log.webhooks {
            let name = webhook.name.as_str();
            let opened = Webhook::open(webhook, Arc::clone(&exit), Arc::clone(clock)).await;
            webhooks.push(opened.with_context(|| format!("the webhook `{name}`"))?);
        }
        Ok(Self {
            access,
            aws: outside::aws(config.aws.as_ref()).await?,
            catalogue,
            endpoints: EndpointRules::new(config.custom_endpoints.clone(), exit.rules.clone())?,
            keep: bootstrap::keep(config.log.keep)?,
            exit,
            roots,
            signing_key,
            webhooks,
            witnesses,
        })
    }
}

/// The certificate by which the broker is called.
pub(crate) fn tls(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<ServerTls>> {
    let (files, domains) = (config.tls.clone(), config.trust_domains.clone());
    ServerTls::load(files, domains, Arc::clone(clock)).context("loading the certificate")
}
