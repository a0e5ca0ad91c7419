use std::{net::IpAddr, sync::Arc, time::Duration};

use domain::{Dialect, Failure, Secret};
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use providers::{Answer, Proof, Provider};
use strongroom_client::{FailedAttempt, LeaseError, LeaseKey, UnsealError};
use tokio::time::timeout;
use tracing::Span;

use crate::{
    Loan,
    aim::{aim, is_native},
    beginning::{Begun, Failed},
    body::Frames,
    gateway::Gateway,
    hidden_usage::HiddenUsage,
    leak::Leak,
    lease_refusal::lease_refusal,
    meters,
    outgoing::{self, outgoing, unusable},
    place,
    refusal::Refusal,
    reply::{Idle, Reply, Stream},
    rewriting::rewrite,
    route::Call,
    scan::Outline,
    tried::Tried,
    trouble::{egress_refusal, failed, failed_answer, no_lease, too_slow},
    upstream_error::{redirected, upstream_error},
};

/// What a caller asks for, as it arrived.
pub(crate) struct Asked<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) call: &'a Call<'a>,
    /// In which shape errors are told.
    pub(crate) shape: Dialect,
    pub(crate) outline: &'a Outline,
    pub(crate) id: &'a str,
    pub(crate) started: Duration,
    /// Where it comes from, if that is known.
    pub(crate) source: Option<IpAddr>,
}

/// What came of one attempt at a call: an answer for the caller, of which no byte has been sent yet.
struct Attempt {
    response: Response<Reply>,
    /// What went wrong; with another credential it might not.
    failure: Option<Failure>,
    /// Whether the answer is this gateway's and not a provider's.
    is_own: bool,
}

impl Attempt {
    /// The answer as what the caller gets.
    fn finish(self, asked: &Asked<'_>) -> Response<Reply> {
        if self.is_own {
            meters::refused(asked.call.operation, self.response.status());
        }
        self.response
    }
}

impl Gateway {
    /// Makes a call, with one credential after the other as long as they fail and the broker lends
    /// others. Once an answer is handed on nothing is tried again: the caller may have its first byte.
    pub(crate) async fn call(
        &self,
        asked: &Asked<'_>,
        key: LeaseKey,
        mut frames: Frames,
    ) -> Result<Response<Reply>, Refusal> {
        let (mut loan, mut secret) = self.open(asked, &key).await?;
        let mut tried = Tried::default();
        loop {
            let began = self.clock.elapsed();
            // Of the last credential's failure the broker hears, too: it says that all have failed.
            let goes_on = loan.has_fallback() || !tried.all().is_empty();
            let goes_on = goes_on && tried.all().len() + 1 < MOST_ATTEMPTS;
            let again = if goes_on { frames.again(LONGEST_REPEATED) } else { None };
            let attempt = self.attempt(asked, &loan, &secret, &key, frames).await;
            let mut attempt = attempt.unwrap_or_else(|refusal| own(asked, &*loan, None, &refusal));
            let Some(failure) = attempt.failure.filter(|failure| failure.may_fall_back()) else {
                tried.tell(&mut attempt.response);
                return Ok(attempt.finish(asked));
            };
            let (credential, version) = (loan.credential().clone(), loan.credential_version());
            let failed = FailedAttempt { credential, version, failure, began };
            let Some(body) = again else {
                self.leases.report(&key, failed);
                if goes_on {
                    let why = format!("the request's body is longer than {LONGEST_REPEATED} bytes");
                    tried.tell_why_not(&mut attempt.response, &why);
                } else {
                    tried.tell(&mut attempt.response);
                }
                return Ok(attempt.finish(asked));
            };
            tried.push(failed);
            match self.next_loan(&key, &tried).await {
                Ok((next, opened)) => {
                    permit(asked, &*next)?;
                    meters::fell_back(loan.provider(), failure);
                    (loan, secret, frames) = (next, opened, body);
                }
                Err(Exhausted::All(retry_after)) => {
                    let refusal = tried.exhausted(retry_after);
                    let mut answer = own(asked, &*loan, None, &refusal);
                    tried.tell(&mut answer.response);
                    return Ok(answer.finish(asked));
                }
                Err(Exhausted::NotNow(why)) => {
                    tried.tell_why_not(&mut attempt.response, why);
                    return Ok(attempt.finish(asked));
                }
            }
        }
    }

