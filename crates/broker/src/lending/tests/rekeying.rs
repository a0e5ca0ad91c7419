//! Keys change while leases are given.

use std::{sync::Arc, time::Duration};

use audit::{Kind, Record, RecordDraft};
use domain::{CredentialName, TenantId, Timestamp, VirtualKey};
use envelope::{Kms as _, LocalKms, Roots, WrappedKey};
use store::{Change, KeyPurpose, KeyStore as _, KeyWork, Place, Resealed, Store as _};
use strongroom_proto::v1;
use testkit::{FailingKms, Fault, KmsFailure, Operation};
use tonic::Code;

use super::{Ask, Core, Fixture, Refused, Target, ask, caller, core, name, name_of};
use crate::{
    custody::OwnRow as _,
    rekeying::{Pace, Rekeying, Task, Turn},
};

/// As fast as it goes.
const AT_ONCE: Pace = Pace {
    rows: 2,
    between: Duration::ZERO,
    idle: Duration::ZERO,
    after_failure: Duration::ZERO,
    settle: Duration::ZERO,
};

fn rekeying(core: &Arc<Core>) -> Rekeying {
    Rekeying::new(Arc::clone(core), AT_ONCE)
}

/// Does all that there is to do, and looks at the store's leases in between.
async fn finish(fixture: &Fixture, core: &Arc<Core>) -> usize {
    let mut rekeying = rekeying(core);
    for turns in 0.. {
        let Turn { worked, failed } = rekeying.turn().await;
        assert!(!failed, "{}", core.rekeyed.last_error());
        if !worked {
            return turns;
        }
        fixture.lend().await.unwrap();
    }
    0
}

fn rotate(request_id: &str) -> v1::RotateKekRequest {
    v1::RotateKekRequest { tenant: "tenants/acme".into(), request_id: request_id.into() }
}

async fn rotated(core: &Core) -> v1::RotateKekResponse {
    core.rotate_kek(&caller("Kms/RotateKek"), &rotate("")).await.unwrap()
}

async fn versions(fixture: &Fixture, tenant: &str) -> Vec<(u32, u64)> {
    let row = fixture.store.tenant(&tenant.parse().unwrap()).await.unwrap().unwrap();
    let under = fixture.store.key_references(&row.id, row.uid).await.unwrap();
    let keys = fixture.store.keys(row.uid, KeyPurpose::Kek).await.unwrap();
    let count = |version| under.iter().find(|it| it.0 == version).map_or(0, |it| it.1);
    keys.iter().map(|key| (key.version, count(key.version))).collect()
}

async fn records(fixture: &Fixture) -> Vec<Record> {
    let entries = fixture.store.records(0, 10_000, None).await.unwrap();
    entries.iter().map(|entry| entry.record().unwrap()).collect()
}

async fn put_virtual_key(fixture: &Fixture) -> VirtualKey {
    let key = VirtualKey::generate().unwrap();
    let request = v1::CreateVirtualKeyRequest {
        parent: "tenants/acme".into(),
        virtual_key_id: key.id().to_string(),
        virtual_key: Some(v1::VirtualKey::default()),
        key_sha256: key.digest().as_bytes().to_vec().into(),
    };
    let admin = caller("VirtualKeys/CreateVirtualKey");
    fixture.core.create_virtual_key(&admin, request).await.unwrap();
    key
}

async fn lend_by(core: &Core, fixture: &Fixture, target: Target) -> Result<v1::Lease, Refused> {
    let session = core.sessions.establish(&fixture.caller, &fixture_key()).unwrap().0;
    core.lend(&fixture.caller, &core.sessions.keep(session), Ask { target, ..ask() }, None).await
}

fn fixture_key() -> [u8; 32] {
    sealing::ClientKeys::generate().unwrap().public_key()
}

