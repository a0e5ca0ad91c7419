//! What is lent while a credential is being rotated.

use std::{sync::Arc, time::Duration};

use audit::{Kind, Reason, Record, revocation};
use domain::{Failure, Timestamp, Uid};
use envelope::Roots;
use sealing::ClientKeys;
use store::{Store as _, UsageKey, UsageRow, UsageSpent};
use strongroom_proto::v1::{self, revocation::Target as Ended, rotation::State};
use testkit::{Fault, Operation};
use tonic::Code;

use super::{Ask, Failed, Fixture, Refused, Target, ask, caller, check, core, name};
use crate::{core::Core, refused::Why};

const NEW: &[u8] = b"sk-proj-the-new-one-ABCDEFGHwxyz";

fn plan(canary_percent: u32) -> v1::RotationPlan {
    v1::RotationPlan { canary_percent, ..v1::RotationPlan::default() }
}

impl Fixture {
    async fn start(
        &self,
        operation: &str,
        plan: v1::RotationPlan,
    ) -> Result<v1::Credential, Refused> {
        let request = v1::StartRotationRequest {
            name: name().to_string(),
            secret: Some(self.sealed(&name(), NEW)),
            plan: Some(plan),
            operation_id: operation.to_owned(),
            etag: String::new(),
            test: false,
        };
        self.core.start_rotation(&caller("Credentials/StartRotation"), request).await
    }

    /// A call with this version has come to this end.
    async fn called(&self, version: u64, status: i32) {
        let with = UsageKey {
            virtual_key: String::new(),
            credential: name().to_string(),
            provider: "openai".into(),
            model: "gpt-4o".into(),
            source: v1::Source::Byok.into(),
            outcome: v1::usage_record::Outcome::Complete.into(),
            status,
        };
        let call = UsageRow {
            id: Uid::random().unwrap(),
            tenant: name().tenant,
            started_at: self.clock_now(),
            with,
            credential_version: version,
            requested_model: "gpt-4o".into(),
            dialect: v1::Dialect::Openai.into(),
            endpoint: "chat".into(),
            spent: UsageSpent::default(),
            usage_known: true,
            cost_known: true,
            cost_stated: false,
            price_version: String::new(),
            latency_millis: 1,
            first_token_millis: None,
            lease_hash: vec![1; 32],
            allowance_id: Vec::new(),
            attempts: 1,
        };
        assert_eq!(self.store.count_usage(&[call]).await.unwrap(), [true]);
    }

    async fn promote(&self) -> Result<v1::Credential, Refused> {
        let caller = caller("Credentials/PromoteRotation");
        self.core.promote_rotation(&caller, &name().to_string(), "").await
    }

    async fn cancel(&self) -> Result<v1::Credential, Refused> {
        let caller = caller("Credentials/CancelRotation");
        self.core.cancel_rotation(&caller, &name().to_string(), "").await
    }

    /// Asks for the lease to go on with when calls with these versions have failed.
    async fn after(&self, versions: &[u64], failure: Failure) -> Result<v1::Lease, Refused> {
        let begun = self.clock_now();
        self.clock.advance(Duration::from_millis(10));
        let failed =
            |version: &u64| Failed { credential: name(), version: *version, failure, begun };
        let failed = versions.iter().map(failed).collect();
        self.core.lend(&self.caller, &self.session, Ask { failed, ..ask() }, None).await
    }

    async fn state(&self) -> (State, u32, u64) {
        let row = self.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
        let shown = self.core.shown(&row);
        let rotation = shown.rotation.unwrap();
        (rotation.state(), rotation.percent, shown.current_version)
    }

    async fn last_change(&self) -> Record {
        self.store.changes(0, 1000).await.unwrap().last().unwrap().record().unwrap()
    }

    /// Another broker on the same database.
    async fn another(&self) -> Core {
        let roots = Roots::only(Arc::clone(&self.kms) as _);
        core(Arc::clone(&self.store) as _, roots, &self.clock).await
    }
}

async fn versions(fixture: &Fixture, leases: usize) -> Vec<u64> {
    let mut versions = Vec::new();
    for _ in 0..leases {
        versions.push(fixture.lend().await.unwrap().credential_version);
    }
    versions
}

