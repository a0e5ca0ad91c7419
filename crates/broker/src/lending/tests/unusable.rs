//! Credentials that do not open hide no other one that the policy lists, and no other is lent for them.

use audit::{Kind, Reason, Record};
use domain::Failure;
use prost_types::FieldMask;
use store::{KeyStore as _, Place, Resealed};

use super::*;

/// What can become of a credential so that nobody can open it.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Erased, and its row put back.
    Share,
    /// Its ciphertext changed.
    Ciphertext,
}

impl Fixture {
    async fn harm(&self, name: &CredentialName, harm: Harm) {
        let row = self.store.credential(&name.tenant, &name.credential).await.unwrap().unwrap();
        match harm {
            Harm::Share => {
                self.shares.destroy_shares(&[row.uid], self.clock_now()).await.unwrap();
            }
            Harm::Ciphertext => {
                let before = self.store.version(row.uid, 1).await.unwrap().unwrap().envelope;
                let mut after = before.clone();
                *after.last_mut().unwrap() ^= 1;
                let place = Place::Version(row.uid, 1);
                let harmed = self.store.reseal(&[Resealed { place, before, after }]).await;
                assert_eq!(harmed.unwrap(), 1);
            }
        }
    }

    async fn list(&self, to: &[&str]) {
        let to = to.iter().map(|&one| one.to_owned()).collect();
        let rule = v1::FallbackRule { provider: "openai".to_owned(), to };
        let name = "tenants/acme".to_owned();
        let tenant = v1::Tenant { name, fallbacks: vec![rule], ..v1::Tenant::default() };
        let mask = FieldMask { paths: vec!["fallbacks".to_owned()] };
        let request = v1::UpdateTenantRequest { tenant: Some(tenant), update_mask: Some(mask) };
        self.core.update_tenant(&caller("Tenants/UpdateTenant"), request).await.unwrap();
    }

    async fn call(&self) -> Result<v1::Lease, Refused> {
        let provider = "openai".to_owned();
        let target = Target::Provider { tenant: "acme".parse().unwrap(), provider };
        self.clock.advance(Duration::from_millis(10));
        self.core.lend(&self.caller, &self.session, Ask { target, ..ask() }, None).await
    }

    async fn last(&self) -> Record {
        self.store.records(0, 1_000, None).await.unwrap().last().unwrap().record().unwrap()
    }
}

#[tokio::test]
async fn what_does_not_open_is_passed_over_where_policy_lists_another() {
    for harm in [Harm::Share, Harm::Ciphertext] {
        let fixture = Fixture::new().await;
        fixture.put(&named("second")).await;
        fixture.list(&["second"]).await;
        fixture.harm(&named("openai"), harm).await;
        let lease = fixture.call().await.unwrap();
        assert_eq!(lease.credential, named("second").to_string(), "{harm:?}");
        assert_eq!((&*lease.because, lease.has_fallback), ("fallback.unusable", false));
        let record = fixture.last().await;
        assert_eq!((record.kind(), &*record.because), (Kind::LeaseGranted, "fallback.unusable"));
        // It rests, so that the next call does not try it first.
        let lease = fixture.call().await.unwrap();
        assert_eq!((&*lease.credential, &*lease.because), (&*record.credential, "named_by_path"));
        let tenant = fixture.core.directory.tenant(&named("openai").tenant).await.unwrap().unwrap();
        let row = &tenant.credential(&named("openai").credential).unwrap().row;
        let rests = fixture.core.healths.readiness(row, fixture.clock_now()).0;
        let is_resting =
            |it| matches!(it, domain::Readiness::Resting { why: Failure::Unusable, .. });
        assert!(is_resting(rests), "{rests:?}");
    }
}

#[tokio::test]
async fn what_does_not_open_is_refused_by_its_name_where_policy_lists_no_other() {
    for (harm, code, reason) in [
        (Harm::Share, Code::FailedPrecondition, Reason::Erased),
        (Harm::Ciphertext, Code::DataLoss, Reason::StoredDataCorrupt),
    ] {
        let fixture = Fixture::new().await;
        fixture.put(&named("second")).await;
        fixture.harm(&named("openai"), harm).await;
        for _ in 0..2 {
            let refused = fixture.call().await.unwrap_err();
            let record = refused.record();
            assert_eq!(record.credential, named("openai").to_string(), "{harm:?}");
            assert_eq!((&*record.tenant, &*record.provider), ("acme", "openai"));
            let status = tonic::Status::from(refused);
            let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!(info.metadata["credential"], named("openai").to_string());
            assert_eq!((status.code(), &*info.reason), (code, reason.as_str_name()));
        }
        // The last of those that are listed is refused by its own name.
        fixture.list(&["second"]).await;
        fixture.harm(&named("second"), harm).await;
        let refused = fixture.call().await.unwrap_err();
        assert_eq!(refused.record().credential, named("second").to_string());
        assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 0);
    }
}

#[tokio::test]
async fn a_row_that_was_changed_stops_the_tenant_and_is_named() {
    let fixture = Fixture::new().await;
    fixture.put(&named("second")).await;
    fixture.list(&["second"]).await;
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    let (before, mut after) = (row.row_mac.to_vec(), row.row_mac.to_vec());
    after[35] ^= 1;
    let place = Place::Credential(row.uid);
    let forged = [Resealed { place, before, after }];
    assert_eq!(fixture.store.reseal(&forged).await.unwrap(), 1);
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let other = core(fixture.stores(), roots, &fixture.clock).await;
    let keys = ClientKeys::generate().unwrap();
    let (session, _) = other.sessions.establish(&fixture.caller, &keys.public_key()).unwrap();
    let target = Target::Provider { tenant: name().tenant, provider: "openai".to_owned() };
    let ask = Ask { target, ..ask() };
    let refused = other.lend(&fixture.caller, &session, ask, None).await.unwrap_err();
    assert_eq!(refused.record().credential, name().to_string());
    check(Err(refused), Code::DataLoss, Reason::StoredDataCorrupt);
}
