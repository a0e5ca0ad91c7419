use domain::{CredentialName, Uid};
use store::{CredentialRow, KeyRow, Page};

use super::{RowCheck, expected::ExpectedCredential, tenant::Look};
use crate::{core::next_page, custody::Holder, refused::Why};

/// Rows read at a time.
const PAGE: u32 = 500;

/// What a tenant owns: everything that the log says is there, each by its name, and then whatever else
/// there is.
impl RowCheck {
    pub(super) async fn look_at_credentials(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
    ) -> Result<(), Why> {
        let expected = look.expected;
        for (uid, logged) in &expected.credentials {
            self.look_at_credential(look, holder, (uid, logged)).await?;
        }
        let mut after = String::new();
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows = self.core.store.credentials(look.id, page).await;
            let Some(rows) = look.read("credential", rows)? else { break };
            for row in &rows {
                if !expected.credentials.contains_key(&row.uid.as_bytes()[..]) {
                    look.stranger("credential", &row.name().to_string());
                }
            }
            after = next_page(&rows, PAGE, |row| row.id.to_string());
            if after.is_empty() {
                break;
            }
        }
        let tests = self.core.store.credential_tests(look.id).await;
        for test in look.read("credential_test", tests)?.unwrap_or_default() {
            self.genuine(look, holder, ("credential_test", &test)).await?;
        }
        Ok(())
    }

    async fn look_at_credential(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
        (uid, logged): (&[u8], &ExpectedCredential),
    ) -> Result<(), Why> {
        let Ok(name) = logged.name.parse::<CredentialName>() else { return Ok(()) };
        let row = match self.core.store.credential(&name.tenant, &name.credential).await {
            Ok(Some(row)) if row.uid.as_bytes()[..] == *uid => row,
            Ok(_) => {
                look.missing("credential", [&logged.name]);
                return Ok(());
            }
            Err(error) => return look.take("credential", &logged.name, Err(error.into())),
        };
        if self.genuine(look, holder, ("credential", &row)).await? {
            look.compare("credential", &logged.name, row.revision, logged.revision);
        }
        for version in &logged.versions {
            self.look_at_version(look, holder, &row, *version).await?;
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

    pub(super) async fn look_at_virtual_keys(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
    ) -> Result<(), Why> {
        let expected = look.expected;
        for (id, logged) in &expected.virtual_keys {
            let name = format!("{}/virtualKeys/{id}", look.id.resource());
            let Ok(id) = id.parse() else { continue };
            match self.core.store.virtual_key(&id).await {
                Ok(Some(row)) if row.tenant == *look.id => {
                    if self.genuine(look, holder, ("virtual_key", &row)).await? {
                        look.compare("virtual_key", &name, row.revision, *logged);
                    }
                }
                Ok(_) => look.missing("virtual_key", [&name]),
                Err(error) => look.take("virtual_key", &name, Err(error.into()))?,
            }
        }
        let mut after = String::new();
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows = self.core.store.virtual_keys(look.id, page).await;
            let Some(rows) = look.read("virtual_key", rows)? else { return Ok(()) };
            for row in &rows {
                if !expected.virtual_keys.contains_key(&row.id.to_string()) {
                    look.stranger("virtual_key", &row.name().to_string());
                }
            }
            after = next_page(&rows, PAGE, |row| row.id.to_string());
            if after.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) async fn look_at_budgets(
        &self,
        look: &mut Look<'_>,
        holder: Holder<'_>,
    ) -> Result<(), Why> {
        let expected = look.expected;
        for (id, logged) in &expected.budgets {
            let name = format!("{}/budgets/{id}", look.id.resource());
            let Ok(id) = id.parse() else { continue };
            match self.core.store.budget(look.id, &id).await {
                Ok(Some(row)) => {
                    if self.genuine(look, holder, ("budget", &row)).await? {
                        look.compare("budget", &name, row.revision, *logged);
                    }
                }
                Ok(None) => look.missing("budget", [&name]),
                Err(error) => look.take("budget", &name, Err(error.into()))?,
            }
        }
        let mut after = String::new();
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows = self.core.store.budgets(look.id, page).await;
            let Some(rows) = look.read("budget", rows)? else { return Ok(()) };
            for row in &rows {
                if !expected.budgets.contains_key(&row.id.to_string()) {
                    look.stranger("budget", &row.name().to_string());
                }
            }
            after = next_page(&rows, PAGE, |row| row.id.to_string());
            if after.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) async fn look_at_people(
        &self,
        look: &mut Look<'_>,
        keys: &[KeyRow],
        tenant: Uid,
    ) -> Result<(), Why> {
        let mut after = None;
        loop {
            let rows = self.core.store.people(tenant, after, PAGE).await;
            let Some(rows) = look.read("person", rows)? else { return Ok(()) };
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
