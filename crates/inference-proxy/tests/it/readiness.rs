use std::{sync::Arc, time::Duration};

use domain::SystemClock;
use inference_proxy::Proxy;
use telemetry::Readiness;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::timeout};

use crate::harness::{World, config};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_proxy_is_ready_when_it_can_serve_and_only_then() {
    let world = World::start().await;
    let leases = Arc::clone(&world.leases);
    *leases.trouble.lock().unwrap() = Some("no broker".to_owned());
    let config = config("");
    let proxy = Proxy::with_leases(&config, Arc::clone(&leases) as _, Arc::new(SystemClock));
    let proxy = proxy.unwrap();
    let mut readiness = proxy.readiness();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = JoinSet::new();
    serving.spawn(async move { proxy.serve(listener, async { drop(stopped.await) }).await });

    let not_ready = Readiness::NotReady("no broker".to_owned());
    // Whatever it was before: also when it has been ready already.
    for _ in 0..2 {
        timeout(SOON, readiness.wait_for(|now| *now == not_ready)).await.unwrap().unwrap();
        *leases.trouble.lock().unwrap() = None;
        timeout(SOON, readiness.wait_for(|now| *now == Readiness::Ready)).await.unwrap().unwrap();
        *leases.trouble.lock().unwrap() = Some("no broker".to_owned());
    }
    drop(stop);
    serving.join_next().await.unwrap().unwrap().unwrap();
}
