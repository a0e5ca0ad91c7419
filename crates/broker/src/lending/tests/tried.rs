//! Credentials that are tried out at their providers: when they are stored, when somebody asks, and as
//! time goes by.

use std::time::Duration;

use audit::{Kind, Reason, Record, Verdict};
use store::Store as _;
use strongroom_proto::v1;
use tokio::sync::watch;

use super::{Fixture, caller, named};
use crate::config::KeyTests;

const KEY: &str = "sk-proj-0123456789abcdefghijklmnop";
const REFUSED: &str = r#"{"error":{"code":"invalid_api_key","message":"sk-proj-0123"}}"#;
const NOT_A_MEMBER: &str = r#"{"error":{"code":null,"message":"not a member"}}"#;
const ACCEPTED: &str = r#"{"object":"list","data":[]}"#;
const NO_MONEY: &str = r#"{"error":{"type":"insufficient_quota"}}"#;

fn openai() -> v1::Credential {
    v1::Credential { provider: "openai".into(), ..v1::Credential::default() }
}

fn verdict(credential: &v1::Credential) -> Verdict {
    credential.test.as_ref().unwrap().verdict()
}

impl Fixture {
    async fn shown(&self, name: &str) -> v1::Credential {
        let admin = caller("Credentials/ListCredentials");
        let request =
            v1::ListCredentialsRequest { parent: "tenants/acme".into(), ..Default::default() };
        let listed = self.core.list_credentials(&admin, &request).await.unwrap().credentials;
        listed.into_iter().find(|it| it.name == named(name).to_string()).unwrap()
    }

    async fn tests(&self) -> Vec<Record> {
        let entries = self.store.records(0, 10_000, None).await.unwrap();
        let records = entries.iter().map(|entry| entry.record().unwrap());
        records.filter(|record| record.kind() == Kind::CredentialTested).collect()
    }

    async fn look(&self, leads: bool) {
        let (_sender, leads) = watch::channel(leads);
        self.core.test_due(&KeyTests::default(), &leads).await.unwrap();
    }

    async fn test(&self, name: &str) -> v1::Credential {
        let request = v1::TestCredentialRequest { name: named(name).to_string() };
        let admin = caller("Credentials/TestCredential");
        self.core.test_credential(&admin, &request).await.unwrap()
    }
}

#[tokio::test]
async fn a_secret_that_its_provider_refuses_is_not_stored() {
    let fixture = Fixture::new().await;
    fixture.outside.answer(401, REFUSED);
    let refused = fixture.put_as(&named("new"), openai(), KEY, true).await.unwrap_err().why;
    assert_eq!(refused.reason(), Reason::SecretRefused);
    assert!(!refused.public().contains("sk-proj"), "{}", refused.public());
    let found = fixture.store.credential(&named("new").tenant, &named("new").credential).await;
    assert_eq!(found.unwrap(), None);
    assert_eq!(fixture.outside.seen(), ["GET https://api.openai.com/v1/models"]);
    // The choice is the caller's.
    let stored = fixture.put_as(&named("new"), openai(), KEY, false).await.unwrap();
    assert_eq!(stored.test, None);
    // Nor does it take a good one's place.
    let rotated = fixture.rotate_as("new", KEY, true).await.unwrap_err().why;
    assert_eq!(rotated.reason(), Reason::SecretRefused);
    assert_eq!(fixture.shown("new").await.current_version, 1);
    assert!(fixture.tests().await.is_empty());
}

#[tokio::test]
async fn what_else_is_found_when_storing_is_told_and_kept() {
    let fixture = Fixture::new().await;
    fixture.outside.answer(429, NO_MONEY);
    let stored = fixture.put_as(&named("poor"), openai(), KEY, true).await.unwrap();
    assert_eq!(verdict(&stored), Verdict::NoQuota);
    fixture.outside.vanish();
    let stored = fixture.put_as(&named("unknown"), openai(), KEY, true).await.unwrap();
    assert_eq!(verdict(&stored), Verdict::Unreachable);
    fixture.outside.answer(200, ACCEPTED);
    let rotated = fixture.rotate_as("poor", KEY, true).await.unwrap();
    assert_eq!((verdict(&rotated), rotated.test.as_ref().unwrap().version), (Verdict::Valid, 2));
    assert_eq!(fixture.shown("poor").await.test, rotated.test);
    let tests = fixture.tests().await;
    let told = tests.iter().map(|it| (it.verdict(), it.credential_version));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [(Verdict::NoQuota, 1), (Verdict::Unreachable, 1), (Verdict::Valid, 2)]
    );
    assert!(tests.iter().all(|it| it.actor == fixture.caller.identity.as_str()));
}

