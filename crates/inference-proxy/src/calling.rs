use std::{net::IpAddr, sync::Arc, time::Duration};

use domain::{Dialect, Failure, ProviderId, Secret, Source};
use http::{HeaderValue, Request, Response, request::Parts};
use hyper::body::Incoming;
use providers::Proof;
use strongroom_client::{FailedAttempt, LeaseError, LeaseKey, UnsealError};
use tokio::time::timeout;
use tracing::Span;

use crate::{
    Loan,
    aim::{aim, is_native},
    answering::Sent,
    body::Frames,
    gateway::Gateway,
    lease_refusal::lease_refusal,
    limit_headers::tell_limits,
    metering::{self, PlanFor, Tab, Waiting},
    meters,
    outgoing::{self, outgoing, unusable},
    place,
    refusal::Refusal,
    reply::Reply,
    rewriting::rewrite,
    route::Call,
    scan::Outline,
    steering,
    tried::Tried,
    trouble::{egress_refusal, failed, no_lease, too_slow},
    upstream::Upstream,
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
pub(crate) struct Attempt {
    pub(crate) response: Response<Reply>,
    /// What went wrong; with another credential it might not.
    pub(crate) failure: Option<Failure>,
    /// What this gateway calls the error that the answer is, if it is its own and not a provider's.
    pub(crate) own: Option<&'static str>,
    pub(crate) provider: ProviderId,
    pub(crate) source: Source,
}

impl Attempt {
    /// The answer as what the caller gets.
    fn finish(self, asked: &Asked<'_>) -> Response<Reply> {
        if let Some(code) = self.own {
            let chosen = Some((&self.provider, self.source));
            meters::refused(asked.call.operation, chosen, code, self.response.status());
        }
        self.response
    }
}

impl Gateway {
    /// Makes a call, and sees to it that what it came to is told, however it ends.
    pub(crate) async fn call(
        &self,
        asked: &Asked<'_>,
        key: LeaseKey,
        frames: Frames,
    ) -> Result<Response<Reply>, Refusal> {
        let what = (asked.call.dialect, asked.call.operation);
        let mut tab = Some(Tab::open(&self.metering, asked.started, what, &key.model));
        let mut answer = self.attempts(asked, key, frames, &mut tab).await;
        // Of an answer that passes the tab has gone with it.
        if let Some(tab) = tab {
            let status = answer.as_ref().map_or_else(|refusal| refusal.status, Response::status);
            if let Ok(response) = &mut answer {
                tell_limits(response.headers_mut(), tab.limits());
            }
            tab.end_without_answer(status);
        }
        answer
    }

    /// One credential after the other as long as they fail and the broker lends others. Once an answer
    /// is handed on nothing is tried again: the caller may have its first byte.
    async fn attempts(
        &self,
        asked: &Asked<'_>,
        key: LeaseKey,
        mut frames: Frames,
        tab: &mut Option<Tab>,
    ) -> Result<Response<Reply>, Refusal> {
        let (mut loan, mut secret) = self.open(asked, &key).await?;
        let mut tried = Tried::default();
        loop {
            let began = self.clock.elapsed();
            // Of the last credential's failure the broker hears, too: it says that all have failed.
            let goes_on = loan.has_fallback() || !tried.all().is_empty();
            let goes_on = goes_on && tried.all().len() + 1 < MOST_ATTEMPTS;
            let again = if goes_on { frames.again(LONGEST_REPEATED) } else { None };
            let attempt = self.attempt(asked, (&loan, &secret), &key, frames, tab).await;
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
        (loan, secret): (&Arc<dyn Loan>, &Secret),
        key: &LeaseKey,
        mut frames: Frames,
        tab: &mut Option<Tab>,
    ) -> Result<Attempt, Refusal> {
        let call = asked.call;
        let span = Span::current();
        span.record("gen_ai.provider.name", loan.provider().as_str());
        span.record("server.address", loan.base_uri().host().unwrap_or_default());
        let provider = self.catalogue.provider(loan.provider());
        let provider = provider.ok_or_else(|| unusable("its provider"))?;
        let in_path = model_in_path(call, &**loan);
        let mut target = aim(provider, &**loan, call, asked.outline.streams)?;
        steering::check(provider, &mut frames)?;
        metering::ask_for_usage(provider, call, asked.outline.streams, &mut target);
        let hides_usage = rewrite(&mut frames, asked.outline, in_path, &target)?;
        let url = outgoing::url(&target, provider, is_native(call), asked.parts.uri.query())?;
        let upstream = self.upstreams.for_loan(loan, secret);
        let upstream = upstream.map_err(|error| egress_refusal(&error))?;
        let planned = PlanFor { call, loan, provider, target: &target, key, upstream: &upstream };
        self.metering.begin(&planned, &mut frames, tab).await?;
        let method = asked.parts.method.clone();
        let mut request = outgoing(method, url, &asked.parts.headers, provider, &target, frames);
        if loan.source().is_platforms() {
            request.headers_mut().remove(outgoing::IDEMPOTENCY_KEY);
        }
        if target.proof != Proof::Nothing {
            let (name, value) = outgoing::secret_header(&**loan, secret)?;
            request.headers_mut().insert(name, value);
        }
        let answer = match self.send(&upstream, request, tab).await {
            Ok(answer) => answer,
            Err((failure, refusal)) => return Ok(own(asked, &**loan, failure, &refusal)),
        };
        let sent = Sent { asked, loan, key, provider, secret, upstream, hides_usage };
        self.answered(&sent, answer, tab).await
    }

    /// The provider's answer, or what went wrong before there was one.
    async fn send(
        &self,
        upstream: &Upstream,
        request: Request<Frames>,
        tab: &mut Option<Tab>,
    ) -> Result<Response<Incoming>, (Option<Failure>, Refusal)> {
        let mut waiting = Waiting::new(&self.metering, upstream.client.request(request), tab);
        let answer = timeout(self.limits.first_byte, &mut waiting).await;
        waiting.give_up();
        drop(waiting);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let (failure, refusal) = failed(&error);
                let was_reached = failure.is_some_and(|failure| failure != Failure::Unreachable);
                if let (Some(tab), false) = (tab, was_reached) {
                    tab.not_reached();
                }
                Err((failure, refusal))
            }
            Err(_) => Err((Some(Failure::TimedOut), too_slow())),
        }
    }
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
pub(crate) fn own(
    asked: &Asked<'_>,
    loan: &dyn Loan,
    failure: Option<Failure>,
    refusal: &Refusal,
) -> Attempt {
    let mut response = refusal.respond(asked.shape, asked.id);
    say_who_served(&mut response, loan);
    Attempt {
        response,
        failure,
        own: Some(refusal.word()),
        provider: loan.provider().clone(),
        source: loan.source(),
    }
}

/// The model of the path, as it goes out.
fn model_in_path<'a>(call: &'a Call<'_>, loan: &'a dyn Loan) -> Option<&'a str> {
    let named = call.model.as_deref()?;
    Some(if loan.model().is_empty() { named } else { loan.model() })
}

pub(crate) fn say_who_served(response: &mut Response<Reply>, loan: &dyn Loan) {
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
