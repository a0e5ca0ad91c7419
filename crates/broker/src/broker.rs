use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use audit::{Kind, Reason, Record};
use domain::{Clock, SystemClock};
use egress::{Client, Exit};
use mtls::ServerTls;
use sinks::SinkConfig;
use strongroom_proto::v1::{
    approvals_server::ApprovalsServer, audit_server::AuditServer, budgets_server::BudgetsServer,
    credentials_server::CredentialsServer, identities_server::IdentitiesServer,
    kms_server::KmsServer, leases_server::LeasesServer, prices_server::PricesServer,
    tenants_server::TenantsServer, usage_server::UsageServer,
    virtual_keys_server::VirtualKeysServer,
};
use telemetry::Readiness;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{self, Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower::Layer as _;

use crate::{
    bootstrap,
    config::{Config, KeyTests, Limits, LogConfig, RowChecks},
    core::{Core, Parts},
    erasing,
    export::{self, Cursors, Exporter, Outlet},
    follower,
    guard::Guard,
    key_tests,
    listener::Front,
    policy_file,
    prepared::{self, Prepared},
    rekeying::{Pace, Rekeying},
    rotating, rows,
    services::{
        approvals::ApprovalService, audit::AuditService, budgets::BudgetService,
        credentials::CredentialService, identities::IdentityService, kms::KmsService,
        leases::LeaseService, prices::PriceService, tenants::TenantService, usage::UsageService,
        virtual_keys::VirtualKeyService,
    },
    signer::Signer,
    signing::{Signing, check_clock, record_trouble},
    sweeping,
    tiles::TileServer,
    tokens, usage_sweep,
    webhook::Webhook,
    witnesses::{Published, Remote},
};

/// A broker with its store and KMS open and its certificates loaded, ready to serve.
pub struct Broker {
    core: Arc<Core>,
    tls: Arc<ServerTls>,
    limits: Limits,
    reflection: bool,
    tasks: TaskTracker,
    /// Ends the streams and the tasks that follow the log.
    stop: CancellationToken,
    signer: Signer,
    exporters: Vec<Exporter>,
    tiles: Option<TileServer>,
    leads: watch::Sender<bool>,
    witnesses: Vec<Remote>,
    /// The way to providers.
    exit: Arc<Exit>,
    policy: PathBuf,
    key_tests: KeyTests,
    row_checks: RowChecks,
    readiness: watch::Sender<Readiness>,
}

/// The longest request, in bytes: a sealed secret and room to spare.
const LONGEST_MESSAGE: usize = 128 * 1024;

/// A thousand settlements with as many usage records are less.
const LONGEST_REPORT: usize = 2 * 1024 * 1024;

/// The longest document of prices, in bytes.
const LONGEST_PRICES: usize = 4 * 1024 * 1024;

/// How often certificate files and the access policy are looked at: what certificates revoke is at an
/// end within two seconds, with time to spare for reading a long list.
pub(crate) const RELOAD: Duration = Duration::from_millis(500);

/// How often the broker asks itself whether it can do its work.
const SELF_CHECK: Duration = Duration::from_secs(2);

impl Broker {
    /// Opens everything that a configuration names, and puts the start on record.
    ///
    /// # Errors
    /// When anything that is named cannot be used. Nothing is served in part.
    pub async fn open(config: Config, config_sha256: [u8; 32]) -> anyhow::Result<Self> {
        Box::pin(Self::open_by(config, config_sha256, Arc::new(SystemClock))).await
    }

    /// As [`Broker::open`], by another clock than this machine's.
    ///
    /// # Errors
    /// As of [`Broker::open`].
    pub async fn open_by(
        config: Config,
        config_sha256: [u8; 32],
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let prepared = Box::pin(Prepared::of(&config, &clock)).await?;
        let (key, exit) = (prepared.signing_key, prepared.exit);
        let tls = prepared::tls(&config, &clock)?;
        let (store, shares) = bootstrap::stores(&config).await?;
        let verifier_key = key.verifier().to_string();
        let tiles = open_tiles(&config, &clock).await?;
        // Before anything is added to it, the log must be the one that was signed.
        let last = config.log.last_checkpoint.clone();
        let signer = Signer::open(Arc::clone(&store), key, last, &config.path).await?;
        check_clock(&*store).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let parts = Parts {
            access: prepared.access,
            aws: prepared.aws,
            catalogue: prepared.catalogue,
            checkpoints: signer.checkpoints(),
            clock,
            commit_deadline: config.log.commit_deadline,
            courier: Arc::new(Client::new(Arc::clone(&exit))),
            keep: prepared.keep,
            keyring: config.limits.keyring(),
            people: config.log.people.clone(),
            roots: Arc::new(prepared.roots),
            endpoints: prepared.endpoints,
            sessions: config.limits.sessions,
            shares,
            share_backups: config.shares.backup_window,
            sinks: config.log.cursors().map(str::to_owned).collect(),
            usage: config.usage,
            store,
            verifier_key,
        };
        let core = Core::open(parts, &tasks).await?;
        let exporters = exporters(&config.log, prepared.webhooks, &core)?;
        put_start_on_record(&core, config_sha256).await?;
        Ok(Self {
            core: Arc::new(core),
            tls,
            limits: config.limits,
            reflection: config.reflection,
            tasks,
            stop,
            signer,
            exporters,
            tiles,
            leads: watch::Sender::new(false),
            witnesses: prepared.witnesses,
            exit,
            policy: config.policy,
            key_tests: config.key_tests,
            row_checks: config.row_checks,
            readiness: watch::Sender::new(Readiness::NotReady("starting".to_owned())),
        })
    }

    /// Whether the broker can do its work, as it finds out every two seconds.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Whether this broker does what one broker of a database at a time does. It may say so of two for
    /// a moment, so nothing but economy may rest on it.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// The text form of the key that verifies this log's checkpoints.
    pub fn verifier_key(&self) -> &str {
        &self.core.verifier_key
    }

    /// Where the log is served as static files, if it is.
    pub fn tiles_address(&self) -> Option<SocketAddr> {
        self.tiles.as_ref().and_then(TileServer::address)
    }

    /// Serves until `shutdown`, then lets calls in hand finish, within the drain time, and signs a
    /// last checkpoint.
    ///
    /// # Errors
    /// When the server cannot run. After a shutdown that is asked for there is none.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        self.exit.rules.listening_on(listener.local_addr().context("reading the own address")?);
        self.start_tasks(health);
        let Self { core, tls, limits, reflection, tasks, stop, signer, leads, .. } = self;
        let signing = Signing::start(&core, signer, leads);

        let closing = CancellationToken::new();
        let handshakes = mtls::Limits { connections: limits.connections, ..Default::default() };
        let ends = closing.clone().cancelled_owned();
        let tally = Arc::clone(&core.tally);
        let failed = move |why: &str| {
            tally.count(Reason::HandshakeFailed, format!("Handshake/{why}"));
        };
        let (tls_of, failed) = (Arc::clone(&tls), Arc::new(failed));
        let incoming = mtls::incoming_with(listener, tls_of, handshakes, ends, failed);
        let routes = Routes::new(health_service);
        let routes = if reflection { routes.add_service(reflection_service()?) } else { routes };
        let routes = add_services(routes, &core, &tls, &tasks).prepare();
        // It holds the core, whose log is closed when nobody does: no name of this function may.
        let guarded = Guard::new(&core, Arc::clone(&tls), limits.concurrent_calls).layer(routes);
        let front = Front::new(guarded, &limits, stop.clone());

        let draining = stop.clone();
        let asked = async move {
            shutdown.await;
            tracing::info!("shutting down");
            closing.cancel();
            draining.cancel();
        };
        let serving = async { tokio::join!(front.serve(incoming), asked) };
        let drained = async {
            stop.cancelled().await;
            time::sleep(limits.drain).await;
        };
        tokio::select! {
            ((), ()) = serving => {}
            () = drained => tracing::warn!("calls in hand did not finish in time"),
        }
        stop.cancel();
        core.tally.record(&core.log).await;
        let stopped = Record { kind: Kind::BrokerStopped.into(), ..Record::default() };
        let end = Instant::now() + limits.drain;
        match timeout_at(end, core.log.close(stopped)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::error!(%why, "the stop is not on record"),
            Err(_) => tracing::error!("the stop is not on record in time"),
        }
        let store = Arc::clone(&core.store);
        // The committing task ends when the last `Log` is gone.
        drop(core);
        tasks.close();
        if timeout_at(end, tasks.wait()).await.is_err() {
            tracing::warn!("tasks were still running at the end of the drain");
        }
        signing.end().await;
        store.close().await;
        Ok(())
    }

    /// Starts what goes on beside the calls, until the broker stops.
    fn start_tasks(&mut self, health: HealthReporter) {
        let core = &self.core;
        self.tasks.spawn(follower::follow(
            Arc::clone(&core.store),
            Arc::clone(&core.directory),
            core.log.clone(),
            Arc::clone(&core.healths),
            follower::POLL,
            self.stop.clone(),
        ));
        for exporter in self.exporters.drain(..) {
            self.tasks.spawn(exporter.run(self.leads.subscribe(), self.stop.clone()));
        }
        let (leads, stop) = (self.leads.subscribe(), self.stop.clone());
        self.tasks.spawn(rotating::go_on(Arc::clone(core), leads, stop));
        let (leads, stop) = (self.leads.subscribe(), self.stop.clone());
        self.tasks.spawn(erasing::go_on(Arc::clone(core), leads, stop));
        let (store, leads) = (Arc::clone(&core.store), self.leads.subscribe());
        self.tasks.spawn(usage_sweep::sweep(store, core.usage, leads, self.stop.clone()));
        let rekeying = Rekeying::new(Arc::clone(core), Pace::gentle(self.limits.kek_ttl));
        self.tasks.spawn(rekeying.run(self.leads.subscribe(), self.stop.clone()));
        let (leads, stop) = (self.leads.subscribe(), self.stop.clone());
        self.tasks.spawn(rows::check_regularly(Arc::clone(core), self.row_checks, leads, stop));
        let tally = Arc::clone(&core.tally);
        self.tasks.spawn(tally.run(core.log.clone(), self.stop.clone()));
        self.tasks.spawn(tokens::look_after(Arc::clone(core), self.stop.clone()));
        self.tasks.spawn(key_tests::test_regularly(
            Arc::clone(core),
            self.key_tests.clone(),
            self.leads.subscribe(),
            self.stop.clone(),
        ));
        let leads = self.leads.subscribe();
        self.tasks.spawn(sweeping::sweep(Arc::clone(core), leads, self.stop.clone()));
        if let Some(tiles) = self.tiles.take() {
            self.tasks.spawn(tiles.serve(Arc::clone(core), self.stop.clone()));
        }
        self.tasks.spawn(record_trouble(Arc::clone(core), self.stop.clone()));
        let published = Published::default();
        for witness in std::mem::take(&mut self.witnesses) {
            let (core, newest) = (Arc::clone(core), self.signer.published());
            let (published, stop) = (Arc::clone(&published), self.stop.clone());
            self.tasks.spawn(witness.follow(core, newest, published, stop));
        }
        let path = self.policy.clone();
        let following = policy_file::follow(Arc::clone(core), path, RELOAD, self.stop.clone());
        self.tasks.spawn(following);
        let (reload, stop) = (Arc::clone(&self.tls).watch(RELOAD), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! { () = reload => {}, () = stop.cancelled() => {} }
        });
        let readiness = self.readiness.clone();
        self.tasks.spawn(check_self(Arc::clone(core), readiness, health, self.stop.clone()));
    }
}

