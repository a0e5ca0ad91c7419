use std::{error::Error, sync::Arc, time::Duration};

use domain::{Clock, Dialect, Secret};
use egress::EgressError;
use http::{HeaderValue, Request, Response, StatusCode, header::HOST, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use providers::{Catalogue, Provider};
use strongroom_client::{LeaseKey, UnsealError};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    Leases, Limits, Loan,
    body::{BodyLimits, Buffered, Frames, receive},
    busy::{Busy, ConnectionUse},
    leak::Leak,
    lease_refusal::lease_refusal,
    meters::{self, Meters},
    models::models,
    outgoing::{self, SHORT_WAIT, outgoing},
    presented::Presented,
    refusal::Refusal,
    reply::{Idle, Reply, Stream},
    request_id::RequestIds,
    route::{Call, Operation, Route},
    scan::Model,
    upstream::{Upstream, Upstreams},
    upstream_error::{redirected, upstream_error},
};

/// What happens to each request, from its head to the last byte of its answer.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) leases: Arc<dyn Leases>,
    pub(crate) upstreams: Upstreams,
    pub(crate) catalogue: Catalogue,
    pub(crate) limits: Limits,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) buffered: Buffered,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) ids: RequestIds,
}

/// A call that has its lease and waits for nothing but the provider.
struct Ready {
    loan: Arc<dyn Loan>,
    upstream: Arc<Upstream>,
    secret: Secret,
    key: LeaseKey,
    frames: Frames,
}

