//! What is erased opens no more, whatever is put back.

use audit::{Record, RecordDraft};
use domain::Uid;
use store::{Change, CredentialRow, ErasureRow, Share, ShareStore as _};

use super::*;
use crate::{custody::OwnRow as _, services::credentials::record};

fn shred_credential() -> v1::ShredCredentialRequest {
    v1::ShredCredentialRequest { name: name().to_string(), etag: String::new() }
}

fn shred_tenant(tenant: &str) -> v1::ShredTenantRequest {
    v1::ShredTenantRequest { name: format!("tenants/{tenant}"), etag: String::new() }
}

impl Fixture {
    async fn shred(&self) -> v1::Erasure {
        let caller = caller("Credentials/ShredCredential");
        self.core.shred_credential(&caller, &shred_credential()).await.unwrap()
    }

    async fn shred_tenant(&self, tenant: &str) -> Result<v1::Erasure, Refused> {
        self.core.shred_tenant(&caller("Tenants/ShredTenant"), &shred_tenant(tenant)).await
    }

    async fn row(&self, name: &CredentialName) -> CredentialRow {
        let row = self.store.credential(&name.tenant, &name.credential).await.unwrap();
        row.unwrap()
    }

    /// Puts an erasure into the database in the place of a credential, with this record of it.
    async fn plant(&self, name: &CredentialName, erasure: ErasureRow, kind: Kind) {
        let row = CredentialRow { revision: 2, ..self.row(name).await };
        let erasure_id = erasure.id.as_bytes().to_vec().into();
        let told = Record { erasure_id, ..record(kind, &row) };
        let change = Change::EraseCredential(row, erasure);
        self.store.apply(&change, &RecordDraft::new(told).unwrap()).await.unwrap();
    }

    async fn is_held(&self, share: Uid) -> bool {
        matches!(self.shares.share(share).await.unwrap(), Share::Held(_))
    }

    async fn last_record(&self) -> Record {
        self.store.changes(0, 1000).await.unwrap().last().unwrap().record().unwrap()
    }
}

#[tokio::test]
async fn a_version_that_is_put_back_after_an_erasure_does_not_open() {
    let fixture = Fixture::new().await;
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    let keys = fixture.store.keys(row.tenant_uid, store::KeyPurpose::Kek).await.unwrap();
    let kept = fixture.core.custody.version(&row, 1).await.unwrap();
    let opened = fixture.core.custody.open_here(&keys, &row, &kept).await.unwrap();
    assert_eq!(opened.expose(), SECRET, "the control: before, it opens");

    let erasure = fixture.shred().await;
    assert_eq!(erasure.receipt_index, Some(erasure.log_index + 1));
    check(fixture.lend().await, Code::NotFound, Reason::NoSuchCredential);
    // As a restored backup would have it: the rows are there, and what opened them is not.
    let restored = Change::CreateCredential(row.clone(), kept.row);
    let created = Record {
        kind: Kind::CredentialCreated.into(),
        credential: name().to_string(),
        credential_uid: row.uid.as_bytes().to_vec().into(),
        credential_version: 1,
        provider: "openai".into(),
        tenant: "acme".into(),
        revision: 9,
        ..Record::default()
    };
    fixture.store.apply(&restored, &RecordDraft::new(created).unwrap()).await.unwrap();
    let refused = fixture.core.custody.version(&row, 1).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Erased);
}

#[tokio::test]
async fn an_erasure_ends_leases_and_its_receipt_says_until_when_copies_may_be() {
    let fixture = Fixture::new().await;
    let lease = fixture.lend().await.unwrap();
    let erasure = fixture.shred().await;
    check(fixture.renew(&lease).await, Code::NotFound, Reason::NoSuchCredential);
    let receipt = fixture.last_record().await;
    assert_eq!(receipt.kind(), Kind::SharesDestroyed);
    assert_eq!((&*receipt.credential, receipt.count), (&*name().to_string(), 1));
    assert_eq!(receipt.copies_until_time, erasure.copies_until_time);
    let window = erasure.copies_until_time.unwrap().seconds - erasure.destroy_time.unwrap().seconds;
    assert!((window - 7 * 24 * 3600).abs() <= 1, "{window}");
    let again = fixture.shred().await;
    assert_eq!(again, erasure, "asked again, it is what it was");
    assert_eq!(fixture.recorded(Kind::SharesDestroyed).await, 1);

    // The name is free for another credential, with a share of its own.
    fixture.put(&name()).await;
    fixture.lend().await.unwrap();
    fixture.shred().await;
    check(fixture.lend().await, Code::NotFound, Reason::NoSuchCredential);
    assert_eq!(fixture.recorded(Kind::SharesDestroyed).await, 2);
}

