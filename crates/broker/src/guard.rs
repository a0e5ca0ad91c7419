use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use audit::Reason;
use domain::Clock;
use http::{HeaderMap, Request, Response};
use mtls::{Identity, ServerTls};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::{
    access::{Access, Class, Method, method_of},
    barred::Barred,
    caller::Caller,
    core::Core,
    log::Log,
    people::{Called, People},
    refused::{Refused, Why},
    tally::Tally,
};

/// The outermost layer, around every service: who calls, whether they may, whether there is room,
/// and until when. What it refuses is on record like any other refusal.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    access: Arc<Access>,
    log: Log,
    clock: Arc<dyn Clock>,
    tls: Arc<ServerTls>,
    barred: Arc<Barred>,
    people: Arc<People>,
    tally: Arc<Tally>,
    /// Places for calls in hand, and those of them that only urgent ones may take.
    places: Semaphore,
    kept: usize,
}

/// The longest deadline a call may have.
const LONGEST_DEADLINE: Duration = Duration::from_secs(30);

impl Guard {
    pub(crate) fn new(core: &Core, tls: Arc<ServerTls>, concurrent_calls: usize) -> Self {
        Self(Arc::new(Inner {
            access: Arc::clone(&core.access),
            log: core.log.clone(),
            clock: Arc::clone(&core.clock),
            tls,
            barred: Arc::clone(core.directory.barred()),
            people: Arc::clone(&core.people),
            tally: Arc::clone(&core.tally),
            places: Semaphore::new(concurrent_calls.min(Semaphore::MAX_PERMITS)),
            kept: concurrent_calls / 10,
        }))
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, service: S) -> Guarded<S> {
        Guarded { service, guard: Arc::clone(&self.0) }
    }
}

/// A service behind the [`Guard`].
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    service: S,
    guard: Arc<Inner>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the place of the one that is ready.
        let clone = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, clone);
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            let Some(identity) = request.extensions().get::<Arc<Identity>>().cloned() else {
                return Ok(Status::unauthenticated("no client certificate").into_http());
            };
            let method = method_of(request.uri().path());
            let span = span(method, request.headers());
            guard.handle(&mut service, request, &identity, method).instrument(span).await
        })
    }
}

impl Inner {
    async fn handle<S>(
        &self,
        service: &mut S,
        mut request: Request<Body>,
        identity: &Identity,
        method: Option<Method>,
    ) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let started = self.clock.elapsed();
        let name = method.map_or("", |method| method.name);
        let (certificate, trace_id) = (identity.certificate_sha256, telemetry::trace_id());
        let named = self.people.call(&identity.spiffe_id).await;
        let known_as = *named.as_ref().unwrap_or(&Called::ByNothing);
        let caller = Caller::new(identity.spiffe_id.clone(), known_as, certificate, name, trace_id);
        let pending = Pending { log: &self.log, caller: &caller };
        let class = method.map_or(Class::Plain, |method| method.class);
        let response = match self.place(class) {
            Err(why) => self.refuse(&caller, why).await,
            Ok(_place) => {
                match named.and_then(|_| self.check(&caller, identity, method, request.headers())) {
                    Err(why) => self.refuse(&caller, why).await,
                    Ok(deadline) => {
                        request.extensions_mut().insert(caller.clone());
                        bounded(deadline, service.call(request)).await?
                    }
                }
            }
        };
        pending.answered(&response);
        self.measure(&caller, &response, started);
        Ok(response)
    }

    /// Everything that can be decided before the request is read; gives the deadline.
    fn check(
        &self,
        caller: &Caller,
        identity: &Identity,
        method: Option<Method>,
        headers: &HeaderMap,
    ) -> Result<Option<Duration>, Why> {
        // The connection outlives the handshake that checked the certificate.
        self.tls.recheck(identity).map_err(|_| Why::Unidentified)?;
        self.barred.admit(&caller.actor)?;
        let method = method.ok_or(Why::UnknownMethod)?;
        if method.ruled {
            self.access.admit(caller)?;
        }
        match (method.class, deadline(headers)) {
            (Class::Stream, _) => Ok(None),
            (_, Some(deadline)) if deadline <= LONGEST_DEADLINE => Ok(Some(deadline)),
            (_, Some(_) | None) if method.ruled => Err(Why::DeadlineMissing),
            (_, Some(_) | None) => Ok(Some(LONGEST_DEADLINE)),
        }
    }

    fn place(&self, class: Class) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, Why> {
        if class == Class::Stream {
            return Ok(None);
        }
        if class == Class::Plain && self.places.available_permits() <= self.kept {
            return Err(Why::Overloaded);
        }
        self.places.try_acquire().map(Some).map_err(|_| Why::Overloaded)
    }

    async fn refuse(&self, caller: &Caller, why: Why) -> Response<Body> {
        let overloaded = matches!(why, Why::Overloaded);
        let refused = Refused::from(why);
        // Shedding load must not make more of it: what is only too much is counted, and
        // recorded by the second.
        if overloaded {
            caller.recorded.store(true, Ordering::Relaxed);
            metrics::counter!("strongroom_refusals_total", "reason" => "OVERLOADED").increment(1);
            self.tally.count(Reason::Overloaded, caller.method.to_owned());
        } else {
            record_refusal(&self.log, caller, &refused).await;
        }
        Status::from(refused).into_http()
    }

    fn measure(&self, caller: &Caller, response: &Response<Body>, started: Duration) {
        let method = if caller.method.is_empty() { "unknown" } else { caller.method };
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
        let code = format!("{code:?}");
        metrics::counter!("strongroom_rpcs_total", "method" => method, "code" => code).increment(1);
        let seconds = self.clock.elapsed().saturating_sub(started).as_secs_f64();
        metrics::histogram!("strongroom_rpc_seconds", "method" => method).record(seconds);
    }
}

