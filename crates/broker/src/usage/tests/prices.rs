use audit::Kind;
use metering::{PriceDocument, Prices};

use super::*;

fn table(version: u32, input: u64) -> Vec<u8> {
    format!(
        r#"{{"version": {version}, "date": "2026-11-21", "providers": {{"openai": {{
            "gpt-x": {{"kind": "chat", "rates": {{"input": {input}, "output": 0}}}}}}}}}}"#
    )
    .into_bytes()
}

fn import(version: u32, input: u64) -> v1::ImportPricesRequest {
    v1::ImportPricesRequest { table: table(version, input).into(), ..Default::default() }
}

fn terms(parts: u32) -> v1::SetTenantPricesRequest {
    let terms = format!(
        r#"{{"discounts": [{{"provider": "openai", "models": "*",
            "parts_of_ten_thousand": {parts}}}]}}"#
    );
    v1::SetTenantPricesRequest {
        tenant: "tenants/acme".into(),
        terms: terms.into_bytes().into(),
        ..Default::default()
    }
}

impl Fixture {
    async fn import(&self, request: v1::ImportPricesRequest) -> Result<v1::ChangedPrices, Refused> {
        self.core.import_prices(&caller("admin", "Prices/ImportPrices"), &request).await
    }

    async fn set(&self, request: v1::SetTenantPricesRequest) -> Result<v1::ChangedPrices, Refused> {
        self.core.set_tenant_prices(&caller("admin", "Prices/SetTenantPrices"), &request).await
    }

    async fn prices(&self, tenant: &str) -> v1::GetPricesResponse {
        let request = v1::GetPricesRequest { tenant: tenant.into(), known_version: String::new() };
        self.core.get_prices(&caller("reader", "Prices/GetPrices"), &request).await.unwrap()
    }

    async fn changes(&self) -> usize {
        self.store.changes_of_kind(Kind::PricesChanged).await.unwrap().len()
    }
}

/// What a token of input costs at a time after [`NOW`].
fn input(answer: &v1::GetPricesResponse, after: Duration) -> u128 {
    let prices = Prices::parse(&answer.document).unwrap();
    assert_eq!(prices.version(), answer.version);
    let usage = metering::Usage {
        tokens: Tokens { input: 1, ..Tokens::default() },
        ..metering::Usage::default()
    };
    let at = Timestamp::from_millis(NOW) + after;
    match prices.at(at).price(&"openai".parse().unwrap(), "gpt-x", &usage) {
        metering::Priced::Known { cost, .. } => cost.picos(),
        metering::Priced::Unknown { .. } => 0,
    }
}

const SOON: Duration = Duration::from_secs(309);
const LATER: Duration = Duration::from_secs(311);

#[tokio::test]
async fn a_new_table_counts_for_calls_that_start_when_every_lease_of_before_has_ended() {
    let fixture = Fixture::new().await;
    let before = fixture.prices("tenants/acme").await;
    assert_eq!((&*before.version, before.list_revision), ("0.1", 0));
    let changed = fixture.import(import(2, 10)).await.unwrap();
    assert_eq!((changed.revision, changed.log_index > 0), (1, true));
    let effective = timestamp(&changed.effective_time.unwrap()).unwrap();
    assert_eq!(effective.as_millis(), NOW + 310_000);
    let removed = changed.differences.iter().filter(|it| it.to.is_empty()).count();
    assert!(removed > 100, "{removed}");

    let answer = fixture.prices("tenants/acme").await;
    assert_eq!(&*answer.version, "1");
    assert_eq!([SOON, LATER].map(|after| input(&answer, after)), [0, 10]);
    // Known already: the document is left out.
    let request = v1::GetPricesRequest { tenant: String::new(), known_version: "1".into() };
    let reader = caller("reader", "Prices/GetPrices");
    let known = fixture.core.get_prices(&reader, &request).await.unwrap();
    assert_eq!((&*known.version, known.document.len()), ("1", 0));

    // A day later the table of before is no part of the document any more.
    fixture.clock.advance(Duration::from_hours(25));
    let answer = fixture.prices("").await;
    assert_eq!(PriceDocument::parse(&answer.document).unwrap().tables.len(), 1);
    assert_eq!(input(&answer, Duration::ZERO), 10);
}

#[tokio::test]
async fn the_last_word_on_a_time_to_come_counts() {
    let fixture = Fixture::new().await;
    let at = |seconds: i64| Some(proto_time(Timestamp::from_millis(NOW + seconds * 1000)));
    let later = v1::ImportPricesRequest { effective_time: at(3600), ..import(2, 10) };
    fixture.import(later).await.unwrap();
    fixture.import(import(3, 20)).await.unwrap();
    let last = v1::ImportPricesRequest { effective_time: at(7200), ..import(4, 30) };
    fixture.import(last).await.unwrap();
    let answer = fixture.prices("").await;
    let at = [0, 311, 3601, 7201].map(|seconds| input(&answer, Duration::from_secs(seconds)));
    assert_eq!((&*answer.version, at), ("3", [0, 20, 20, 30]));
}