#[tokio::test]
async fn a_rotation_seals_everything_anew_while_leases_are_given() {
    let fixture = Fixture::new().await;
    for number in 0..5 {
        fixture.put(&format!("tenants/acme/credentials/c{number}").parse().unwrap()).await;
    }
    let key = put_virtual_key(&fixture).await;
    assert_eq!(versions(&fixture, "acme").await, [(1, 14)]);

    let answer = rotated(&fixture.core).await;
    let told: Vec<_> = answer.tenant.unwrap().versions.iter().map(|v| v.version).collect();
    assert_eq!(told, [2, 1]);
    // What is written from now on is under the new version.
    fixture.put(&"tenants/acme/credentials/late".parse().unwrap()).await;
    assert_eq!(versions(&fixture, "acme").await, [(2, 2), (1, 14)]);

    let turns = finish(&fixture, &fixture.core).await;
    assert_eq!(turns, 8, "seven times two rows, and the end of the old version");
    assert_eq!(versions(&fixture, "acme").await, [(2, 16)]);
    assert_eq!(fixture.core.rekeyed.resealed(), 14);
    let target = Target::VirtualKey {
        id: key.id().clone(),
        digest: key.digest(),
        model: "gpt-4o".into(),
        provider: String::new(),
    };
    lend_by(&fixture.core, &fixture, target).await.unwrap();

    let records = records(&fixture).await;
    let of_keys = |record: &&Record| matches!(record.kind(), Kind::KekRotated | Kind::KekRetired);
    let told: Vec<_> =
        records.iter().filter(of_keys).map(|it| (it.kind(), it.kek_version)).collect();
    assert_eq!(told, [(Kind::KekRotated, 2), (Kind::KekRetired, 2)]);
    let end = records.iter().position(|record| record.kind() == Kind::KekRetired).unwrap();
    let after = records[end..].iter().filter(|record| record.kind() == Kind::LeaseGranted);
    assert!(after.clone().count() > 0 && after.clone().all(|record| record.kek_version == 2));
}

#[tokio::test]
async fn a_rotation_goes_on_at_another_broker_where_it_was_left() {
    let fixture = Fixture::new().await;
    for number in 0..5 {
        fixture.put(&format!("tenants/acme/credentials/c{number}").parse().unwrap()).await;
    }
    rotated(&fixture.core).await;
    let mut first = rekeying(&fixture.core);
    // Killed after its rows were replaced, before it heard so.
    fixture.store.fail_once(Operation::Reseal, Fault::AfterPersisting);
    assert!(first.turn().await.failed);
    drop(first);
    assert_eq!(versions(&fixture, "acme").await, [(2, 2), (1, 11)]);

    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let other = core(fixture.stores(), roots, &fixture.clock).await;
    finish(&fixture, &Arc::new(other)).await;
    assert_eq!(versions(&fixture, "acme").await, [(2, 13)]);
}

#[tokio::test]
async fn a_broker_that_has_not_heard_of_a_rotation_lends_all_the_same() {
    let fixture = Fixture::new().await;
    let second: CredentialName = "tenants/acme/credentials/second".parse().unwrap();
    fixture.put(&second).await;
    let key = put_virtual_key(&fixture).await;
    let roots = || Roots::only(Arc::clone(&fixture.kms) as _);
    let clock = &fixture.clock;
    let deaf = core(fixture.stores(), roots(), clock).await;
    // It has the tenant and one envelope in memory.
    lend_by(&deaf, &fixture, Target::Credential(name())).await.unwrap();

    rotated(&fixture.core).await;
    let mut rekeying = Rekeying::new(
        Arc::clone(&fixture.core),
        Pace { settle: Duration::from_hours(1), rows: 99, ..AT_ONCE },
    );
    rekeying.turn().await;
    assert_eq!(versions(&fixture, "acme").await, [(2, 6), (1, 0)]);
    let by_key = || Target::VirtualKey {
        id: key.id().clone(),
        digest: key.digest(),
        model: "gpt-4o".into(),
        provider: String::new(),
    };
    for target in [Target::Credential(name()), Target::Credential(second.clone()), by_key()] {
        lend_by(&deaf, &fixture, target).await.unwrap();
    }

    let deaf = core(fixture.stores(), roots(), clock).await;
    lend_by(&deaf, &fixture, Target::Credential(name())).await.unwrap();
    finish(&fixture, &fixture.core).await;
    assert_eq!(versions(&fixture, "acme").await, [(2, 6)]);
    for target in [Target::Credential(name()), Target::Credential(second), by_key()] {
        lend_by(&deaf, &fixture, target).await.unwrap();
    }
}

#[tokio::test]
async fn a_secret_that_is_rotated_meanwhile_stays_the_new_one() {
    let fixture = Fixture::new().await;
    rotated(&fixture.core).await;
    fixture.store.fail_once(Operation::Reseal, Fault::Hang);
    let mut rekeying = Rekeying::new(Arc::clone(&fixture.core), Pace { rows: 99, ..AT_ONCE });
    let changed = async {
        fixture.store.until_hanging(1).await;
        let request = v1::RotateCredentialRequest {
            name: name().to_string(),
            secret: Some(fixture.sealed(&name(), b"sk-proj-another-0123456789abcdef")),
            ..Default::default()
        };
        let admin = caller("Credentials/RotateCredential");
        fixture.core.rotate_credential(&admin, request).await.unwrap();
        fixture.store.heal();
    };
    let (turn, ()) = tokio::join!(rekeying.turn(), changed);
    assert!(!turn.failed);
    finish(&fixture, &fixture.core).await;
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    assert_eq!((row.current_version, row.revision, &*row.last_four), (2, 2, "cdef"));
    assert_eq!(versions(&fixture, "acme").await, [(2, 4)]);
    fixture.lend().await.unwrap();
}

