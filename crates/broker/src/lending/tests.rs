mod alone;
mod approved;
mod budgets;
mod erasure;
mod exchanged;
mod fallback;
mod kms_trouble;
mod listed;
mod policies;
mod rekeying;
mod renewing;
mod roots;
mod rotation;
mod rows;
mod tried;
mod unusable;

use std::{path::Path, sync::Arc, time::Duration};

use audit::{Checkpoint, Kind, Reason, SignerKey};
use domain::{
    AccessRule, CredentialName, Dialect, LONGEST_TTL, LeaseId, ManualClock, Secret, TenantId,
    Timestamp,
};
use envelope::{KeyringSettings, LocalKms, Roots};
use exchange::Courier;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sealing::{BoxContext, BoxId, ClientKeys, Session};
use store::{ShareStore, SqliteStore, Store};
use strongroom_proto::v1;
use testkit::{FailingKms, FailingShares, FailingStore, Fault, Operation};
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::{Ask, Target};
use crate::{
    access::Access,
    caller::Caller,
    checkpoints::Checkpoints,
    core::{Core, Parts},
    outside::scripted::Scripted,
    people::Called,
    refused::{Refused, Why},
    route::Failed,
    session::OpenSession,
};

const SECRET: &[u8] = b"sk-proj-0123456789abcdefghijklmnop";

/// A core with tenant `acme` and its credential `openai`, and one workload's session.
struct Fixture {
    core: Arc<Core>,
    clock: Arc<ManualClock>,
    kms: Arc<FailingKms>,
    shares: Arc<FailingShares>,
    store: Arc<FailingStore>,
    outside: Arc<Scripted>,
    caller: Caller,
    client: Session,
    session: Arc<OpenSession>,
}

impl Fixture {
    async fn new() -> Self {
        let kms = failing_kms();
        let roots = Roots::only(Arc::clone(&kms) as _);
        let fixture = Self::over(kms, roots).await;
        fixture.furnish("acme").await;
        fixture
    }

    /// The stores, for another broker on them.
    fn stores(&self) -> Stores {
        (Arc::clone(&self.store) as _, Arc::clone(&self.shares) as _)
    }

    /// Without any tenant yet.
    async fn over(kms: Arc<FailingKms>, roots: Roots) -> Self {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        let store = Arc::new(FailingStore::new(store));
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
        let outside = Arc::<Scripted>::default();
        let courier = Arc::clone(&outside) as _;
        let shares = Arc::new(FailingShares::new().await.unwrap());
        let stores = (Arc::clone(&store) as _, Arc::clone(&shares) as _);
        let core = core_with(stores, roots, &clock, courier).await;
        let core = Arc::new(core);
        let caller = caller("Leases/AcquireLease");
        let keys = ClientKeys::generate().unwrap();
        let (session, encapsulated) = core.sessions.establish(&caller, &keys.public_key()).unwrap();
        let session = core.sessions.keep(session);
        let client = keys.open(&encapsulated, session.session.id()).unwrap();
        Self { core, clock, kms, shares, store, outside, caller, client, session }
    }

    async fn furnish(&self, tenant: &str) {
        let admin = caller("Tenants/CreateTenant");
        let request = v1::CreateTenantRequest { tenant_id: tenant.into(), ..Default::default() };
        self.core.create_tenant(&admin, request).await.unwrap();
        self.put(&name_of(tenant)).await;
    }

    async fn put(&self, name: &CredentialName) {
        let spec = v1::Credential { provider: "openai".into(), ..Default::default() };
        let secret = std::str::from_utf8(SECRET).unwrap();
        self.put_as(name, spec, secret, false).await.unwrap();
    }

    async fn put_as(
        &self,
        name: &CredentialName,
        spec: v1::Credential,
        secret: &str,
        test: bool,
    ) -> Result<v1::Credential, Refused> {
        let request = v1::CreateCredentialRequest {
            parent: name.tenant.resource(),
            credential_id: name.credential.to_string(),
            secret: Some(self.sealed_for(name, &spec.provider, secret.as_bytes())),
            credential: Some(spec),
            request_id: String::new(),
            test,
        };
        let admin = caller("Credentials/CreateCredential");
        self.core.create_credential(&admin, request).await
    }

    async fn rotate_as(
        &self,
        name: &str,
        secret: &str,
        test: bool,
    ) -> Result<v1::Credential, Refused> {
        let name = named(name);
        let request = v1::RotateCredentialRequest {
            name: name.to_string(),
            secret: Some(self.sealed(&name, secret.as_bytes())),
            test,
            ..Default::default()
        };
        let admin = caller("Credentials/RotateCredential");
        self.core.rotate_credential(&admin, request).await
    }