#[tokio::test]
async fn a_canary_has_its_share_of_the_leases_and_the_first_of_them() {
    let fixture = Fixture::new().await;
    assert!(!fixture.lend().await.unwrap().has_fallback);
    fixture.start("op-1", plan(20)).await.unwrap();
    let started = fixture.last_change().await;
    assert_eq!(started.kind(), Kind::CredentialRotationStarted);
    assert_eq!((started.credential_version, started.rotation_percent), (2, 20));
    assert_eq!((&*started.request_id, revocation(&started)), ("op-1", None));

    let lent = versions(&fixture, 20).await;
    assert_eq!(lent.iter().filter(|version| **version == 2).count(), 4);
    assert_eq!((lent[0], lent[1]), (2, 1));
    let lease = fixture.lend().await.unwrap();
    assert!(lease.has_fallback);
    // A renewal takes its turn as well, so that no old lease stays out of the canary for ever.
    let mut renewed = Vec::new();
    for _ in 0..20 {
        renewed.push(fixture.renew(&lease).await.unwrap().credential_version);
    }
    assert_eq!(renewed.iter().filter(|version| **version == 2).count(), 4);
}

#[tokio::test]
async fn a_bad_canary_is_answered_with_the_old_version_and_set_back() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(50)).await.unwrap();
    for refusal in 1..=3 {
        let lease = fixture.after(&[2], Failure::CredentialRefused).await.unwrap();
        assert_eq!(lease.credential_version, 1, "{refusal}");
        // After the last there is only one version left.
        assert!(!lease.has_fallback, "{refusal}");
    }
    assert_eq!(fixture.state().await, (State::RolledBack, 0, 1));
    let back = fixture.last_change().await;
    assert_eq!(back.kind(), Kind::CredentialRotationRolledBack);
    assert_eq!((back.credential_version, back.deleted_version), (2, 2));
    assert_eq!((&*back.because, &*back.actor), ("credential_refused", ""));
    let Some(Ended::CredentialVersions(ended)) = revocation(&back).unwrap().target else {
        panic!()
    };
    assert_eq!((ended.below, ended.version), (0, 2));
    assert_eq!(versions(&fixture, 5).await, [1; 5]);
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    assert_eq!(fixture.store.version(row.uid, 2).await.unwrap(), None);
    assert_eq!(row.last_four, "mnop");
    // The number is used up.
    fixture.start("op-2", plan(50)).await.unwrap();
    assert_eq!(fixture.last_change().await.credential_version, 3);
}

#[tokio::test]
async fn when_both_versions_are_refused_the_new_one_is_not_to_blame() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(50)).await.unwrap();
    for _ in 0..6 {
        assert_eq!(
            fixture.after(&[1], Failure::CredentialRefused).await.unwrap().credential_version,
            2
        );
        fixture.after(&[1, 2], Failure::CredentialRefused).await.unwrap();
    }
    assert_eq!(fixture.state().await.0, State::Canary);
}

#[tokio::test]
async fn a_report_about_a_version_that_is_not_lent_counts_for_nothing() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(50)).await.unwrap();
    for _ in 0..9 {
        fixture.after(&[7], Failure::CredentialRefused).await.unwrap();
        fixture.after(&[0], Failure::CredentialRefused).await.unwrap();
        fixture.after(&[2], Failure::ProviderTrouble).await.unwrap();
    }
    assert_eq!(fixture.state().await.0, State::Canary);
}

#[tokio::test]
async fn a_rotation_goes_on_by_the_clock_on_whichever_broker_is_there() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(5)).await.unwrap();
    let old = loop {
        let lease = fixture.lend().await.unwrap();
        if lease.credential_version == 1 {
            break lease;
        }
    };
    fixture.called(2, 200).await;
    let wait = |seconds| fixture.clock.advance(Duration::from_secs(seconds));
    wait(119);
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Canary, 5, 1));
    wait(1);
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Canary, 25, 1));
    // The broker that began it is gone; another one reads where it stands.
    let other = fixture.another().await;
    wait(120);
    other.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Overlap, 100, 2));
    let promoted = fixture.last_change().await;
    assert_eq!(promoted.kind(), Kind::CredentialRotationAdvanced);
    assert_eq!((promoted.rotation_percent, revocation(&promoted)), (100, None));
    assert_eq!(versions(&fixture, 5).await, [2; 5]);

    // Leases of the old version stand until the overlap is over.
    wait(300);
    for core in [&fixture.core, &other] {
        core.take_rotations_on().await.unwrap();
    }
    assert_eq!(fixture.state().await, (State::Done, 100, 2));
    assert_eq!(fixture.recorded(Kind::CredentialRotationFinished).await, 1);
    let done = fixture.last_change().await;
    assert_eq!((done.credential_version, done.deleted_version), (2, 1));
    let Some(Ended::CredentialVersions(ended)) = revocation(&done).unwrap().target else {
        panic!()
    };
    assert_eq!((ended.below, ended.version), (2, 0));
    check(fixture.renew(&old).await, Code::FailedPrecondition, Reason::LeaseEnded);
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    assert_eq!(fixture.store.version(row.uid, 1).await.unwrap(), None);
    assert_eq!(row.last_four, "wxyz");
}

