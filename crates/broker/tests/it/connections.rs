//! Connections that end: with the certificate behind them, and with their age.

use std::{cell::Cell, fs, pin::Pin, sync::Arc, time::Duration};

use domain::{Clock as _, SystemClock};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mtls::{ClientTls, Identity, TlsConnection, TlsFiles, TrustDomains};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use setup::Layout;
use strongroom_client::Problem;
use strongroom_proto::v1::{
    ListRecordsRequest, TailRecordsRequest, TailRecordsResponse, WatchRevocationsRequest,
    WatchRevocationsResponse,
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{Streaming, body::Body};

use crate::harness::{Running, layout};

/// Far less than a connection lasts by itself. A revocation takes a look at the files, each half second,
/// where the machine does nothing else.
const BOUND: Duration = Duration::from_secs(20);

/// A list of the layout's authority that revokes the certificates with these names.
fn revoke(layout: &Layout, names: &[&str]) {
    revoke_for(layout, names, Duration::from_hours(2));
}

/// As `revoke`, by a list of an hour ago that is good for so long.
pub(crate) fn revoke_for(layout: &Layout, names: &[&str], lasts: Duration) {
    let read = |name: &str| fs::read_to_string(layout.pki.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    let millis = u64::try_from(SystemClock.now().as_millis()).unwrap();
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(millis);
    let domains = TrustDomains::new([layout.trust_domain.as_str()]).unwrap();
    let revoked = |name: &&str| {
        let leaf = CertificateDer::from_pem_file(layout.pki.join(format!("{name}.pem"))).unwrap();
        let serial = hex::decode(Identity::read(&leaf, &domains).unwrap().serial).unwrap();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        }
    };
    let list = CertificateRevocationListParams {
        this_update: now - Duration::from_hours(1),
        next_update: now - Duration::from_hours(1) + lasts,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: names.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let pem = list.signed_by(&issuer).unwrap().pem().unwrap();
    // Whole or not at all, as `docs/operations.md` says.
    fs::write(layout.pki.join("crl.new"), pem).unwrap();
    fs::rename(layout.pki.join("crl.new"), layout.pki.join("crl.pem")).unwrap();
}

async fn connect(running: &Running, name: &str) -> TlsConnection {
    let file = |ending: &str| running.layout.pki.join(format!("{name}.{ending}"));
    let files = TlsFiles {
        certificate: file("pem"),
        key: file("key"),
        ca: running.layout.pki.join("ca.pem").into(),
        crl: None,
    };
    let domains = TrustDomains::new([running.layout.trust_domain.as_str()]).unwrap();
    let broker = format!("spiffe://{}/broker", running.layout.trust_domain).parse().unwrap();
    let tls = ClientTls::load(files, domains, broker, Arc::new(SystemClock)).unwrap();
    tls.connect(TcpStream::connect(&running.address).await.unwrap()).await.unwrap()
}

/// A connection on which nothing is asked; ends when it does.
async fn idle(running: &Running, name: &str) {
    let connection = TokioIo::new(connect(running, name).await);
    let (_sender, idle) =
        http2::handshake::<_, _, Body>(TokioExecutor::new(), connection).await.unwrap();
    // With an error or, at its age, without.
    let _ = idle.await;
}

async fn watch(running: &Running) -> Streaming<WatchRevocationsResponse> {
    let request = WatchRevocationsRequest { from_index: Some(0) };
    let mut stream = running.proxy.leases().watch_revocations(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    stream
}

async fn tail(running: &Running) -> Streaming<TailRecordsResponse> {
    let request = TailRecordsRequest { from_index: Some(0), ..Default::default() };
    let mut stream = running.admin.audit().tail_records(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    stream
}

#[tokio::test]
async fn a_revoked_certificate_ends_streams_and_idle_connections() {
    let (folder, layout) = layout();
    revoke(&layout, &[]);
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let text =
        text.replace("ca = \"pki/ca.pem\"\n", "ca = \"pki/ca.pem\"\ncrl = \"pki/crl.pem\"\n");
    fs::write(&layout.broker_config, text).unwrap();
    let running = Running::start_in(folder, layout).await;
    let mut stream = watch(&running).await;
    let mut others = Box::pin(idle(&running, "admin"));
    let mut idle = Box::pin(idle(&running, "inference-proxy"));
    let mut kept = tail(&running).await;
    for open in [idle.as_mut() as Pin<&mut dyn Future<Output = ()>>, others.as_mut()] {
        assert!(timeout(Duration::from_millis(100), open).await.is_err(), "both are open");
    }

    revoke(&running.layout, &["inference-proxy"]);
    let stream_ends = async { while matches!(stream.message().await, Ok(Some(_))) {} };
    timeout(BOUND, async { tokio::join!(stream_ends, idle) }).await.unwrap();

    // Nor may it come back; its next handshake is refused, whatever it remembers of the last.
    let refused = async {
        loop {
            let mut leases = running.proxy.leases();
            let refused = leases.watch_revocations(WatchRevocationsRequest::default()).await;
            let refused = Problem::from_status(&refused.unwrap_err());
            // The connection may end before the call is on it, which then hears no more than that.
            if !refused.reason.is_empty() {
                return refused;
            }
        }
    };
    let refused = timeout(BOUND, refused).await.unwrap();
    assert_eq!(refused.reason, "CERTIFICATE_REFUSED", "{refused}");
    assert!(refused.message.ends_with("it was revoked"), "{refused}");
    let mut again = connect(&running, "inference-proxy").await;
    let alert = timeout(BOUND, again.read_u8()).await.unwrap().unwrap_err();
    assert!(alert.to_string().contains("CertificateRevoked"), "{alert}");

    // The other's connections never broke.
    assert!(timeout(Duration::from_millis(100), others).await.is_err());
    let mut silent = 0;
    while silent < 2 {
        let message = timeout(BOUND, kept.message()).await.unwrap().unwrap().unwrap();
        silent += usize::from(message.entries.is_empty());
    }
    running.end().await;
}

#[tokio::test]
async fn a_connection_has_an_age_and_streams_resume_on_the_next() {
    let running = Running::start_with(|text| {
        let [head, tail] = text.split("[telemetry]").collect::<Vec<_>>()[..] else {
            panic!("one table of telemetry")
        };
        format!("{head}[limits]\nconnection_age = \"1s\"\n[telemetry]{tail}")
    })
    .await;
    timeout(BOUND, idle(&running, "admin")).await.unwrap();

    // Streams end without an error, and calls see nothing of it.
    let done = Cell::new(false);
    let streams = async {
        for _ in 0..2 {
            let mut stream = watch(&running).await;
            while stream.message().await.unwrap().is_some() {}
        }
        done.set(true);
    };
    let calls = async {
        while !done.get() {
            let page = ListRecordsRequest { page_size: 1, ..Default::default() };
            running.admin.audit().list_records(page).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, async { tokio::join!(streams, calls) }).await.unwrap();
    running.end().await;
}
