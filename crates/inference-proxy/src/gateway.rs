use std::{net::IpAddr, sync::Arc, time::Duration};

use domain::{Clock, Dialect, EndpointKind, ProviderId};
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use ipnet::IpNet;
use providers::Catalogue;
use strongroom_client::LeaseKey;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    Leases, Limits,
    body::{BodyLimits, Buffered, Frames, receive},
    busy::{Busy, ConnectionUse},
    calling::Asked,
    lease_refusal::lease_refusal,
    metering::Metering,
    meters::{self, Meters},
    models::models,
    place,
    presented::Presented,
    refusal::Refusal,
    reply::Reply,
    request_id::RequestIds,
    route::{Call, Operation, Route},
    scan::Outline,
    trouble::overloaded,
    upstream::Upstreams,
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
    /// Whose word on where a call comes from counts.
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) metering: Arc<Metering>,
}

/// How a request came.
#[derive(Clone, Copy)]
struct Came<'a> {
    id: &'a str,
    started: Duration,
    peer: IpAddr,
}

impl Gateway {
    /// Answers one request. Whatever goes wrong is told in the shape of the caller's SDK.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        connection: ConnectionUse,
        peer: IpAddr,
    ) -> Response<Reply> {
        let started = self.clock.elapsed();
        let id = self.ids.next();
        let permit = Arc::clone(&self.calls).try_acquire_owned().ok();
        let shed = permit.is_none();
        let doubtful = connection.is_doubtful();
        let busy = Busy::new(connection, permit);
        let (parts, body) = request.into_parts();
        let route = Route::of(&parts, &self.catalogue);
        let shape = route.shape(&parts, &self.catalogue);
        let answer = if doubtful {
            Err(two_lengths())
        } else if shed {
            self.meters.shed.increment(1);
            Err(overloaded())
        } else {
            let span = span(route.operation(), &parts);
            let came = Came { id: &id, started, peer };
            self.answer(&parts, body, &route, shape, came).instrument(span).await
        };
        let mut response = answer.unwrap_or_else(|refusal| {
            meters::refused(route.operation(), None, refusal.word(), refusal.status);
            refusal.respond(shape, &id)
        });
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-strongroom-request-id", id);
        }
        if doubtful {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
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
        came: Came<'_>,
    ) -> Result<Response<Reply>, Refusal> {
        check_head(parts)?;
        let source = place::caller(came.peer, &parts.headers, &self.trusted_proxies);
        let call = match route {
            Route::Call(call) => call,
            Route::Models(wanted) => {
                let presented = Presented::read(&parts.headers)?;
                let listed = self.leases.models(&presented.id, &presented.digest).await;
                let listed = listed.map_err(lease_refusal)?;
                let terms = place::told(&listed.endpoints, &listed.networks)?;
                place::check(&terms, EndpointKind::Models, source)?;
                return models(&listed.models, *wanted, shape);
            }
            Route::Explain => {
                let presented = Presented::read(&parts.headers)?;
                return self.explain(presented, source, body).await;
            }
            Route::NotPassed(provider) => return Err(self.not_passed(provider)),
            Route::NoProvider => return Err(self.no_provider()),
            Route::Nothing => return Err(nothing_here(parts)),
        };
        let presented = Presented::read(&parts.headers)?;
        let (frames, outline) = self.body(parts, body).await?;
        let key = lease_key(presented, call, &outline)?;
        Span::current().record("gen_ai.request.model", &*key.model);
        let Came { id, started, .. } = came;
        let asked = Asked { parts, call, shape, outline: &outline, id, started, source };
        self.call(&asked, key, frames).await
    }

    async fn body(&self, parts: &Parts, body: Incoming) -> Result<(Frames, Outline), Refusal> {
        if parts.method == http::Method::GET {
            return Ok((Frames::default(), Outline::default()));
        }
        let limits = BodyLimits {
            all: self.limits.all_bodies_bytes,
            size: self.limits.body_bytes,
            idle: self.limits.body_idle,
        };
        Ok(receive(body, limits, &self.buffered, &*self.clock).await?)
    }

    fn not_passed(&self, provider: &ProviderId) -> Refusal {
        let paths = self.catalogue.provider(provider).map(providers::Provider::native_paths);
        let paths = paths.unwrap_or_default().iter();
        let paths = paths.map(|path| format!("{} /{provider}{}", path.method, path.template));
        let message = format!(
            "this is not one of the calls of {provider}'s own API that are passed through: {}",
            paths.collect::<Vec<_>>().join(", "),
        );
        Refusal::new(StatusCode::NOT_FOUND, "unknown_path", message)
    }

    fn no_provider(&self) -> Refusal {
        let known = self.catalogue.providers().iter().map(|provider| provider.id().as_str());
        let mut known = known.collect::<Vec<_>>();
        known.sort_unstable();
        // The path is not repeated: someone may have put a key into it.
        let message = format!(
            "nothing is served at this path: no provider is called what it begins with; there are {}. \
             Calls in the formats of OpenAI and Anthropic are served below /v1",
            known.join(", "),
        );
        Refusal::new(StatusCode::NOT_FOUND, "provider_not_found", message)
    }
}

fn lease_key(
    presented: Presented,
    call: &Call<'_>,
    outline: &Outline,
) -> Result<LeaseKey, Refusal> {
    let in_body = outline.model.as_ref().map(|model| &*model.name);
    let model = call.model.as_deref().or(in_body);
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

fn two_lengths() -> Refusal {
    let message = "the request has a Content-Length and a Transfer-Encoding: send one of them";
    Refusal::bad_request("ambiguous_length", message)
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