#[tokio::test]
async fn a_row_that_was_changed_past_the_broker_does_not_become_genuine() {
    let fixture = Fixture::new().await;
    for number in 0..5 {
        fixture.put(&format!("tenants/acme/credentials/c{number}").parse().unwrap()).await;
    }
    rotated(&fixture.core).await;
    let tenant: TenantId = "acme".parse().unwrap();
    for id in ["c1", "c2", "c3"] {
        let row = fixture.store.credential(&tenant, &id.parse().unwrap()).await.unwrap().unwrap();
        let mut forged = row.row_mac;
        forged[35] ^= 1;
        let (before, after) = (row.row_mac.to_vec(), forged.to_vec());
        let tampered = Resealed { place: Place::Credential(row.uid), before, after };
        assert_eq!(fixture.store.reseal(&[tampered]).await.unwrap(), 1);
    }
    let mut rekeying = rekeying(&fixture.core);
    // All others come through, though these stand in the way.
    while rekeying.turn().await.worked {}
    assert_eq!(versions(&fixture, "acme").await, [(2, 10), (1, 3)]);
    let turn = rekeying.turn().await;
    assert!(turn.failed && !turn.worked, "and the old version stays");
    let told = fixture.core.rekeyed.last_error();
    assert!(told.contains("was changed past the broker"), "{told}");
}

#[tokio::test]
async fn a_tenant_whose_rows_cannot_be_sealed_anew_holds_up_no_other() {
    let fixture = Fixture::new().await;
    let tenant: TenantId = "acme".parse().unwrap();
    let row = fixture.store.credential(&tenant, &name().credential).await.unwrap().unwrap();
    let (before, mut after) = (row.row_mac.to_vec(), row.row_mac.to_vec());
    after[35] ^= 1;
    let tampered = Resealed { place: Place::Credential(row.uid), before, after };
    rotated(&fixture.core).await;
    assert_eq!(fixture.store.reseal(&[tampered]).await.unwrap(), 1);
    let after_failure = Duration::from_secs(30);
    let mut rekeying = Rekeying::new(Arc::clone(&fixture.core), Pace { after_failure, ..AT_ONCE });
    while rekeying.turn().await.worked {}
    let told = fixture.core.rekeyed.last_error();
    assert!(told.contains("was changed past the broker"), "{told}");

    fixture.furnish("globex").await;
    let request = v1::RotateKekRequest { tenant: "tenants/globex".into(), ..Default::default() };
    fixture.core.rotate_kek(&caller("Kms/RotateKek"), &request).await.unwrap();
    let mut turns = 0;
    loop {
        let Turn { worked, failed } = rekeying.turn().await;
        assert!(!failed, "it is not tried again with each step of another");
        if !worked {
            break;
        }
        turns += 1;
    }
    assert!(turns > 1 && versions(&fixture, "globex").await.len() == 1, "{turns}");
    assert_eq!(fixture.core.rekeyed.last_error(), told, "and it is not forgotten");
    fixture.clock.advance(after_failure);
    assert!(rekeying.turn().await.failed);
}

#[tokio::test]
async fn what_does_not_open_is_named_as_people_call_it() {
    let fixture = Fixture::new().await;
    rotated(&fixture.core).await;
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    let version = fixture.store.version(row.uid, 1).await.unwrap().unwrap();
    let mut damaged = version.envelope.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let place = Place::Version(row.uid, 1);
    let tampered = Resealed { place, before: version.envelope, after: damaged };
    assert_eq!(fixture.store.reseal(&[tampered]).await.unwrap(), 1);
    let mut rekeying = rekeying(&fixture.core);
    while rekeying.turn().await.worked {}
    let told = fixture.core.rekeyed.last_error();
    assert_eq!(told, format!("what is stored does not open: {}, version 1", name()));
}

