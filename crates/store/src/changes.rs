use std::collections::HashMap;

use domain::TenantId;

use crate::{
    Head, Pending, StoreError,
    backend::{Backend, Value},
    mapping,
};

/// Which tenants changed lately, as far as a batch has to know it.
pub(crate) struct Changes {
    /// From this index on every change is known.
    known_from: u64,
    /// The end of the log just after each tenant's last change.
    of_tenants: HashMap<String, u64>,
    /// The end of the log just after the last change that names no tenant, so that it may be any's.
    of_any: u64,
}

impl Changes {
    /// Knows of no change in a log that has this end.
    pub(crate) fn unknown(end: u64) -> Self {
        Self { known_from: end, of_tenants: HashMap::new(), of_any: 0 }
    }

    /// Reads what a batch has to know. The head must be locked, so that no change can follow unseen.
    pub(crate) async fn read<B: Backend>(
        connection: &mut B::Connection,
        head: &Head,
        batch: &[Pending],
    ) -> Result<Self, StoreError> {
        // The newest first: a writer that is far behind spoils nothing for the others.
        const SQL: &str = "\
            SELECT idx, tenant FROM record WHERE mutates AND idx >= $1 ORDER BY idx DESC LIMIT $2";
        let mut changes = Self::unknown(head.frontier.size());
        let conditional = batch.iter().filter(|pending| !pending.tenants.is_empty());
        let behind = conditional.filter_map(|pending| pending.as_of).min();
        let Some(from) = behind.filter(|as_of| *as_of < head.changed) else { return Ok(changes) };
        let rows = B::fetch(connection, SQL, &[from.into(), Value::from(MOST)]).await;
        let rows = rows.map_err(StoreError::from_sqlx)?;
        changes.known_from = from;
        for row in &rows {
            let (index, tenant) = mapping::change(row)?;
            changes.add(index, tenant.as_deref());
            if rows.len() >= MOST as usize {
                changes.known_from = index;
            }
        }
        Ok(changes)
    }

    /// Takes note of a change.
    pub(crate) fn add(&mut self, index: u64, tenant: Option<&str>) {
        let end = match tenant {
            Some(tenant) => self.of_tenants.entry(tenant.to_owned()).or_default(),
            None => &mut self.of_any,
        };
        *end = (*end).max(index + 1);
    }

    /// Whether one of the tenants may have changed at or after an index.
    pub(crate) fn touch(&self, tenants: &[TenantId], from: u64) -> bool {
        let changed = |tenant: &TenantId| self.of_tenants.get(tenant.as_str()).copied();
        from < self.known_from
            || from < self.of_any
            || tenants.iter().filter_map(changed).any(|end| from < end)
    }
}

/// So many changes are looked at while the head is locked; before them, any tenant may have changed.
const MOST: u32 = 1000;