    fn sealed(&self, name: &CredentialName, secret: &[u8]) -> v1::SealedBox {
        self.sealed_for(name, "openai", secret)
    }

    fn sealed_for(&self, name: &CredentialName, provider: &str, secret: &[u8]) -> v1::SealedBox {
        let box_id = BoxId::random().unwrap();
        let context = BoxContext {
            box_id,
            credential: &name.to_string(),
            provider,
            identity: self.caller.identity.as_str(),
        };
        let sealed = self.client.seal_box(&context, &Secret::new(secret.to_vec())).unwrap();
        v1::SealedBox {
            session_id: self.session.session.id().to_vec().into(),
            box_id: box_id.as_bytes().to_vec().into(),
            ciphertext: sealed.into(),
        }
    }

    fn clock_now(&self) -> Timestamp {
        domain::Clock::now(&*self.clock)
    }

    async fn lend(&self) -> Result<v1::Lease, Refused> {
        self.core.lend(&self.caller, &self.session, ask(), None).await
    }

    async fn renew(&self, lease: &v1::Lease) -> Result<v1::Lease, Refused> {
        let id = LeaseId::from_bytes(lease.lease_id.as_ref().try_into().unwrap());
        self.core.renew(&self.caller, &self.session, id, None).await
    }

    async fn disable(&self) {
        let admin = caller("Credentials/DisableCredential");
        self.core.switch(&admin, &name().to_string(), "", false).await.unwrap();
    }

    async fn enable(&self) {
        let admin = caller("Credentials/EnableCredential");
        self.core.switch(&admin, &name().to_string(), "", true).await.unwrap();
    }

    /// How many records of a kind are durable.
    async fn recorded(&self, kind: Kind) -> usize {
        let entries = self.store.records(0, 10_000, None).await.unwrap();
        entries.iter().filter(|entry| entry.record().unwrap().kind() == kind).count()
    }
}

fn failing_kms() -> Arc<FailingKms> {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("kms.key");
    LocalKms::create_new(&key_file, None).unwrap();
    Arc::new(FailingKms::over(Arc::new(LocalKms::open(&key_file, None).unwrap())))
}

type Stores = (Arc<dyn Store>, Arc<dyn ShareStore>);

async fn core(stores: Stores, roots: Roots, clock: &Arc<ManualClock>) -> Core {
    core_with(stores, roots, clock, Arc::<Scripted>::default()).await
}

async fn core_with(
    stores: Stores,
    roots: Roots,
    clock: &Arc<ManualClock>,
    courier: Arc<dyn Courier>,
) -> Core {
    core_of(stores, roots, clock, (courier, KeyringSettings::default())).await
}

async fn core_keyed(
    stores: Stores,
    roots: Roots,
    clock: &Arc<ManualClock>,
    keyring: KeyringSettings,
) -> Core {
    core_of(stores, roots, clock, (Arc::<Scripted>::default(), keyring)).await
}

async fn core_of(
    stores: Stores,
    roots: Roots,
    clock: &Arc<ManualClock>,
    (courier, keyring): (Arc<dyn Courier>, KeyringSettings),
) -> Core {
    let (store, shares) = stores;
    let rule = AccessRule {
        role: String::new(),
        identities: vec!["spiffe://a.b/w/*".parse().unwrap()],
        methods: strongroom_proto::methods(),
        tenants: vec!["acme".into(), "globex".into()],
        providers: vec!["*".into()],
        longest_lease_seconds: LONGEST_TTL,
    };
    let parts = Parts {
        people: vec!["spiffe://a.b/p/*".parse().unwrap()],
        access: Arc::new(Access::of(&[rule])),
        aws: None,
        courier,
        catalogue: providers::Catalogue::builtin().unwrap(),
        checkpoints: Arc::new(
            Checkpoints::new(log_key().verifier().clone(), Path::new("b.toml")).0,
        ),
        clock: Arc::clone(clock) as _,
        commit_deadline: Duration::from_secs(5),
        keep: None,
        keyring,
        roots: Arc::new(roots),
        endpoints: crate::endpoints::EndpointRules::default(),
        sessions: 10,
        shares,
        share_backups: Duration::from_hours(168),
        sinks: vec![],
        usage: crate::config::UsageConfig::default(),
        store,
        verifier_key: String::new(),
    };
    Core::open(parts, &TaskTracker::new()).await.unwrap()
}

fn log_key() -> SignerKey {
    SignerKey::from_seed("strongroom.test/log", &[7; 32]).unwrap()
}