#[tokio::test]
async fn a_tenants_terms_are_its_own() {
    let fixture = Fixture::new().await;
    fixture.import(import(2, 100)).await.unwrap();
    let changed = fixture.set(terms(8500)).await.unwrap();
    assert_eq!((changed.revision, changed.differences.len()), (1, 1));
    let (acme, list) = (fixture.prices("tenants/acme").await, fixture.prices("").await);
    assert_eq!((&*acme.version, &*list.version), ("1-1", "1"));
    assert_eq!((input(&acme, LATER), input(&list, LATER)), (85, 100));
    // No terms again.
    let none = v1::SetTenantPricesRequest { terms: "{}".into(), ..terms(0) };
    fixture.set(none).await.unwrap();
    assert_eq!(input(&fixture.prices("tenants/acme").await, LATER), 100);
    // A tenant's terms leave its own revisions alone.
    let request = v1::GetTenantRequest { name: "tenants/acme".into() };
    let tenant = fixture.core.directory.tenant(&"acme".parse().unwrap()).await.unwrap();
    assert_eq!(tenant.unwrap().row.revision, 1, "{request:?}");
}

#[tokio::test]
async fn each_change_is_on_record_and_a_question_changes_nothing() {
    let fixture = Fixture::new().await;
    let ask = v1::ImportPricesRequest { validate_only: true, ..import(2, 10) };
    let would = fixture.import(ask).await.unwrap();
    assert_eq!((would.revision, would.log_index, fixture.changes().await), (1, 0, 0));
    let index = fixture.import(import(2, 10)).await.unwrap().log_index;
    let entries = fixture.store.records(index, 1, None).await.unwrap();
    let record = entries[0].record().unwrap();
    assert_eq!((record.kind(), record.revision), (Kind::PricesChanged, 1));
    let document = fixture.store.prices(record.prices_sha256.as_ref().try_into().unwrap()).await;
    assert!(document.unwrap().is_some());
    // The same again, as after a lost answer.
    let again = fixture.import(import(2, 10)).await.unwrap();
    assert_eq!((again.revision, again.log_index, fixture.changes().await), (1, 0, 1));
}

#[tokio::test]
async fn prices_that_cannot_be_used_are_refused() {
    let fixture = Fixture::new().await;
    fixture.import(import(5, 10)).await.unwrap();
    let invalid = async |request: v1::ImportPricesRequest| {
        let refused = fixture.import(request).await.unwrap_err();
        assert!(matches!(refused.why, Why::InvalidField(_)), "{refused:?}");
    };
    // Another table with a version that was there.
    invalid(import(5, 11)).await;
    invalid(import(4, 11)).await;
    invalid(v1::ImportPricesRequest { table: "{".into(), ..Default::default() }).await;
    let soon = Some(proto_time(Timestamp::from_millis(NOW + 309_000)));
    invalid(v1::ImportPricesRequest { effective_time: soon, ..import(6, 11) }).await;
    let stale = v1::ImportPricesRequest { list_revision: Some(0), ..import(6, 11) };
    assert!(matches!(fixture.import(stale).await.unwrap_err().why, Why::EtagMismatch));
    let refused = fixture.set(terms(10_001)).await.unwrap_err();
    assert!(matches!(refused.why, Why::InvalidField(_)));
    let nobody = v1::SetTenantPricesRequest { tenant: "tenants/nobody".into(), ..terms(1) };
    assert!(matches!(fixture.set(nobody).await.unwrap_err().why, Why::NoSuchTenant));
    assert_eq!(fixture.changes().await, 1);
}

#[tokio::test]
async fn a_document_that_is_not_what_the_log_names_is_not_used() {
    let fixture = Fixture::new().await;
    fixture.import(import(2, 10)).await.unwrap();
    // The log's word on a document that nobody has.
    fixture.core.directory.prices().apply(&audit::Record {
        kind: Kind::PricesChanged.into(),
        revision: 2,
        prices_sha256: vec![9; 32].into(),
        ..audit::Record::default()
    });
    let request = v1::GetPricesRequest::default();
    let reader = caller("reader", "Prices/GetPrices");
    let refused = fixture.core.get_prices(&reader, &request).await.unwrap_err();
    assert!(matches!(refused.why, Why::Corrupt(_)), "{refused:?}");
}
