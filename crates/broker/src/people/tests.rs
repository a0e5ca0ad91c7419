use std::{path::Path, sync::Arc, time::Duration};

use audit::SignerKey;
use domain::{AccessRule, LONGEST_TTL, ManualClock, SpiffeId, Timestamp};
use envelope::{LocalKms, Roots};
use store::{SqliteStore, Store};
use testkit::{FailingKms, FailingShares, KmsFailure};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    caller::Caller,
    checkpoints::Checkpoints,
    core::{Core, Parts},
    rekeying::{Pace, Rekeying},
};

struct Fixture {
    core: Core,
    kms: Arc<FailingKms>,
    shares: Arc<FailingShares>,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("kms.key");
        LocalKms::create_new(&key_file, None).unwrap();
        let kms = Arc::new(FailingKms::over(Arc::new(LocalKms::open(&key_file, None).unwrap())));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
        let shares = Arc::new(FailingShares::new().await.unwrap());
        let core = core(&store, (&kms, &shares), &clock).await;
        Self { core, kms, shares, store, clock, _folder: folder }
    }

    /// Another broker on the same store, which has nothing in memory.
    async fn restarted(&self) -> Core {
        core(&self.store, (&self.kms, &self.shares), &self.clock).await
    }
}

async fn core(
    store: &Arc<dyn Store>,
    (kms, shares): (&Arc<FailingKms>, &Arc<FailingShares>),
    clock: &Arc<ManualClock>,
) -> Core {
    let rule = AccessRule {
        role: String::new(),
        identities: vec!["spiffe://a.b/w/*".parse().unwrap()],
        methods: strongroom_proto::methods(),
        tenants: vec!["*".into()],
        providers: vec!["*".into()],
        longest_lease_seconds: LONGEST_TTL,
    };
    let key = SignerKey::from_seed("strongroom.test/log", &[7; 32]).unwrap();
    let parts = Parts {
        keep: None,
        sinks: vec![],
        usage: crate::config::UsageConfig::default(),
        people: vec!["spiffe://a.b/w/people/*".parse().unwrap()],
        access: Arc::new(Access::of(&[rule])),
        aws: None,
        courier: Arc::<crate::outside::scripted::Scripted>::default(),
        catalogue: providers::Catalogue::builtin().unwrap(),
        checkpoints: Arc::new(Checkpoints::new(key.verifier().clone(), Path::new("b.toml")).0),
        clock: Arc::clone(clock) as _,
        commit_deadline: Duration::from_secs(5),
        keyring: envelope::KeyringSettings::default(),
        roots: Arc::new(Roots::only(Arc::clone(kms) as _)),
        endpoints: crate::endpoints::EndpointRules::default(),
        sessions: 10,
        shares: Arc::clone(shares) as _,
        share_backups: Duration::from_hours(168),
        store: Arc::clone(store),
        verifier_key: String::new(),
    };
    Core::open(parts, &TaskTracker::new()).await.unwrap()
}

fn person(name: &str) -> SpiffeId {
    format!("spiffe://a.b/w/people/{name}").parse().unwrap()
}

#[tokio::test]
async fn a_person_keeps_one_commitment_and_others_have_none() {
    let fixture = Fixture::new().await;
    let people = &fixture.core.people;
    let ann = people.call(&person("ann")).await.unwrap();
    assert!(matches!(ann, Called::By(_)));
    assert_ne!(ann, people.call(&person("bob")).await.unwrap());
    let workload = "spiffe://a.b/w/proxy".parse().unwrap();
    assert_eq!(people.call(&workload).await.unwrap(), Called::ById);
    let restarted = fixture.restarted().await;
    assert_eq!(restarted.people.call(&person("ann")).await.unwrap(), ann);
}

#[tokio::test]
async fn without_the_kms_a_known_person_is_called_and_a_new_one_is_not() {
    let fixture = Fixture::new().await;
    let ann = fixture.core.people.call(&person("ann")).await.unwrap();
    let restarted = fixture.restarted().await;
    fixture.kms.fail(KmsFailure::Unavailable);
    assert_eq!(restarted.people.call(&person("ann")).await.unwrap(), ann);
    let new = restarted.people.call(&person("bob")).await;
    assert!(matches!(new, Err(Why::Kms(_))), "{new:?}");
}

#[tokio::test]
async fn a_row_that_was_changed_past_the_broker_names_nobody() {
    let fixture = Fixture::new().await;
    let people = &fixture.core.people;
    let mut rows = Vec::new();
    for name in ["ann", "bob"] {
        people.call(&person(name)).await.unwrap();
        let row = fixture.store.person(&people.handle(&person(name))).await.unwrap().unwrap();
        people.check(&row).unwrap();
        rows.push(row);
    }
    // As if ann's deeds were to be bob's.
    let [ann, bob] = &*rows else { panic!() };
    let swapped = PersonRow { commitment: bob.commitment, ..ann.clone() };
    assert!(people.check(&swapped).is_err());
    let swapped = PersonRow { handle: bob.handle, ..ann.clone() };
    assert!(people.check(&swapped).is_err());
}

#[tokio::test]
async fn a_persons_name_is_told_after_the_key_was_rotated() {
    let fixture = Fixture::new().await;
    let Called::By(ann) = fixture.core.people.call(&person("ann")).await.unwrap() else { panic!() };
    let admin = Caller::new(
        "spiffe://a.b/w/x".parse().unwrap(),
        Called::ById,
        [1; 32],
        "Kms/RotateKek",
        None,
    );
    let request = v1::RotateKekRequest { tenant: "tenants/platform".into(), ..Default::default() };
    let core = Arc::new(fixture.restarted().await);
    core.rotate_kek(&admin, &request).await.unwrap();
    let pace =
        Pace { settle: Duration::ZERO, between: Duration::ZERO, ..Pace::gentle(Duration::ZERO) };
    let mut rekeying = Rekeying::new(Arc::clone(&core), pace);
    while rekeying.turn().await.worked {}
    assert_eq!(core.rekeyed.resealed(), 2, "the platform and ann");
    let platform = fixture.store.tenant(&TenantId::platform()).await.unwrap().unwrap();
    let keys = fixture.store.keys(platform.uid, KeyPurpose::Kek).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.version).collect::<Vec<_>>(), [2]);
    let told = fixture.restarted().await.people.tell(hex::encode(ann)).await;
    assert_eq!(told, "spiffe://a.b/w/people/ann");
}
