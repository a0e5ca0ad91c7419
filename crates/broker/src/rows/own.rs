use audit::Reason;
use store::{ErasureRow, KeyWork, SinkRow};

use super::{RowCheck, RowFinding};
use crate::{custody::OwnRow as _, refused::Why};

const CHANGED: &str = "its MAC is wrong, or it does not say what the log says";

/// Rows that are no tenant's and that tell the broker to do something.
impl RowCheck {
    pub(super) async fn erasures(&self) -> Result<Vec<RowFinding>, Why> {
        let kept = self.core.store.erasures().await?;
        let mut found = illegible(ErasureRow::TABLE, &kept.illegible);
        for row in &kept.rows {
            let (reason, what) = match self.expected.erasures.get(row.id.as_ref() as &[u8]) {
                None => (Reason::RowNotOnRecord, "the log has no such erasure that is not done"),
                Some(told) if *told != said_by(row) || !row.is_genuine(&self.core.row_key) => {
                    (Reason::RowChanged, CHANGED)
                }
                Some(_) => continue,
            };
            let (name, tenant) = (erasure(row.id.as_ref()), row.tenant.to_string());
            let what = what.to_owned();
            found.push(RowFinding { reason, table: ErasureRow::TABLE, name, tenant, what });
        }
        for (id, (tenant, _)) in &self.expected.erasures {
            if kept.rows.iter().all(|row| row.id.as_bytes()[..] != id[..]) {
                let (reason, name, tenant) = (Reason::RowMissing, erasure(id), tenant.clone());
                let what = "the shares are to be destroyed still".to_owned();
                found.push(RowFinding { reason, table: ErasureRow::TABLE, name, tenant, what });
            }
        }
        Ok(found)
    }

    pub(super) async fn key_work(&self) -> Result<Vec<RowFinding>, Why> {
        let kept = self.core.store.key_work().await?;
        let mut found = illegible(KeyWork::TABLE, &kept.illegible);
        for row in kept.rows.iter().filter(|row| !row.is_genuine(&self.core.row_key)) {
            found.push(if self.expected.key_work.contains(&row.name) {
                of_none(KeyWork::TABLE, Reason::RowChanged, &row.name, CHANGED)
            } else {
                let what = "nobody has asked for it";
                of_none(KeyWork::TABLE, Reason::RowNotOnRecord, &row.name, what)
            });
        }
        for name in &self.expected.key_work {
            if kept.rows.iter().all(|row| row.name != *name) {
                found.push(of_none(KeyWork::TABLE, Reason::RowMissing, name, "the log names it"));
            }
        }
        Ok(found)
    }

    pub(super) async fn sinks(&self) -> Result<Vec<RowFinding>, Why> {
        let kept = self.core.store.sinks().await?;
        let mut found = illegible(SinkRow::TABLE, &kept.illegible);
        for row in kept.rows.iter().filter(|row| !row.is_genuine(&self.core.row_key)) {
            found.push(of_none(SinkRow::TABLE, Reason::RowChanged, &row.name(), CHANGED));
        }
        Ok(found)
    }
}

/// What an erasure says, as the log does.
fn said_by(row: &ErasureRow) -> (String, String) {
    let credential = row.credential.as_ref().map(ToString::to_string);
    (row.tenant.to_string(), credential.unwrap_or_default())
}

fn erasure(id: &[u8]) -> String {
    format!("erasure {}", hex::encode(id))
}

fn illegible(table: &'static str, columns: &[String]) -> Vec<RowFinding> {
    let named = |column: &String| of_none(table, Reason::RowChanged, "that cannot be read", column);
    columns.iter().map(named).collect()
}

fn of_none(table: &'static str, reason: Reason, name: &str, what: &str) -> RowFinding {
    let (name, what) = (format!("{table} {name}"), what.to_owned());
    RowFinding { reason, table, name, tenant: String::new(), what }
}
