use std::time::Duration;

use crate::{Attempt, CredentialId, Failure, Plan, Source};

/// A call on its way through its plan: which attempt is out, which have failed, and whether the
/// caller has seen anything of an answer yet. It hands out attempts of the plan only, each once, in
/// order.
#[derive(Clone, Debug)]
pub struct Course {
    plan: Plan,
    at: usize,
    failed: Vec<(CredentialId, Failure)>,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The caller has seen nothing.
    Open,
    /// The first byte of an answer has gone to the caller.
    Answering,
    /// The call is over.
    Over,
}

/// What to do after an attempt has failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next<'a> {
    /// Try this one.
    Try(&'a Attempt),
    /// Tell the caller.
    GiveUp(GiveUp),
}

/// What to tell a caller when nothing more is tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GiveUp {
    /// The provider's own words: the request is wrong, or there was one credential to try.
    ProvidersAnswer(Failure),
    /// Every credential that the tenant's policy names has failed: `credentials_exhausted`.
    Exhausted {
        /// Each with what went wrong, in the order in which they were tried.
        failed: Vec<(CredentialId, Failure)>,
        /// When the first of them may work again, if a provider said so.
        retry_after: Option<Duration>,
    },
    /// A part of the answer has gone out; the rest cannot come from elsewhere. The stream is ended as
    /// broken.
    CutOff(Failure),
}

impl Course {
    /// The way of a call through this plan; its first attempt is out.
    pub fn new(plan: Plan) -> Self {
        Self { plan, at: 0, failed: Vec::new(), state: State::Open }
    }

    /// The attempt that is out, or the last that was.
    pub fn current(&self) -> &Attempt {
        self.plan.get(self.at).unwrap_or(&self.plan.first)
    }

    /// Why an earlier attempt failed, when the one that is out came after it.
    pub fn fell_back_from(&self) -> Option<(&CredentialId, Failure)> {
        let last = self.at.checked_sub(1).and_then(|before| self.failed.get(before));
        last.map(|(credential, failure)| (credential, *failure))
    }

    /// Whose credential the attempt that is out uses.
    pub fn source(&self) -> Source {
        self.current().source
    }

    /// The first byte of an answer is about to go to the caller: from here on nothing is tried again.
    pub fn answering(&mut self) {
        if self.state == State::Open {
            self.state = State::Answering;
        }
    }

    /// The attempt that is out has failed.
    pub fn failed(&mut self, failure: Failure) -> Next<'_> {
        let was = self.state;
        self.state = State::Over;
        if was == State::Answering {
            return Next::GiveUp(GiveUp::CutOff(failure));
        }
        self.failed.push((self.current().credential.clone(), failure));
        if was == State::Over || !failure.may_fall_back() {
            return Next::GiveUp(GiveUp::ProvidersAnswer(failure));
        }
        if self.plan.get(self.at + 1).is_some() {
            self.at += 1;
            self.state = State::Open;
            return Next::Try(self.current());
        }
        if self.at == 0 {
            return Next::GiveUp(GiveUp::ProvidersAnswer(failure));
        }
        let waits = self.failed.iter().filter_map(|(_, failure)| match failure {
            Failure::RateLimited { retry_after } => *retry_after,
            Failure::CredentialRefused
            | Failure::NoQuota
            | Failure::NotAllowed
            | Failure::ProviderTrouble
            | Failure::TimedOut
            | Failure::Unreachable
            | Failure::CallersFault
            | Failure::SecretInAnswer => None,
        });
        let retry_after = waits.min();
        Next::GiveUp(GiveUp::Exhausted { failed: self.failed.clone(), retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Because;

    fn plan(credentials: usize) -> Plan {
        let mut attempts = (0..credentials).map(|index| Attempt {
            source: Source::Byok,
            index,
            credential: format!("key-{index}").parse().unwrap(),
            provider: "openai".parse().unwrap(),
            model: "gpt-4o".into(),
            because: if index == 0 { Because::Detected } else { Because::Fallback },
            is_probe: false,
        });
        Plan { first: attempts.next().unwrap(), rest: attempts.collect() }
    }

    const LIMITED: Failure = Failure::RateLimited { retry_after: Some(Duration::from_secs(7)) };

    #[track_caller]
    fn check(course: &mut Course, failure: Failure, expected: &str) {
        let found = match course.failed(failure) {
            Next::Try(attempt) => attempt.credential.to_string(),
            Next::GiveUp(GiveUp::ProvidersAnswer(failure)) => format!("answer {failure}"),
            Next::GiveUp(GiveUp::CutOff(failure)) => format!("cut {failure}"),
            Next::GiveUp(GiveUp::Exhausted { failed, retry_after }) => {
                format!("exhausted {} {:?}", failed.len(), retry_after.map(|wait| wait.as_secs()))
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn each_failure_but_the_callers_own_moves_on_to_the_next_listed() {
        let mut course = Course::new(plan(7));
        assert_eq!(course.fell_back_from(), None);
        check(&mut course, Failure::CredentialRefused, "key-1");
        check(&mut course, Failure::NoQuota, "key-2");
        check(&mut course, Failure::NotAllowed, "key-3");
        check(&mut course, LIMITED, "key-4");
        check(&mut course, Failure::ProviderTrouble, "key-5");
        check(&mut course, Failure::TimedOut, "key-6");
        let before = "key-5".parse().unwrap();
        assert_eq!(course.fell_back_from(), Some((&before, Failure::TimedOut)));
        check(&mut course, Failure::Unreachable, "exhausted 7 Some(7)");
        check(&mut course, Failure::Unreachable, "answer unreachable");
    }

    #[test]
    fn what_is_wrong_with_the_request_is_told_at_once() {
        let mut course = Course::new(plan(3));
        check(&mut course, Failure::CallersFault, "answer callers_fault");
        check(&mut course, Failure::ProviderTrouble, "answer provider_trouble");
    }

    #[test]
    fn a_single_credential_gives_the_providers_own_answer() {
        check(&mut Course::new(plan(1)), LIMITED, "answer rate_limited");
    }

    #[test]
    fn nothing_is_tried_after_the_first_byte() {
        let mut course = Course::new(plan(3));
        check(&mut course, Failure::ProviderTrouble, "key-1");
        course.answering();
        check(&mut course, Failure::ProviderTrouble, "cut provider_trouble");
        course.answering();
        check(&mut course, Failure::ProviderTrouble, "answer provider_trouble");
        assert_eq!(course.current().credential.as_str(), "key-1");
    }
}
