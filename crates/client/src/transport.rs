use std::{fmt, io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use mtls::{ClientTls, TlsConnection};
use tokio::net::TcpStream;
use tonic::{
    GrpcMethod, Request, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Error as TransportError, Uri},
};
use tower::service_fn;

/// The channel under every client of this crate.
pub type Transport = InterceptedService<Channel, Outgoing>;

/// What is added to each call on its way out: a deadline, and what the application hooked in.
#[derive(Clone)]
pub struct Outgoing {
    deadline: AsciiMetadataValue,
    metadata: Option<Arc<MetadataHook>>,
}

pub(crate) type MetadataHook = dyn Fn(&mut MetadataMap) + Send + Sync;

impl Outgoing {
    pub(crate) fn new(timeout: Duration) -> Self {
        // The header holds eight digits at most; a day in milliseconds is eight.
        let millis = timeout.as_millis().clamp(1, 86_400_000);
        let deadline = AsciiMetadataValue::try_from(format!("{millis}m"))
            .unwrap_or_else(|_| AsciiMetadataValue::from_static("5S"));
        Self { deadline, metadata: None }
    }

    pub(crate) fn with_metadata(self, hook: Arc<MetadataHook>) -> Self {
        Self { metadata: Some(hook), ..self }
    }
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let streams = request
            .extensions()
            .get::<GrpcMethod<'_>>()
            .is_some_and(|method| STREAMS.contains(&method.method()));
        if !streams && !request.metadata().contains_key(DEADLINE) {
            request.metadata_mut().insert(DEADLINE, self.deadline.clone());
        }
        if let Some(hook) = &self.metadata {
            hook(request.metadata_mut());
        }
        Ok(request)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A channel that connects on first use and again whenever the connection is gone.
pub(crate) fn channel(
    address: String,
    timeout: Duration,
    tls: Arc<ClientTls>,
) -> Result<Channel, TransportError> {
    // `http`, because TLS is ours and happens below what the channel sees.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(timeout)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true);
    let address: Arc<str> = address.into();
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        connect(Arc::clone(&address), Arc::clone(&tls))
    })))
}

async fn connect(address: Arc<str>, tls: Arc<ClientTls>) -> io::Result<TokioIo<TlsConnection>> {
    let tcp = TcpStream::connect(&*address).await;
    let tcp = tcp.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    // It sets `TCP_NODELAY`, too: calls are small, and someone waits for each.
    tls.connect(tcp).await.map(TokioIo::new).map_err(|error| {
        tracing::warn!(%address, reason = error.reason(), "no connection to the broker: {error}");
        io::Error::other(error)
    })
}

const DEADLINE: &str = "grpc-timeout";
const STREAMS: [&str; 3] = ["WatchRevocations", "TailRecords", "Watch"];
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(method: &'static str) -> MetadataMap {
        let mut request = Request::new(());
        request.extensions_mut().insert(GrpcMethod::new("strongroom.v1.Leases", method));
        let hook: Arc<MetadataHook> = Arc::new(|metadata| {
            metadata.insert("traceparent", AsciiMetadataValue::from_static("00-1"));
        });
        let mut outgoing = Outgoing::new(Duration::from_secs(5)).with_metadata(hook);
        outgoing.call(request).unwrap().metadata().clone()
    }

    #[test]
    fn calls_have_a_deadline_and_streams_have_none() {
        assert_eq!(outgoing("AcquireLease").get(DEADLINE).unwrap(), "5000m");
        assert!(outgoing("WatchRevocations").get(DEADLINE).is_none());
    }

    #[test]
    fn the_hook_adds_to_every_call() {
        assert_eq!(outgoing("AcquireLease").get("traceparent").unwrap(), "00-1");
        assert_eq!(outgoing("TailRecords").get("traceparent").unwrap(), "00-1");
    }
}
