use std::{
    io::Stderr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use thiserror::Error;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::{Guard, LogFormat, TelemetryConfig, escape::Escaping, guard::EXPORT_TIMEOUT};

/// Why telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The collector's address does not start with `http://`.
    #[error("the OTLP endpoint `{0}` does not start with http://")]
    Endpoint(String),
    /// The exporter of traces could not be made.
    #[error("traces cannot be sent")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Something else of this process records metrics already.
    #[error("metrics are recorded by something else already")]
    Recorder,
}

/// Sets up logs, traces and metrics for this process, inside of the runtime that sends the traces. A
/// second call reuses what the first one set up.
pub fn init(config: &TelemetryConfig, service: &'static str) -> Result<Guard, TelemetryError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(guard) = installed.as_ref() {
        return Ok(guard.clone());
    }
    let tracer = tracer(config, service)?;
    let metrics = recorder()?;
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer(service));
    // A test that has set a subscriber of its own keeps it.
    drop(tracing_subscriber::registry().with(filter).with(log(config.log)).with(layer).try_init());
    let guard = Guard { metrics, tracer };
    *installed = Some(guard.clone());
    Ok(guard)
}

/// The subscriber and the recorder are the process's own, and so is this.
static INSTALLED: Mutex<Option<Guard>> = Mutex::new(None);

fn log<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(|| -> Escaping<Stderr> { Escaping(std::io::stderr()) });
    match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.boxed(),
    }
}

fn tracer(config: &TelemetryConfig, service: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &config.otlp_endpoint else {
        // Spans get IDs, for the record and for whoever is called, but are not kept.
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok(provider.with_sampler(sampler).build());
    };
    if !endpoint.starts_with("http://") {
        return Err(TelemetryError::Endpoint(endpoint.clone()));
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(TelemetryError::Exporter)?;
    Ok(provider.with_batch_exporter(exporter).build())
}

fn recorder() -> Result<PrometheusHandle, TelemetryError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|_| TelemetryError::Recorder)?;
    let upkeep = recorder.clone();
    // For as long as the process lives, like the recorder: unscraped histograms would only grow.
    let thread = std::thread::Builder::new().name("metrics".to_owned());
    let thread = thread.spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    thread.map_err(|_| TelemetryError::Recorder)?;
    Ok(recorder)
}

/// How often what was recorded is summed up.
const UPKEEP: Duration = Duration::from_secs(5);

/// From the broker's warm path to a long answer of a model.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    30.0, 120.0,
];