fn caller(method: &'static str) -> Caller {
    Caller::new("spiffe://a.b/w/service".parse().unwrap(), Called::ById, [1; 32], method, None)
}

fn name() -> CredentialName {
    name_of("acme")
}

fn named(credential: &str) -> CredentialName {
    format!("tenants/acme/credentials/{credential}").parse().unwrap()
}

fn name_of(tenant: &str) -> CredentialName {
    format!("tenants/{tenant}/credentials/openai").parse().unwrap()
}

fn ask() -> Ask {
    Ask {
        failed: vec![],
        allowance: None,
        target: Target::Credential(name()),
        dialect: Dialect::OpenAi,
        ttl: None,
        request_id: String::new(),
    }
}

#[track_caller]
fn check(refused: Result<v1::Lease, Refused>, code: Code, reason: Reason) {
    let why = refused.unwrap_err().why;
    assert_eq!((why.code(), why.reason()), (code, reason), "{why:?}");
}

#[tokio::test]
async fn a_lease_that_cannot_be_recorded_is_not_lent() {
    let fixture = Fixture::new().await;
    assert!(fixture.lend().await.is_ok(), "the control: with a log it is lent");
    for fault in [Fault::Before, Fault::AfterPersisting] {
        fixture.store.fail_once(Operation::Append, fault);
        check(fixture.lend().await, Code::Unavailable, Reason::LogUnavailable);
    }
    assert!(fixture.lend().await.is_ok(), "and again once the log is back");
    // The one that failed after it was persisted is on record too: recorded and never delivered.
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 3);
}

#[tokio::test]
async fn a_commit_that_hangs_refuses_the_call_and_is_not_cancelled() {
    let fixture = Fixture::new().await;
    // Warm, so that nothing else waits for the database.
    fixture.lend().await.unwrap();
    fixture.store.fail_once(Operation::Append, Fault::Hang);
    // Time runs to the deadline by itself while everything waits.
    tokio::time::pause();
    check(fixture.lend().await, Code::Unavailable, Reason::LogUnavailable);
    tokio::time::resume();
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 1);
    fixture.store.heal();
    // The next record waits in line behind the one that hung.
    fixture.lend().await.unwrap();
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 3);
}

#[tokio::test]
async fn no_lease_is_recorded_after_the_change_that_forbids_it() {
    let fixture = Fixture::new().await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    // Another broker on the same store has the credential cached before it is disabled here.
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let other = core(fixture.stores(), roots, &clock).await;
    let keys = ClientKeys::generate().unwrap();
    let (session, _) = other.sessions.establish(&fixture.caller, &keys.public_key()).unwrap();
    other.lend(&fixture.caller, &session, ask(), None).await.unwrap();
    fixture.disable().await;
    let late = other.lend(&fixture.caller, &session, ask(), None).await;
    check(late, Code::FailedPrecondition, Reason::CredentialIsDisabled);
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 1);
}

#[tokio::test]
async fn a_row_that_was_changed_past_the_broker_is_refused() {
    let fixture = Fixture::new().await;
    fixture.disable().await;
    // What someone with access to the database would do to get the key lent again.
    let mut row =
        fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    row.enabled = true;
    row.revision += 1;
    let change = store::Change::UpdateCredential(row, None);
    let record = audit::Record {
        kind: Kind::CredentialEnabled.into(),
        ..fixture.store.changes(0, 100).await.unwrap().last().unwrap().record().unwrap()
    };
    let record = audit::Record { index: 0, time: None, revision: record.revision + 1, ..record };
    fixture.store.apply(&change, &audit::RecordDraft::new(record).unwrap()).await.unwrap();
    check(fixture.lend().await, Code::DataLoss, Reason::StoredDataCorrupt);
}

#[tokio::test]
async fn a_revoked_lease_is_not_renewed() {
    let fixture = Fixture::new().await;
    let lease = fixture.lend().await.unwrap();
    let request = v1::RevokeLeaseRequest { lease_hash: lease.lease_hash.clone() };
    let admin = caller("Leases/RevokeLease");
    fixture.core.revoke_lease(&admin, &request).await.unwrap();
    check(fixture.renew(&lease).await, Code::FailedPrecondition, Reason::LeaseEnded);
}

