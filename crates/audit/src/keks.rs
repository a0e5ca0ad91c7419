use std::collections::{HashMap, hash_map::Entry};

use domain::Uid;

use crate::{Finding, Record};

/// Which versions of tenants' keys are in use, as the records so far tell it.
#[derive(Debug, Default)]
pub(crate) struct Keks {
    keys: HashMap<Uid, Versions>,
    /// How often somebody has asked for all keys to be rotated.
    asked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Versions {
    /// All before this one are deleted.
    oldest: u32,
    newest: u32,
    changed_at: u64,
    /// How often a broker has rotated it of its own accord.
    unasked: u64,
}

impl Versions {
    fn only(record: &Record) -> Self {
        let version = record.kek_version;
        Self { oldest: version, newest: version, changed_at: record.index, unasked: 0 }
    }
}

impl Keks {
    /// The first version of a tenant's key.
    pub(crate) fn create(&mut self, record: &Record) {
        if let Some(key) = key(record) {
            self.keys.entry(key).or_insert(Versions::only(record));
        }
    }

    /// The version after the newest.
    pub(crate) fn rotate(&mut self, record: &Record, begins_late: bool) -> Result<(), Finding> {
        let (asked, index) = (self.asked, record.index);
        let of_its_own = record.actor.is_empty() && record.actor_commitment.is_empty();
        let mut unasked = 0;
        self.change(record, begins_late, |known| {
            let next = record.kek_version == known.newest.saturating_add(1);
            known.newest = record.kek_version;
            known.unasked += u64::from(of_its_own);
            unasked = known.unasked;
            next
        })?;
        // Each time that somebody asks, a key is rotated once. Who asked in a part that was pruned is not known.
        if unasked > asked && !begins_late {
            return Err(Finding::KekRotationNotAsked { index });
        }
        Ok(())
    }

    /// Takes note that somebody has asked for all keys to be rotated.
    pub(crate) fn ask(&mut self) {
        self.asked += 1;
    }

    /// Versions before this one are deleted.
    pub(crate) fn retire(&mut self, record: &Record, begins_late: bool) -> Result<(), Finding> {
        self.change(record, begins_late, |known| {
            let version = record.kek_version;
            let fits = known.oldest < version && version <= known.newest;
            known.oldest = version;
            fits
        })
    }

    /// Whether a lease was opened with a version that was in use.
    pub(crate) fn lend(&self, record: &Record) -> Result<(), Finding> {
        let known = key(record).and_then(|key| self.keys.get(&key));
        match known {
            Some(known) if !(known.oldest..=known.newest).contains(&record.kek_version) => {
                let (index, changed_at) = (record.index, known.changed_at);
                Err(Finding::KekNotInUse { index, changed_at })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn change(
        &mut self,
        record: &Record,
        begins_late: bool,
        fits: impl FnOnce(&mut Versions) -> bool,
    ) -> Result<(), Finding> {
        let out_of_step = Finding::KekOutOfStep { index: record.index };
        match self.keys.entry(key(record).ok_or(out_of_step)?) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.changed_at = record.index;
                if fits(known) { Ok(()) } else { Err(out_of_step) }
            }
            Entry::Vacant(place) if begins_late => {
                // Older ones may be in use as well: nothing left says that they are not.
                let only = Versions::only(record);
                place.insert(if record.kind() == crate::Kind::KekRetired {
                    Versions { newest: u32::MAX, ..only }
                } else {
                    Versions { oldest: 0, ..only }
                });
                Ok(())
            }
            Entry::Vacant(_) => Err(out_of_step),
        }
    }
}

fn key(record: &Record) -> Option<Uid> {
    Uid::try_from(record.kek_id.as_ref()).ok()
}