/// Puts a refusal on record. The call is refused in any case, so a log that cannot be written
/// changes nothing for the caller.
pub(crate) async fn record_refusal(log: &Log, caller: &Caller, refused: &Refused) {
    let reason = refused.why.reason().as_str_name();
    metrics::counter!("strongroom_refusals_total", "reason" => reason).increment(1);
    if refused.why.is_ours() {
        tracing::error!(%refused, reason, method = caller.method, "call failed");
    }
    caller.recorded.store(true, Ordering::Relaxed);
    if let Err(why) = log.record_refusal(caller.stamp(refused.record())).await {
        metrics::counter!("strongroom_unrecorded_refusals_total").increment(1);
        tracing::error!(%why, reason, method = caller.method, "refusal not recorded");
    }
}

/// A call in hand. One that ends without an answer of ours, because its deadline passed or its
/// request could not be read, is on record all the same.
struct Pending<'a> {
    log: &'a Log,
    caller: &'a Caller,
}

impl Pending<'_> {
    fn answered(self, response: &Response<Body>) {
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
        if code == Code::Ok {
            self.caller.recorded.store(true, Ordering::Relaxed);
        } else if code != Code::DeadlineExceeded && code != Code::Cancelled {
            self.note(&Why::InvalidField(String::new()).into());
        }
    }

    fn note(&self, refused: &Refused) {
        if !self.caller.recorded.swap(true, Ordering::Relaxed)
            && !self.log.note_refusal(self.caller.stamp(refused.record()))
        {
            metrics::counter!("strongroom_unrecorded_refusals_total").increment(1);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.note(&Why::DeadlinePassed.into());
    }
}

async fn bounded<F>(deadline: Option<Duration>, call: F) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let Some(deadline) = deadline else { return call.await };
    match timeout(deadline, call).await {
        Ok(response) => response,
        Err(_) => Ok(Status::from(Refused::from(Why::DeadlinePassed)).into_http()),
    }
}

fn span(method: Option<Method>, headers: &HeaderMap) -> tracing::Span {
    let span = tracing::info_span!(
        "rpc",
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.method = method.map_or("unknown", |method| method.name),
    );
    telemetry::continue_trace(&span, headers);
    span
}

/// Reads `grpc-timeout`: up to eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Duration>) {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-timeout"),
            text.parse().unwrap(),
        )]);
        assert_eq!(deadline(&headers), expected, "{text:?}");
    }

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        check("5S", Some(Duration::from_secs(5)));
        check("1500m", Some(Duration::from_millis(1500)));
        check("99999999n", Some(Duration::from_nanos(99_999_999)));
        check("999999999n", None);
        check("5", None);
        check("S", None);
        check("5x", None);
        check("-5S", None);
    }
}
