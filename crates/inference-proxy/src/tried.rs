use std::time::Duration;

use domain::{CredentialName, Failure};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use strongroom_client::FailedAttempt;

use crate::{lease_refusal::EXHAUSTED, refusal::Refusal, reply::Reply};

/// The attempts at one call that have failed, in order.
#[derive(Debug, Default)]
pub(crate) struct Tried(Vec<FailedAttempt>);

impl Tried {
    pub(crate) fn push(&mut self, attempt: FailedAttempt) {
        self.0.push(attempt);
    }

    pub(crate) fn all(&self) -> &[FailedAttempt] {
        &self.0
    }

    /// Whether this version of this credential has failed.
    pub(crate) fn has(&self, credential: &CredentialName, version: u64) -> bool {
        self.0.iter().any(|one| one.credential == *credential && one.version == version)
    }

    /// Says on an answer from what it fell back, if it did.
    pub(crate) fn tell(&self, response: &mut Response<Reply>) {
        if !self.0.is_empty() {
            note(response, &self.told());
        }
    }

    /// Says on an answer that another credential may be listed, and why it was not tried.
    pub(crate) fn tell_why_not(&self, response: &mut Response<Reply>, why: &str) {
        let before = if self.0.len() > 1 { format!("{}; ", self.told()) } else { String::new() };
        note(response, &format!("{before}not tried: {why}"));
    }

    /// What to tell a caller when every credential that policy names has failed.
    pub(crate) fn exhausted(&self, told: Option<Duration>) -> Refusal {
        let failures = || self.0.iter().map(|attempt| attempt.failure);
        let is_limited = |failure: &Failure| matches!(failure, Failure::RateLimited { .. });
        let is_dead = |failure: &Failure| {
            use Failure::{CredentialRefused, NoQuota, NotAllowed};
            matches!(failure, CredentialRefused | NoQuota | NotAllowed)
        };
        let message = format!(
            "every credential that the tenant's policy names for this call has failed: {}. Ask whoever \
             keeps them to check them",
            self.told(),
        );
        if failures().all(|failure| is_dead(&failure)) {
            return Refusal::new(StatusCode::BAD_GATEWAY, EXHAUSTED, message).and_final();
        }
        let status = if failures().all(|failure| is_limited(&failure)) {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let waits = failures().filter_map(|failure| match failure {
            Failure::RateLimited { retry_after } => retry_after,
            Failure::CredentialRefused
            | Failure::NoQuota
            | Failure::NotAllowed
            | Failure::ProviderTrouble
            | Failure::TimedOut
            | Failure::Unreachable
            | Failure::CallersFault
            | Failure::SecretInAnswer
            | Failure::Unusable => None,
        });
        let refusal = Refusal::new(status, EXHAUSTED, message);
        match told.or_else(|| waits.min()) {
            Some(wait) => refusal.retry_after(wait),
            None => refusal,
        }
    }

    fn told(&self) -> String {
        let each = self.0.iter().map(|one| format!("{} of {}", one.failure, one.credential));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn note(response: &mut Response<Reply>, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(FALLBACK, value);
    }
}

const FALLBACK: HeaderName = HeaderName::from_static("x-strongroom-fallback");

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failures: &[Failure], told: Option<u64>, status: u16, wait: Option<u64>) {
        let mut tried = Tried::default();
        for failure in failures {
            tried.push(FailedAttempt {
                credential: "tenants/acme/credentials/a".parse().unwrap(),
                version: 1,
                failure: *failure,
                began: Duration::ZERO,
            });
        }
        let refusal = tried.exhausted(told.map(Duration::from_secs));
        assert_eq!((refusal.status.as_u16(), &*refusal.code), (status, EXHAUSTED), "{failures:?}");
        assert_eq!(refusal.retry_after.map(|wait| wait.as_secs()), wait, "{failures:?}");
        assert_eq!(refusal.is_final, status == 502);
    }

    #[test]
    fn what_all_failures_have_in_common_decides_what_a_caller_is_told() {
        let limited =
            |wait: u64| Failure::RateLimited { retry_after: Some(Duration::from_secs(wait)) };
        check(&[limited(9), limited(7)], None, 429, Some(7));
        check(&[limited(9), limited(7)], Some(3), 429, Some(3));
        check(&[limited(9), Failure::NoQuota], None, 503, Some(9));
        check(&[Failure::TimedOut, Failure::Unreachable], None, 503, None);
        check(
            &[Failure::CredentialRefused, Failure::NoQuota, Failure::NotAllowed],
            None,
            502,
            None,
        );
    }
}
