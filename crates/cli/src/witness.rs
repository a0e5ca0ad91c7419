use std::{future, net::SocketAddr, path::PathBuf, sync::Arc};

use ::witness::{Desk, Listener, ServerFiles, serve, write_private};
use audit::CosignerKey;
use clap::{Args, Subcommand};
use domain::SystemClock;
use serde::Serialize;
use telemetry::{Readiness, TelemetryConfig};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    failure::Failure,
    files::failed,
    output::{Output, list},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Makes a witness's key, and shows the key that verifies its cosignatures.
    Init(Init),
    /// Cosigns checkpoints until it is told to stop.
    Run(Run),
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The witness's name, such as `witness.auditor.example`. Cosignatures carry it.
    #[arg(long)]
    name: String,
    /// Where to write its private key; nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Where logs hand their checkpoints in.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The witness's private key, as `witness init` wrote it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A file with the verifier key of a log to witness. Repeatable.
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// Where to keep what was cosigned, and evidence. Whoever can put it back to an earlier state can
    /// have a second history cosigned.
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// The certificate chain for HTTPS, PEM. Needed for addresses beyond this machine.
    #[arg(long, value_name = "FILE", requires = "private_key")]
    certificate: Option<PathBuf>,
    /// Its private key, PEM, mode 0600.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    private_key: Option<PathBuf>,
    /// Where `/metrics` and `/healthz` listen, over plain HTTP.
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

#[derive(Serialize)]
struct Made {
    key: PathBuf,
    vkey: String,
}

impl Verb {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(output),
            Self::Run(run) => run.run().await,
        }
    }
}

impl Init {
    fn run(self, output: Output) -> Result<(), Failure> {
        let key = CosignerKey::generate(&self.name).map_err(Failure::Key)?;
        write_private(&self.key, &key.to_text()).map_err(Failure::Witness)?;
        let made = Made { key: self.key, vkey: key.witness().to_string() };
        output.show(&made, |made| {
            list([("key", made.key.display().to_string()), ("verifier key", made.vkey.clone())])
        })
    }
}

impl Run {
    async fn run(self) -> Result<(), Failure> {
        let config = TelemetryConfig::default();
        let guard = telemetry::init(&config, "strongroom-witness").map_err(Failure::Telemetry)?;
        let clock = Arc::new(SystemClock);
        let desk =
            Desk::open(&self.key, &self.log, &self.state, clock).map_err(Failure::Witness)?;
        let files = self.certificate.zip(self.private_key);
        let files = files.map(|(certificate, key)| ServerFiles { certificate, key });
        let listener =
            Listener::bind(self.listen, files.as_ref()).await.map_err(Failure::Witness)?;
        // Before anybody is told that this runs: whoever is told may end it.
        let mut term = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
        let mut int = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
        let mut ops = JoinSet::new();
        let readiness = watch::Sender::new(Readiness::Ready);
        if let Some(address) = self.metrics_listen {
            let named = PathBuf::from(address.to_string());
            let tcp = TcpListener::bind(address).await.map_err(failed(&named))?;
            let (metrics, ready) = (guard.metrics(), readiness.subscribe());
            ops.spawn(telemetry::serve_ops(tcp, metrics, ready, future::pending()));
        }
        let address = listener.address().unwrap_or(self.listen);
        tracing::info!(%address, vkey = desk.key(), "witnessing");
        let shutdown = async {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        };
        serve(Arc::new(desk), listener, shutdown).await;
        guard.flush().await;
        Ok(())
    }
}