impl Gateway {
    /// Answers one request. Whatever goes wrong is told in the shape of the caller's SDK.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        connection: ConnectionUse,
    ) -> Response<Reply> {
        let started = self.clock.elapsed();
        let id = self.ids.next();
        let permit = Arc::clone(&self.calls).try_acquire_owned().ok();
        let shed = permit.is_none();
        let busy = Busy::new(connection, permit);
        let (parts, body) = request.into_parts();
        let route = Route::of(&parts, &self.catalogue);
        let shape = route.shape(&parts, &self.catalogue);
        let answer = if shed {
            self.meters.shed.increment(1);
            Err(overloaded())
        } else {
            let span = span(route.operation(), &parts);
            self.answer(&parts, body, &route, shape, started).instrument(span).await
        };
        let mut response = answer.unwrap_or_else(|refusal| {
            meters::refused(route.operation(), refusal.status);
            refusal.respond(shape, &id)
        });
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-strongroom-request-id", id);
        }
        response.body_mut().hold(busy);
        response
    }

    async fn answer(
        &self,
        parts: &Parts,
        body: Incoming,
        route: &Route<'_>,
        shape: Dialect,
        started: Duration,
    ) -> Result<Response<Reply>, Refusal> {
        check_head(parts)?;
        let call = match route {
            Route::Call(call) => call,
            Route::Models(wanted) => {
                let presented = Presented::read(&parts.headers)?;
                let listed = self.leases.models(&presented.id, &presented.digest).await;
                return models(&listed.map_err(lease_refusal)?, *wanted, shape);
            }
            Route::Nothing => return Err(nothing_here(parts)),
        };
        let presented = Presented::read(&parts.headers)?;
        let (frames, model) = self.body(parts, body).await?;
        let key = lease_key(presented, call, model.as_ref())?;
        let ready = self.prepare(key, frames, model.as_ref()).await?;
        self.send(parts, call, shape, ready, started).await
    }

    async fn body(
        &self,
        parts: &Parts,
        body: Incoming,
    ) -> Result<(Frames, Option<Model>), Refusal> {
        if parts.method == http::Method::GET {
            return Ok((Frames::default(), None));
        }
        let limits = BodyLimits {
            all: self.limits.all_bodies_bytes,
            size: self.limits.body_bytes,
            idle: self.limits.body_idle,
        };
        Ok(receive(body, limits, &self.buffered, &*self.clock).await?)
    }

    /// Gets the lease, its secret and its connections.
    async fn prepare(
        &self,
        key: LeaseKey,
        mut frames: Frames,
        model: Option<&Model>,
    ) -> Result<Ready, Refusal> {
        let span = Span::current();
        span.record("gen_ai.request.model", &*key.model);
        let mut loan = self.leases.lease(&key).await.map_err(lease_refusal)?;
        let secret = match loan.unseal() {
            // It ended between the two lines above.
            Err(UnsealError::Ended) => {
                self.leases.forget(&key);
                loan = self.leases.lease(&key).await.map_err(lease_refusal)?;
                loan.unseal()
            }
            unsealed => unsealed,
        };
        let secret = secret.map_err(|error| {
            tracing::error!(%error, credential = %loan.credential(), "a lease did not open");
            no_lease()
        })?;
        span.record("gen_ai.provider.name", loan.provider().as_str());
        span.record("server.address", loan.base_uri().host().unwrap_or_default());
        let upstream = self.upstreams.for_loan(&loan).map_err(|error| egress_refusal(&error))?;
        if let Some(model) = model
            && !loan.model().is_empty()
            && loan.model() != model.name
        {
            let quoted = serde_json::Value::from(loan.model()).to_string();
            let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
            frames.replace(model.span.clone(), inner.as_bytes());
        }
        Ok(Ready { loan, upstream, secret, key, frames })
    }

    async fn send(
        &self,
        parts: &Parts,
        call: &Call<'_>,
        shape: Dialect,
        ready: Ready,
        started: Duration,
    ) -> Result<Response<Reply>, Refusal> {
        let Ready { loan, upstream, secret, key, frames } = ready;
        let provider = self.catalogue.provider(loan.provider());
        let url = outgoing::url(loan.base_uri(), call.path, parts.uri.query())?;
        let method = parts.method.clone();
        let mut request = outgoing(method, url, &parts.headers, provider, call.dialect, frames);
        if loan.source().is_platforms() {
            request.headers_mut().remove(outgoing::IDEMPOTENCY_KEY);
        }
        let (name, value) = outgoing::secret_header(&*loan, &secret)?;
        request.headers_mut().insert(name, value);
        let answer = timeout(self.limits.first_byte, upstream.client.request(request)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(too_slow()),
        };
        let status = answer.status();
        Span::current().record("http.response.status_code", status.as_u16());
        let waited = self.clock.elapsed().saturating_sub(started);
        upstream.series.answered(call.operation, status, waited);
        let leak = Leak::new(&secret);
        let (head, body) = answer.into_parts();
        let mut response = if status.is_success() {
            let stream = Stream {
                body,
                leak,
                idle: Idle::new(self.limits.answer_idle),
                upstream,
                operation: call.operation,
                started,
                clock: Arc::clone(&self.clock),
                meters: Arc::clone(&self.meters),
            };
            self.pass(&head, stream, provider)?
        } else {
            if status == StatusCode::UNAUTHORIZED {
                self.leases.forget(&key);
            }
            let refusal = self.refuse(&*loan, &head, body, &secret, &leak).await;
            let mut response = refusal.respond(shape, "");
            copy_listed(&head, &mut response, provider, |value| !leak.is_in(value));
            response
        };
        say_who_served(&mut response, &*loan);
        Ok(response)
    }

    /// The provider's answer, with only those of its headers that are on the list.
    fn pass(
        &self,
        head: &http::response::Parts,
        stream: Stream,
        provider: Option<&Provider>,
    ) -> Result<Response<Reply>, Refusal> {
        if head.headers.values().any(|value| stream.leak.is_in(value.as_bytes())) {
            self.meters.leaks.increment(1);
            tracing::error!(upstream = ?stream.upstream, "an answer's headers held the leased secret");
            return Err(failed_answer());
        }
        let mut response = Response::new(Reply::stream(stream));
        *response.status_mut() = head.status;
        for name in ["content-type", "content-encoding"] {
            if let Some(value) = head.headers.get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        copy_listed(head, &mut response, provider, |_| true);
        Ok(response)
    }

    async fn refuse(
        &self,
        loan: &dyn Loan,
        head: &http::response::Parts,
        body: Incoming,
        secret: &Secret,
        leak: &Leak,
    ) -> Refusal {
        if head.status.is_redirection() {
            return redirected(loan.provider(), head.status);
        }
        // An error that is too long or too slow to read is told by its status alone.
        let body =
            timeout(self.limits.body_idle, Limited::new(body, LONGEST_ERROR).collect()).await;
        let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        upstream_error(loan.provider(), head.status, &head.headers, &body, secret, leak)
    }
}

fn lease_key(
    presented: Presented,
    call: &Call<'_>,
    model: Option<&Model>,
) -> Result<LeaseKey, Refusal> {
    let model = call.model.or(model.map(|model| &*model.name));
    if model.is_none() && call.needs_model {
        return Err(Refusal::bad_request(
            "missing_model",
            "the request body has no `model`: name one, as in \"model\": \"gpt-4o\"; \
             GET /v1/models lists those that this key reaches",
        )
        .about("model"));
    }
    Ok(LeaseKey {
        virtual_key: presented.id,
        digest: presented.digest,
        dialect: call.dialect,
        provider: call.provider.clone(),
        model: model.unwrap_or_default().to_owned(),
    })
}

