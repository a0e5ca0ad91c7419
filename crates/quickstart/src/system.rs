use std::{net::SocketAddr, pin::pin, sync::Arc};

use anyhow::{Context as _, bail};
use domain::{SystemClock, VirtualKey};
use strongroom_client::Broker;
use strongroom_proto::v1::ListRecordsRequest;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    Args,
    environment::{self, Found},
    narration::narrate,
    ports,
    proof::Export,
    seed::{Answering, Seed},
    servers::Server,
    speech::{hand_out, say},
    stand_in::StandIn,
    state::State,
    welcome::Welcome,
};

const OPERATIONS_PORT: u16 = 9464;

/// Everything that runs.
struct System {
    broker: Server,
    proxy: Server,
    operations: SocketAddr,
    stand_in: Option<StandIn>,
    admin: Broker,
    key: VirtualKey,
    /// The provider to try.
    provider: &'static str,
    /// Tells the log's records.
    narrating: JoinSet<()>,
    _operations: JoinSet<()>,
}

/// Starts everything, serves until Ctrl-C or SIGTERM, and verifies the log.
pub(crate) async fn run(args: &Args, telemetry: &telemetry::Guard) -> anyhow::Result<()> {
    // Before anything that takes time: from here on a signal ends this in order.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut asked = pin!(async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    });
    let state = State::open(&args.state_dir)?;
    let mut system = tokio::select! {
        started = System::start(args, &state, telemetry) => started?,
        () = &mut asked => bail!("it was stopped before it had started"),
    };
    system.welcome(args)?;
    system.narrating.spawn(narrate(system.admin.clone(), system.next_record().await?));
    tokio::select! {
        () = asked => {}
        ended = system.proxy.stopped() => return ended.context("the inference proxy ended by itself"),
        ended = system.broker.stopped() => return ended.context("the broker ended by itself"),
    }
    say("\nStopping: calls in hand finish first.");
    let export = state.export()?;
    system.end(&export).await?;
    prove(&export)
}

impl System {
    async fn start(
        args: &Args,
        state: &State,
        telemetry: &telemetry::Guard,
    ) -> anyhow::Result<Self> {
        let mut found = environment::keys();
        let stand_in = if found.is_empty() { Some(StandIn::start().await?) } else { None };
        found.extend(stand_in.iter().flat_map(StandIn::keys));
        let address = stand_in.as_ref().map(|stand_in| stand_in.address);

        let mut broker = Server::broker(state, address).await?;
        let admin = state.admin_config(broker.address)?;
        let admin = Broker::connect(&admin, Arc::new(SystemClock))?;
        let by = if stand_in.is_some() { Answering::StandIn } else { Answering::Providers };
        let key = seed(&admin, &found, by).await?;

        let mut proxy = Server::proxy(state, args.listen, broker.address, address).await?;
        tokio::select! {
            ready = proxy.ready() => ready.context("starting the inference proxy")?,
            ended = broker.stopped() => {
                ended.context("the broker ended by itself")?;
                bail!("the broker ended by itself");
            }
        }
        let listener = ports::preferably(OPERATIONS_PORT).await?;
        let operations = listener.local_addr()?;
        let (metrics, readiness) = (telemetry.metrics(), proxy.readiness.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Calls are served without it too.
            drop(telemetry::serve_ops(listener, metrics, readiness, std::future::pending()).await);
        });
        let provider = found.first().map_or("openai", |found| found.of.provider);
        Ok(Self {
            narrating: JoinSet::new(),
            _operations: serving,
            broker,
            proxy,
            operations,
            stand_in,
            admin,
            key,
            provider,
        })
    }

    fn welcome(&self, args: &Args) -> anyhow::Result<()> {
        let welcome = Welcome {
            proxy: self.proxy.address,
            broker: self.broker.address,
            operations: self.operations,
            stand_in: self.stand_in.as_ref().map(|stand_in| stand_in.address),
            state_dir: &args.state_dir,
            key: self.key.expose(),
            provider: self.provider,
        };
        say(&welcome);
        hand_out(welcome.for_scripts()).context("writing to standard output")
    }

    /// Where the log goes on.
    async fn next_record(&self) -> anyhow::Result<u64> {
        let request = ListRecordsRequest { page_size: 1, ..ListRecordsRequest::default() };
        let page = self.admin.audit().list_records(request).await.context("reading the log")?;
        Ok(page.into_inner().tree_size)
    }

    /// Ends everything in order: the log is exported when no call can add to it any more.
    async fn end(self, export: &Export) -> anyhow::Result<()> {
        self.proxy.end().await?;
        let exported = export.write(&self.admin).await;
        self.broker.end().await?;
        // The broker ended the stream, so all is told.
        self.narrating.join_all().await;
        exported.context("exporting the log")
    }
}

async fn seed(admin: &Broker, found: &[Found], by: Answering) -> anyhow::Result<VirtualKey> {
    let seed = Seed::new(admin)?;
    seed.tenant().await?;
    seed.credentials(found, by).await?;
    seed.virtual_key().await
}

fn prove(export: &Export) -> anyhow::Result<()> {
    let proof = export.verify().context("the log does NOT verify")?;
    say(format_args!("\n{proof}\nThe export is in {}.", export.folder.display()));
    Ok(())
}
