use super::*;

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

const LIMITED: Failure = Failure::RateLimited { retry_after: Some(Duration::from_secs(30)) };

#[track_caller]
fn check(health: &Health, now: i64, expected: &str) {
    let found = match health.readiness(at(now)) {
        Readiness::Ready => "ready".to_owned(),
        Readiness::Probe => "probe".to_owned(),
        Readiness::Resting { until, why } => format!("{why} until {}", until.as_millis() / 1000),
    };
    assert_eq!(found, expected, "at {now}");
}

#[test]
fn a_limited_credential_rests_as_long_as_the_provider_says() {
    let mut health = Health::default();
    check(&health, 0, "ready");
    health.failed(LIMITED, at(0), at(1));
    check(&health, 1, "rate_limited until 31");
    check(&health, 30, "rate_limited until 31");
    check(&health, 31, "probe");
}

#[test]
fn a_wait_that_a_provider_asks_for_has_bounds() {
    for (asked, until) in [(0, 1), (30, 30), (999_999, 3600)] {
        let mut health = Health::default();
        let retry_after = Some(Duration::from_secs(asked));
        health.failed(Failure::RateLimited { retry_after }, at(0), at(0));
        check(&health, 0, &format!("rate_limited until {until}"));
    }
}

#[test]
fn one_call_at_a_time_sees_whether_it_works_again() {
    let mut health = Health::default();
    health.failed(LIMITED, at(0), at(0));
    assert!(!health.claim_probe(at(29)));
    assert!(health.claim_probe(at(30)));
    assert!(!health.claim_probe(at(30)));
    check(&health, 31, "rate_limited until 90");
    // Nobody heard of the first one again.
    assert!(health.claim_probe(at(90)));
    health.succeeded(at(90));
    check(&health, 91, "ready");
}

#[test]
fn a_probe_that_fails_starts_a_longer_rest() {
    let mut health = Health::default();
    health.failed(Failure::CredentialRefused, at(0), at(0));
    check(&health, 0, "credential_refused until 60");
    assert!(health.claim_probe(at(60)));
    health.failed(Failure::CredentialRefused, at(60), at(61));
    check(&health, 61, "credential_refused until 181");
    for _ in 0..40 {
        let Readiness::Resting { until, .. } = health.readiness(at(61)) else { break };
        assert!(health.claim_probe(until));
        health.failed(Failure::CredentialRefused, until, until);
        let Readiness::Resting { until: next, .. } = health.readiness(until) else { panic!() };
        assert!(next.since(until) <= Duration::from_mins(15));
    }
}

#[test]
fn calls_that_began_before_the_rest_neither_end_nor_prolong_it() {
    let mut health = Health::default();
    health.failed(Failure::CredentialRefused, at(5), at(10));
    health.succeeded(at(9));
    check(&health, 11, "credential_refused until 70");
    health.failed(Failure::CredentialRefused, at(9), at(20));
    check(&health, 20, "credential_refused until 70");
}

#[test]
fn one_failure_of_the_provider_is_bad_luck_and_three_are_not() {
    for failure in [Failure::ProviderTrouble, Failure::TimedOut, Failure::Unreachable] {
        let mut health = Health::default();
        for second in 1..=2 {
            health.failed(failure, at(second), at(second));
            check(&health, second, "ready");
        }
        health.failed(failure, at(3), at(3));
        check(&health, 3, &format!("{failure} until 7"));
    }
    let mut health = Health::default();
    for second in 1..20 {
        health.failed(Failure::ProviderTrouble, at(second), at(second));
        health.succeeded(at(second));
        check(&health, second, "ready");
    }
}

#[test]
fn what_the_caller_did_wrong_is_not_held_against_a_credential() {
    let mut health = Health::default();
    for second in 0..20 {
        health.failed(Failure::CallersFault, at(second), at(second));
        health.failed(Failure::NotAllowed, at(second), at(second));
    }
    check(&health, 20, "ready");
    health.failed(Failure::NoQuota, at(20), at(20));
    assert!(health.claim_probe(at(320)));
    health.failed(Failure::NotAllowed, at(320), at(321));
    check(&health, 321, "probe");
    assert!(health.claim_probe(at(321)));
    health.failed(Failure::CallersFault, at(321), at(322));
    check(&health, 322, "ready");
}

#[test]
fn what_nothing_stands_in_for_rests_shortly_and_only_when_each_call_would_be_refused() {
    let until = |failure, times: i64| {
        let mut health = Health::default();
        for second in 1..=times {
            health.failed(failure, at(second), at(second));
        }
        match health.readiness_alone(at(times)) {
            Readiness::Resting { until, .. } => Some((until.as_millis() / 1000) - times),
            Readiness::Ready | Readiness::Probe => None,
        }
    };
    assert_eq!(until(Failure::CredentialRefused, 1), Some(30));
    assert_eq!(until(Failure::NoQuota, 9), Some(30));
    for failure in [LIMITED, Failure::ProviderTrouble, Failure::TimedOut, Failure::Unreachable] {
        assert_eq!(until(failure, 9), None, "{failure}");
    }
    let mut health = Health::default();
    health.failed(Failure::NoQuota, at(0), at(0));
    assert_eq!(health.readiness_alone(at(30)), Readiness::Ready);
}

#[test]
fn what_is_told_to_another_is_what_is_known() {
    let mut health = Health::default();
    health.failed(Failure::CredentialRefused, at(0), at(1));
    health.failed(Failure::CredentialRefused, at(2), at(3));
    let told = Health::of(health.failures(), health.rest().cloned());
    assert_eq!((&told, told.failures()), (&health, 2));
}
