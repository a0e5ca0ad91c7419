use audit::{Hash, Reason};
use sha2::{Digest as _, Sha256};
use store::{Page, StoreError};

use super::{LOOKS, RowCheck, RowFinding};
use crate::{core::next_page, refused::Why};

/// Tenants read at a time.
const PAGE: u32 = 500;

/// What is no tenant's, and what nobody would look for.
impl RowCheck {
    /// Compares a document with its digest in the log.
    pub(super) fn document(
        &mut self,
        (table, tenant): (&'static str, &str),
        name: String,
        sha256: &Hash,
        document: Option<Vec<u8>>,
    ) -> Option<RowFinding> {
        self.progress.rows += 1;
        let (reason, what) = match document {
            Some(document) if Sha256::digest(&document)[..] == sha256[..] => return None,
            Some(_) => (Reason::RowChanged, "it does not hash to what the log says"),
            None => (Reason::RowMissing, "the log names it"),
        };
        let (tenant, what) = (tenant.to_owned(), what.to_owned());
        Some(RowFinding { reason, table, name, tenant, what })
    }

    pub(super) async fn look_at_prices(&mut self) -> Result<Vec<RowFinding>, Why> {
        let mut found = Vec::new();
        for ((tenant, revision), sha256) in self.expected.prices.clone() {
            let document = self.core.store.prices(&sha256).await?;
            let name = format!("prices {revision}");
            found.extend(self.document(("price", &tenant), name, &sha256, document));
        }
        Ok(found)
    }

    /// What is to be destroyed must stay known until it is, and nothing else be destroyed; whoever is
    /// blocked must stay known, too; and nothing is anybody's of whom the log knows nothing.
    pub(super) async fn look_at_the_rest(&mut self) -> Result<Vec<RowFinding>, Why> {
        let mut found = Vec::new();
        for _ in 0..LOOKS {
            self.expected.catch_up(&*self.core.store).await?;
            found = self.erasures().await?;
            found.extend(self.key_work().await?);
            found.extend(self.sinks().await?);
            found.extend(self.blocked().await?);
            found.extend(self.strangers().await?);
            for (table, id) in self.core.store.strays().await? {
                found.push(RowFinding {
                    reason: Reason::RowChanged,
                    table,
                    name: format!("{table} {}", hex::encode(id)),
                    tenant: String::new(),
                    what: "whose it is says nothing that is there".to_owned(),
                });
            }
            if found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    async fn blocked(&self) -> Result<Vec<RowFinding>, Why> {
        let mut found = Vec::new();
        for commitment in &self.expected.blocked {
            let Ok(hash) = Hash::try_from(commitment.as_slice()) else { continue };
            if self.core.store.person_behind(&hash).await?.is_none() {
                let name = format!("person {}", hex::encode(hash));
                let (reason, tenant) = (Reason::RowMissing, String::new());
                let what = "the person is blocked".to_owned();
                found.push(RowFinding { reason, table: "person", name, tenant, what });
            }
        }
        Ok(found)
    }

    /// Tenants of which the log knows nothing.
    async fn strangers(&self) -> Result<Vec<RowFinding>, Why> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows = match self.core.store.tenants(page).await {
                Ok(rows) => rows,
                // One that cannot be read is told of by its name.
                Err(StoreError::Corrupt(_)) => return Ok(found),
                Err(error) => return Err(error.into()),
            };
            for row in &rows {
                let tenant = row.id.to_string();
                if !self.expected.tenants.contains_key(&tenant) {
                    let (reason, table) = (Reason::RowNotOnRecord, "tenant");
                    let (name, what) = (row.id.resource(), "the log has no such tenant".to_owned());
                    found.push(RowFinding { reason, table, name, tenant, what });
                }
            }
            after = next_page(&rows, PAGE, |row| row.id.to_string());
            if after.is_empty() {
                return Ok(found);
            }
        }
    }
}
