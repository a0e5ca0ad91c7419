use std::{io, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tokio::time::timeout;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{Event, Sink, SinkError, otlp_record::request, wire::Place};

/// The logs service of an OTLP collector, over gRPC. Each batch is one call, and its answer counts.
#[derive(Debug)]
pub(crate) struct OtlpSink {
    place: Place,
    /// Made by the first call: a channel needs a runtime around it.
    client: Option<LogsServiceClient<Channel>>,
    patience: Duration,
}

impl OtlpSink {
    pub(crate) fn new(place: Place, patience: Duration) -> Self {
        Self { place, client: None, patience }
    }

    fn client(&mut self) -> &mut LogsServiceClient<Channel> {
        let place = &self.place;
        self.client.get_or_insert_with(|| {
            let place = place.clone();
            // A name that the channel never resolves: the connector knows where to go, and TLS
            // happens below what the channel sees.
            let endpoint = Endpoint::from_static("http://collector");
            LogsServiceClient::new(endpoint.connect_with_connector_lazy(service_fn(
                move |_: Uri| {
                    let place = place.clone();
                    async move { place.connect().await.map(TokioIo::new).map_err(io::Error::other) }
                },
            )))
        })
    }

    fn failed(&self, status: Status) -> SinkError {
        if status.code() == Code::Unavailable {
            let source = io::Error::other(status);
            return SinkError::Connect { address: self.place.address.clone(), source };
        }
        SinkError::Refused {
            code: status.code().description(),
            message: status.message().chars().filter(|c| !c.is_control()).take(256).collect(),
        }
    }
}

#[async_trait]
impl Sink for OtlpSink {
    async fn send(&mut self, batch: &[Event]) -> Result<u64, SinkError> {
        let patience = self.patience;
        let answer = timeout(patience, self.client().export(request(batch))).await;
        let answer = answer.map_err(|_| SinkError::TimedOut(self.place.address.clone()))?;
        let answer = answer.map_err(|status| self.failed(status))?;
        let refused = answer.into_inner().partial_success;
        // By the specification these are not to be sent again.
        Ok(refused.map_or(0, |it| u64::try_from(it.rejected_log_records).unwrap_or(0)))
    }

    fn acknowledges(&self) -> bool {
        true
    }
}
