use std::{sync::Arc, time::Duration};

use strongroom_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    core::Core,
    refused::Refused,
    rows::{Bounds, RowCheck},
};

/// All of it, without a rest: somebody waits.
const BOUNDS: Bounds = Bounds { rows: u64::MAX, rest: Duration::ZERO };

/// Checks everything, and tells how far it is, until the end or until nobody listens any more.
pub(super) async fn check_now(
    core: Arc<Core>,
    answers: mpsc::Sender<Result<v1::CheckRowsResponse, Status>>,
    stop: CancellationToken,
) {
    let (tell, mut told) = watch::channel(v1::CheckRowsResponse::default());
    let mut check = RowCheck::new(&core);
    let turn = check.turn(BOUNDS, &tell);
    tokio::pin!(turn);
    let outcome = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = answers.closed() => return,
            outcome = &mut turn => break outcome,
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
                let progress = told.borrow_and_update().clone();
                if answers.send(Ok(progress)).await.is_err() {
                    return;
                }
            }
        }
    };
    let last = match outcome {
        Ok(()) => Ok(v1::CheckRowsResponse { done: true, ..tell.borrow().clone() }),
        Err(why) => Err(Refused::from(why).into()),
    };
    // Who is gone need not hear of it.
    let _ = answers.send(last).await;
}
