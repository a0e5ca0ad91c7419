use std::{future::Future, net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use broker::Broker;
use inference_proxy::Proxy;
use telemetry::Readiness;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{ports, state::State};

/// A server of this process, and how to end it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) readiness: watch::Receiver<Readiness>,
    stop: oneshot::Sender<()>,
    serving: JoinSet<anyhow::Result<()>>,
}

const BROKER_PORT: u16 = 7443;
const PROXY_PORT: u16 = 8080;
const READY_WITHIN: Duration = Duration::from_mins(1);

impl Server {
    /// Starts the broker on what the state directory holds.
    pub(crate) async fn broker(
        state: &State,
        stand_in: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let listener = ports::preferably(BROKER_PORT).await?;
        let (config, sha256) = state.broker_config(listener.local_addr()?, stand_in)?;
        let broker = Broker::open(config, sha256).await.context("opening the broker")?;
        let readiness = broker.readiness();
        Self::start(listener, readiness, |listener, stopped| broker.serve(listener, stopped))
    }

    /// Starts the inference proxy in front of a broker.
    pub(crate) async fn proxy(
        state: &State,
        listen: Option<SocketAddr>,
        broker: SocketAddr,
        stand_in: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let listener = match listen {
            Some(address) => ports::exactly(address).await?,
            None => ports::preferably(PROXY_PORT).await?,
        };
        let config = state.proxy_config(listener.local_addr()?, broker, stand_in)?;
        let proxy = Proxy::open(&config).context("opening the inference proxy")?;
        let readiness = proxy.readiness();
        Self::start(listener, readiness, |listener, stopped| async move {
            proxy.serve(listener, stopped).await.context("serving")
        })
    }

    /// Waits until it can do its work.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let mut readiness = self.readiness.clone();
        let ready = readiness.wait_for(|now| *now == Readiness::Ready);
        match timeout(READY_WITHIN, ready).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => {
                self.stopped().await?;
                bail!("it stopped by itself")
            }
            Err(_) => match &*self.readiness.borrow() {
                Readiness::Ready => Ok(()),
                Readiness::NotReady(why) => bail!("it is not ready: {why}"),
            },
        }
    }

    /// Waits until it stops by itself, which it does only when something is wrong.
    pub(crate) async fn stopped(&mut self) -> anyhow::Result<()> {
        self.serving.join_next().await.context("it has stopped already")??
    }

    /// Ends it, when calls in hand have been answered.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        // An error says that it has stopped already, and the next line why.
        let _ = self.stop.send(());
        while let Some(ended) = self.serving.join_next().await {
            ended??;
        }
        Ok(())
    }

    fn start<F>(
        listener: TcpListener,
        readiness: watch::Receiver<Readiness>,
        serve: impl FnOnce(TcpListener, Stopped) -> F,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(
            listener,
            Box::pin(async {
                // An error says that whoever could have said so is gone.
                let _ = stopped.await;
            }),
        ));
        Ok(Self { address, readiness, stop, serving })
    }
}

type Stopped = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
