use std::{path::Path, sync::Arc, time::Duration};

use audit::{SignerKey, proto_time};
use domain::{AccessRule, LONGEST_TTL, ManualClock, Timestamp};
use envelope::{LocalKms, Roots};
use store::{SqliteStore, Store as _};
use testkit::{FailingShares, FailingStore, Fault, Operation};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    access::Access,
    checkpoints::Checkpoints,
    config::UsageConfig,
    core::{Core, Parts},
    outside::scripted::Scripted,
    people::Called,
    refused::Refused,
    usage_sweep::forget,
};

mod prices;
mod queries;

/// A core with the tenants `acme` and `globex`. `proxy` may lend for `acme`, `admin` may do all for
/// both, and `reader` reads `acme`.
struct Fixture {
    core: Core,
    clock: Arc<ManualClock>,
    store: Arc<FailingStore>,
}

const NOW: i64 = 1_700_000_100_000;

impl Fixture {
    async fn new() -> Self {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        let store = Arc::new(FailingStore::new(store));
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW)));
        let core = core(&store, &clock).await;
        for tenant_id in ["acme", "globex"].map(str::to_owned) {
            let request = v1::CreateTenantRequest { tenant_id, ..Default::default() };
            core.create_tenant(&caller("admin", "Tenants/CreateTenant"), request).await.unwrap();
        }
        Self { core, clock, store }
    }

    async fn count(&self, records: &[v1::UsageRecord]) -> Vec<Noted> {
        self.core.record_usage(&proxy(), records).await.unwrap()
    }
}

async fn core(store: &Arc<FailingStore>, clock: &Arc<ManualClock>) -> Core {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("kms.key");
    LocalKms::create_new(&key_file, None).unwrap();
    let kms = Arc::new(LocalKms::open(&key_file, None).unwrap());
    let rule = |name: &str, methods: Vec<String>, tenant: &str| AccessRule {
        role: String::new(),
        identities: vec![format!("spiffe://a.b/{name}").parse().unwrap()],
        methods,
        tenants: vec![tenant.into()],
        providers: vec!["*".into()],
        longest_lease_seconds: LONGEST_TTL,
    };
    let reads = ["Usage/QueryUsage", "Usage/ListCalls", "Prices/GetPrices"].map(str::to_owned);
    let rules = vec![
        rule("admin", strongroom_proto::methods(), "*"),
        rule("proxy", vec!["Leases/AcquireLease".to_owned()], "acme"),
        rule("reader", reads.to_vec(), "acme"),
    ];
    let key = SignerKey::from_seed("strongroom.test/log", &[7; 32]).unwrap();
    let shares = Arc::new(FailingShares::new().await.unwrap());
    let parts = Parts {
        people: Vec::new(),
        access: Arc::new(Access::of(&rules)),
        aws: None,
        courier: Arc::<Scripted>::default(),
        catalogue: providers::Catalogue::builtin().unwrap(),
        checkpoints: Arc::new(Checkpoints::new(key.verifier().clone(), Path::new("b.toml")).0),
        clock: Arc::clone(clock) as _,
        commit_deadline: Duration::from_secs(5),
        keep: None,
        keyring: envelope::KeyringSettings::default(),
        roots: Arc::new(Roots::only(kms)),
        endpoints: crate::endpoints::EndpointRules::default(),
        sessions: 10,
        shares,
        share_backups: Duration::from_hours(168),
        sinks: vec![],
        usage: UsageConfig::default(),
        store: Arc::clone(store) as _,
        verifier_key: String::new(),
    };
    Core::open(parts, &TaskTracker::new()).await.unwrap()
}

fn caller(name: &str, method: &'static str) -> Caller {
    Caller::new(
        format!("spiffe://a.b/{name}").parse().unwrap(),
        Called::ById,
        [1; 32],
        method,
        None,
    )
}

fn proxy() -> Caller {
    caller("proxy", "Leases/SettleUsage")
}

/// A call of `acme` that cost a micro-USD and a half, a minute ago.
fn record(id: u8) -> v1::UsageRecord {
    v1::UsageRecord {
        usage_id: vec![id; 16].into(),
        start_time: Some(proto_time(Timestamp::from_millis(NOW - 60_000))),
        tenant: "tenants/acme".into(),
        virtual_key: "tenants/acme/virtualKeys/aaaaaaaaaaaaaaaa".into(),
        credential: "tenants/acme/credentials/openai".into(),
        credential_version: 1,
        provider: "openai".into(),
        model: "gpt-4o".into(),
        requested_model: "gpt-4o".into(),
        source: v1::Source::Byok.into(),
        dialect: v1::Dialect::Openai.into(),
        endpoint: "chat".into(),
        status: 200,
        outcome: Outcome::Complete.into(),
        tokens: Some(v1::Tokens { input: 10, output: 5, ..Default::default() }),
        usage_known: true,
        cost_known: true,
        cost_micro_usd: 1,
        cost_millionths: 500_000,
        price_version: "0.1".into(),
        latency: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        first_token: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        lease_hash: vec![0xa5; 32].into(),
        attempts: 1,
        ..Default::default()
    }
}

const DAY: i64 = 24 * 60 * 60 * 1000;

/// A time before or after [`NOW`].
fn at(millis: i64) -> prost_types::Timestamp {
    proto_time(Timestamp::from_millis(NOW + millis))
}

