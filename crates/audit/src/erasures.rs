use std::collections::{HashMap, hash_map::Entry};

use domain::Uid;

use crate::{Finding, InvalidRecord, Record};

/// What was erased, as the records so far tell it.
#[derive(Debug, Default)]
pub(crate) struct Erasures(HashMap<Uid, Erasure>);

#[derive(Debug)]
struct Erasure {
    /// The tenant, and the credential unless it was all of the tenant.
    of: (String, String),
    destroyed_at: Option<u64>,
}

impl Erasures {
    pub(crate) fn begin(&mut self, record: &Record) -> Result<(), Finding> {
        let erasure = Erasure { of: of(record), destroyed_at: None };
        self.0.entry(id(record)?).or_insert(erasure);
        Ok(())
    }

    /// Shares are destroyed once, and of what was erased before.
    pub(crate) fn end(&mut self, record: &Record, begins_late: bool) -> Result<(), Finding> {
        let index = record.index;
        match self.0.entry(id(record)?) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if known.of != of(record) {
                    return Err(Finding::SharesNotErased { index });
                }
                match known.destroyed_at.replace(index) {
                    Some(destroyed_at) => {
                        Err(Finding::SharesDestroyedTwice { index, destroyed_at })
                    }
                    None => Ok(()),
                }
            }
            // It may have been erased in the part that was pruned.
            Entry::Vacant(place) if begins_late => {
                place.insert(Erasure { of: of(record), destroyed_at: Some(index) });
                Ok(())
            }
            Entry::Vacant(_) => Err(Finding::SharesNotErased { index }),
        }
    }
}

fn of(record: &Record) -> (String, String) {
    (record.tenant.clone(), record.credential.clone())
}

/// The checks of [`crate::decode_record`] have made sure of the field; without them there is none.
fn id(record: &Record) -> Result<Uid, Finding> {
    Uid::try_from(record.erasure_id.as_ref()).map_err(|_| Finding::Malformed {
        index: record.index,
        source: InvalidRecord::Missing("erasure_id"),
    })
}