    /// A lease that permits the call, and its secret.
    async fn open(
        &self,
        asked: &Asked<'_>,
        key: &LeaseKey,
    ) -> Result<(Arc<dyn Loan>, Secret), Refusal> {
        let mut loan = self.leases.lease(key).await.map_err(lease_refusal)?;
        permit(asked, &*loan)?;
        let secret = match loan.unseal() {
            // It ended between the two lines above.
            Err(UnsealError::Ended) => {
                self.leases.forget(key);
                loan = self.leases.lease(key).await.map_err(lease_refusal)?;
                permit(asked, &*loan)?;
                loan.unseal()
            }
            unsealed => unsealed,
        };
        let secret = secret.map_err(|error| {
            tracing::error!(%error, credential = %loan.credential(), "a lease did not open");
            no_lease()
        })?;
        Ok((loan, secret))
    }

    /// The lease to go on with: what the broker lends in answer to the failures, and nothing else.
    async fn next_loan(
        &self,
        key: &LeaseKey,
        tried: &Tried,
    ) -> Result<(Arc<dyn Loan>, Secret), Exhausted> {
        let loan = self.leases.fall_back(key, tried.all()).await.map_err(|error| match error {
            LeaseError::Refused { reason, retry_after, .. }
                if reason == "CREDENTIALS_EXHAUSTED" =>
            {
                Exhausted::All(retry_after)
            }
            LeaseError::Refused { .. } | LeaseError::BadLease => {
                Exhausted::NotNow("the broker refused another credential")
            }
            LeaseError::Unavailable { .. } => {
                Exhausted::NotNow("the broker could not lend another credential")
            }
        })?;
        if tried.has(loan.credential(), loan.credential_version()) {
            // Better one failed call than going round in circles.
            return Err(Exhausted::NotNow("the broker lent a credential that has failed"));
        }
        let secret = loan.unseal();
        Ok((loan, secret.map_err(|_| Exhausted::NotNow("another credential's lease has ended"))?))
    }

    /// Sends the call once. An error is one that no other credential can help.
    async fn attempt(
        &self,
        asked: &Asked<'_>,
        loan: &Arc<dyn Loan>,
        secret: &Secret,
        key: &LeaseKey,
        mut frames: Frames,
    ) -> Result<Attempt, Refusal> {
        let call = asked.call;
        let span = Span::current();
        span.record("gen_ai.provider.name", loan.provider().as_str());
        span.record("server.address", loan.base_uri().host().unwrap_or_default());
        let provider = self.catalogue.provider(loan.provider());
        let provider = provider.ok_or_else(|| unusable("its provider"))?;
        let target = aim(provider, &**loan, call, asked.outline.streams)?;
        let in_path = model_in_path(call, &**loan);
        let hides_usage = rewrite(&mut frames, asked.outline, in_path, &target)?;
        let url = outgoing::url(&target, provider, is_native(call), asked.parts.uri.query())?;
        let upstream = self.upstreams.for_loan(loan).map_err(|error| egress_refusal(&error))?;
        let method = asked.parts.method.clone();
        let mut request = outgoing(method, url, &asked.parts.headers, provider, &target, frames);
        if loan.source().is_platforms() {
            request.headers_mut().remove(outgoing::IDEMPOTENCY_KEY);
        }
        if target.proof != Proof::Nothing {
            let (name, value) = outgoing::secret_header(&**loan, secret)?;
            request.headers_mut().insert(name, value);
        }
        let answer = match timeout(self.limits.first_byte, upstream.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let (failure, refusal) = failed(&error);
                return Ok(own(asked, &**loan, failure, &refusal));
            }
            Err(_) => {
                return Ok(own(asked, &**loan, Some(Failure::TimedOut), &too_slow()));
            }
        };
        let status = answer.status();
        span.record("http.response.status_code", status.as_u16());
        let waited = self.clock.elapsed().saturating_sub(asked.started);
        upstream.series.answered(call.operation, status, waited);
        let leak = Leak::new(secret);
        let (head, body) = answer.into_parts();
        let mut body = Begun::new(body);
        if let Some(error) = self.error_of(&head, &mut body, provider).await {
            let answer = Refused { head: &head, error, provider, secret, leak: &leak };
            return Ok(self.told(asked, loan, key, &answer));
        }
        let hidden_usage = (hides_usage && is_events(&head)).then(HiddenUsage::default);
        let stream = Stream {
            body,
            leak,
            hidden_usage,
            idle: Idle::new(self.limits.answer_idle),
            upstream,
            operation: call.operation,
            started: asked.started,
            clock: Arc::clone(&self.clock),
            meters: Arc::clone(&self.meters),
        };
        let mut response = self.pass(&head, stream, provider)?;
        say_who_served(&mut response, &**loan);
        Ok(Attempt { response, failure: None, is_own: false })
    }

    /// The provider's answer, with only those of its headers that are on the list.
    fn pass(
        &self,
        head: &http::response::Parts,
        stream: Stream,
        provider: &Provider,
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

    /// The error that an answer is, if it is one. What is too long or too slow to read is told by its
    /// status alone.
    async fn error_of(
        &self,
        head: &http::response::Parts,
        body: &mut Begun,
        provider: &Provider,
    ) -> Option<Failed> {
        let status = head.status;
        if status.is_success() {
            let may_hide = provider.hides_errors() && is_plain(head);
            return if may_hide { body.error(is_events(head), provider).await } else { None };
        }
        let all = timeout(self.limits.body_idle, Limited::new(body, LONGEST_ERROR).collect()).await;
        let all = all.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
        Some(Failed { status, body: all.unwrap_or_default() })
    }

    /// The provider's error: what it means, and how the caller is told.
    fn told(
        &self,
        asked: &Asked<'_>,
        loan: &Arc<dyn Loan>,
        key: &LeaseKey,
        answer: &Refused<'_>,
    ) -> Attempt {
        let Refused { head, error: Failed { status, body }, provider, secret, leak } = answer;
        let status = *status;
        if status == StatusCode::UNAUTHORIZED {
            self.leases.forget(key);
        }
        let headers = &head.headers;
        let failure = provider.failure(Answer { status: status.as_u16(), headers, body });
        let refusal = if status.is_redirection() {
            redirected(loan.provider(), status)
        } else {
            upstream_error(loan.provider(), (status, failure), headers, body, secret, leak)
        };
        let mut response = refusal.respond(asked.shape, asked.id);
        copy_listed(head, &mut response, provider, |value| !leak.is_in(value));
        say_who_served(&mut response, &**loan);
        Attempt { response, failure, is_own: false }
    }
}

