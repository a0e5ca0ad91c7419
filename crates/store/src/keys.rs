mod writing;

use async_trait::async_trait;
use domain::{ProviderId, RequestId, TenantId, Timestamp, Uid, VirtualKeyId};

pub(crate) use self::writing::{begin_work, check_mac, retire, rewrap};
use crate::{
    BudgetRow, CredentialRow, KeyRow, Legible, PersonRow, StoreError, TenantRow, TestRow,
    VersionRow, VirtualKeyRow,
    backend::{Backend, Row, Value},
    budgets::rows,
    mapping,
    sql_store::SqlStore,
    writer::Job,
};

/// What has to be known of keys, and of all that is under them, to change keys while they are used.
#[async_trait]
pub trait KeyStore {
    /// Wrapped keys of both purposes and all tenants after one of them, by id and version.
    async fn wrapped_keys(
        &self,
        after: Option<(Uid, u32)>,
        limit: u32,
    ) -> Result<Vec<TenantKey>, StoreError>;

    /// The newest version of the key of each tenant that has older ones as well, by the tenant's name.
    async fn keys_in_rotation(&self, limit: u32) -> Result<Vec<TenantKey>, StoreError>;

    /// The newest version of the key of each tenant that has none since this time, by the tenant's name.
    async fn keys_from_before(
        &self,
        time: Timestamp,
        limit: u32,
    ) -> Result<Vec<TenantKey>, StoreError>;

    /// Rows of a tenant that are under versions of its key before this one.
    async fn stale(&self, newest: &TenantKey, limit: u32) -> Result<Vec<Stale>, StoreError>;

    /// How many rows of a tenant are under which version of its key; versions without rows are left out.
    async fn key_references(
        &self,
        tenant: &TenantId,
        uid: Uid,
    ) -> Result<Vec<(u32, u64)>, StoreError>;

    /// Puts rows in the place of what they were, together. Those that are no longer what they were stay
    /// as they are; says how many were replaced. Nobody can tell by the log, so it is for rows that mean
    /// the same as before.
    async fn reseal(&self, rows: &[Resealed]) -> Result<u64, StoreError>;

    /// What was asked to be done to all keys, by name.
    async fn key_work(&self) -> Result<Legible<KeyWork>, StoreError>;

    /// Takes note of work that is done, as it is to be kept, unless something else is to be done under that
    /// name meanwhile.
    async fn end_key_work(&self, work: &KeyWork) -> Result<(), StoreError>;
}

/// A wrapped key, and whose it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantKey {
    /// The tenant's name.
    pub tenant: TenantId,
    /// The key.
    pub key: KeyRow,
}

/// A row that is under an old version of its tenant's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stale {
    /// By its MAC.
    Tenant(TenantRow),
    /// By its MAC.
    Credential(CredentialRow),
    /// By its MAC.
    VirtualKey(VirtualKeyRow),
    /// By its MAC.
    Budget(BudgetRow),
    /// What a test of a credential has shown, by its MAC.
    Test(TestRow),
    /// By the header of what is sealed, of a credential for this provider.
    Version(VersionRow, ProviderId),
    /// By the header of what is sealed.
    Person(PersonRow),
}

/// A row's new form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resealed {
    /// Which column of which row.
    pub place: Place,
    /// What must stand there.
    pub before: Vec<u8>,
    /// What is put there.
    pub after: Vec<u8>,
}

/// A column that depends on a tenant's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A tenant's MAC.
    Tenant(Uid),
    /// A credential's MAC.
    Credential(Uid),
    /// A virtual key's MAC.
    VirtualKey(VirtualKeyId),
    /// A budget's MAC.
    Budget(Uid),
    /// The MAC of what a test of this credential has shown.
    Test(Uid),
    /// A credential's secret, of this version.
    Version(Uid, u64),
    /// A person's name, by the handle, with the row's new MAC.
    Person([u8; 32], [u8; 32]),
}

/// Something that is to be done to all keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyWork {
    /// What, in a word of whoever does it. One thing of a name at a time.
    pub name: String,
    /// The request that asked for it, so that it can be repeated.
    pub request_id: Option<RequestId>,
    /// When it was asked for, by the database's clock.
    pub begun_at: Timestamp,
    /// Whether it is done.
    pub done: bool,
    /// The MAC over the other columns, under a key of the deployment's own.
    pub row_mac: [u8; 32],
}

