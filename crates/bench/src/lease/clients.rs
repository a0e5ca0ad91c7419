use std::path::PathBuf;

use domain::{Clock as _, SystemClock, VirtualKey};
use sealing::ClientKeys;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    AcquireLeaseRequest, Dialect, OpenSessionRequest, VirtualKeyTarget,
    acquire_lease_request::Target,
};
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;

use super::Ran;
use crate::{
    fleet::connect,
    process::{announce, persist},
};

/// Workloads that ask one server, over four connections.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The deployment whose identities are used.
    folder: PathBuf,
    address: String,
    #[arg(long)]
    calls: u64,
    #[arg(long)]
    concurrency: u64,
    /// Lease by this virtual key. Without it, the health service is asked.
    #[arg(long)]
    key: Option<String>,
}

const CONNECTIONS: usize = 4;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        let broker = connect(&args.folder, "inference-proxy", &args.address)?;
        let request = match &args.key {
            Some(key) => Some(lease_request(&broker, key).await?),
            None => None,
        };
        call(&broker, request.as_ref()).await?;
        workers.push((broker, request));
    }
    let started = SystemClock.elapsed();
    let mut tasks = JoinSet::new();
    for (_, (broker, request)) in (0..args.concurrency).zip(workers.iter().cycle()) {
        let (broker, request) = (broker.clone(), request.clone());
        let calls = args.calls / args.concurrency;
        tasks.spawn(async move {
            for _ in 0..calls {
                persist(|| call(&broker, request.as_ref())).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let calls = args.calls / args.concurrency * args.concurrency;
    let seconds = SystemClock.elapsed().saturating_sub(started).as_secs_f64();
    announce(&serde_json::to_string(&Ran { calls, seconds, cpu_seconds: 0.0 })?);
    Ok(())
}

async fn call(broker: &Broker, lease: Option<&AcquireLeaseRequest>) -> anyhow::Result<()> {
    match lease {
        Some(request) => drop(broker.leases().acquire_lease(request.clone()).await?),
        None => drop(broker.health().check(HealthCheckRequest::default()).await?),
    }
    Ok(())
}

/// What asks a broker for a lease by virtual key, in a session of its own.
pub(crate) async fn lease_request(
    broker: &Broker,
    key: &str,
) -> anyhow::Result<AcquireLeaseRequest> {
    let public_key = ClientKeys::generate()?.public_key().to_vec().into();
    let session = broker.leases().open_session(OpenSessionRequest { public_key }).await?;
    let (id, digest) = VirtualKey::inspect(key)?;
    let target = VirtualKeyTarget {
        virtual_key_id: id.to_string(),
        key_sha256: digest.as_bytes().to_vec().into(),
        model: "gpt-4o-mini".to_owned(),
        provider: String::new(),
    };
    Ok(AcquireLeaseRequest {
        session_id: session.into_inner().session_id,
        target: Some(Target::VirtualKey(target)),
        dialect: Dialect::Openai.into(),
        ..AcquireLeaseRequest::default()
    })
}