/// An answer that is an error, with what is needed to tell of it safely.
struct Refused<'a> {
    head: &'a http::response::Parts,
    error: Failed,
    provider: &'a Provider,
    secret: &'a Secret,
    leak: &'a Leak,
}

/// Why there is no other credential to go on with.
enum Exhausted {
    /// Policy names no other that could be tried now; when that may be different, if it is known.
    All(Option<Duration>),
    /// There may be one, but it cannot be had.
    NotNow(&'static str),
}

/// Refuses a call that the lease's virtual key is not for.
fn permit(asked: &Asked<'_>, loan: &dyn Loan) -> Result<(), Refusal> {
    place::check(loan.key_terms(), asked.call.endpoint(), asked.source)
}

/// An answer of this gateway's own.
fn own(asked: &Asked<'_>, loan: &dyn Loan, failure: Option<Failure>, refusal: &Refusal) -> Attempt {
    let mut response = refusal.respond(asked.shape, asked.id);
    say_who_served(&mut response, loan);
    Attempt { response, failure, is_own: true }
}

fn is_events(head: &http::response::Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream")) && is_plain(head)
}

/// The model of the path, as it goes out.
fn model_in_path<'a>(call: &'a Call<'_>, loan: &'a dyn Loan) -> Option<&'a str> {
    let named = call.model.as_deref()?;
    Some(if loan.model().is_empty() { named } else { loan.model() })
}

fn is_plain(head: &http::response::Parts) -> bool {
    !head.headers.contains_key("content-encoding")
}

fn copy_listed(
    head: &http::response::Parts,
    response: &mut Response<Reply>,
    provider: &Provider,
    may: impl Fn(&[u8]) -> bool,
) {
    for name in provider.pass_back_headers() {
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
    for (name, value) in [
        ("x-strongroom-provider", loan.provider().as_str()),
        ("x-strongroom-credential", &*loan.credential().to_string()),
        ("x-strongroom-route", loan.because()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
}

/// The broker decides how often; this only ends what should have ended long ago.
const MOST_ATTEMPTS: usize = 8;
/// A body longer than this is sent once: keeping it until the answer begins would cost too much.
const LONGEST_REPEATED: usize = 1 << 20;
const LONGEST_ERROR: usize = 64 << 10;
