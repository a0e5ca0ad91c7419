use std::{cmp::Ordering, collections::BTreeSet};

use audit::Reason;
use domain::TenantId;
use sha2::{Digest as _, Sha256};
use store::{KeyPurpose, KeyRow, Share, StoreError};

use super::{RowCheck, RowFinding, expected::ExpectedTenant};
use crate::{
    custody::{Holder, Sealed},
    refused::Why,
};

/// What is known of one tenant while its rows are looked at.
pub(super) struct Look<'a> {
    pub(super) id: &'a TenantId,
    pub(super) expected: &'a ExpectedTenant,
    pub(super) findings: Vec<RowFinding>,
    rows: u64,
}

impl Look<'_> {
    pub(super) fn found(&mut self, reason: Reason, table: &'static str, name: &str, what: &str) {
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
    pub(super) fn take(
        &mut self,
        table: &'static str,
        name: &str,
        looked: Result<(), Why>,
    ) -> Result<(), Why> {
        self.rows += 1;
        match looked {
            Ok(()) => Ok(()),
            Err(why) if why.is_unusable() => {
                self.found(Reason::RowChanged, table, name, &in_words(&why));
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    /// The rows of one reading. One that cannot be read is told of, unless it is known from its name.
    pub(super) fn read<T>(
        &mut self,
        table: &'static str,
        rows: Result<Vec<T>, StoreError>,
    ) -> Result<Option<Vec<T>>, Why> {
        match rows {
            Ok(rows) => Ok(Some(rows)),
            Err(StoreError::Corrupt(what)) => {
                if !self.findings.iter().any(|finding| finding.table == table) {
                    let name = format!("a row of {}", self.id.resource());
                    self.found(Reason::RowNotOnRecord, table, &name, &what);
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Compares a genuine row's revision with the log's.
    pub(super) fn compare(&mut self, table: &'static str, name: &str, kept: u64, logged: u64) {
        let reason = match kept.cmp(&logged) {
            Ordering::Less => Reason::RowRolledBack,
            Ordering::Greater => Reason::RowNotOnRecord,
            Ordering::Equal => return,
        };
        let what = format!("it has revision {kept}, and the log says {logged}");
        self.found(reason, table, name, &what);
    }

    pub(super) fn stranger(&mut self, table: &'static str, name: &str) {
        self.found(Reason::RowNotOnRecord, table, name, "the log knows nothing of it");
    }

    pub(super) fn missing<'n>(
        &mut self,
        table: &'static str,
        names: impl IntoIterator<Item = &'n String>,
    ) {
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
        self.look_through(&mut look).await?;
        Ok((look.findings, look.rows))
    }

    async fn look_through(&mut self, look: &mut Look<'_>) -> Result<(), Why> {
        let (id, name) = (look.id, look.id.resource());
        let row = match self.core.store.tenant(id).await {
            Ok(Some(row)) => row,
            Ok(None) => {
                look.missing("tenant", [&name]);
                return Ok(());
            }
            Err(error) => return look.take("tenant", &name, Err(error.into())),
        };
        let uid = row.uid;
        let without_share = match self.core.custody.shares().share(uid).await? {
            Share::Held(_) => None,
            Share::Destroyed(_) => Some("it was erased, and put back"),
            Share::Unknown => Some("the share of its key is not there"),
        };
        if let Some(what) = without_share {
            look.found(Reason::RowChanged, "tenant", &name, what);
            return Ok(());
        }
        let keys = match self.core.store.keys(uid, KeyPurpose::Kek).await {
            Ok(keys) => keys,
            Err(error) => {
                look.take("wrapped_key", &name, Err(error.into()))?;
                Vec::new()
            }
        };
        self.look_at_keys(look, &keys).await?;
        let holder = Holder { tenant: id, uid, keys: &keys };
        if keys.is_empty() {
            // Nothing can be said of what is under them.
            look.found(Reason::RowChanged, "tenant", &name, "no key of its own is there");
            return Ok(());
        }
        if self.genuine(look, holder, ("tenant", &row)).await? {
            look.compare("tenant", &name, row.revision, look.expected.revision);
        }
        self.look_at_credentials(look, holder).await?;
        self.look_at_virtual_keys(look, holder).await?;
        self.look_at_budgets(look, holder).await?;
        self.look_at_people(look, &keys, uid).await
    }

    pub(super) async fn genuine(
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
        let tenant = look.id.resource();
        let name = |version: u32| format!("{tenant} key version {version}");
        let kept: BTreeSet<u32> = keys
            .iter()
            .filter(|key| key.uid.as_bytes()[..] == look.expected.kek_id[..])
            .map(|key| key.version)
            .collect();
        let missing: Vec<_> =
            look.expected.kek_versions.difference(&kept).map(|version| name(*version)).collect();
        look.missing("wrapped_key", &missing);
        for key in keys {
            let name = name(key.version);
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
}

/// What is wrong with a row, said to people.
fn in_words(why: &Why) -> String {
    if matches!(why, Why::Erased) {
        "the share of its key is destroyed, and the row is still there".to_owned()
    } else if matches!(why, Why::Kms(_)) {
        "its key is not what was wrapped: it does not unwrap by the root key".to_owned()
    } else {
        why.to_string()
    }
}

#[cfg(test)]
mod tests {
    use envelope::KmsError;

    use super::*;

    #[test]
    fn what_is_wrong_is_a_sentence() {
        for why in [Why::Erased, Why::Kms(KmsError::Corrupt)] {
            let told = in_words(&why);
            assert!(
                told.split(' ').count() > 5 && !told.contains(why.reason().as_str_name()),
                "{told}"
            );
        }
        assert_eq!(in_words(&Why::Corrupt("it is gone".to_owned())), "it is gone");
    }
}
