use std::{fs, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{task::yield_now, time::timeout};

use crate::pki::{NOW, Pki};

/// Waits until the metrics say this of the process.
async fn told(watching: impl Future<Output = ()>, is_told: impl Fn() -> bool) {
    let seen = async {
        while !is_told() {
            yield_now().await;
        }
    };
    tokio::select! {
        () = watching => unreachable!("it goes on for as long as it is polled"),
        seen = timeout(Duration::from_secs(10), seen) => seen.unwrap(),
    }
}

#[tokio::test]
async fn it_is_told_when_certificate_and_revocation_list_end() {
    let pki = Pki::new();
    let mut files = pki.good("broker");
    let list = pki.path("revoked.pem");
    // Of several, the one that is due first.
    let lists = |first: u64| {
        pki.authority.revoke(&[], NOW + 9_000) + &pki.authority.revoke(&[], NOW + first)
    };
    fs::write(&list, lists(600)).unwrap();
    files.crl = Some(list.clone());
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let says = |name: &str, value: u64| {
        let line = format!("{name} {value}");
        metrics.render().lines().any(|it| it == line)
    };

    let server = pki.server(files.clone()).unwrap();
    let often = Duration::from_millis(1);
    told(Arc::clone(&server).watch(often), || {
        says("strongroom_tls_certificate_expires_seconds", NOW + 3600)
            && says("strongroom_tls_certificate_lifetime_seconds", 3660)
            && says("strongroom_tls_revocation_list_expires_seconds", NOW + 600)
            && says("strongroom_tls_revocation_list_lifetime_seconds", 630)
    })
    .await;
    fs::write(&list, lists(1200)).unwrap();
    told(server.watch(often), || {
        says("strongroom_tls_revocation_list_expires_seconds", NOW + 1200)
    })
    .await;

    // A client tells the same of its own, and nothing of a list that it does not have.
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let client = pki.client(pki.good("proxy")).unwrap();
    let line = format!("strongroom_tls_certificate_expires_seconds {}", NOW + 3600);
    told(client.watch(often), || metrics.render().lines().any(|it| it == line)).await;
    assert!(!metrics.render().contains("revocation_list"));
}