#[tokio::test]
async fn every_tenants_key_is_rotated_and_a_tenant_that_was_added_is_left_alone() {
    let fixture = Fixture::new().await;
    let request = v1::RotateKekRequest { request_id: "r-1".into(), ..Default::default() };
    // This caller acts for some tenants only.
    let refused = fixture.core.rotate_kek(&caller("Kms/RotateKek"), &request).await.unwrap_err();
    assert_eq!(refused.why.code(), Code::PermissionDenied);
    let begun = |request_id: &'static str| {
        let record = Record { kind: Kind::KekRotationBegun.into(), ..Record::default() };
        let request_id = Some(request_id.parse().unwrap());
        let admin = caller("Kms/RotateKek");
        let core = Arc::clone(&fixture.core);
        async move {
            core.begin(
                (&admin, &v1::RotateKekRequest::default()),
                &Task::RotateAll,
                request_id,
                record,
            )
            .await
            .unwrap()
        }
    };
    assert!(begun("r-1").await > 0);
    assert_eq!(begun("r-1").await, 0, "the same request again");
    fixture.kms.fail(KmsFailure::Unavailable);
    let mut broken = rekeying(&fixture.core);
    assert!(broken.turn().await.failed);
    fixture.kms.recover();

    fixture.clock.advance(Duration::from_secs(3));
    finish(&fixture, &fixture.core).await;
    assert_eq!(versions(&fixture, "acme").await, [(2, 3)]);
    assert_eq!(versions(&fixture, "platform").await.first().unwrap().0, 2);
    assert!(fixture.store.key_work().await.unwrap().rows[0].done);
    assert_eq!(begun("r-1").await, 0, "the same request again, although it is done");
    assert_eq!(finish(&fixture, &fixture.core).await, 0);
    assert!(begun("r-2").await > 0);
}

#[tokio::test]
async fn the_same_rotation_again_changes_nothing() {
    let fixture = Fixture::new().await;
    let admin = caller("Kms/RotateKek");
    let first = fixture.core.rotate_kek(&admin, &rotate("r-1")).await.unwrap();
    let again = fixture.core.rotate_kek(&admin, &rotate("r-1")).await.unwrap();
    assert!(first.log_index > 0 && again.log_index == 0);
    assert_eq!(first.tenant, again.tenant);
    fixture.core.rotate_kek(&admin, &rotate("r-2")).await.unwrap();
    finish(&fixture, &fixture.core).await;
    assert_eq!(versions(&fixture, "acme").await, [(3, 3)]);
}

#[tokio::test]
async fn keys_are_wrapped_under_a_new_root_key_and_open_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kms.key");
    LocalKms::create_new(&file, None).unwrap();
    let open = || LocalKms::open(&file, None).unwrap();
    let kms = Arc::new(FailingKms::over(Arc::new(open())));
    let fixture = Fixture::over(Arc::clone(&kms), Roots::only(kms as _)).await;
    fixture.furnish("acme").await;
    LocalKms::rotate(&file, None).unwrap();

    let newer = Arc::new(FailingKms::over(Arc::new(open())));
    let roots = Roots::only(Arc::clone(&newer) as _);
    let other = Arc::new(core(fixture.stores(), roots, &fixture.clock).await);
    let record = Record { kind: Kind::KeyRewrapBegun.into(), ..Record::default() };
    let admin = caller("Kms/RewrapKeys");
    other
        .begin((&admin, &v1::RewrapKeysRequest::default()), &Task::Rewrap(None), None, record)
        .await
        .unwrap();
    // Interrupted: what is done is done, and the rest follows.
    fixture.store.fail_once(Operation::Apply, Fault::AfterPersisting);
    assert!(rekeying(&other).turn().await.failed);
    assert!(!fixture.store.key_work().await.unwrap().rows[0].done);
    let mut going_on = rekeying(&other);
    while going_on.turn().await.worked {}
    assert!(fixture.store.key_work().await.unwrap().rows[0].done);

    let current = newer.status().await.key_ref;
    let keys = fixture.store.wrapped_keys(None, 9).await.unwrap();
    assert_eq!(keys.len(), 3, "two tenants' keys and the pepper");
    for key in keys {
        let wrapped = WrappedKey::from_bytes(key.key.wrapped);
        assert_eq!(newer.wrapped_by(&wrapped).as_ref(), Some(&current));
    }
    let records = records(&fixture).await;
    let rewrapped = records.iter().filter(|record| record.kind() == Kind::KeyRewrapped);
    assert_eq!(rewrapped.count(), 3);
    let again = core(fixture.stores(), Roots::only(newer as _), &fixture.clock).await;
    lend_by(&again, &fixture, Target::Credential(name())).await.unwrap();
}

