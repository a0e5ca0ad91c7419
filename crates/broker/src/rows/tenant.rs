use std::collections::BTreeSet;

use audit::Reason;
use domain::{TenantId, Uid};
use envelope::KmsError;
use sha2::{Digest as _, Sha256};
use store::{BudgetRow, CredentialRow, KeyPurpose, KeyRow, Page, StoreError, VirtualKeyRow};

use super::{RowCheck, RowFinding, expected::ExpectedTenant};
use crate::{
    custody::{Holder, Sealed},
    refused::{Refused, Why},
};

/// Rows read at a time.
const PAGE: u32 = 500;

/// What is known of one tenant while its rows are looked at.
struct Look<'a> {
    id: &'a TenantId,
    expected: &'a ExpectedTenant,
    findings: Vec<RowFinding>,
    rows: u64,
}

impl Look<'_> {
    fn found(&mut self, reason: Reason, table: &'static str, name: &str, what: &str) {
        self.findings.push(RowFinding {
            reason,
            table,
            name: name.to_owned(),
            tenant: self.id.to_string(),
            what: what.to_owned(),
        });
    }

    /// Counts a row, and takes note of it if it is not what was written. What cannot be told now is an
    /// error.
    fn take(
        &mut self,
        table: &'static str,
        name: &str,
        looked: Result<(), Why>,
    ) -> Result<(), Why> {
        self.rows += 1;
        match looked {
            Ok(()) => Ok(()),
            Err(
                why @ (Why::Corrupt(_)
                | Why::Erased
                | Why::Kms(KmsError::Corrupt)
                | Why::Store(StoreError::Corrupt(_))),
            ) => {
                let what = Refused::from(why).to_string();
                self.found(Reason::RowChanged, table, name, &what);
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    /// Compares a genuine row's revision with the log's.
    fn compare(&mut self, table: &'static str, name: &str, kept: u64, logged: Option<u64>) {
        let reason = match logged {
            None => Reason::RowNotOnRecord,
            Some(logged) if kept < logged => Reason::RowRolledBack,
            Some(logged) if kept > logged => Reason::RowNotOnRecord,
            Some(_) => return,
        };
        let logged =
            logged.map_or("nothing of it".to_owned(), |logged| format!("revision {logged}"));
        self.found(reason, table, name, &format!("it has revision {kept}, and the log {logged}"));
    }

    fn missing<'n>(&mut self, table: &'static str, names: impl IntoIterator<Item = &'n String>) {
        for name in names {
            self.found(Reason::RowMissing, table, name, "the log says that it is there");
        }
    }
}

impl RowCheck {
    /// Looks at everything of one tenant; gives what is wrong, and how many rows there were.
    pub(super) async fn look_at(
        &mut self,
        id: &TenantId,
        expected: &ExpectedTenant,
    ) -> Result<(Vec<RowFinding>, u64), Why> {
        let mut look = Look { id, expected, findings: Vec::new(), rows: 0 };
        let name = id.resource();
        let row = match self.core.store.tenant(id).await {
            Ok(Some(row)) => row,
            Ok(None) => {
                look.missing("tenant", [&name]);
                return Ok((look.findings, look.rows));
            }
            Err(error) => {
                look.take("tenant", &name, Err(error.into()))?;
                return Ok((look.findings, look.rows));
            }
        };
        let uid = row.uid;
        let keys = self.core.store.keys(uid, KeyPurpose::Kek).await.map_err(Why::from);
        let keys = match keys {
            Ok(keys) => keys,
            Err(why) => {
                look.take("wrapped_key", &name, Err(why))?;
                Vec::new()
            }
        };
        self.look_at_keys(&mut look, &keys).await?;
        let holder = Holder { tenant: id, uid, keys: &keys };
        if keys.is_empty() {
            // Nothing can be said of what is under them, and that they are missing is said.
            return Ok((look.findings, look.rows));
        }
        if self.genuine(&mut look, holder, ("tenant", &row)).await? {
            look.compare("tenant", &name, row.revision, Some(expected.revision));
        }
        self.look_at_credentials(&mut look, holder).await?;
        self.look_at_virtual_keys(&mut look, holder).await?;
        self.look_at_budgets(&mut look, holder).await?;
        self.look_at_people(&mut look, &keys, uid).await?;
        Ok((look.findings, look.rows))
    }

    async fn genuine(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
        (table, row): (&'static str, &(impl Sealed + Sync)),
    ) -> Result<bool, Why> {
        let before = look.findings.len();
        let looked = self.core.custody.verify(holder, row).await;
        look.take(table, &row.called(), looked)?;
        Ok(look.findings.len() == before)
    }

    async fn look_at_keys(&mut self, look: &mut Look<'_>, keys: &[KeyRow]) -> Result<(), Why> {
        let name = |version: u32| format!("{} key version {version}", look.id.resource());
        let kept: BTreeSet<u32> = keys
            .iter()
            .filter(|key| key.uid.as_bytes()[..] == look.expected.kek_id[..])
            .map(|key| key.version)
            .collect();
        let missing: Vec<_> =
            look.expected.kek_versions.difference(&kept).map(|version| name(*version)).collect();
        look.missing("wrapped_key", &missing);
        for key in keys {
            let name = format!("{} key version {}", look.id.resource(), key.version);
            if !look.expected.kek_versions.contains(&key.version) {
                look.found(
                    Reason::RowNotOnRecord,
                    "wrapped_key",
                    &name,
                    "the log has no such version",
                );
            }
            let looked = self.unwraps(look.id, key).await;
            look.take("wrapped_key", &name, looked)?;
        }
        if *look.id == TenantId::platform() {
            self.look_at_pepper(look, keys).await?;
        }
        Ok(())
    }

    /// Whether the KMS unwraps a key; asked once for the same bytes.
    async fn unwraps(&mut self, id: &TenantId, key: &KeyRow) -> Result<(), Why> {
        let place = (key.tenant_uid, key.uid, key.version);
        let digest: [u8; 32] = Sha256::digest(&key.wrapped).into();
        if self.unwrapped.get(&place) == Some(&digest) {
            return Ok(());
        }
        self.core.custody.check_roots(id, std::slice::from_ref(key))?;
        self.core.custody.unwrap(key).await?;
        self.unwrapped.insert(place, digest);
        Ok(())
    }

    async fn look_at_pepper(&mut self, look: &mut Look<'_>, keks: &[KeyRow]) -> Result<(), Why> {
        let Some(platform) = keks.first().map(|key| key.tenant_uid) else { return Ok(()) };
        let name = "the pepper".to_owned();
        let rows = match self.core.store.keys(platform, KeyPurpose::Pepper).await {
            Ok(rows) => rows,
            Err(error) => return look.take("wrapped_key", &name, Err(error.into())),
        };
        let Some(row) = rows.first() else {
            look.missing("wrapped_key", [&name]);
            return Ok(());
        };
        let looked = match self.core.custody.unwrap(row).await {
            Ok(pepper) if pepper.hmac(b"") == self.core.pepper.hmac(b"") => Ok(()),
            Ok(_) => Err(Why::Corrupt("it is another key than this broker uses".into())),
            Err(why) => Err(why),
        };
        look.take("wrapped_key", &name, looked)
    }

    async fn look_at_credentials(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
    ) -> Result<(), Why> {
        let mut left: BTreeSet<&Vec<u8>> = look.expected.credentials.keys().collect();
        let mut after = String::new();
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows = match self.core.store.credentials(look.id, page).await {
                Ok(rows) => rows,
                Err(error) => {
                    let name = format!("{} credentials", look.id.resource());
                    return look.take("credential", &name, Err(error.into()));
                }
            };
            let full = rows.len() == PAGE as usize;
            after = rows.last().map(|row| row.id.to_string()).unwrap_or_default();
            for row in &rows {
                let uid = row.uid.as_bytes().to_vec();
                left.remove(&uid);
                let genuine = self.genuine(look, holder, ("credential", row)).await?;
                let logged = look.expected.credentials.get(&uid);
                if genuine {
                    let revision = logged.map(|logged| logged.revision);
                    look.compare("credential", &row.name().to_string(), row.revision, revision);
                }
                for version in logged.into_iter().flat_map(|logged| &logged.versions) {
                    self.look_at_version(look, holder, row, *version).await?;
                }
            }
            if !full {
                break;
            }
        }
        let names = left.into_iter().filter_map(|uid| look.expected.credentials.get(uid));
        let names: Vec<_> = names.map(|credential| credential.name.clone()).collect();
        look.missing("credential", &names);
        for test in self.core.store.credential_tests(look.id).await? {
            self.genuine(look, holder, ("credential_test", &test)).await?;
        }
        Ok(())
    }

    async fn look_at_version(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
        row: &CredentialRow,
        version: u64,
    ) -> Result<(), Why> {
        let name = format!("{} version {version}", row.name());
        let opens = async {
            let stored = self.core.custody.version(row, version).await?;
            self.core.custody.open_here(holder.keys, row, &stored).await.map(drop)
        };
        look.take("credential_version", &name, opens.await)
    }

    async fn look_at_virtual_keys(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
    ) -> Result<(), Why> {
        let mut left: BTreeSet<&String> = look.expected.virtual_keys.keys().collect();
        let mut after = String::new();
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows: Vec<VirtualKeyRow> = match self.core.store.virtual_keys(look.id, page).await {
                Ok(rows) => rows,
                Err(error) => {
                    let name = format!("{} virtual keys", look.id.resource());
                    return look.take("virtual_key", &name, Err(error.into()));
                }
            };
            let full = rows.len() == PAGE as usize;
            after = rows.last().map(|row| row.id.to_string()).unwrap_or_default();
            for row in &rows {
                let id = row.id.to_string();
                left.remove(&id);
                if self.genuine(look, holder, ("virtual_key", row)).await? {
                    let logged = look.expected.virtual_keys.get(&id).copied();
                    look.compare("virtual_key", &row.name().to_string(), row.revision, logged);
                }
            }
            if !full {
                look.missing("virtual_key", left);
                return Ok(());
            }
        }
    }

    async fn look_at_budgets(&self, look: &mut Look<'_>, holder: Holder<'_>) -> Result<(), Why> {
        let mut left: BTreeSet<&String> = look.expected.budgets.keys().collect();
        let page = Page { after: "", limit: 1000 };
        let rows: Vec<BudgetRow> = match self.core.store.budgets(look.id, page).await {
            Ok(rows) => rows,
            Err(error) => {
                let name = format!("{} budgets", look.id.resource());
                return look.take("budget", &name, Err(error.into()));
            }
        };
        for row in &rows {
            let id = row.id.to_string();
            left.remove(&id);
            if self.genuine(look, holder, ("budget", row)).await? {
                let logged = look.expected.budgets.get(&id).copied();
                look.compare("budget", &row.name().to_string(), row.revision, logged);
            }
        }
        look.missing("budget", left);
        Ok(())
    }

    async fn look_at_people(
        &self,
        look: &mut Look<'_>,
        keys: &[KeyRow],
        tenant: Uid,
    ) -> Result<(), Why> {
        let mut after = None;
        loop {
            let rows = match self.core.store.people(tenant, after, PAGE).await {
                Ok(rows) => rows,
                Err(error) => {
                    let name = format!("{} people", look.id.resource());
                    return look.take("person", &name, Err(error.into()));
                }
            };
            after = rows.last().map(|row| row.handle);
            for row in &rows {
                let name = format!("person {}", hex::encode(row.commitment));
                let looked = match self.core.people.check(row) {
                    Ok(()) if !row.sealed.is_empty() => {
                        self.core.custody.open_person(keys, row).await.map(drop)
                    }
                    looked => looked,
                };
                look.take("person", &name, looked)?;
            }
            if rows.len() < PAGE as usize {
                return Ok(());
            }
        }
    }
}
