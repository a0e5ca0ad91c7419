use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use domain::{CredentialName, Fields, RequestId};
use envelope::RowKey;
use store::{ErasureRow, KeyWork, Legible, SinkRow};

/// A row of the deployment's own, no tenant's. Brokers do what such a row says, so whoever can write to the
/// database must not be able to make one.
pub(crate) trait OwnRow: Sized {
    /// The table it is in.
    const TABLE: &str;

    /// What it is called in its table.
    fn name(&self) -> String;

    /// The columns, but for the MAC.
    fn columns(&self) -> Vec<u8>;

    /// The MAC column.
    fn mac(&self) -> &[u8; 32];

    /// The same row with another MAC.
    fn with_mac(self, mac: [u8; 32]) -> Self;

    /// The same row with the MAC that belongs to it.
    fn sealed(self, key: &RowKey) -> Self {
        let mac = key.mac(&self.columns());
        self.with_mac(mac)
    }

    /// Whether a broker of this deployment has written the row, and it is as it was then.
    fn is_genuine(&self, key: &RowKey) -> bool {
        key.is_genuine(&self.columns(), self.mac())
    }
}

/// The rows of each table that nothing is done by, as they were last seen: they are looked at again and
/// again, and told once.
#[derive(Debug, Default)]
pub(crate) struct Passed(Mutex<BTreeMap<&'static str, BTreeSet<String>>>);

impl Passed {
    /// Those of the rows that a broker has written, and that are as they were then.
    pub(crate) fn genuine<R: OwnRow>(&self, found: Legible<R>, key: &RowKey) -> Vec<R> {
        let (genuine, foreign): (Vec<_>, Vec<_>) =
            found.rows.into_iter().partition(|row| row.is_genuine(key));
        let names = found.illegible.into_iter().chain(foreign.iter().map(R::name));
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<_> = names.collect();
        for name in now.difference(told.entry(R::TABLE).or_default()) {
            let table = R::TABLE;
            tracing::error!(table, name, "nothing is done by a row that is not as it was written");
        }
        told.insert(R::TABLE, now);
        genuine
    }
}

impl OwnRow for ErasureRow {
    const TABLE: &str = "erasure";

    fn name(&self) -> String {
        self.id.to_string()
    }

    fn columns(&self) -> Vec<u8> {
        let credential = self.credential.as_ref().map(CredentialName::to_string);
        let shares: Vec<u8> = self.shares.iter().flat_map(|id| *id.as_bytes()).collect();
        Fields::new("strongroom erasure row v1")
            .field(1, self.id)
            .field(2, self.tenant.as_str())
            .field(3, credential.unwrap_or_default())
            .field(4, shares)
            .field(5, self.begun_at.as_millis().to_be_bytes())
            .finish()
    }

    fn mac(&self) -> &[u8; 32] {
        &self.row_mac
    }

    fn with_mac(self, row_mac: [u8; 32]) -> Self {
        Self { row_mac, ..self }
    }
}

impl OwnRow for KeyWork {
    const TABLE: &str = "key_work";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom key work row v1")
            .field(1, &self.name)
            .field(2, self.request_id.as_ref().map_or("", RequestId::as_str))
            .field(3, self.begun_at.as_millis().to_be_bytes())
            .field(4, [u8::from(self.done)])
            .finish()
    }

    fn mac(&self) -> &[u8; 32] {
        &self.row_mac
    }

    fn with_mac(self, row_mac: [u8; 32]) -> Self {
        Self { row_mac, ..self }
    }
}

impl OwnRow for SinkRow {
    const TABLE: &str = "sink";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom sink row v1")
            .field(1, &self.name)
            .number(2, self.next_index)
            .finish()
    }

    fn mac(&self) -> &[u8; 32] {
        &self.row_mac
    }

    fn with_mac(self, row_mac: [u8; 32]) -> Self {
        Self { row_mac, ..self }
    }
}

#[cfg(test)]
mod tests {
    use domain::Key;

    use super::*;

    fn found(names: &[&str]) -> Legible<SinkRow> {
        let row = |name: &&str| SinkRow { name: (*name).into(), next_index: 7, row_mac: [0; 32] };
        Legible { rows: names.iter().map(row).collect(), illegible: Vec::new() }
    }

    #[test]
    fn what_no_broker_has_written_is_passed_over_and_remembered_until_it_is_gone() {
        let key = RowKey::of(&Key::take(&mut [7; 32]));
        let passed = Passed::default();
        let known = || passed.0.lock().unwrap()[SinkRow::TABLE].len();
        let mut both = found(&["forged"]);
        both.rows.push(found(&["own"]).rows.remove(0).sealed(&key));
        let own = [both.rows[1].clone()];
        for _ in 0..2 {
            assert_eq!(passed.genuine(both.clone(), &key), own);
            assert_eq!(known(), 1);
        }
        assert_eq!(passed.genuine(found(&["forged", "another"]), &key), []);
        assert_eq!(known(), 2);
        assert_eq!(passed.genuine(Legible { rows: own.to_vec(), ..found(&[]) }, &key), own);
        assert_eq!(known(), 0);
    }
}