#[tokio::test]
async fn an_erasure_goes_on_once_the_store_of_shares_answers_again() {
    let fixture = Fixture::new().await;
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    fixture.shares.go_away();
    let begun = fixture.shred().await;
    assert_eq!(begun.receipt_index, None);
    check(fixture.lend().await, Code::NotFound, Reason::NoSuchCredential);
    fixture.core.finish_erasures().await.unwrap_err();
    fixture.shares.come_back();
    assert!(matches!(fixture.shares.share(row.uid).await.unwrap(), Share::Held(_)));
    fixture.core.finish_erasures().await.unwrap();
    assert!(matches!(fixture.shares.share(row.uid).await.unwrap(), Share::Destroyed(_)));
    fixture.core.finish_erasures().await.unwrap();
    let finished = fixture.shred().await;
    assert_eq!(
        (finished.log_index, finished.receipt_index),
        (begun.log_index, Some(begun.log_index + 1))
    );
    assert_eq!(fixture.recorded(Kind::SharesDestroyed).await, 1);
}

#[tokio::test]
async fn without_the_store_of_shares_nothing_new_is_stored_and_what_is_in_memory_is_lent() {
    let fixture = Fixture::new().await;
    fixture.lend().await.unwrap();
    fixture.shares.go_away();
    fixture.lend().await.unwrap();
    let admin = caller("Tenants/CreateTenant");
    let request = v1::CreateTenantRequest { tenant_id: "globex".into(), ..Default::default() };
    let refused = fixture.core.create_tenant(&admin, request).await.unwrap_err();
    assert_eq!(refused.why.code(), Code::Unavailable);
    fixture.shares.come_back();
    fixture.furnish("globex").await;
}

#[tokio::test]
async fn a_tenant_is_erased_with_all_that_it_owns_and_its_name_stays_taken() {
    let fixture = Fixture::new().await;
    fixture.furnish("globex").await;
    let lease = fixture.lend().await.unwrap();
    let shares = {
        let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap();
        [row.as_ref().unwrap().uid, row.unwrap().tenant_uid]
    };
    let erasure = fixture.shred_tenant("acme").await.unwrap();
    assert_eq!(erasure.receipt_index, Some(erasure.log_index + 1));
    assert_eq!(fixture.last_record().await.count, 2);
    for share in shares {
        assert!(matches!(fixture.shares.share(share).await.unwrap(), Share::Destroyed(_)));
    }
    check(fixture.renew(&lease).await, Code::NotFound, Reason::NoSuchTenant);
    check(fixture.lend().await, Code::NotFound, Reason::NoSuchTenant);
    assert!(fixture.store.tenant(&name().tenant).await.unwrap().is_none());
    assert_eq!(fixture.shred_tenant("acme").await.unwrap(), erasure);

    let admin = caller("Tenants/CreateTenant");
    let request = v1::CreateTenantRequest { tenant_id: "acme".into(), ..Default::default() };
    let refused = fixture.core.create_tenant(&admin, request).await.unwrap_err();
    assert_eq!(refused.why.code(), Code::AlreadyExists);
    // Another tenant's are untouched.
    let ask = Ask { target: Target::Credential(name_of("globex")), ..ask() };
    fixture.core.lend(&fixture.caller, &fixture.session, ask, None).await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_is_put_back_after_its_erasure_is_not_taken_for_genuine() {
    let fixture = Fixture::new().await;
    let row = fixture.store.tenant(&name().tenant).await.unwrap().unwrap();
    let keys = fixture.store.keys(row.uid, store::KeyPurpose::Kek).await.unwrap();
    fixture.shred_tenant("acme").await.unwrap();
    let restored = Change::CreateTenant(row.clone(), keys);
    let created = Record {
        kind: Kind::TenantUpdated.into(),
        tenant: "acme".into(),
        revision: 9,
        ..Record::default()
    };
    fixture.store.apply(&restored, &RecordDraft::new(created).unwrap()).await.unwrap();
    check(fixture.lend().await, Code::DataLoss, Reason::StoredDataCorrupt);
    // Nor is it by a broker that has forgotten everything.
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let other = core(fixture.stores(), roots, &fixture.clock).await;
    let refused = other.tenant(&fixture.caller, &name().tenant).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::StoredDataCorrupt);
}