/// The four bytes of a version, as MACs and headers have them.
fn bytes(version: u32) -> [u8; 4] {
    version.to_be_bytes()
}

#[async_trait]
impl<B: Backend> KeyStore for SqlStore<B> {
    async fn wrapped_keys(
        &self,
        after: Option<(Uid, u32)>,
        limit: u32,
    ) -> Result<Vec<TenantKey>, StoreError> {
        const SQL: &str = "\
            SELECT k.*, t.id AS tenant FROM wrapped_key AS k JOIN tenant AS t ON t.uid = k.tenant_uid \
            WHERE k.uid > $1 OR (k.uid = $1 AND k.version > $2) ORDER BY k.uid, k.version LIMIT $3";
        let (uid, version) = after.unwrap_or((Uid::from_bytes([0; 16]), 0));
        let values = [uid.as_ref().into(), version.into(), limit.into()];
        self.all(SQL, &values, mapping::tenant_key).await
    }

    async fn keys_in_rotation(&self, limit: u32) -> Result<Vec<TenantKey>, StoreError> {
        const SQL: &str = "\
            SELECT k.*, t.id AS tenant FROM wrapped_key AS k JOIN tenant AS t ON t.uid = k.tenant_uid \
            WHERE k.purpose = 'kek' AND k.version = ( \
                    SELECT max(version) FROM wrapped_key \
                    WHERE tenant_uid = k.tenant_uid AND purpose = 'kek') \
                AND EXISTS ( \
                    SELECT 1 FROM wrapped_key AS old WHERE old.tenant_uid = k.tenant_uid \
                        AND old.purpose = 'kek' AND old.version < k.version) \
            ORDER BY t.id LIMIT $1";
        self.all(SQL, &[limit.into()], mapping::tenant_key).await
    }

    async fn keys_from_before(
        &self,
        time: Timestamp,
        limit: u32,
    ) -> Result<Vec<TenantKey>, StoreError> {
        const SQL: &str = "\
            SELECT k.*, t.id AS tenant FROM wrapped_key AS k JOIN tenant AS t ON t.uid = k.tenant_uid \
            WHERE k.purpose = 'kek' AND k.created_at < $1 AND k.version = ( \
                    SELECT max(version) FROM wrapped_key \
                    WHERE tenant_uid = k.tenant_uid AND purpose = 'kek') \
            ORDER BY t.id LIMIT $2";
        self.all(SQL, &[time.into(), limit.into()], mapping::tenant_key).await
    }

