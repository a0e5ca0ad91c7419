use std::{future::ready, sync::Arc};

use audit::{Kind, Record, RecordDraft, leaf_hash, timestamp, tree_root};
use store::{Appended, Change, Pending, PersonRow, SinkRow, Store, StoreError};
use tokio::task::JoinSet;

use crate::{
    given::{
        acme, append, at, changed, draft, granted, pending, refusal, refused_renewal, released,
        renewed, revoked, revoked_of, sealed,
    },
    place::Place,
};

pub(crate) async fn indexes_are_contiguous_under_64_writers(place: &Place) {
    let store = place.open().await;
    let mut writers = JoinSet::new();
    for writer in 0..64 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut indexes = Vec::new();
            for size in 1..=3 {
                let batch = vec![refusal(&format!("t{writer}")); size];
                let appended = append(&*store, batch).await;
                assert!(appended.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                indexes.extend(appended);
            }
            indexes
        });
    }
    let mut indexes: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..64 * 6).collect::<Vec<_>>());
    check_tree(&*store, 64 * 6).await;
}

pub(crate) async fn the_frontier_is_that_of_the_leaf_hashes(place: &Place) {
    let store = place.open().await;
    check_tree(&*store, 0).await;
    append(&*store, vec![refusal("a"), revoked(1)]).await;
    acme(&*store).await;
    append(&*store, vec![refusal("b"); 5]).await;
    check_tree(&*store, 8).await;

    let all = store.leaf_hashes(0..8).await.unwrap();
    assert_eq!(store.leaf_hashes(2..5).await.unwrap(), all[2..5]);
    assert_eq!(store.leaf_hashes(7..100).await.unwrap(), all[7..]);
}

pub(crate) async fn a_batch_may_have_any_size(place: &Place) {
    let store = place.open().await;
    assert!(store.append(&[]).await.unwrap().is_empty());
    let mut end = 0;
    for size in [1, 2, 3, 4, 5, 7, 16, 17, 33, 100, 200, 256, 257, 600] {
        let records = (0..size).map(|n| granted(&format!("t{n}"), 1, at(n))).collect();
        let indexes = append(&*store, records).await;
        let size = u64::try_from(size).unwrap();
        assert_eq!(indexes, (end..end + size).collect::<Vec<_>>());
        end += size;
    }
    check_tree(&*store, end).await;
}

pub(crate) async fn a_change_cannot_be_recorded_without_being_made(place: &Place) {
    let store = place.open().await;
    let refused = store.append(&[pending(refusal("a")), pending(changed())]).await;
    assert!(matches!(refused, Err(StoreError::InvalidRecord(_))));
    let change = Change::CreateTenant(crate::given::tenant(1, "acme"), vec![]);
    let refused = store.apply(&change, &refusal("acme")).await;
    assert!(matches!(refused, Err(StoreError::InvalidRecord(_))));
    check_tree(&*store, 0).await;
}

pub(crate) async fn time_never_goes_back(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("a")]).await;
    let now = store.head().await.unwrap().time;
    // As if the database's clock had been ahead by an hour and was then put right.
    place.tamper("UPDATE head SET time = time + 3600000").await;
    append(&*store, vec![refusal("b"), refusal("c")]).await;

    let records = store.records(0, 9, None).await.unwrap();
    let times: Vec<_> = records
        .iter()
        .map(|entry| timestamp(&entry.record().unwrap().time.unwrap()).unwrap().as_millis())
        .collect();
    let ahead = now.as_millis() + 3_600_000;
    assert_eq!(times, [now.as_millis(), ahead, ahead]);
    assert_eq!(store.head().await.unwrap().time.as_millis(), ahead);
}

