use std::collections::{HashMap, hash_map::Entry};

use domain::Uid;

use crate::{Finding, Record};

/// Which versions of tenants' keys are in use, as the records so far tell it.
#[derive(Debug, Default)]
pub(crate) struct Keks(HashMap<Uid, Versions>);

#[derive(Clone, Copy, Debug)]
struct Versions {
    /// All before this one are deleted.
    oldest: u32,
    newest: u32,
    changed_at: u64,
}

impl Versions {
    fn only(record: &Record) -> Self {
        let version = record.kek_version;
        Self { oldest: version, newest: version, changed_at: record.index }
    }
}

impl Keks {
    /// The first version of a tenant's key.
    pub(crate) fn create(&mut self, record: &Record) {
        if let Some(key) = key(record) {
            self.0.entry(key).or_insert(Versions::only(record));
        }
    }

    /// The version after the newest.
    pub(crate) fn rotate(&mut self, record: &Record, begins_late: bool) -> Result<(), Finding> {
        self.change(record, begins_late, |known| {
            let next = record.kek_version == known.newest.saturating_add(1);
            known.newest = record.kek_version;
            next
        })
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
        let known = key(record).and_then(|key| self.0.get(&key));
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
        match self.0.entry(key(record).ok_or(out_of_step)?) {
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
