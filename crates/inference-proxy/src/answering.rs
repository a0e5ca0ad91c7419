use std::sync::Arc;

use domain::{Failure, Secret};
use http::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
    response::Parts,
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use providers::{Answer, Provider};
use strongroom_client::LeaseKey;
use tokio::time::timeout;
use tracing::Span;

use crate::{
    Loan,
    beginning::{Begun, Failed},
    calling::{Asked, Attempt, own, say_who_served},
    encoding::is_encoded,
    gateway::Gateway,
    hidden_usage::HiddenUsage,
    leak::{Leak, Leaked},
    limit_headers::tell_limits,
    metering::{self, Tab},
    meters::Reason,
    refusal::Refusal,
    reply::{Idle, Ready, Reply, Stream},
    reporter::Reporter,
    trouble::{encoded_answer, garbled, withheld},
    upstream::Upstream,
    upstream_error::{redirected, upstream_error},
};

/// A call that went out, and with what.
pub(crate) struct Sent<'a> {
    pub(crate) asked: &'a Asked<'a>,
    pub(crate) loan: &'a Arc<dyn Loan>,
    pub(crate) key: &'a LeaseKey,
    pub(crate) provider: &'a Provider,
    pub(crate) secret: &'a Secret,
    pub(crate) upstream: Arc<Upstream>,
    /// Whether figures of usage were asked for that the caller must not see.
    pub(crate) hides_usage: bool,
}

/// An answer that is an error, with what is needed to tell of it safely.
struct Refused<'a> {
    head: &'a Parts,
    error: Failed,
    leak: &'a Leak,
    reporter: &'a Reporter,
}

impl Sent<'_> {
    /// What came of it, where the answer is the provider's.
    fn attempt(&self, response: Response<Reply>, failure: Option<Failure>) -> Attempt {
        let (provider, source) = (self.loan.provider().clone(), self.loan.source());
        Attempt { response, failure, own: None, provider, source }
    }
}

impl Gateway {
    /// What becomes of a provider's answer: it passes, or the caller is told what is wrong with it.
    pub(crate) async fn answered(
        &self,
        sent: &Sent<'_>,
        answer: Response<Incoming>,
        tab: &mut Option<Tab>,
    ) -> Result<Attempt, Refusal> {
        let (head, body) = answer.into_parts();
        let (asked, provider) = (sent.asked, sent.provider);
        Span::current().record("http.response.status_code", head.status.as_u16());
        let waited = self.clock.elapsed().saturating_sub(asked.started);
        let reason = Reason::of(sent.loan.because());
        sent.upstream.series.answered(asked.call.operation, reason, head.status, waited);
        if let Some(refusal) = unusable(&head) {
            let trouble = Some(Failure::ProviderTrouble);
            return Ok(own(asked, &**sent.loan, trouble, &refusal));
        }
        let reporter = self.reporter(sent);
        let leak = Leak::new(sent.secret);
        let mut body = Begun::new(body);
        if let Some(error) = self.error_of(&head, &mut body, provider).await {
            if let Some(tab) = tab {
                tab.answered_with_error(error.status);
            }
            let answer = Refused { head: &head, error, leak: &leak, reporter: &reporter };
            return Ok(self.told(sent, &answer));
        }
        let is_events = is_events(&head);
        let limits = tab.as_ref().map(|tab| tab.limits().to_vec()).unwrap_or_default();
        let stream = Stream {
            body: metering::Answer::new(&self.metering, tab.take(), &head, body),
            leak,
            hidden_usage: (sent.hides_usage && is_events).then(HiddenUsage::default),
            idle: Idle::new(self.limits.answer_idle),
            upstream: Arc::clone(&sent.upstream),
            operation: asked.call.operation,
            started: asked.started,
            clock: Arc::clone(&self.clock),
            reporter,
            events: is_events.then_some(asked.shape),
            ready: Ready::default(),
        };
        let Ok(mut response) = pass(&head, stream, sent).await else {
            return Ok(own(asked, &**sent.loan, None, &withheld()));
        };
        tell_limits(response.headers_mut(), &limits);
        say_who_served(&mut response, &**sent.loan);
        Ok(sent.attempt(response, None))
    }

