use audit::{Checkpoint, SignerKey};
use strongroom_client::OnStreamLoss;

use crate::{key, world};

fn signer(seed: u8) -> SignerKey {
    SignerKey::from_seed("strongroom.test/log", &[seed; 32]).unwrap()
}

fn note(size: u64, seed: u8) -> String {
    Checkpoint::sign(size, &[9; 32], &signer(seed)).unwrap()
}

#[tokio::test]
async fn the_largest_checkpoint_that_was_signed_is_echoed() {
    let world = world(OnStreamLoss::Available).await;
    world.peer.script().verifier_key = signer(1).verifier().to_string();
    let sent = [note(5, 1), note(9, 2), note(3, 1), note(7, 1), String::new()];
    for (place, checkpoint) in (1..).zip(sent) {
        world.peer.script().checkpoint = checkpoint;
        world.cache.lease(&key(place)).await.unwrap();
    }
    // Each with the next request: what is forged, older or absent changes nothing.
    let expected = [String::new(), note(5, 1), note(5, 1), note(5, 1), note(7, 1)];
    assert_eq!(world.peer.script().echoed, expected);
}
