//! The replay of the log against the rows. What it finds of each column, the whole system is tested for.

use std::collections::BTreeSet;

use store::{KeyStore as _, Place, Resealed};
use testkit::KmsFailure;
use tokio::sync::watch;

use super::*;
use crate::rows::{Bounds, RowCheck};

const ALL: Bounds = Bounds { rows: u64::MAX, rest: Duration::ZERO };

async fn turn(check: &mut RowCheck, bounds: Bounds) -> v1::CheckRowsResponse {
    let (tell, told) = watch::channel(v1::CheckRowsResponse::default());
    check.turn(bounds, &tell).await.unwrap();
    told.borrow().clone()
}

impl Fixture {
    /// Flips a bit of a credential's MAC; twice is as if it had never been.
    async fn forge(&self, name: &CredentialName) {
        let row = self.store.credential(&name.tenant, &name.credential).await.unwrap().unwrap();
        let mut forged = row.row_mac;
        forged[35] ^= 1;
        let (before, after) = (row.row_mac.to_vec(), forged.to_vec());
        let tampered = Resealed { place: Place::Credential(row.uid), before, after };
        assert_eq!(self.store.reseal(&[tampered]).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn all_is_well_with_what_the_broker_itself_has_written() {
    let fixture = Fixture::new().await;
    fixture.furnish("globex").await;
    fixture.put(&named("second")).await;
    fixture.lend().await.unwrap();
    fixture.rotate_as("openai", "sk-proj-another-0123456789abcdef", false).await.unwrap();
    fixture.disable().await;
    fixture.enable().await;
    let mut check = RowCheck::new(&fixture.core);
    let seen = turn(&mut check, ALL).await;
    assert_eq!(seen.findings, []);
    assert!(seen.done && seen.rows > 10, "{seen:?}");
    assert_eq!((seen.tenants_checked, seen.tenants), (3, 3));
    assert_eq!(seen.records, seen.tree_size);

    let caller = caller("Tenants/ShredTenant");
    let request = v1::ShredTenantRequest { name: "tenants/globex".into(), etag: String::new() };
    fixture.core.shred_tenant(&caller, &request).await.unwrap();
    let seen = turn(&mut check, ALL).await;
    assert_eq!((&*seen.findings, seen.tenants), (&[][..], 2));
}

#[tokio::test]
async fn what_is_found_is_named_and_on_record_once() {
    let fixture = Fixture::new().await;
    let mut check = RowCheck::new(&fixture.core);
    for round in 1..=2 {
        fixture.forge(&name()).await;
        for _ in 0..2 {
            let seen = turn(&mut check, ALL).await;
            let [finding] = &*seen.findings else { panic!("{seen:?}") };
            assert_eq!(finding.reason(), Reason::RowChanged);
            assert_eq!((&*finding.table, &*finding.tenant), ("credential", "acme"));
            assert_eq!(finding.name, name().to_string());
            assert!(finding.what.contains("was changed past the broker"), "{finding:?}");
        }
        assert_eq!(fixture.recorded(Kind::Finding).await, round);
        fixture.forge(&name()).await;
        assert_eq!(turn(&mut check, ALL).await.findings, []);
    }
    let records = fixture.store.records(0, 10_000, None).await.unwrap();
    let records = records.iter().map(|entry| entry.record().unwrap());
    let found = records.into_iter().find(|record| record.kind() == Kind::Finding).unwrap();
    assert_eq!(found.credential, name().to_string());
    assert_eq!((found.reason(), &*found.table), (Reason::RowChanged, "credential"));
}

#[tokio::test]
async fn a_check_within_bounds_comes_round_to_every_row() {
    let fixture = Fixture::new().await;
    fixture.furnish("globex").await;
    fixture.forge(&name_of("globex")).await;
    let mut check = RowCheck::new(&fixture.core);
    let mut found = BTreeSet::new();
    for _ in 0..6 {
        let seen = turn(&mut check, Bounds { rows: 1, rest: Duration::ZERO }).await;
        assert!(seen.tenants_checked <= 1, "{seen:?}");
        found.extend(seen.findings.into_iter().map(|finding| finding.name));
    }
    assert_eq!(Vec::from_iter(found), [name_of("globex").to_string()]);
}

#[tokio::test]
async fn without_the_kms_it_says_what_was_not_checked() {
    let fixture = Fixture::new().await;
    fixture.kms.fail(KmsFailure::Refused);
    let mut check = RowCheck::new(&fixture.core);
    let seen = turn(&mut check, ALL).await;
    assert_eq!((&*seen.findings, seen.tenants_checked), (&[][..], 0));
    assert_eq!(seen.unchecked_tenants, ["tenants/acme", "tenants/platform"]);
    fixture.kms.recover();
    let seen = turn(&mut check, ALL).await;
    assert_eq!((&*seen.unchecked_tenants, seen.tenants_checked), (&[][..], 2));
}
