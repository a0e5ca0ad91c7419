use audit::{Entry, Record, RecordFilter, timestamp};
use domain::{TenantId, Timestamp};
use store::Store;

use crate::{core::first_since, refused::Why};

/// Reads the records that somebody asks for, page by page, without an index of its own: what a lease
/// writes must not grow with what an auditor may want to know.
pub(crate) struct Search<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) tenant: Option<&'a TenantId>,
    pub(crate) filter: &'a RecordFilter,
    /// The first record that is kept.
    pub(crate) first: u64,
    /// The size of the log, read before any record.
    pub(crate) size: u64,
}

/// A page of what was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    /// Where the search goes on.
    pub(crate) next: u64,
    /// Where it began.
    pub(crate) from: u64,
}

/// The most records that one call looks at.
const BUDGET: u32 = 16_384;

/// Records read at a time.
const STEP: u32 = 4096;

impl Search<'_> {
    /// The records from an index on, in order.
    pub(crate) async fn forwards(&self, from: u64, limit: u32) -> Result<Found, Why> {
        if let Some(hash) = self.filter.lease_hash() {
            let entries = self.store.lease_records(hash).await?;
            let entries = entries.into_iter().filter(|entry| entry.index >= from).collect();
            return self.of_lease(entries, from, limit, self.size);
        }
        let from = match self.filter.start() {
            Some(start) => self.first_at(start, from).await?.max(from),
            None => from,
        };
        let mut found = Found { next: from, from, ..Found::default() };
        let mut left = BUDGET;
        loop {
            let step = left.min(if self.filter.is_open() { limit } else { STEP });
            let entries = self.store.records(found.next, step, self.tenant).await?;
            let full = entries.len() >= step as usize;
            for entry in entries {
                let record = read(&entry)?;
                if self.is_over(&record) {
                    found.next = self.size.max(entry.index);
                    return Ok(found);
                }
                found.next = entry.index + 1;
                if self.filter.matches(&record) {
                    found.entries.push(entry);
                    if found.entries.len() >= limit as usize {
                        return Ok(found);
                    }
                }
            }
            if !full {
                found.next = self.size.max(found.next);
                return Ok(found);
            }
            left = left.saturating_sub(step);
            if left == 0 {
                return Ok(found);
            }
        }
    }

    /// The records before an index, the latest first.
    pub(crate) async fn backwards(&self, before: u64, limit: u32) -> Result<Found, Why> {
        if let Some(hash) = self.filter.lease_hash() {
            let mut entries = self.store.lease_records(hash).await?;
            entries.retain(|entry| entry.index >= self.first && entry.index < before);
            entries.reverse();
            return self.of_lease(entries, before, limit, self.first);
        }
        let before = match self.filter.end() {
            Some(end) => self.first_at(end, self.first).await?.min(before),
            None => before,
        };
        let mut found = Found { next: before, from: before, ..Found::default() };
        let mut left = BUDGET;
        loop {
            let step = left.min(if self.filter.is_open() { limit } else { STEP });
            let entries = self.store.records_before(found.next, step, self.tenant).await?;
            let full = entries.len() >= step as usize;
            for entry in entries {
                let record = read(&entry)?;
                let is_before = entry.index < self.first
                    || self.filter.start().is_some_and(|start| time(&record) < Some(start));
                if is_before {
                    found.next = self.first;
                    return Ok(found);
                }
                found.next = entry.index;
                if self.filter.matches(&record) {
                    found.entries.push(entry);
                    if found.entries.len() >= limit as usize {
                        return Ok(found);
                    }
                }
            }
            if !full {
                found.next = self.first;
                return Ok(found);
            }
            left = left.saturating_sub(step);
            if left == 0 {
                return Ok(found);
            }
        }
    }

    /// One lease's records come by their index, all at once.
    fn of_lease(&self, entries: Vec<Entry>, from: u64, limit: u32, end: u64) -> Result<Found, Why> {
        let mut found = Found { next: end, from, ..Found::default() };
        for entry in entries {
            if found.entries.len() >= limit as usize {
                // This one is the first of the next page, whichever way it is read.
                found.next = if end == self.size { entry.index } else { entry.index + 1 };
                return Ok(found);
            }
            let record = read(&entry)?;
            let theirs = self.tenant.is_none_or(|tenant| record.tenant == tenant.as_str());
            if theirs && self.filter.matches(&record) {
                found.entries.push(entry);
            }
        }
        Ok(found)
    }

    fn is_over(&self, record: &Record) -> bool {
        self.filter.end().is_some_and(|end| time(record) >= Some(end))
    }

    /// The first record from an index on that is not before a time. Times never go back, so halving
    /// finds it with a few single reads.
    async fn first_at(&self, moment: Timestamp, from: u64) -> Result<u64, Why> {
        first_since(self.store, from.min(self.size)..self.size, moment).await
    }
}

fn time(record: &Record) -> Option<Timestamp> {
    record.time.as_ref().and_then(timestamp)
}

fn read(entry: &Entry) -> Result<Record, Why> {
    entry.record().map_err(|error| Why::Corrupt(error.to_string()))
}

#[cfg(test)]
mod tests;