    fn reporter(&self, sent: &Sent<'_>) -> Reporter {
        Reporter {
            leases: Arc::clone(&self.leases),
            meters: Arc::clone(&self.meters),
            loan: Arc::clone(sent.loan),
            key: sent.key.clone(),
            request_id: sent.asked.id.to_owned(),
            began: sent.asked.started,
        }
    }

    /// The error that an answer is, if it is one. What is too long, too slow or not in a form to read is
    /// told by its status alone.
    async fn error_of(
        &self,
        head: &Parts,
        body: &mut Begun,
        provider: &Provider,
    ) -> Option<Failed> {
        let status = head.status;
        if status.is_success() {
            let may_hide = provider.hides_errors();
            return if may_hide { body.error(is_events(head), provider).await } else { None };
        }
        if is_encoded(&head.headers) {
            return Some(Failed { status, body: bytes::Bytes::new() });
        }
        let all = timeout(self.limits.body_idle, Limited::new(body, LONGEST_ERROR).collect()).await;
        let all = all.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
        Some(Failed { status, body: all.unwrap_or_default() })
    }

    /// The provider's error: what it means, and how the caller is told.
    fn told(&self, sent: &Sent<'_>, answer: &Refused<'_>) -> Attempt {
        let Refused { head, error: Failed { status, body }, leak, reporter } = answer;
        let Sent { asked, loan, provider, .. } = sent;
        let status = *status;
        if status == StatusCode::UNAUTHORIZED {
            self.leases.forget(sent.key);
        }
        let headers = &head.headers;
        // What is told of it has nothing of the secret in it.
        if leak.is_in(body) {
            reporter.secret_in("error");
        } else if is_in_headers(leak, head) {
            reporter.secret_in("headers");
        }
        let failure = provider.failure(Answer { status: status.as_u16(), headers, body });
        let refusal = if status.is_redirection() {
            redirected(loan.provider(), status)
        } else {
            upstream_error(loan.provider(), (status, failure), headers, body, sent.secret, leak)
        };
        let mut response = refusal.respond(asked.shape, asked.id);
        copy_listed(head, &mut response, provider, |value| !leak.is_in(value.as_bytes()));
        say_who_served(&mut response, &***loan);
        sent.attempt(response, failure)
    }
}

/// The provider's answer, with only those of its headers that are on the list.
async fn pass(
    head: &Parts,
    mut stream: Stream,
    sent: &Sent<'_>,
) -> Result<Response<Reply>, Leaked> {
    if is_in_headers(&stream.leak, head) {
        stream.body.withhold(Some(withheld().status));
        stream.reporter.secret_in("headers");
        return Err(Leaked);
    }
    if is_whole(head, sent.asked) {
        stream.gather().await?;
    }
    let mut response = Response::new(Reply::stream(stream));
    *response.status_mut() = head.status;
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    copy_listed(head, &mut response, sent.provider, |_| true);
    Ok(response)
}

/// Why an answer cannot be used, whatever is in it.
fn unusable(head: &Parts) -> Option<Refusal> {
    // Nobody asked to speak anything but HTTP; as an answer to the caller it would be one without end.
    if head.status.is_informational() {
        tracing::warn!(status = head.status.as_u16(), "the provider's answer is not a final one");
        return Some(garbled());
    }
    if head.status.is_success() && is_encoded(&head.headers) {
        tracing::warn!("the provider's answer is encoded, and was not handed on");
        return Some(encoded_answer());
    }
    None
}

fn is_in_headers(leak: &Leak, head: &Parts) -> bool {
    head.headers.values().any(|value| leak.is_in(value.as_bytes()))
}

/// Whether the answer comes in one piece, so that nobody waits for its beginning. Google streams JSON,
/// too, and AWS another format; their paths say so.
fn is_whole(head: &Parts, asked: &Asked<'_>) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let streams = asked.outline.streams || asked.parts.uri.path().contains("tream");
    !streams && (kind.is_empty() || kind.starts_with(b"application/json"))
}

fn is_events(head: &Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn copy_listed(
    head: &Parts,
    response: &mut Response<Reply>,
    provider: &Provider,
    may: impl Fn(&HeaderValue) -> bool,
) {
    for name in provider.pass_back_headers() {
        if let Some(value) = head.headers.get(name).filter(|value| may(value))
            && !response.headers().contains_key(name)
        {
            response.headers_mut().insert(name, value.clone());
        }
    }
}

const LONGEST_ERROR: usize = 64 << 10;