#[tokio::test]
async fn what_must_not_be_erased_is_refused() {
    let fixture = Fixture::new().await;
    let caller = caller("Credentials/ShredCredential");
    let request = v1::ShredCredentialRequest { etag: "r9".into(), ..shred_credential() };
    let refused = fixture.core.shred_credential(&caller, &request).await.unwrap_err();
    assert_eq!(refused.why.reason(), Reason::EtagMismatch);
    let name = format!("{}x", name());
    let request = v1::ShredCredentialRequest { name, etag: String::new() };
    let refused = fixture.core.shred_credential(&caller, &request).await.unwrap_err();
    assert_eq!(refused.why.reason(), Reason::NoSuchCredential);
    // This caller may not act for it, and nobody may erase it.
    fixture.shred_tenant("platform").await.unwrap_err();
    assert_eq!(fixture.recorded(Kind::TenantShredded).await, 0);
    fixture.lend().await.unwrap();
}

#[tokio::test]
async fn an_erasure_that_was_written_past_the_broker_destroys_nothing() {
    let fixture = Fixture::new().await;
    fixture.furnish("globex").await;
    let victim = fixture.row(&name_of("globex")).await;
    let names = ["first", "second", "third", "fourth", "fifth"].map(named);
    for name in &names {
        fixture.put(name).await;
    }
    let key = &fixture.core.row_key;
    let erasure = |row: &CredentialRow| ErasureRow {
        id: row.uid,
        tenant: row.tenant.clone(),
        credential: Some(row.name()),
        shares: vec![victim.uid, victim.tenant_uid],
        begun_at: row.created_at,
        row_mac: [0; 32],
    };
    // Whatever the log says, a row with another MAC is nobody's.
    let [first, second, third, fourth, fifth] = &names;
    let row = erasure(&fixture.row(first).await);
    fixture.plant(first, row, Kind::CredentialShredded).await;
    let row = erasure(&fixture.row(second).await).sealed(key);
    let row = ErasureRow { shares: vec![victim.uid], ..row };
    fixture.plant(second, row, Kind::CredentialShredded).await;
    // Whatever the MAC, nothing is destroyed that the log does not say is to be.
    let row = erasure(&fixture.row(third).await).sealed(key);
    fixture.plant(third, row, Kind::CredentialDeleted).await;
    let row = ErasureRow { credential: Some(name()), ..erasure(&fixture.row(fourth).await) };
    fixture.plant(fourth, row.sealed(key), Kind::CredentialShredded).await;
    fixture.core.finish_erasures().await.unwrap();
    assert!(fixture.is_held(victim.uid).await && fixture.is_held(victim.tenant_uid).await);
    assert_eq!(fixture.recorded(Kind::SharesDestroyed).await, 0);
    let ask = Ask { target: Target::Credential(name_of("globex")), ..ask() };
    fixture.core.lend(&fixture.caller, &fixture.session, ask, None).await.unwrap();

    // The control: one with both is carried out, and the others do not hold it up.
    let row = erasure(&fixture.row(fifth).await).sealed(key);
    fixture.plant(fifth, row.clone(), Kind::CredentialShredded).await;
    fixture.core.finish_erasures().await.unwrap();
    assert!(!fixture.is_held(victim.uid).await);
    assert_eq!(fixture.recorded(Kind::SharesDestroyed).await, 1);
}