async fn open_tiles(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<TileServer>> {
    let Some(tiles) = &config.log.tiles else { return Ok(None) };
    let (files, domains) = (config.tls.clone(), config.trust_domains.clone());
    TileServer::open(tiles, files, domains, Arc::clone(clock)).await.map(Some)
}

/// Says in the log that this broker runs, and by which rules it decides. If that fails, the database is
/// free again.
async fn put_start_on_record(core: &Core, config_sha256: [u8; 32]) -> anyhow::Result<()> {
    let put = record_start(core, config_sha256).await;
    if put.is_err() {
        core.store.close().await;
    }
    put
}

async fn record_start(core: &Core, config_sha256: [u8; 32]) -> anyhow::Result<()> {
    let policy = core.access.in_force();
    let admitted = policy_file::is_admitted(core, policy.document()).await;
    if !admitted.map_err(|why| anyhow::anyhow!("reading which policy was admitted: {why}"))? {
        anyhow::bail!(
            "the access policy (SHA-256 {}) is not the one that was admitted last, and that one asks for two \
             people for another: put it back and have this one admitted (`strongroom policy admit`), or, \
             if no two people are left who can, run `broker admit-policy`",
            hex::encode(policy.document().sha256())
        );
    }
    let loaded = policy_file::put(core, policy.document()).await;
    let loaded = loaded.context("keeping the access rules")?;
    let started = Record {
        kind: Kind::BrokerStarted.into(),
        config_sha256: config_sha256.to_vec().into(),
        ..Record::default()
    };
    for record in [started, loaded] {
        // No call waits for these: on a slow disk the broker starts late, but it starts.
        let recorded = core.log.record_change(record).await;
        recorded.map_err(|why| anyhow::anyhow!("the log cannot be written: {why}"))?;
    }
    let admitted = policy_file::admit_first(core, policy.document()).await;
    admitted.map_err(|why| anyhow::anyhow!("the policy was not admitted: {why}"))
}

fn exporters(
    config: &LogConfig,
    webhooks: Vec<Webhook>,
    core: &Core,
) -> anyhow::Result<Vec<Exporter>> {
    let mut outlets = Vec::new();
    for SinkConfig { name, from, to } in &config.sinks {
        let name = name.as_str().to_owned();
        let sink = to.open().with_context(|| format!("the sink `{name}`"))?;
        outlets.push(Outlet { name, from: *from, sink });
    }
    for (webhook, sink) in config.webhooks.iter().zip(webhooks) {
        let name = webhook.name.as_str().to_owned();
        outlets.push(Outlet { name, from: webhook.from, sink: Box::new(sink) });
    }
    let exporter = |outlet| {
        let (store, key) = (Arc::clone(&core.store), Arc::clone(&core.row_key));
        let cursors = Cursors { store, key, log: core.log.clone() };
        let (clock, growth) = (Arc::clone(&core.clock), core.log.growth());
        Exporter::new(outlet, cursors, clock, growth, export::Pace::default())
    };
    Ok(outlets.into_iter().map(exporter).collect())
}

fn add_services(
    routes: Routes,
    core: &Arc<Core>,
    tls: &Arc<ServerTls>,
    tasks: &TaskTracker,
) -> Routes {
    let core = || Arc::clone(core);
    let leases = LeaseService { core: core(), tls: Arc::clone(tls), tasks: tasks.clone() };
    let audit = AuditService { core: core(), tls: Arc::clone(tls), tasks: tasks.clone() };
    routes
        .add_service(LeasesServer::new(leases).max_decoding_message_size(LONGEST_REPORT))
        .add_service(
            CredentialsServer::new(CredentialService(core()))
                .max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(
            ApprovalsServer::new(ApprovalService(core()))
                .max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(
            BudgetsServer::new(BudgetService(core())).max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(
            IdentitiesServer::new(IdentityService(core()))
                .max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(KmsServer::new(KmsService(core())).max_decoding_message_size(LONGEST_MESSAGE))
        .add_service(
            VirtualKeysServer::new(VirtualKeyService(core()))
                .max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(
            TenantsServer::new(TenantService(core())).max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(
            UsageServer::new(UsageService(core())).max_decoding_message_size(LONGEST_MESSAGE),
        )
        .add_service(
            PricesServer::new(PriceService(core())).max_decoding_message_size(LONGEST_PRICES),
        )
        .add_service(AuditServer::new(audit).max_decoding_message_size(LONGEST_MESSAGE))
}

type HealthReporter = tonic_health::server::HealthReporter;

/// Finds out every so often whether leases can be given, and tells those who ask.
async fn check_self(
    core: Arc<Core>,
    readiness: watch::Sender<Readiness>,
    health: HealthReporter,
    stop: CancellationToken,
) {
    loop {
        let state = match timeout(SELF_CHECK, core.store.head()).await {
            Ok(Ok(_)) if !core.log.is_whole() => {
                Readiness::NotReady("the database has lost records".to_owned())
            }
            Ok(Ok(_)) => match &*core.checkpoints.trouble().borrow() {
                None => Readiness::Ready,
                Some(trouble) => Readiness::NotReady(format!("no new leases: {trouble}")),
            },
            Ok(Err(_)) | Err(_) => {
                Readiness::NotReady("the store does not answer: no new leases".to_owned())
            }
        };
        let status = match state {
            Readiness::Ready => tonic_health::ServingStatus::Serving,
            Readiness::NotReady(_) => tonic_health::ServingStatus::NotServing,
        };
        health.set_service_status("", status).await;
        readiness.send_replace(state);
        tokio::select! {
            () = stop.cancelled() => break,
            () = time::sleep(SELF_CHECK) => {}
        }
    }
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    readiness.send_replace(Readiness::NotReady("shutting down".to_owned()));
}

fn reflection_service() -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(strongroom_proto::DESCRIPTORS)
        .build_v1()
        .context("describing the contract")
}
