use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use futures_util::stream::{Stream, StreamExt as _};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mtls::TlsConnection;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::config::Limits;

/// Serves the calls on each connection. Each request carries the identity at the other end, and how
/// to hear that its connection is to close.
pub(crate) struct Front<S> {
    service: S,
    builder: Builder<TokioExecutor>,
    age: Duration,
    stop: CancellationToken,
}

/// When a connection is to close: calls in hand finish, and streams without an end are to end.
#[derive(Clone, Debug)]
pub(crate) struct Leaving(pub(crate) CancellationToken);

impl<S> Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    pub(crate) fn new(service: S, limits: &Limits, stop: CancellationToken) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection)
            .max_pending_accept_reset_streams(20)
            .max_header_list_size(32 * 1024)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        Self { service, builder, age: limits.connection_age, stop }
    }

    /// Serves until there are no more connections, and none is open.
    pub(crate) async fn serve(self, connections: impl Stream<Item = io::Result<TlsConnection>>) {
        let mut connections = pin!(connections);
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = open.join_next() => {}
                connection = connections.next() => match connection {
                    Some(Ok(connection)) => {
                        open.spawn(self.answer_all(connection));
                    }
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        }
        while open.join_next().await.is_some() {}
    }

    /// Answers the calls of one connection, until it has its age or the broker stops.
    fn answer_all(&self, connection: TlsConnection) -> impl Future<Output = ()> + Send + 'static {
        let leaving = self.stop.child_token();
        let identity = Arc::new(connection.identity().clone());
        let (service, told) = (self.service.clone(), Leaving(leaving.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Arc::clone(&identity));
            request.extensions_mut().insert(told.clone());
            service.clone().oneshot(request)
        });
        let serving = self.builder.serve_connection(TokioIo::new(connection), service);
        let age = jittered(self.age);
        async move {
            let mut serving = pin!(serving);
            tokio::select! {
                ended = &mut serving => return log(ended),
                () = sleep(age) => {}
                () = leaving.cancelled() => {}
            }
            leaving.cancel();
            serving.as_mut().graceful_shutdown();
            if let Ok(ended) = timeout(GRACE, serving).await {
                log(ended);
            } else {
                tracing::debug!("a connection was closed with calls in hand");
            }
        }
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Give or take a tenth, of each connection by itself: those made together are not closed together.
fn jittered(age: Duration) -> Duration {
    let mut random = [0; 2];
    // Without random bytes the age is what it says, which is safe too.
    let _ = getrandom::fill(&mut random);
    spread(age, u16::from_be_bytes(random))
}

fn spread(age: Duration, random: u16) -> Duration {
    let share = f64::from(random) / f64::from(u16::MAX);
    age.min(Duration::from_hours(24)).mul_f64(0.9 + 0.2 * share)
}

/// No call may take longer.
const GRACE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_by_a_tenth_either_way() {
        let age = Duration::from_mins(10);
        assert_eq!(spread(age, 0), Duration::from_mins(9));
        assert_eq!(spread(age, u16::MAX), Duration::from_mins(11));
        let ages: std::collections::BTreeSet<Duration> = (0..32).map(|_| jittered(age)).collect();
        assert!(ages.len() > 1, "each connection has an age of its own");
    }
}
