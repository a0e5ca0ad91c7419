//! What can be done to a virtual key that is in use.

use std::{sync::Arc, time::Duration};

use audit::{Kind, Record};
use domain::{ManualClock, SystemClock, TenantId, VirtualKey};
use strongroom_client::{Broker, LeaseKey, Problem};
use strongroom_proto::v1;
use tonic::{Code, Status};

use crate::{
    harness::{Running, layout},
    lending::{cache, key, refused, with_credential, with_key},
};

fn name(key: &VirtualKey) -> String {
    format!("tenants/acme/virtualKeys/{}", key.id())
}

async fn acme() -> (Running, TenantId) {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    (running, tenant)
}

/// A new value of a key, and what the broker says of the rotation.
async fn rotate(
    admin: &Broker,
    key: &VirtualKey,
    overlap: Duration,
) -> (VirtualKey, Result<v1::VirtualKey, Status>) {
    let new = VirtualKey::renew(key.id().clone()).unwrap();
    let rotated = register(admin, &new, overlap).await;
    (new, rotated)
}

async fn register(
    admin: &Broker,
    new: &VirtualKey,
    overlap: Duration,
) -> Result<v1::VirtualKey, Status> {
    let request = v1::RotateVirtualKeyRequest {
        name: name(new),
        key_sha256: new.digest().as_bytes().to_vec().into(),
        overlap: Some(overlap.try_into().unwrap()),
        etag: String::new(),
    };
    Ok(admin.virtual_keys().rotate_virtual_key(request).await?.into_inner())
}

async fn retire(admin: &Broker, key: &VirtualKey) {
    let request = v1::RetireVirtualKeyValuesRequest { name: name(key) };
    admin.virtual_keys().retire_virtual_key_values(request).await.unwrap();
}

async fn update(
    admin: &Broker,
    key: v1::VirtualKey,
    paths: &[&str],
) -> Result<v1::VirtualKey, Status> {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    let request = v1::UpdateVirtualKeyRequest {
        virtual_key: Some(key),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    Ok(admin.virtual_keys().update_virtual_key(request).await?.into_inner())
}

fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    Problem::from_status(&result.unwrap_err()).reason
}

/// Asks the broker, and not what is held.
async fn is_served(running: &Running, virtual_key: &VirtualKey) -> bool {
    match cache(running).lease(&key(virtual_key, "gpt-4o")).await {
        Ok(lease) => lease.is_live(),
        refusal @ Err(_) => {
            let expected = (Code::Unauthenticated, "VIRTUAL_KEY_REFUSED".to_owned());
            assert_eq!(refused(refusal), expected);
            false
        }
    }
}

fn of(kind: Kind, records: &[Record]) -> Vec<&Record> {
    records.iter().filter(|record| record.kind() == kind).collect()
}

#[tokio::test]
async fn an_older_value_is_served_for_the_overlap_and_no_longer() {
    const OVERLAP: Duration = Duration::from_mins(1);
    let (folder, layout) = layout();
    let clock = Arc::new(ManualClock::at(domain::Clock::now(&SystemClock)));
    let running = Running::start_by(folder, layout, Arc::clone(&clock) as _).await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let old = with_key(&running, &tenant, &[]).await;
    let held = cache(&running);
    let before = held.lease(&key(&old, "gpt-4o")).await.unwrap();

    let rotated_at = domain::Clock::now(&*clock);
    let (new, rotated) = rotate(&running.admin, &old, OVERLAP).await;
    let end = audit::proto_time(rotated_at + OVERLAP);
    assert_eq!(rotated.unwrap().previous_expire_times, [end]);
    // It knows of no end of the old value, so it has ended itself.
    while before.is_live() {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(30));
    let lease = held.lease(&key(&old, "gpt-4o")).await.unwrap();
    assert_eq!(lease.expire_time(), rotated_at + OVERLAP);
    let of_new = held.lease(&key(&new, "gpt-4o")).await.unwrap();
    assert!(of_new.expire_time() > lease.expire_time());
    clock.advance(Duration::from_secs(30));
    assert!(!is_served(&running, &old).await);
    assert!(is_served(&running, &new).await);

    let records = running.end().await;
    let [record] = of(Kind::VirtualKeyRotated, &records)[..] else { panic!("one rotation") };
    assert_eq!((record.ends_leases, record.previous_expire_time), (true, Some(end)));
}

#[tokio::test]
async fn a_rotation_whose_answer_was_lost_can_be_repeated_and_begun_anew() {
    let (running, tenant) = acme().await;
    let admin = &running.admin;
    let used = with_key(&running, &tenant, &[]).await;
    let day = Duration::from_hours(24);
    let (second, rotated) = rotate(admin, &used, day).await;
    let rotated = rotated.unwrap();
    assert_eq!(register(admin, &second, day).await.unwrap(), rotated);
    // The new value was lost with the answer: the one in use goes on whatever is made after it.
    let (third, rotated) = rotate(admin, &used, day).await;
    assert_eq!(rotated.unwrap().previous_expire_times.len(), 2);
    let (fourth, rotated) = rotate(admin, &used, day).await;
    assert_eq!(rotated.unwrap().previous_expire_times.len(), 3);
    assert_eq!(reason(rotate(admin, &used, day).await.1), "TOO_MANY_KEY_VALUES");
    assert_eq!(reason(register(admin, &used, day).await), "INVALID_FIELD");
    for value in [&used, &second, &third, &fourth] {
        assert!(is_served(&running, value).await);
    }

    let held = cache(&running);
    let lease = held.lease(&key(&used, "gpt-4o")).await.unwrap();
    retire(admin, &used).await;
    retire(admin, &used).await;
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    for value in [&used, &second, &third] {
        assert!(!is_served(&running, value).await);
    }
    assert!(is_served(&running, &fourth).await);
    let (fifth, rotated) = rotate(admin, &used, Duration::ZERO).await;
    assert_eq!(rotated.unwrap().previous_expire_times, []);
    assert!(!is_served(&running, &fourth).await);
    assert!(is_served(&running, &fifth).await);

    let records = running.end().await;
    let ends = of(Kind::VirtualKeyRotated, &records);
    let ends: Vec<bool> = ends.iter().map(|record| record.ends_leases).collect();
    assert_eq!(ends, [false, false, false, true]);
    assert_eq!(of(Kind::VirtualKeyUpdated, &records).len(), 1);
}