fn check_head(parts: &Parts) -> Result<(), Refusal> {
    if parts.uri.path_and_query().is_some_and(|path| path.as_str().len() > LONGEST_URI) {
        let message = "the request's path is longer than 8192 bytes";
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "uri_too_long", message));
    }
    // The HTTP library's own limit is one of its buffer, and only roughly kept.
    let size: usize =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > LARGEST_HEADERS {
        let message = "the request's headers are larger than 32 KiB";
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refusal::new(status, "headers_too_large", message));
    }
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("duplicate_host", "the request has more than one Host"));
    }
    Ok(())
}

fn copy_listed(
    head: &http::response::Parts,
    response: &mut Response<Reply>,
    provider: Option<&Provider>,
    may: impl Fn(&[u8]) -> bool,
) {
    for name in provider.map(Provider::pass_back_headers).unwrap_or_default() {
        if let Some(value) = head.headers.get(name).filter(|value| may(value.as_bytes()))
            && !response.headers().contains_key(name)
        {
            response.headers_mut().insert(name, value.clone());
        }
    }
}

fn say_who_served(response: &mut Response<Reply>, loan: &dyn Loan) {
    let headers = response.headers_mut();
    headers.insert("x-strongroom-source", HeaderValue::from_static(loan.source().as_str()));
    if let Ok(provider) = HeaderValue::from_str(loan.provider().as_str()) {
        headers.insert("x-strongroom-provider", provider);
    }
    if let Ok(credential) = HeaderValue::try_from(loan.credential().to_string()) {
        headers.insert("x-strongroom-credential", credential);
    }
}

fn span(operation: Operation, parts: &Parts) -> Span {
    let span = tracing::info_span!(
        "call",
        otel.name = operation.gen_ai_name(),
        otel.kind = "server",
        gen_ai.operation.name = operation.gen_ai_name(),
        gen_ai.request.model = Empty,
        gen_ai.provider.name = Empty,
        server.address = Empty,
        http.response.status_code = Empty,
    );
    if !span.is_disabled() {
        telemetry::continue_trace(&span, &parts.headers);
    }
    span
}

fn failed(error: &hyper_util::client::legacy::Error) -> Refusal {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<EgressError>() {
            return egress_refusal(error);
        }
        cause = error.source();
    }
    tracing::warn!(%error, "the provider did not answer");
    failed_answer()
}

fn failed_answer() -> Refusal {
    let message = "the provider broke off before its answer could be used";
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_failed", message)
}

fn egress_refusal(error: &EgressError) -> Refusal {
    if error.is_refusal() {
        let message = format!(
            "the provider's address was not called: {error}. Whoever runs this gateway can allow \
             networks in `egress.allow`"
        );
        return Refusal::new(StatusCode::BAD_GATEWAY, "upstream_address_refused", message)
            .and_final();
    }
    tracing::warn!(%error, "the provider was not reached");
    let message = format!("the provider was not reached: {error}; nothing was sent, try again");
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", message).retry_after(SHORT_WAIT)
}

fn too_slow() -> Refusal {
    let message = "the provider did not begin its answer in time";
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
}

fn no_lease() -> Refusal {
    let message = "no credential can be lent at the moment; nothing was sent, try again";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", message)
        .retry_after(SHORT_WAIT)
}

fn overloaded() -> Refusal {
    let message = "this gateway has too many calls in hand; nothing was sent, try again";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).retry_after(SHORT_WAIT)
}

fn nothing_here(parts: &Parts) -> Refusal {
    // The path is not repeated: someone may have put a key into it.
    let message = format!(
        "nothing is served at this path by {}: use POST /v1/chat/completions, /v1/completions, \
         /v1/embeddings, /v1/responses, /v1/moderations (OpenAI), POST /v1/messages, \
         /v1/messages/count_tokens (Anthropic), GET /v1/models, or a provider's own path behind its \
         name, as in /openai/v1/responses",
        parts.method,
    );
    Refusal::new(StatusCode::NOT_FOUND, "unknown_path", message)
}

const LARGEST_HEADERS: usize = 32 << 10;
const LONGEST_URI: usize = 8 << 10;
const LONGEST_ERROR: usize = 64 << 10;