#[tokio::test]
async fn a_lease_is_its_session_s_alone() {
    let fixture = Fixture::new().await;
    let lease = fixture.lend().await.unwrap();
    let keys = ClientKeys::generate().unwrap();
    let (other, _) = fixture.core.sessions.establish(&fixture.caller, &keys.public_key()).unwrap();
    let id = LeaseId::from_bytes(lease.lease_id.as_ref().try_into().unwrap());
    let stolen = fixture.core.renew(&fixture.caller, &other, id, None).await;
    check(stolen, Code::NotFound, Reason::NoSuchLease);
    let stranger = Caller::new(
        "spiffe://a.b/w/stranger".parse().unwrap(),
        Called::ById,
        [2; 32],
        "Leases/RenewLease",
        None,
    );
    let session = fixture.core.sessions.of(&stranger, &fixture.session.session.id());
    assert!(matches!(session, Err(Why::NoSuchSession)));
}

#[tokio::test]
async fn a_database_behind_a_checkpoint_lends_and_renews_nothing() {
    let fixture = Fixture::new().await;
    let lease = fixture.lend().await.unwrap();
    let size = fixture.core.store.head().await.unwrap().frontier.size() + 1;
    let seen = Checkpoint::sign(size, &[1; 32], &log_key()).unwrap();
    fixture.core.hear(&seen.replace(&size.to_string(), "999")).await.unwrap();
    fixture.lend().await.unwrap();
    // The grant above has brought the log to the size that was echoed, not beyond.
    let seen = Checkpoint::sign(size + 1, &[1; 32], &log_key()).unwrap();
    assert!(fixture.core.hear(&seen).await.is_err());
    let grants = fixture.recorded(Kind::LeaseGranted).await;
    check(fixture.lend().await, Code::Unavailable, Reason::LogBehindCheckpoint);
    check(fixture.renew(&lease).await, Code::Unavailable, Reason::LogBehindCheckpoint);
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, grants);
    // What takes access away goes on.
    fixture.disable().await;
}

#[tokio::test]
async fn a_full_queue_refuses_without_a_secret() {
    let fixture = Fixture::new().await;
    fixture.lend().await.unwrap();
    fixture.store.fail_once(Operation::Append, Fault::Hang);
    // One batch hangs, and behind it the queue fills up; the rest is refused at once.
    let most = 4096 + 256;
    let lease = || fixture.lend();
    let mut leases: FuturesUnordered<_> = (0..most + 10).map(|_| lease()).collect();
    let mut refused = 0;
    while refused < 10 {
        let outcome = leases.next().await.unwrap();
        check(outcome, Code::Unavailable, Reason::LogUnavailable);
        refused += 1;
    }
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 1);
    fixture.store.heal();
    let lent = leases.filter(|lease| std::future::ready(lease.is_ok())).count().await;
    // Every secret that left has its record; a record without its lease would be harmless.
    assert!(lent > 0 && fixture.recorded(Kind::LeaseGranted).await > lent);
}

#[tokio::test]
async fn a_box_is_stored_once() {
    let fixture = Fixture::new().await;
    let secret = fixture.sealed(&name(), b"sk-proj-another-0123456789");
    let rotate = |secret: &v1::SealedBox| {
        let request = v1::RotateCredentialRequest {
            name: name().to_string(),
            secret: Some(secret.clone()),
            ..Default::default()
        };
        let admin = caller("Credentials/RotateCredential");
        let core = &fixture.core;
        async move { core.rotate_credential(&admin, request).await }
    };
    rotate(&secret).await.unwrap();
    let why = rotate(&secret).await.unwrap_err().why;
    assert_eq!(why.reason(), Reason::BoxDoesNotOpen);
}

#[tokio::test]
async fn the_platform_tenant_is_not_in_reach_by_default() {
    let fixture = Fixture::new().await;
    let target = Target::Provider { tenant: TenantId::platform(), provider: "openai".into() };
    let ask = Ask { target, ..ask() };
    let refused = fixture.core.lend(&fixture.caller, &fixture.session, ask, None).await;
    check(refused, Code::PermissionDenied, Reason::NotPermitted);
}

#[tokio::test]
async fn the_first_record_since_a_time_is_found() {
    let fixture = Fixture::new().await;
    let before = fixture.store.head().await.unwrap();
    let size = before.frontier.size();
    let later = Timestamp::from_millis(before.time.as_millis() + 2);
    while fixture.store.now().await.unwrap() < later {}
    fixture.lend().await.unwrap();
    fixture.lend().await.unwrap();
    let since = async |from: u64, time| {
        crate::core::first_since(&*fixture.store, from..size + 2, time).await.unwrap()
    };
    assert_eq!(since(0, later).await, size);
    assert_eq!(since(size + 1, later).await, size + 1);
    assert_eq!(since(0, Timestamp::from_millis(0)).await, 0);
    assert_eq!(since(0, Timestamp::from_millis(i64::MAX)).await, size + 2);
}