#[track_caller]
fn check(noted: &[Noted], expected: &[&str]) {
    let words: Vec<_> = noted
        .iter()
        .map(|it| match it {
            Noted::Counted => "counted",
            Noted::AlreadyCounted => "again",
            Noted::Refused(Why::NotPermitted(_)) => "not permitted",
            Noted::Refused(Why::InvalidField(_)) => "invalid",
            Noted::Refused(other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(words, expected, "{noted:?}");
}

#[tokio::test]
async fn a_call_counts_once_however_often_it_is_reported() {
    let fixture = Fixture::new().await;
    let noted = fixture.count(&[record(1), record(2), record(1)]).await;
    check(&noted, &["counted", "counted", "again"]);
    check(&fixture.count(&[record(2), record(3)]).await, &["again", "counted"]);
    // An answer that was lost: the same again.
    fixture.store.fail_once(Operation::CountUsage, Fault::AfterPersisting);
    fixture.core.record_usage(&proxy(), &[record(4)]).await.unwrap_err();
    check(&fixture.count(&[record(4)]).await, &["again"]);
}

#[tokio::test]
async fn only_who_may_lend_for_a_tenant_may_report_its_calls() {
    let fixture = Fixture::new().await;
    let other = v1::UsageRecord {
        tenant: "tenants/globex".into(),
        virtual_key: String::new(),
        credential: "tenants/platform/credentials/openai".into(),
        ..record(2)
    };
    let noted = fixture.count(&[record(1), other.clone()]).await;
    check(&noted, &["counted", "not permitted"]);
    let reader = caller("reader", "Leases/SettleUsage");
    check(&fixture.core.record_usage(&reader, &[record(3)]).await.unwrap(), &["not permitted"]);
    let admin = caller("admin", "Leases/SettleUsage");
    check(&fixture.core.record_usage(&admin, &[other]).await.unwrap(), &["counted"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_true_is_refused_and_the_others_count() {
    let fixture = Fixture::new().await;
    let wrong: Vec<&dyn Fn(&mut v1::UsageRecord)> = vec![
        &|it| it.usage_id = vec![1; 15].into(),
        &|it| it.start_time = None,
        &|it| it.start_time = Some(at(6 * 60 * 1000)),
        &|it| it.start_time = Some(at(-7 * DAY - 1)),
        &|it| it.tenant = "acme".into(),
        &|it| it.virtual_key = "tenants/globex/virtualKeys/aaaaaaaaaaaaaaaa".into(),
        &|it| it.credential = "tenants/globex/credentials/openai".into(),
        &|it| it.credential = String::new(),
        &|it| it.provider = "Open AI".into(),
        &|it| it.model = "x".repeat(257),
        &|it| it.requested_model = "a\nb".into(),
        &|it| it.endpoint = "x".repeat(65),
        &|it| it.source = 0,
        &|it| it.outcome = 99,
        &|it| it.status = 1000,
        &|it| it.tokens = Some(v1::Tokens { input: MOST, output: 1, ..Default::default() }),
        &|it| it.tokens = Some(v1::Tokens { input: u64::MAX, output: 2, ..Default::default() }),
        &|it| it.searches = u64::MAX,
        &|it| it.cost_micro_usd = MOST + 1,
        &|it| it.cost_millionths = 1_000_000,
        &|it| it.latency = Some(prost_types::Duration { seconds: 86_401, nanos: 0 }),
        &|it| it.first_token = Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        &|it| it.lease_hash = vec![1; 31].into(),
        &|it| it.allowance_id = vec![1; 17].into(),
    ];
    let mut records = vec![record(200)];
    for (id, change) in (0..).zip(&wrong) {
        let mut record = record(id);
        change(&mut record);
        records.push(record);
    }
    let noted = fixture.count(&records).await;
    check(&noted[..1], &["counted"]);
    check(&noted[1..], &vec!["invalid"; wrong.len()]);
    // At the limits.
    let late = v1::UsageRecord { start_time: Some(at(-7 * DAY)), ..record(201) };
    let ahead = v1::UsageRecord { start_time: Some(at(5 * 60 * 1000)), ..record(202) };
    check(&fixture.count(&[late, ahead]).await, &["counted", "counted"]);
    let many: Vec<_> = (0..=MOST_RECORDS).map(|_| record(1)).collect();
    let refused = fixture.core.record_usage(&proxy(), &many).await;
    assert!(matches!(refused, Err(Why::InvalidField(_))));
}

#[tokio::test]
async fn what_is_older_than_it_is_kept_is_taken_out() {
    let fixture = Fixture::new().await;
    fixture.count(&[record(1), record(2)]).await;
    let stop = CancellationToken::new();
    let sums = async || {
        let request = queries::question();
        fixture.core.query_usage(&queries::reader(), &request).await.unwrap().sums.len()
    };
    // The records are years older than this machine's clock, by which the store forgets.
    let age = fixture.store.now().await.unwrap().since(Timestamp::from_millis(NOW - 60_000));
    let hour = Duration::from_hours(1);
    let config = |keep_calls, keep_sums| UsageConfig { keep_calls, keep_sums };
    let keep = config(age + hour, age + hour);
    assert_eq!(forget(&*fixture.store, keep, &stop).await.unwrap(), 0);
    let keep = config(age.saturating_sub(hour), age + hour);
    assert_eq!(forget(&*fixture.store, keep, &stop).await.unwrap(), 2);
    assert_eq!(sums().await, 1);
    let keep = config(age.saturating_sub(hour), age.saturating_sub(hour));
    assert_eq!(forget(&*fixture.store, keep, &stop).await.unwrap(), 1);
    assert_eq!(sums().await, 0);
}
