use std::sync::Arc;

use domain::{Timestamp, VirtualKeyDigest, VirtualKeyId};
use store::VirtualKeyRow;

use crate::{core::Core, refused::Why};

/// A virtual key whose holder has shown it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) row: Arc<VirtualKeyRow>,
    /// When the value that was shown ends: with the key, or with the overlap of a rotation.
    pub(crate) ends_at: Option<Timestamp>,
}

/// How many values from before rotations a virtual key has at the most.
pub(crate) const MOST_PREVIOUS: usize = 3;

impl Core {
    /// Checks a presented virtual key. An unknown id costs the same work as a wrong key, and every
    /// way of being wrong gives the same answer; only the holder of a genuine one is told that it is
    /// blocked.
    pub(crate) async fn check_virtual_key(
        &self,
        id: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<Shown, Why> {
        let row = self.directory.virtual_key(id).await?;
        // As many comparisons for every id, however many values the key has.
        let mut stored = [[0; 32]; 1 + MOST_PREVIOUS];
        let known = row.iter().flat_map(|row| {
            let previous = row.previous.iter().map(|previous| previous.verifier);
            [row.verifier].into_iter().chain(previous)
        });
        let mut values = 0;
        for (place, verifier) in stored.iter_mut().zip(known) {
            *place = verifier;
            values += 1;
        }
        let place = digest.place_among(&self.pepper, id, &stored);
        let shown = row.zip(place.filter(|place| *place < values));
        let (row, place) = shown.ok_or(Why::VirtualKeyRefused)?;
        let previous = place.checked_sub(1).and_then(|place| row.previous.get(place));
        let ends = [row.terms.expires_at, previous.map(|previous| previous.ends_at)];
        let ends_at = ends.into_iter().flatten().min();
        if row.revoked || ends_at.is_some_and(|end| end <= self.clock.now()) {
            return Err(Why::VirtualKeyRefused);
        }
        if row.blocked { Err(Why::VirtualKeyBlocked) } else { Ok(Shown { row, ends_at }) }
    }
}

impl Shown {
    /// The kinds of calls and the networks that the key is for, as a lease says them.
    pub(crate) fn places(&self) -> (Vec<String>, Vec<String>) {
        let terms = &self.row.terms;
        (
            terms.endpoints.iter().map(|kind| kind.as_str().to_owned()).collect(),
            terms.networks.iter().map(ToString::to_string).collect(),
        )
    }
}
