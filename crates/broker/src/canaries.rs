use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use domain::{Failure, Fare, Fares, SetBack, Turns, Uid};
use store::CredentialRow;

/// What this broker has seen of the rotations that run. Nothing of it is kept: what follows from it,
/// a rotation that is set back, is a change.
#[derive(Debug, Default)]
pub(crate) struct Canaries(Mutex<HashMap<Uid, Canary>>);

#[derive(Debug)]
struct Canary {
    candidate: u64,
    percent: u8,
    turns: Turns,
    fares: Fares,
}

/// So many rotations at most are counted; of more, each broker deals as if each lease were the first.
const MOST: usize = 10_000;

impl Canaries {
    /// The version of the next lease of a credential. Of those that have failed for the call, none, as
    /// long as there is another.
    pub(crate) fn choose(&self, row: &CredentialRow, has_failed: impl Fn(u64) -> bool) -> u64 {
        let current = row.current_version;
        let Some(rotation) = row.live_rotation() else { return current };
        let Some(spare) = rotation.spare() else { return current };
        match (has_failed(current), has_failed(spare)) {
            (true, false) => spare,
            (_, true) => current,
            // Past the canary, the old version is for calls that have failed only.
            (false, false) if rotation.candidate == current => current,
            (false, false) => {
                let percent = rotation.percent();
                let is_candidate = self.with(row, |it| {
                    if it.percent != percent {
                        (it.percent, it.turns) = (percent, Turns::default());
                    }
                    it.turns.take(percent)
                });
                if is_candidate.unwrap_or(false) { spare } else { current }
            }
        }
    }

    /// A lease of a version was granted or renewed.
    pub(crate) fn lent(&self, row: &CredentialRow, version: u64) {
        self.with(row, |it| {
            let fare = it.fare(version);
            fare.leases = fare.leases.saturating_add(1);
        });
    }

    /// A call with a version has failed; says whether, and why, the rotation is to be set back.
    pub(crate) fn failed(
        &self,
        row: &CredentialRow,
        version: u64,
        failure: Failure,
    ) -> Option<SetBack> {
        self.with(row, |it| {
            it.fare(version).failed(failure);
            it.fares.verdict()
        })?
    }

    /// How the versions of the rotation that runs have fared here.
    pub(crate) fn fares(&self, row: &CredentialRow) -> Option<Fares> {
        let candidate = row.rotation.as_ref()?.candidate;
        let canaries = self.lock();
        canaries.get(&row.uid).filter(|it| it.candidate == candidate).map(|it| it.fares)
    }

    /// Works on what is known of the rotation that runs, if one does.
    fn with<T>(&self, row: &CredentialRow, work: impl FnOnce(&mut Canary) -> T) -> Option<T> {
        let candidate = row.live_rotation()?.candidate;
        let fresh =
            || Canary { candidate, percent: 0, turns: Turns::default(), fares: Fares::default() };
        let mut canaries = self.lock();
        let has_room = canaries.len() < MOST;
        let canary = match canaries.entry(row.uid) {
            Entry::Occupied(known) if known.get().candidate == candidate => known.into_mut(),
            Entry::Occupied(mut earlier) => {
                earlier.insert(fresh());
                earlier.into_mut()
            }
            Entry::Vacant(place) if has_room => place.insert(fresh()),
            Entry::Vacant(_) => return Some(work(&mut fresh())),
        };
        Some(work(canary))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, Canary>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Canary {
    fn fare(&mut self, version: u64) -> &mut Fare {
        if version == self.candidate { &mut self.fares.candidate } else { &mut self.fares.previous }
    }
}