#[tokio::test]
async fn a_secret_that_looks_odd_is_stored_with_a_warning() {
    let fixture = Fixture::new().await;
    let stored = fixture.put_as(&named("odd"), openai(), "not-a-key-of-today", false).await;
    let warnings = stored.unwrap().warnings;
    assert!(matches!(&*warnings, [one] if one.contains("sk-proj-")), "{warnings:?}");
    let stored = fixture.put_as(&named("good"), openai(), KEY, false).await.unwrap();
    assert!(stored.warnings.is_empty());
}

fn endpoint(base_url: &str) -> v1::Credential {
    v1::Credential {
        provider: "custom".into(),
        base_url: base_url.into(),
        models: vec!["llama".into()],
        ..v1::Credential::default()
    }
}

#[tokio::test]
async fn a_secret_too_short_to_be_searched_for_is_stored_with_a_warning() {
    let fixture = Fixture::new().await;
    let put = async |name: &str, spec, secret| {
        fixture.put_as(&named(name), spec, secret, false).await.unwrap().warnings
    };
    let own = || endpoint("https://llm.acme.example/v1");
    let warnings = put("short", own(), "elevenbytes").await;
    assert!(matches!(&*warnings, [one] if one.contains("12 bytes")), "{warnings:?}");
    assert!(put("long", own(), "twelve-bytes").await.is_empty());
    // What goes on calls is what the broker makes of it.
    let setting = |name: &str, value: &str| v1::Setting { name: name.into(), value: value.into() };
    let role = v1::Credential {
        provider: "bedrock".into(),
        kind: "aws_role".into(),
        settings: vec![
            setting("region", "eu-west-1"),
            setting("role_arn", "arn:aws:iam::123456789012:role/strongroom"),
        ],
        ..v1::Credential::default()
    };
    assert!(put("role", role, "customer-42").await.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_can_never_be_called_is_not_stored() {
    let fixture = Fixture::new().await;
    let secret = "a-key-of-the-endpoint";
    for (url, says) in [
        ("https://10.0.0.1/v1", "egress.allow"),
        ("https://127.1/v1", "the host is a number"),
        ("https://2130706433", "the host is a number"),
        ("https://llm.acme.example./v1", "ends with a dot"),
        ("http://llm.acme.example/v1", "https"),
    ] {
        let refused = fixture.put_as(&named("own"), endpoint(url), secret, false).await;
        let why = refused.unwrap_err().why;
        assert_eq!(why.reason(), Reason::InvalidField, "{url}");
        assert!(why.public().contains(says), "{url}: {}", why.public());
    }
    let good = endpoint("https://llm.acme.example:8443/v1");
    fixture.put_as(&named("own"), good, secret, false).await.unwrap();
}

#[tokio::test]
async fn a_test_that_the_rules_of_the_way_out_forbid_says_what_to_change() {
    let fixture = Fixture::new().await;
    fixture.outside.block();
    let spec = endpoint("https://llm.acme.example/v1");
    let stored = fixture.put_as(&named("own"), spec, "a-key-of-the-endpoint", true).await.unwrap();
    assert_eq!(verdict(&stored), Verdict::Unverifiable);
    assert!(matches!(&*stored.warnings, [one] if one.contains("egress.allow")), "{stored:?}");
    let tested = fixture.test("own").await;
    assert!(matches!(&*tested.warnings, [one] if one.contains("egress.allow")), "{tested:?}");
    // The control: nothing is said of it when the endpoint answers.
    fixture.outside.answer(200, ACCEPTED);
    assert!(fixture.test("own").await.warnings.is_empty());
}

#[tokio::test]
async fn a_test_on_demand_tells_and_changes_nothing() {
    let fixture = Fixture::new().await;
    for (status, body, expected) in
        [(200, ACCEPTED, Verdict::Valid), (401, REFUSED, Verdict::Invalid)]
    {
        fixture.outside.answer(status, body);
        let tested = fixture.test("openai").await;
        assert_eq!(verdict(&tested), expected);
        assert_eq!(fixture.shown("openai").await, tested);
    }
    let shown = fixture.shown("openai").await;
    assert_eq!((shown.state(), &*shown.etag), (v1::credential::State::Enabled, "r1"));
    assert!(fixture.lend().await.is_ok());
}

#[tokio::test]
async fn only_a_credential_that_is_refused_twice_is_disabled() {
    let fixture = Fixture::new().await;
    fixture.outside.answer(200, ACCEPTED);
    fixture.clock.advance(Duration::from_hours(25));
    fixture.look(false).await;
    assert!(fixture.tests().await.is_empty(), "another broker does it");
    fixture.look(true).await;
    assert_eq!(verdict(&fixture.shown("openai").await), Verdict::Valid);
    fixture.look(true).await;
    assert_eq!(fixture.tests().await.len(), 1, "it is not due yet");

    // What says nothing of the credential is no reason, however often.
    for _ in 0..3 {
        fixture.outside.vanish();
        fixture.clock.advance(Duration::from_hours(27));
        fixture.look(true).await;
        assert_eq!(verdict(&fixture.shown("openai").await), Verdict::Unreachable);
    }
    for elsewhere in [NOT_A_MEMBER, "<html>Attention required</html>", ""] {
        fixture.outside.answer(401, elsewhere);
        fixture.clock.advance(Duration::from_hours(27));
        fixture.look(true).await;
        assert_eq!(verdict(&fixture.shown("openai").await), Verdict::RegionOrPermission);
    }
    fixture.outside.answer(401, REFUSED);
    fixture.clock.advance(Duration::from_hours(27));
    fixture.look(true).await;
    assert_eq!(verdict(&fixture.shown("openai").await), Verdict::Invalid);
    assert!(fixture.lend().await.is_ok(), "once is not enough");
    fixture.clock.advance(Duration::from_mins(9));
    fixture.look(true).await;
    assert!(fixture.lend().await.is_ok(), "nor twice without a pause");
    fixture.clock.advance(Duration::from_mins(1));
    fixture.look(true).await;
    let refused = fixture.lend().await.unwrap_err().why;
    assert_eq!(refused.reason(), Reason::CredentialIsDisabled);

    // The record says why, and that nobody asked for it.
    let entries = fixture.store.records(0, 10_000, None).await.unwrap();
    let disabled = entries.iter().map(|entry| entry.record().unwrap());
    let mut disabled = disabled.filter(|it| it.kind() == Kind::CredentialDisabled);
    let disabled = disabled.next_back().unwrap();
    assert_eq!((disabled.verdict(), &*disabled.actor), (Verdict::Invalid, ""));
    // What is disabled is left alone.
    let tests = fixture.tests().await.len();
    fixture.clock.advance(Duration::from_hours(27));
    fixture.look(true).await;
    assert_eq!(fixture.tests().await.len(), tests);
}

#[tokio::test]
async fn what_a_test_has_shown_cannot_be_written_past_the_broker() {
    let fixture = Fixture::new().await;
    fixture.outside.answer(200, ACCEPTED);
    fixture.test("openai").await;
    let tests = fixture.store.credential_tests(&named("openai").tenant).await.unwrap();
    let mut forged = tests.into_iter().next().unwrap();
    forged.verdict = "invalid".to_owned();
    let record = Record { index: 0, time: None, ..fixture.tests().await.pop().unwrap() };
    let record = audit::RecordDraft::new(record).unwrap();
    fixture.store.apply(&store::Change::KeepTest(forged), &record).await.unwrap();
    let admin = caller("Credentials/ListCredentials");
    let request =
        v1::ListCredentialsRequest { parent: "tenants/acme".into(), ..Default::default() };
    let refused = fixture.core.list_credentials(&admin, &request).await.unwrap_err().why;
    assert_eq!(refused.reason(), Reason::StoredDataCorrupt);
}