#[tokio::test]
async fn an_old_lease_is_renewed_with_the_new_version_once_that_is_current() {
    let fixture = Fixture::new().await;
    let old = fixture.lend().await.unwrap();
    let keep = v1::RotationPlan { keep_previous: true, ..plan(1) };
    fixture.start("op-1", keep).await.unwrap();
    fixture.promote().await.unwrap();
    let renewed = fixture.renew(&old).await.unwrap();
    assert_eq!((renewed.credential_version, &renewed.lease_id), (2, &old.lease_id));
    // The old one still serves where the new one is refused, and takes its place if that goes on.
    assert_eq!(fixture.after(&[2], Failure::NoQuota).await.unwrap().credential_version, 1);
    fixture.promote().await.unwrap();
    assert_eq!(fixture.state().await.0, State::Done);
    let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    assert!(fixture.store.version(row.uid, 1).await.unwrap().is_some(), "as the plan says");
    let refused = fixture.promote().await.unwrap_err().why;
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::FailedPrecondition, Reason::NoSuchRotation)
    );
}

#[tokio::test]
async fn a_bad_key_is_set_back_even_when_it_serves_all() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(1)).await.unwrap();
    fixture.promote().await.unwrap();
    for _ in 0..3 {
        fixture.after(&[2], Failure::NotAllowed).await.unwrap();
    }
    assert_eq!(fixture.state().await, (State::RolledBack, 0, 1));
    assert_eq!(fixture.last_change().await.because, "not_allowed");
    assert_eq!(versions(&fixture, 3).await, [1; 3]);
}

#[tokio::test]
async fn one_rotation_runs_at_a_time_and_the_same_one_is_begun_once() {
    let fixture = Fixture::new().await;
    let first = fixture.start("op-1", plan(5)).await.unwrap();
    let again = fixture.start("op-1", plan(99)).await.unwrap();
    assert_eq!((first.etag, first.rotation), (again.etag, again.rotation));
    assert_eq!(fixture.recorded(Kind::CredentialRotationStarted).await, 1);
    let other = fixture.start("op-2", plan(5)).await.unwrap_err().why;
    assert!(matches!(&other, Why::RotationRunning(running) if running.as_str() == "op-1"));
    assert_eq!(other.code(), Code::FailedPrecondition);
    let request = v1::RotateCredentialRequest {
        name: name().to_string(),
        secret: Some(fixture.sealed(&name(), NEW)),
        ..Default::default()
    };
    let admin = caller("Credentials/RotateCredential");
    let at_once = fixture.core.rotate_credential(&admin, request.clone()).await.unwrap_err().why;
    assert_eq!(at_once.reason(), Reason::RotationIsRunning);
    // A hand ends it, and then it may be rotated at once.
    fixture.cancel().await.unwrap();
    assert_eq!(fixture.last_change().await.because, "cancelled");
    assert_eq!(fixture.core.rotate_credential(&admin, request).await.unwrap().current_version, 3);
    let cancelled = fixture.start("op-1", plan(5)).await.unwrap();
    assert_eq!(cancelled.rotation.unwrap().state(), State::RolledBack);
}

#[tokio::test]
async fn a_plan_out_of_bounds_is_refused_before_anything_is_stored() {
    let fixture = Fixture::new().await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for wrong in [
        plan(100),
        plan(300),
        v1::RotationPlan { hold: seconds(0), ..plan(5) },
        v1::RotationPlan { hold: seconds(-1), ..plan(5) },
        v1::RotationPlan { overlap: seconds(86_401), ..plan(5) },
    ] {
        let why = fixture.start("op-1", wrong).await.unwrap_err().why;
        assert_eq!(why.reason(), Reason::InvalidField);
    }
    let why = fixture.start("", plan(5)).await.unwrap_err().why;
    assert_eq!(why.reason(), Reason::InvalidField);
    assert_eq!(fixture.lend().await.unwrap().credential_version, 1);
}

#[tokio::test]
async fn what_one_broker_sets_back_no_other_lends() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(50)).await.unwrap();
    let other = fixture.another().await;
    let keys = ClientKeys::generate().unwrap();
    let (session, _) = other.sessions.establish(&fixture.caller, &keys.public_key()).unwrap();
    let lease = other.lend(&fixture.caller, &session, ask(), None).await.unwrap();
    assert_eq!(lease.credential_version, 2, "the control: its first lease is the canary's");
    for _ in 0..3 {
        fixture.after(&[2], Failure::CredentialRefused).await.unwrap();
    }
    // It has the canary cached, and has not heard of anything.
    for _ in 0..4 {
        let lease = other.lend(&fixture.caller, &session, ask(), None).await.unwrap();
        assert_eq!(lease.credential_version, 1);
    }
    assert_eq!(fixture.recorded(Kind::CredentialRotationRolledBack).await, 1);
}

