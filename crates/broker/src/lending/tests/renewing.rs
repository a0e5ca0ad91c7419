use super::*;

#[tokio::test]
async fn a_lease_can_be_renewed_until_it_ends() {
    let fixture = Fixture::new().await;
    let lease = fixture.lend().await.unwrap();
    let renewed = fixture.renew(&lease).await.unwrap();
    assert_eq!((renewed.renewals, &renewed.lease_id), (1, &lease.lease_id));
    assert_ne!(renewed.sealed_secret, lease.sealed_secret);
    fixture.clock.advance(Duration::from_secs(61));
    check(fixture.renew(&lease).await, Code::FailedPrecondition, Reason::LeaseEnded);
}

#[tokio::test]
async fn renewals_at_once_never_seal_with_one_number() {
    let fixture = Fixture::new().await;
    let lease = fixture.lend().await.unwrap();
    let (one, other) = tokio::join!(fixture.renew(&lease), fixture.renew(&lease));
    assert_ne!(one.unwrap().renewals, other.unwrap().renewals);
}
