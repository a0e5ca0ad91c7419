//! What the revocation stream and the leases at hand say of whether calls can be served.

use std::{collections::HashMap, time::Duration};

use strongroom_client::{OnStreamLoss, Outage, WatchState};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{key, world};

#[tokio::test]
async fn a_broker_that_is_away_is_an_outage_once_no_lease_is_left() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    world.peer.cut_streams(Some(Status::unavailable("gone")));
    world.until(|world| world.cache.watch_state() == WatchState::Lost).await;
    assert_eq!(world.cache.outage(), None, "it may only start again");
    world.clock.advance(Duration::from_mins(5));
    assert!(!lease.is_live());
    assert_eq!(world.cache.outage(), Some(Outage::Away));
    world.peer.script().streams_refused = None;
    world.until(|world| world.cache.outage().is_none()).await;
}

#[tokio::test]
async fn an_identity_that_is_put_out_is_an_outage_at_once() {
    let world = world(OnStreamLoss::Available).await;
    let lease = world.cache.lease(&key(1)).await.unwrap();
    for reason in ["IDENTITY_IS_BLOCKED", "UNIDENTIFIED"] {
        assert_eq!(world.cache.outage(), None);
        let nothing = HashMap::<String, String>::new();
        let details = ErrorDetails::with_error_info(reason, "strongroom.dev", nothing);
        let status = Status::with_error_details(Code::PermissionDenied, "words", details);
        world.peer.cut_streams(Some(status));
        world.until(|world| world.cache.outage() == Some(Outage::Refused)).await;
        world.until(|_| !lease.is_live()).await;
        world.peer.script().streams_refused = None;
        world.until(|world| world.cache.outage().is_none()).await;
    }
}