pub(crate) async fn records_come_in_pages(place: &Place) {
    let store = place.open().await;
    append(&*store, ["a", "b", "a", "", "a"].map(refusal).to_vec()).await;

    let indexes = async |from, limit, tenant: Option<&str>| {
        let tenant = tenant.map(|tenant| tenant.parse().unwrap());
        let entries = store.records(from, limit, tenant.as_ref()).await.unwrap();
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(0, 2, None).await, [0, 1]);
    assert_eq!(indexes(2, 9, None).await, [2, 3, 4]);
    assert!(indexes(5, 9, None).await.is_empty());
    assert_eq!(indexes(0, 2, Some("a")).await, [0, 2]);
    assert_eq!(indexes(3, 9, Some("a")).await, [4]);
    assert!(indexes(0, 9, Some("c")).await.is_empty());

    let latest = async |before, limit, tenant: Option<&str>| {
        let tenant = tenant.map(|tenant| tenant.parse().unwrap());
        let entries = store.records_before(before, limit, tenant.as_ref()).await.unwrap();
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(latest(u64::MAX, 2, None).await, [4, 3]);
    assert_eq!(latest(4, 9, Some("a")).await, [2, 0]);
    assert!(latest(0, 9, None).await.is_empty());
}

pub(crate) async fn changes_are_found_among_other_records(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("a"), revoked(1), refusal("a"), revoked(2)]).await;
    acme(&*store).await;

    let indexes = async |from, limit| {
        let entries = store.changes(from, limit).await.unwrap();
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(0, 9).await, [1, 3, 4]);
    assert_eq!(indexes(0, 2).await, [1, 3]);
    assert_eq!(indexes(2, 9).await, [3, 4]);
}

pub(crate) async fn a_lease_is_found_by_its_hash(place: &Place) {
    let store = place.open().await;
    let records = vec![granted("a", 1, at(1)), granted("a", 2, at(1)), refusal("a"), revoked(1)];
    append(&*store, records).await;

    let found = store.lease_records(&[1; 32]).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(found[0].record().unwrap().lease_hash.as_ref(), [1; 32]);
    assert!(store.lease_records(&[3; 32]).await.unwrap().is_empty());
}

pub(crate) async fn live_leases_are_those_that_have_not_ended(place: &Place) {
    let store = place.open().await;
    let ends = [(1, "a", 50), (2, "a", 40), (3, "b", 50), (4, "a", 60), (5, "a", 41)];
    let records = ends.map(|(lease, tenant, end)| granted(tenant, lease, at(end)));
    append(&*store, records.to_vec()).await;

    let indexes = async |before, limit| {
        let tenant = "a".parse().unwrap();
        let entries = store.live_leases(&tenant, at(40), before, limit).await.unwrap();
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(None, 9).await, [4, 3, 0]);
    assert_eq!(indexes(None, 1).await, [4]);
    assert_eq!(indexes(Some(3), 9).await, [0]);
}

pub(crate) async fn a_lease_is_live_once_and_until_it_is_released_or_revoked(place: &Place) {
    let store = place.open().await;
    let grants = [1, 2, 3, 4, 5].map(|lease| granted("a", lease, at(50)));
    append(&*store, grants.to_vec()).await;
    // Leases 1 and 4 are renewed, the latter to an earlier end; 2 is released and 3 revoked.
    let later = vec![
        renewed("a", 1, at(60)),
        released(2),
        revoked_of("a", 3),
        renewed("a", 4, at(40)),
        refused_renewal("a", 5),
    ];
    append(&*store, later).await;

    let indexes = async |now, before, limit| {
        let tenant = "a".parse().unwrap();
        let entries = store.live_leases(&tenant, now, before, limit).await.unwrap();
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(at(39), None, 9).await, [8, 5, 4]);
    assert_eq!(indexes(at(40), None, 9).await, [5, 4]);
    assert_eq!(indexes(at(40), None, 1).await, [5]);
    // The next page does not show an earlier record of the same lease.
    assert_eq!(indexes(at(40), Some(5), 9).await, [4]);
    append(&*store, vec![released(1), revoked(5)]).await;
    assert!(indexes(at(40), None, 9).await.is_empty());
}

pub(crate) async fn access_rules_are_kept_as_they_were_put_in(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.policy(&[1; 32]).await.unwrap(), None);
    store.put_policy(&[1; 32], b"rules").await.unwrap();
    store.put_policy(&[1; 32], b"other rules").await.unwrap();
    assert_eq!(store.policy(&[1; 32]).await.unwrap().as_deref(), Some(&b"rules"[..]));
    assert_eq!(store.policy(&[2; 32]).await.unwrap(), None);
}