#[tokio::test]
async fn a_blocked_key_is_refused_and_only_its_holder_is_told_why() {
    let (running, tenant) = acme().await;
    let virtual_key = with_key(&running, &tenant, &[]).await;
    let held = cache(&running);
    let lease = held.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    let block = || v1::BlockVirtualKeyRequest { name: name(&virtual_key) };
    let mut keys = running.admin.virtual_keys();
    let blocked = keys.block_virtual_key(block()).await.unwrap().into_inner();
    assert_eq!(blocked.state(), v1::virtual_key::State::Blocked);
    assert_eq!(keys.block_virtual_key(block()).await.unwrap().into_inner(), blocked);
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    let told = (Code::PermissionDenied, "VIRTUAL_KEY_IS_BLOCKED".to_owned());
    assert_eq!(refused(cache(&running).lease(&key(&virtual_key, "gpt-4o")).await), told);
    let other = VirtualKey::renew(virtual_key.id().clone()).unwrap();
    let wrong = LeaseKey { digest: other.digest(), ..key(&virtual_key, "gpt-4o") };
    let not_told = (Code::Unauthenticated, "VIRTUAL_KEY_REFUSED".to_owned());
    assert_eq!(refused(cache(&running).lease(&wrong).await), not_told);

    let unblock = || v1::UnblockVirtualKeyRequest { name: name(&virtual_key) };
    keys.unblock_virtual_key(unblock()).await.unwrap();
    keys.unblock_virtual_key(unblock()).await.unwrap();
    assert!(is_served(&running, &virtual_key).await);
    assert!(!lease.is_live());
    let revoke = v1::RevokeVirtualKeyRequest { name: name(&virtual_key) };
    keys.revoke_virtual_key(revoke).await.unwrap();
    assert_eq!(reason(keys.unblock_virtual_key(unblock()).await), "VIRTUAL_KEY_IS_REVOKED");
    assert_eq!(
        reason(rotate(&running.admin, &virtual_key, Duration::ZERO).await.1),
        "VIRTUAL_KEY_IS_REVOKED"
    );
    assert!(!is_served(&running, &virtual_key).await);
    let records = running.end().await;
    assert_eq!(of(Kind::VirtualKeyBlocked, &records).len(), 1);
    assert_eq!(of(Kind::VirtualKeyUnblocked, &records).len(), 1);
}

#[tokio::test]
async fn a_change_of_what_a_key_may_do_counts_at_once_and_of_its_labels_disturbs_nobody() {
    let (running, tenant) = acme().await;
    let virtual_key = with_key(&running, &tenant, &[]).await;
    let held = cache(&running);
    let lease = held.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    let asked = v1::VirtualKey {
        name: name(&virtual_key),
        owner: "Zoë".to_owned(),
        labels: [("team".to_owned(), "search".to_owned())].into(),
        endpoints: vec!["embeddings".to_owned(), "chat_completions".to_owned()],
        networks: vec!["10.1.2.3/8".to_owned()],
        group: "batch".to_owned(),
        tokens_per_minute: 1000,
        ..Default::default()
    };
    let labelled = update(&running.admin, asked.clone(), &["owner", "labels"]).await.unwrap();
    assert_eq!((&*labelled.owner, &*labelled.group), ("Zoë", ""));
    let stale = v1::VirtualKey { etag: "r1".to_owned(), ..asked.clone() };
    let narrow = ["endpoints", "networks", "group", "tokens_per_minute"];
    assert_eq!(reason(update(&running.admin, stale, &narrow).await), "ETAG_MISMATCH");
    assert!(lease.is_live() && lease.key_terms().networks.is_empty());

    let narrowed = update(&running.admin, asked.clone(), &narrow).await.unwrap();
    assert_eq!(narrowed.networks, ["10.0.0.0/8"]);
    assert_eq!((&*narrowed.group, narrowed.tokens_per_minute), ("batch", 1000));
    assert_eq!(narrowed.labels, labelled.labels);
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    let lease = held.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    assert_eq!(lease.key_terms().networks, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(lease.key_terms().endpoints.len(), 2);
    assert!(lease.unseal().is_ok());
    let same = update(&running.admin, asked.clone(), &narrow).await.unwrap();
    assert_eq!(same, narrowed);

    for wrong in [
        v1::VirtualKey { endpoints: vec!["files".to_owned()], ..asked.clone() },
        v1::VirtualKey { networks: vec!["::ffff:10.0.0.0/104".to_owned()], ..asked.clone() },
        v1::VirtualKey { group: "Batch".to_owned(), ..asked.clone() },
        v1::VirtualKey { tokens_per_minute: u64::MAX, ..asked.clone() },
    ] {
        assert_eq!(reason(update(&running.admin, wrong, &narrow).await), "INVALID_FIELD");
    }
    assert_eq!(reason(update(&running.admin, asked, &["state"]).await), "INVALID_FIELD");
    let records = running.end().await;
    let ends = of(Kind::VirtualKeyUpdated, &records);
    let ends: Vec<bool> = ends.iter().map(|record| record.ends_leases).collect();
    assert_eq!(ends, [false, true]);
}
