use std::sync::Arc;

use domain::{Clock as _, Failure};
use strongroom_client::{FailedAttempt, OnStreamLoss};
use strongroom_proto::v1::failed_attempt;
use tonic::Status;

use crate::{key, world};

#[tokio::test]
async fn a_secret_in_an_answer_is_reported_until_the_broker_has_heard_of_it() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    let report = |failure| {
        let (credential, version) = (lease.credential().clone(), lease.credential_version());
        let began = world.clock.elapsed();
        world.cache.report(&key(1), FailedAttempt { credential, version, failure, began });
    };
    world.peer.script().deaf.push_back(Status::unavailable("restarting"));
    report(Failure::TimedOut);
    report(Failure::SecretInAnswer);
    world.until(|world| !world.peer.script().reported.is_empty()).await;
    // Of the other the broker need not hear so late.
    let told = world.peer.script().reported.clone();
    let told = told.into_iter().map(|one| one.attempt.unwrap().failure()).collect::<Vec<_>>();
    assert_eq!(told, [failed_attempt::Failure::SecretInAnswer]);
    // It says nothing against the lease.
    assert!(Arc::ptr_eq(&lease, &world.cache.lease(&key(1)).await.unwrap()));
}