pub(crate) async fn a_proposed_request_is_kept_until_its_time_is_up(place: &Place) {
    let store = place.open().await;
    let at = domain::Timestamp::from_millis;
    let put = async |sha256: u8, until: i64, now: i64| {
        store.put_proposal(&[sha256; 32], &[sha256], at(until), at(now)).await.unwrap();
    };
    let kept = async |sha256: u8| store.proposal(&[sha256; 32]).await.unwrap();
    assert_eq!(kept(1).await, None);
    put(1, 100, 0).await;
    store.put_proposal(&[1; 32], b"other", at(50), at(0)).await.unwrap();
    assert_eq!(kept(1).await, Some(vec![1]));
    // Until the later of the two, and not past it.
    put(2, 300, 99).await;
    assert_eq!(kept(1).await, Some(vec![1]));
    put(1, 200, 99).await;
    put(2, 300, 199).await;
    assert_eq!(kept(1).await, Some(vec![1]));
    put(2, 300, 200).await;
    assert_eq!((kept(1).await, kept(2).await), (None, Some(vec![2])));
}

pub(crate) async fn approvals_are_all_that_is_kept_of_themselves(place: &Place) {
    let store = place.open().await;
    let step = |kind: Kind| {
        RecordDraft::new(Record {
            kind: kind.into(),
            method: "Approvals/Approve".to_owned(),
            approval_id: vec![1; 16].into(),
            request_sha256: vec![2; 32].into(),
            ..Record::default()
        })
    };
    let kinds = [Kind::ApprovalRequested, Kind::ApprovalGiven, Kind::ApprovalDeclined];
    let pending =
        kinds.map(|kind| Pending { record: step(kind).unwrap(), as_of: None, tenants: Vec::new() });
    store.append(&pending).await.unwrap();
    // Of two that were decided on the same state, the second is left out.
    let given = Pending { as_of: Some(3), ..pending[1].clone() };
    let appended = store.append(&[given.clone(), given]).await.unwrap();
    assert!(matches!(appended[..], [Appended::Recorded(_), Appended::Stale { .. }]));
    let changes = store.changes(0, 10).await.unwrap();
    let kept: Vec<_> = changes.iter().map(|entry| entry.record().unwrap().kind()).collect();
    assert_eq!(kept[..3], kinds);
    assert_eq!(kept[3], Kind::ApprovalGiven);
}

pub(crate) async fn an_approval_is_spent_by_what_it_was_given_for(place: &Place) {
    let store = place.open().await;
    let used = |as_of| {
        let kind = Kind::ApprovalUsed.into();
        let record = draft(Record {
            kind,
            method: "Tenants/UpdateTenant".to_owned(),
            approval_id: vec![1; 16].into(),
            request_sha256: vec![2; 32].into(),
            ..Record::default()
        });
        Pending { record, as_of: Some(as_of), tenants: Vec::new() }
    };
    // By itself it is spent for nothing.
    let alone = store.append(&[used(0)]).await;
    assert!(matches!(alone, Err(StoreError::InvalidRecord(_))), "{alone:?}");
    let mut row = acme(&*store).await;
    row.revision = 2;
    let change = Change::UpdateTenant(row.clone());
    let without_a_change = store.apply_approved(&used(1), None, &changed()).await;
    assert!(matches!(without_a_change, Err(StoreError::InvalidRecord(_))));

    // What does not fit spends nothing, and what was decided before a change does nothing.
    row.revision = 7;
    let unfit = store.apply_approved(&used(1), Some(&Change::UpdateTenant(row)), &changed()).await;
    assert!(matches!(unfit, Err(StoreError::Changed(_))), "{unfit:?}");
    let stale = store.apply_approved(&used(0), Some(&change), &changed()).await.unwrap();
    assert!(matches!(stale, Appended::Stale { changed: 1 }), "{stale:?}");
    check_tree(&*store, 1).await;

    let done = store.apply_approved(&used(1), Some(&change), &changed()).await.unwrap();
    assert!(matches!(done, Appended::Recorded(entry) if entry.index == 2));
    let again = store.apply_approved(&used(1), Some(&change), &changed()).await.unwrap();
    assert!(matches!(again, Appended::Stale { changed: 3 }), "{again:?}");
    let kinds: Vec<_> = store.records(1, 9, None).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|entry| entry.record().unwrap().kind()).collect();
    assert_eq!(kinds, [Kind::ApprovalUsed, Kind::TenantUpdated]);
    // Of an access policy the record is all that is kept.
    let admitted = draft(Record {
        kind: Kind::PolicyAdmitted.into(),
        policy_sha256: vec![1; 32].into(),
        ..Record::default()
    });
    let done = store.apply_approved(&used(3), None, &admitted).await.unwrap();
    assert!(matches!(done, Appended::Recorded(entry) if entry.index == 4));
    check_tree(&*store, 5).await;
}