    async fn stale(&self, newest: &TenantKey, limit: u32) -> Result<Vec<Stale>, StoreError> {
        const TENANT: &str =
            "SELECT * FROM tenant WHERE id = $1 AND substr(row_mac, 1, 4) < $2 LIMIT $3";
        const CREDENTIAL: &str = "\
            SELECT * FROM credential WHERE tenant = $1 AND substr(row_mac, 1, 4) < $2 \
            ORDER BY id LIMIT $3";
        const VIRTUAL_KEY: &str = "\
            SELECT * FROM virtual_key WHERE tenant = $1 AND substr(row_mac, 1, 4) < $2 \
            ORDER BY id LIMIT $3";
        const BUDGET: &str = "\
            SELECT * FROM budget WHERE tenant = $1 AND substr(row_mac, 1, 4) < $2 \
            ORDER BY id LIMIT $3";
        const TEST: &str = "\
            SELECT t.* FROM credential_test AS t JOIN credential AS c ON c.uid = t.credential_uid \
            WHERE c.tenant = $1 AND substr(t.row_mac, 1, 4) < $2 ORDER BY c.id LIMIT $3";
        const VERSION: &str = "\
            SELECT v.*, c.provider AS provider FROM credential_version AS v \
                JOIN credential AS c ON c.uid = v.credential_uid \
            WHERE c.tenant = $1 AND substr(v.envelope, 25, 4) < $2 \
            ORDER BY c.id, v.version LIMIT $3";
        const PERSON: &str = "\
            SELECT * FROM person WHERE tenant_uid = $1 AND length(sealed) > 0 \
                AND substr(sealed, 25, 4) < $2 LIMIT $3";
        let before = bytes(newest.key.version);
        let mut found = Vec::new();
        let queries: [(&'static str, fn(&Row) -> Result<Stale, StoreError>); 6] = [
            (TENANT, |row| mapping::tenant(row).map(Stale::Tenant)),
            (CREDENTIAL, |row| mapping::credential(row).map(Stale::Credential)),
            (VERSION, |row| mapping::version_of_provider(row).map(|(v, p)| Stale::Version(v, p))),
            (VIRTUAL_KEY, |row| mapping::virtual_key(row).map(Stale::VirtualKey)),
            (BUDGET, |row| rows::budget(row).map(Stale::Budget)),
            (TEST, |row| mapping::test(row).map(Stale::Test)),
        ];
        for (sql, map) in queries {
            let left = rest(limit, &found);
            let values = [newest.tenant.as_str().into(), Value::Bytes(&before), left.into()];
            if left > 0 {
                found.extend(self.all(sql, &values, map).await?);
            }
        }
        let left = rest(limit, &found);
        if left > 0 {
            let of = Value::Bytes(newest.key.tenant_uid.as_ref());
            let values = [of, Value::Bytes(&before), left.into()];
            let map = |row: &Row| mapping::person(row).map(Stale::Person);
            found.extend(self.all(PERSON, &values, map).await?);
        }
        Ok(found)
    }

    async fn key_references(
        &self,
        tenant: &TenantId,
        uid: Uid,
    ) -> Result<Vec<(u32, u64)>, StoreError> {
        const SQL: &str = "\
            SELECT version, count(*) AS found FROM ( \
                SELECT substr(row_mac, 1, 4) AS version FROM tenant WHERE id = $1 \
                UNION ALL SELECT substr(row_mac, 1, 4) FROM credential WHERE tenant = $1 \
                UNION ALL SELECT substr(row_mac, 1, 4) FROM virtual_key WHERE tenant = $1 \
                UNION ALL SELECT substr(row_mac, 1, 4) FROM budget WHERE tenant = $1 \
                UNION ALL SELECT substr(t.row_mac, 1, 4) FROM credential_test AS t \
                    JOIN credential AS c ON c.uid = t.credential_uid WHERE c.tenant = $1 \
                UNION ALL SELECT substr(v.envelope, 25, 4) FROM credential_version AS v \
                    JOIN credential AS c ON c.uid = v.credential_uid WHERE c.tenant = $1 \
                UNION ALL SELECT substr(sealed, 25, 4) FROM person \
                    WHERE tenant_uid = $2 AND length(sealed) > 0 \
            ) AS sealed_rows GROUP BY version ORDER BY version";
        self.all(SQL, &[tenant.as_str().into(), uid.as_ref().into()], mapping::references).await
    }

    async fn reseal(&self, rows: &[Resealed]) -> Result<u64, StoreError> {
        self.write(|answer| Job::Reseal(rows.to_vec(), answer)).await
    }

    async fn key_work(&self) -> Result<Legible<KeyWork>, StoreError> {
        self.legible("SELECT * FROM key_work ORDER BY name", mapping::key_work).await
    }

    async fn end_key_work(&self, work: &KeyWork) -> Result<(), StoreError> {
        self.write(|answer| Job::EndKeyWork(Box::new(work.clone()), answer)).await
    }
}

fn rest(limit: u32, found: &[Stale]) -> u32 {
    limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    /// A table that is missing in [`super::KeyStore::stale`], in `key_references` and in `retire` would be
    /// left under a key that is then deleted, and be lost.
    #[test]
    fn every_column_under_a_tenants_key_is_brought_to_the_next_one() {
        const SQL: &str = include_str!("../migrations/sqlite/0001_initial.sql");
        let mut found = Vec::new();
        for table in SQL.split("CREATE TABLE ").skip(1) {
            let (name, rest) = table.split_once(" (").unwrap();
            let columns = rest.split_once(';').unwrap().0.lines();
            let columns = columns.filter_map(|line| line.split_whitespace().next());
            let sealed = columns.filter(|it| ["row_mac", "envelope", "sealed"].contains(it));
            found.extend(sealed.map(|column| format!("{name}.{column}")));
        }
        // A person's MAC is under the pepper, and is made anew with what it covers.
        let brought = [
            // Under the deployment's own key, which is none of a tenant's.
            "sink.row_mac",
            "tenant.row_mac",
            "key_work.row_mac",
            "person.sealed",
            "person.row_mac",
            "credential.row_mac",
            "credential_version.envelope",
            "credential_test.row_mac",
            "virtual_key.row_mac",
            "erasure.row_mac",
            "budget.row_mac",
        ];
        assert_eq!(found, brought, "add it to the statements of this module, then here");
    }
}
