use domain::Timestamp;

use super::*;

fn row(first: u8) -> CredentialRow {
    let mut uid = [0; 16];
    uid[0] = first;
    CredentialRow {
        uid: Uid::from_bytes(uid),
        tenant_uid: Uid::from_bytes([0; 16]),
        tenant: "acme".parse().unwrap(),
        id: "openai".parse().unwrap(),
        provider: "openai".parse().unwrap(),
        kind: "api_key".to_owned(),
        settings: Vec::new(),
        enabled: true,
        priority: 100,
        base_url: None,
        models: Vec::new(),
        last_four: String::new(),
        current_version: 1,
        rotation: None,
        revision: 1,
        created_at: START,
        updated_at: START,
        row_mac: [0; 36],
    }
}

fn found(verdict: Verdict) -> TestRow {
    TestRow {
        credential_uid: row(0).uid,
        version: 1,
        verdict: verdict.as_str().to_owned(),
        tested_at: START,
        row_mac: [0; 36],
    }
}

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[test]
fn tests_are_spread_over_the_interval_and_a_refusal_is_looked_at_again_soon() {
    let settings = KeyTests::default();
    let due = |first, last: Option<Verdict>| {
        settings.due_at(&row(first), last.map(found).as_ref()).since(START)
    };
    assert_eq!(due(0, None), Duration::ZERO);
    assert_eq!(due(128, None), Duration::from_hours(12));
    assert_eq!(due(128, Some(Verdict::Valid)), Duration::from_hours(24));
    assert!(due(255, Some(Verdict::NoQuota)) < Duration::from_hours(27));
    assert_eq!(due(255, Some(Verdict::Invalid)), settings.confirm_after);
    assert_eq!(due(255, Some(Verdict::Unreachable)), due(255, Some(Verdict::Valid)));
}

#[test]
fn no_more_are_tested_at_once_than_their_number_calls_for() {
    let settings = KeyTests::default();
    let share = settings.look_every().div_duration_f64(settings.every);
    assert_eq!(at_once(0, share), AT_A_TIME);
    assert_eq!(at_once(100, share), AT_A_TIME);
    assert!((50..100).contains(&at_once(10_000, share)), "{}", at_once(10_000, share));
    assert!(settings.look_every() <= settings.confirm_after);
}

#[test]
fn every_verdict_has_its_word_in_the_contract() {
    for verdict in Verdict::ALL {
        let word = verdict_of(verdict.as_str()).as_str_name();
        assert_eq!(word.to_lowercase(), verdict.as_str());
    }
}