pub(crate) async fn a_person_is_found_by_handle_and_by_commitment(place: &Place) {
    let store = place.open().await;
    let tenant = acme(&*store).await;
    let row = PersonRow {
        handle: [1; 32],
        commitment: [2; 32],
        tenant_uid: tenant.uid,
        sealed: sealed(1, 3),
        row_mac: [4; 32],
    };
    store.put_person(&row).await.unwrap();
    // Of two brokers that meet a person at once, the second takes what the first wrote.
    let second = PersonRow { commitment: [9; 32], ..row.clone() };
    store.put_person(&second).await.unwrap();
    assert_eq!(store.person(&[1; 32]).await.unwrap().as_ref(), Some(&row));
    assert_eq!(store.person_behind(&[2; 32]).await.unwrap().as_ref(), Some(&row));
    assert_eq!(store.person(&[2; 32]).await.unwrap(), None);
    assert_eq!(store.person_behind(&[9; 32]).await.unwrap(), None);
}

pub(crate) async fn the_checkpoint_of_the_largest_tree_stays(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.checkpoint().await.unwrap(), None);
    store.put_checkpoint(9, "nine").await.unwrap();
    store.put_checkpoint(10, "ten").await.unwrap();
    store.put_checkpoint(9, "nine again").await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap().as_deref(), Some("ten"));
    store.drop_checkpoint(11).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap().as_deref(), Some("ten"));
    store.drop_checkpoint(9).await.unwrap();
    store.put_checkpoint(8, "eight").await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap().as_deref(), Some("eight"));
}

pub(crate) async fn how_far_a_sink_is_stays_as_it_was_put(place: &Place) {
    let store = place.open().await;
    let siem = |next_index, mac| SinkRow { name: "siem".into(), next_index, row_mac: [mac; 32] };
    assert_eq!(store.sink("siem").await.unwrap(), None);
    for row in [siem(0, 1), siem(7, 2), siem(6, 3)] {
        store.put_sink(&row).await.unwrap();
        assert_eq!(store.sink("siem").await.unwrap(), Some(row));
    }
    assert_eq!(store.sink("archive").await.unwrap(), None);
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.sinks().await.unwrap().rows, [siem(6, 3)]);
    // One that cannot be read hides none.
    place.tamper("INSERT INTO sink SELECT 'archive', -1, row_mac FROM sink").await;
    let found = store.sinks().await.unwrap();
    assert_eq!(found.rows, [siem(6, 3)]);
    assert_eq!(found.illegible, ["sink.next_index"]);
    let error = store.sink("archive").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

pub(crate) async fn an_append_that_nobody_waits_for_is_finished(place: &Place) {
    let store = place.open().await;
    let batch = [pending(refusal("a"))];
    tokio::select! {
        biased;
        _ = store.append(&batch) => panic!("it was to be given up"),
        () = ready(()) => {}
    }
    assert_eq!(append(&*store, vec![refusal("b")]).await, [1]);
    check_tree(&*store, 2).await;
}

pub(crate) async fn everything_is_there_after_reopening(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    append(&*store, vec![refusal("a"); 3]).await;
    store.put_checkpoint(4, "four").await.unwrap();
    let (deployment, root) = (store.deployment(), store.head().await.unwrap().frontier.root());
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.deployment(), deployment);
    assert_eq!(store.head().await.unwrap().frontier.root(), root);
    assert_eq!(store.tenant(&acme.id).await.unwrap(), Some(acme));
    assert_eq!(store.checkpoint().await.unwrap().as_deref(), Some("four"));
    assert_eq!(append(&*store, vec![refusal("a")]).await, [4]);
    check_tree(&*store, 5).await;
}

pub(crate) async fn a_closed_store_is_unavailable(place: &Place) {
    let store = place.open().await;
    store.close().await;
    store.close().await;
    let refused = store.append(&[pending(refusal("a"))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.head().await, Err(StoreError::Unavailable(_))));
}

/// The log has this size, no gaps, and the tree that the head says.
pub(crate) async fn check_tree(store: &dyn Store, size: u64) {
    let entries = store.records(0, u32::MAX, None).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
        (0..size).collect::<Vec<_>>()
    );
    assert!(entries.iter().all(|entry| entry.record().is_ok()));
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(&entry.body)).collect();
    assert_eq!(store.leaf_hashes(0..size).await.unwrap(), leaves);
    let head = store.head().await.unwrap();
    assert_eq!((head.frontier.size(), head.frontier.root()), (size, tree_root(&leaves)));
}
