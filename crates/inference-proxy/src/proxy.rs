use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use domain::{Clock, SystemClock};
use egress::{AddressRules, Exit, SystemResolver, client_tls};
use providers::{Catalogue, CatalogueError};
use strongroom_client::{Broker, ClientError, LeaseCache};
use telemetry::Readiness;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    Config, ConfigError, Leases, ListenerTlsError, RootsError,
    body::Buffered,
    brokered::{Brokered, trace_headers},
    gateway::Gateway,
    listener_tls::ServerTls,
    metering::Metering,
    meters::Meters,
    request_id::RequestIds,
    server,
    upstream::Upstreams,
};

/// The gateway, ready to serve.
pub struct Proxy {
    gateway: Arc<Gateway>,
    exit: Arc<Exit>,
    tls: Option<Arc<ServerTls>>,
    readiness: watch::Sender<Readiness>,
}

/// Why the proxy cannot start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The configuration says what must not be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker cannot be set up as a peer.
    #[error("the broker's configuration cannot be used")]
    Broker(#[from] ClientError),
    /// Applications could not be served over TLS.
    #[error("the listener's certificate cannot be used")]
    Listener(#[from] ListenerTlsError),
    /// Providers' certificates could not be checked.
    #[error("connections to providers cannot be secured")]
    Roots(#[from] RootsError),
    /// The facts about providers are broken: a fault of this build.
    #[error("the catalogue of providers cannot be used")]
    Catalogue(#[from] CatalogueError),
    /// The operating system's random source failed.
    #[error("the operating system has no random bytes")]
    NoRandomness(#[source] io::Error),
}

impl Proxy {
    /// Sets everything up; the broker is connected to on first use. Must be called inside a tokio
    /// runtime.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let broker =
            Broker::connect(&config.broker, Arc::clone(&clock))?.with_metadata(trace_headers);
        let cache = LeaseCache::new(broker.clone(), config.leases, Arc::clone(&clock));
        Self::with_leases(config, Arc::new(Brokered { broker, cache }), clock)
    }

    /// The same with leases from elsewhere, for tests.
    pub fn with_leases(
        config: &Config,
        leases: Arc<dyn Leases>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let tls = config.tls.clone().map(ServerTls::load).transpose()?;
        let exit = Arc::new(Exit {
            rules: AddressRules::new(config.egress.allow.clone())
                .with_danger_plain_http_to_loopback(config.egress.danger_plain_http_to_loopback),
            resolver: Arc::new(SystemResolver),
            tls: client_tls(config.egress.ca.as_deref())?,
            connect_timeout: config.egress.connect_timeout,
        });
        let metering =
            Metering::new(config.metering.clone(), Arc::clone(&leases), Arc::clone(&clock));
        let gateway = Gateway {
            leases,
            metering: Arc::new(metering.map_err(OpenError::NoRandomness)?),
            upstreams: Upstreams::new(Arc::clone(&exit), config.egress.idle_connection),
            catalogue: Catalogue::builtin()?,
            limits: config.limits.clone(),
            calls: Arc::new(Semaphore::new(config.limits.concurrent_calls)),
            buffered: Buffered::default(),
            clock,
            meters: Arc::new(Meters::new()),
            ids: RequestIds::new().map_err(OpenError::NoRandomness)?,
            trusted_proxies: config.trusted_proxies.clone(),
        };
        let (readiness, _) = watch::channel(Readiness::NotReady("it has not started".to_owned()));
        Ok(Self { gateway: Arc::new(gateway), exit, tls: tls.map(Arc::new), readiness })
    }

    /// Whether calls can be served, for the operations listener.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Serves applications until `shutdown`, then finishes calls in hand and gives the leases back.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let own: SocketAddr = listener.local_addr()?;
        self.exit.rules.listening_on(own);
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after(Arc::clone(&self.gateway), self.readiness.clone()));
        if let Some(tls) = self.tls.clone() {
            tasks.spawn(async move { tls.watch().await });
        }
        tracing::info!(address = %own, tls = self.tls.is_some(), "serving applications");
        server::serve(Arc::clone(&self.gateway), self.tls.clone(), listener, shutdown).await?;
        tasks.shutdown().await;
        let stopped = Readiness::NotReady("it is stopping".to_owned());
        self.readiness.send_replace(stopped);
        self.gateway.metering.shutdown(self.gateway.limits.drain).await;
        self.gateway.leases.shutdown().await;
        Ok(())
    }
}

/// Closes connections whose leases have ended, and says whether calls can be served.
async fn look_after(gateway: Arc<Gateway>, readiness: watch::Sender<Readiness>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        gateway.upstreams.close_ended();
        let now = gateway.leases.trouble().map_or(Readiness::Ready, Readiness::NotReady);
        readiness.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                match &now {
                    Readiness::Ready => tracing::info!("ready: calls can be served"),
                    Readiness::NotReady(why) => tracing::warn!(why, "not ready"),
                }
                *known = now;
            }
            changed
        });
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

/// Well within the second that ended leases may leave connections open.
const LOOK_EVERY: Duration = Duration::from_millis(250);