#[tokio::test]
async fn a_tenant_moves_to_its_own_root_with_its_next_version() {
    let fixture = Fixture::new().await;
    fixture.furnish("globex").await;
    let theirs = super::failing_kms();
    let (root, acme) = ("acme-hsm".parse().unwrap(), "acme".parse().unwrap());
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let roots = roots.with(&root, &[acme], Arc::clone(&theirs) as _).unwrap();
    let moved = core(fixture.stores(), roots, &fixture.clock).await;
    let moved = Arc::new(moved);
    rotated(&moved).await;
    let mut rekeying = rekeying(&moved);
    while rekeying.turn().await.worked {}
    let row = fixture.store.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
    let keys = fixture.store.keys(row.uid, KeyPurpose::Kek).await.unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].wrapped.starts_with(b"SRR1\x08acme-hsm"));
    // Their KMS alone opens it from now on.
    fixture.clock.advance(Duration::from_mins(6));
    fixture.kms.fail(KmsFailure::Refused);
    lend_by(&moved, &fixture, Target::Credential(name())).await.unwrap();
    let others = lend_by(&moved, &fixture, Target::Credential(name_of("globex"))).await;
    assert_eq!(others.unwrap_err().why.code(), Code::FailedPrecondition);
    theirs.fail(KmsFailure::Refused);
    fixture.clock.advance(Duration::from_mins(6));
    lend_by(&moved, &fixture, Target::Credential(name())).await.unwrap_err();
}

#[tokio::test]
async fn a_tenants_own_root_is_rewrapped_apart_from_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.key"), folder.path().join("theirs.key"));
    for file in [&ours, &theirs] {
        LocalKms::create_new(file, None).unwrap();
    }
    let kms = |file| Arc::new(FailingKms::over(Arc::new(LocalKms::open(file, None).unwrap())));
    let (root, acme): (_, TenantId) = ("acme-hsm".parse().unwrap(), "acme".parse().unwrap());
    let roots = || {
        let roots = Roots::only(kms(&ours) as _);
        roots.with(&root, std::slice::from_ref(&acme), kms(&theirs) as _).unwrap()
    };
    let fixture = Fixture::over(kms(&ours), roots()).await;
    for tenant in ["acme", "globex"] {
        fixture.furnish(tenant).await;
    }
    for file in [&ours, &theirs] {
        LocalKms::rotate(file, None).unwrap();
    }

    let other = Arc::new(core(fixture.stores(), roots(), &fixture.clock).await);
    let record = Record { kind: Kind::KeyRewrapBegun.into(), ..Record::default() };
    let task = Task::Rewrap(Some(root.clone()));
    other
        .begin((&caller("Kms/RewrapKeys"), &v1::RewrapKeysRequest::default()), &task, None, record)
        .await
        .unwrap();
    let mut rekeying = rekeying(&other);
    while rekeying.turn().await.worked {}
    assert!(fixture.store.key_work().await.unwrap().rows[0].done);
    let records = records(&fixture).await;
    let rewrapped = records.iter().filter(|record| record.kind() == Kind::KeyRewrapped);
    assert_eq!(rewrapped.map(|record| &*record.tenant).collect::<Vec<_>>(), ["acme"]);
    let again = core(fixture.stores(), roots(), &fixture.clock).await;
    for tenant in ["acme", "globex"] {
        lend_by(&again, &fixture, Target::Credential(name_of(tenant))).await.unwrap();
    }
}

#[tokio::test]
async fn work_that_was_written_past_the_broker_is_not_done() {
    let fixture = Fixture::new().await;
    let work = KeyWork {
        name: Task::RotateAll.name(),
        request_id: Some("x".repeat(8).parse().unwrap()),
        begun_at: Timestamp::from_millis(i64::MAX >> 8),
        done: false,
        row_mac: [0; 32],
    };
    let put = async |work: KeyWork| {
        let record = Record { kind: Kind::KekRotationBegun.into(), ..Record::default() };
        let record = RecordDraft::new(record).unwrap();
        fixture.store.apply(&Change::BeginKeyWork(work), &record).await.unwrap();
    };
    put(work.clone()).await;
    assert_eq!(finish(&fixture, &fixture.core).await, 0);
    // Nor one that was genuine and was put off to another time.
    let genuine = work.clone().sealed(&fixture.core.row_key);
    put(KeyWork { begun_at: Timestamp::from_millis(i64::MAX >> 9), ..genuine.clone() }).await;
    assert_eq!(finish(&fixture, &fixture.core).await, 0);
    assert_eq!(versions(&fixture, "acme").await.len(), 1);
    let status = fixture.core.kms_status(&caller("Kms/GetStatus"), "tenants/acme").await.unwrap();
    assert_eq!(status.work, []);

    put(genuine).await;
    assert!(rekeying(&fixture.core).turn().await.worked, "the control");
    assert!(versions(&fixture, "acme").await.len() > 1);
}
