use std::{future::Future, io};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::watch};

/// Whether a service can do its work.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot; the reason is shown at `/readyz`.
    NotReady(String),
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown`. `/healthz` says that the process
/// answers, `/readyz` what was last sent to `readiness`; a service whose sender is gone is not ready.
pub async fn serve_ops(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: watch::Receiver<Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(render).with_state(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn render(State(metrics): State<PrometheusHandle>) -> impl IntoResponse {
    // Summed up here too, so that each scrape finds them current.
    metrics.run_upkeep();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn ready(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, String) {
    // An error of `has_changed` means that the sender is gone.
    if readiness.has_changed().is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the service has ended\n".to_owned());
    }
    match &*readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