#[tokio::test]
async fn a_set_back_that_cannot_be_recorded_refuses_no_call_and_is_tried_again() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(50)).await.unwrap();
    fixture.after(&[2], Failure::CredentialRefused).await.unwrap();
    fixture.after(&[2], Failure::CredentialRefused).await.unwrap();
    fixture.store.fail_once(Operation::Apply, Fault::Before);
    let lease = fixture.after(&[2], Failure::CredentialRefused).await.unwrap();
    assert_eq!(lease.credential_version, 1);
    assert_eq!(fixture.state().await.0, State::Canary);
    fixture.after(&[2], Failure::CredentialRefused).await.unwrap();
    assert_eq!(fixture.state().await.0, State::RolledBack);
}

#[tokio::test]
async fn a_disabled_credential_waits_where_it_is() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(5)).await.unwrap();
    fixture.disable().await;
    fixture.clock.advance(Duration::from_hours(1));
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Canary, 5, 1));
    let admin = caller("Credentials/EnableCredential");
    fixture.core.switch(&admin, &name().to_string(), "", true).await.unwrap();
    fixture.called(2, 200).await;
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Canary, 25, 1));
}

#[tokio::test]
async fn a_key_that_nobody_has_seen_work_takes_no_step_by_itself() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(5)).await.unwrap();
    let waits = async || {
        let row = fixture.store.credential(&name().tenant, &name().credential).await.unwrap();
        fixture.core.waits(&row.unwrap()).await.unwrap()
    };
    assert!(!waits().await, "nothing is due");
    fixture.clock.advance(Duration::from_hours(1));
    // Calls with the old key show nothing, and neither do those that the new one failed.
    fixture.called(1, 200).await;
    fixture.called(2, 401).await;
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Canary, 5, 1));
    assert!(waits().await);
    // By hand it goes on, and waits again before the old key is deleted.
    fixture.promote().await.unwrap();
    fixture.clock.advance(Duration::from_hours(1));
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Overlap, 100, 2));
    assert!(waits().await);
    fixture.called(2, 200).await;
    assert!(!waits().await);
    fixture.core.take_rotations_on().await.unwrap();
    assert_eq!(fixture.state().await, (State::Done, 100, 2));
}

#[tokio::test]
async fn a_rotation_that_was_put_back_is_found_out() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(5)).await.unwrap();
    let mut row =
        fixture.store.credential(&name().tenant, &name().credential).await.unwrap().unwrap();
    // What someone with access to the database would do to have another key lent.
    let rotation = row.rotation.as_mut().unwrap();
    *rotation = rotation.promoted(Timestamp::from_millis(1)).unwrap();
    row.revision += 1;
    let record = fixture.last_change().await;
    let record = Record { index: 0, time: None, revision: record.revision + 1, ..record };
    let change = store::Change::UpdateCredential(row, None);
    fixture.store.apply(&change, &audit::RecordDraft::new(record).unwrap()).await.unwrap();
    check(fixture.lend().await, Code::DataLoss, Reason::StoredDataCorrupt);
}

#[tokio::test]
async fn what_is_not_the_keys_matter_is_not_tried_again_with_the_other_version() {
    let fixture = Fixture::new().await;
    fixture.start("op-1", plan(50)).await.unwrap();
    let after = async |failures: &[(u64, Failure)]| {
        let begun = fixture.clock_now();
        fixture.clock.advance(Duration::from_millis(10));
        let failed = |&(version, failure): &(u64, Failure)| Failed {
            credential: name(),
            version,
            failure,
            begun,
        };
        let target = Target::Provider { tenant: name().tenant, provider: "openai".into() };
        let ask = Ask { target, failed: failures.iter().map(failed).collect(), ..ask() };
        fixture.core.lend(&fixture.caller, &fixture.session, ask, None).await
    };
    let (refused, limited) =
        (Failure::CredentialRefused, Failure::RateLimited { retry_after: None });
    for failure in [Failure::TimedOut, Failure::ProviderTrouble, Failure::Unreachable] {
        check(after(&[(2, failure)]).await, Code::FailedPrecondition, Reason::NoFallback);
    }
    let lease = after(&[(2, limited)]).await.unwrap();
    assert_eq!((lease.credential_version, &*lease.because), (1, "fallback.rate_limited"));
    assert_eq!(after(&[(1, limited)]).await.unwrap().credential_version, 2);
    let both = after(&[(2, refused), (1, limited)]).await;
    check(both, Code::FailedPrecondition, Reason::NoFallback);
    // Nothing of it makes a sole credential rest: whoever calls next is lent it.
    assert!(after(&[]).await.is_ok());
}
