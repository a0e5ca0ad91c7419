use domain::{RequestId, Uid};

use super::bytes;
use crate::{
    Change, KeyRow, KeyWork, PersonRow, Place, Resealed, RowMac, StoreError,
    backend::{Backend, Value},
    change::replace,
    mac_version,
    writer::Writer,
};

/// Refuses a row whose MAC is under a version of the tenant's key that is not there: it was written by
/// someone who has slept through a rotation, and nobody could ever check it.
///
/// Deleting a version holds the head as this does, so that none goes unseen.
pub(crate) async fn check_mac<B: Backend>(
    connection: &mut B::Connection,
    change: &Change,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        SELECT 1 AS found FROM wrapped_key \
        WHERE tenant_uid = $1 AND purpose = 'kek' AND version = $2";
    let Some((tenant, mac, name)) = macked(change) else { return Ok(()) };
    let values = [tenant.as_ref().into(), mac_version(mac).into()];
    let found = B::fetch(connection, SQL, &values).await.map_err(StoreError::from_sqlx)?;
    if found.is_empty() { Err(StoreError::Changed(name())) } else { Ok(()) }
}

type Named<'a> = Box<dyn Fn() -> String + Send + Sync + 'a>;

/// The row with a MAC that a change writes: whose it is, the MAC, and what it is called.
fn macked(change: &Change) -> Option<(Uid, &RowMac, Named<'_>)> {
    match change {
        Change::CreateTenant(row, _) | Change::UpdateTenant(row) => {
            Some((row.uid, &row.row_mac, Box::new(|| row.id.resource())))
        }
        Change::CreateCredential(row, _) | Change::UpdateCredential(row, _) => {
            Some((row.tenant_uid, &row.row_mac, Box::new(|| row.name().to_string())))
        }
        Change::DropVersion(row, _) => {
            Some((row.tenant_uid, &row.row_mac, Box::new(|| row.name().to_string())))
        }
        Change::CreateBudget(row) | Change::UpdateBudget(row) => {
            let name = || format!("{}/budgets/{}", row.tenant.resource(), row.id);
            Some((row.tenant_uid, &row.row_mac, Box::new(name)))
        }
        Change::CreateVirtualKey(row) | Change::UpdateVirtualKey(row) => {
            let name = || format!("{}/virtualKeys/{}", row.tenant.resource(), row.id);
            Some((row.tenant_uid, &row.row_mac, Box::new(name)))
        }
        // What a test has shown is of no tenant by its row: its own statement checks the same.
        Change::KeepTest(_)
        | Change::SetPrices(_)
        | Change::DeleteBudget(_)
        | Change::DeleteCredential(_)
        | Change::EraseCredential(..)
        | Change::EraseTenant(..)
        | Change::EndErasure(_)
        | Change::AddKey(_)
        | Change::RetireKeys(_)
        | Change::RewrapKey(..)
        | Change::BeginKeyWork(_) => None,
    }
}

/// Deletes the versions before one, unless something is under them.
pub(crate) async fn retire<B: Backend>(
    connection: &mut B::Connection,
    newest: &KeyRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        DELETE FROM wrapped_key \
        WHERE tenant_uid = $1 AND purpose = 'kek' AND version < $2 \
            AND NOT EXISTS (SELECT 1 FROM tenant \
                WHERE uid = $1 AND substr(row_mac, 1, 4) < $3) \
            AND NOT EXISTS (SELECT 1 FROM credential \
                WHERE tenant_uid = $1 AND substr(row_mac, 1, 4) < $3) \
            AND NOT EXISTS (SELECT 1 FROM virtual_key \
                WHERE tenant_uid = $1 AND substr(row_mac, 1, 4) < $3) \
            AND NOT EXISTS (SELECT 1 FROM budget \
                WHERE tenant_uid = $1 AND substr(row_mac, 1, 4) < $3) \
            AND NOT EXISTS (SELECT 1 FROM credential_test AS t \
                JOIN credential AS c ON c.uid = t.credential_uid \
                WHERE c.tenant_uid = $1 AND substr(t.row_mac, 1, 4) < $3) \
            AND NOT EXISTS (SELECT 1 FROM credential_version AS v \
                JOIN credential AS c ON c.uid = v.credential_uid \
                WHERE c.tenant_uid = $1 AND substr(v.envelope, 25, 4) < $3) \
            AND NOT EXISTS (SELECT 1 FROM person \
                WHERE tenant_uid = $1 AND length(sealed) > 0 AND substr(sealed, 25, 4) < $3)";
    let before = bytes(newest.version);
    let of = Value::Bytes(newest.tenant_uid.as_ref());
    let values = [of, newest.version.into(), Value::Bytes(&before)];
    replace::<B>(connection, SQL, &values, "a key's older versions").await
}

/// Puts a wrapped key in the place of what it was wrapped as before.
pub(crate) async fn rewrap<B: Backend>(
    connection: &mut B::Connection,
    key: &KeyRow,
    before: &[u8],
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE wrapped_key SET wrapped = $1 WHERE uid = $2 AND version = $3 AND wrapped = $4";
    let values = [
        Value::Bytes(&key.wrapped),
        Value::Bytes(key.uid.as_ref()),
        key.version.into(),
        Value::Bytes(before),
    ];
    replace::<B>(connection, SQL, &values, "a wrapped key").await
}

/// Puts work down.
pub(crate) async fn begin_work<B: Backend>(
    connection: &mut B::Connection,
    work: &KeyWork,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO key_work (name, request_id, begun_at, done, row_mac) \
        VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (name) DO UPDATE SET request_id = excluded.request_id, \
            begun_at = excluded.begun_at, done = excluded.done, row_mac = excluded.row_mac";
    let values = [
        work.name.as_str().into(),
        Value::Text(work.request_id.as_ref().map(RequestId::as_str)),
        work.begun_at.into(),
        Value::Flag(work.done),
        Value::Bytes(&work.row_mac),
    ];
    replace::<B>(connection, SQL, &values, &work.name).await
}

impl<B: Backend> Writer<B> {
    /// Keeps a person, unless the version of the key that the name is under is gone. Holds the head
    /// while it does, as deleting a version does.
    pub(crate) async fn put_person(&mut self, row: &PersonRow) -> Result<(), StoreError> {
        const SQL: &str = "\
            INSERT INTO person (handle, commitment, tenant_uid, sealed, row_mac) \
            SELECT $1, $2, $3, $4, $5 WHERE EXISTS ( \
                SELECT 1 FROM wrapped_key \
                WHERE tenant_uid = $3 AND purpose = 'kek' AND version = $6) \
            ON CONFLICT (handle) DO NOTHING";
        let version = row.sealed.get(24..28).and_then(|bytes| bytes.try_into().ok());
        let values = [
            Value::Bytes(&row.handle),
            Value::Bytes(&row.commitment),
            row.tenant_uid.as_ref().into(),
            Value::Bytes(&row.sealed),
            Value::Bytes(&row.row_mac),
            version.map_or(0, u32::from_be_bytes).into(),
        ];
        self.alone(&[(SQL, values.to_vec())]).await.map(drop)
    }

    /// Replaces what is still as it was. Holds the head while it does: what is under no old version
    /// then stays so.
    pub(crate) async fn reseal(&mut self, rows: &[Resealed]) -> Result<u64, StoreError> {
        let statements: Vec<_> = rows.iter().map(statement).collect();
        self.alone(&statements).await
    }

    /// Takes note of work that is done.
    pub(crate) async fn end_key_work(&mut self, work: &KeyWork) -> Result<(), StoreError> {
        const SQL: &str = "\
            UPDATE key_work SET done = $1, row_mac = $2 WHERE name = $3 AND begun_at = $4";
        let values = [
            Value::Flag(work.done),
            Value::Bytes(&work.row_mac),
            work.name.as_str().into(),
            work.begun_at.into(),
        ];
        self.execute(SQL, &values).await.map(drop)
    }

    /// Runs statements in one transaction that holds the head, and says how many rows they touched. An
    /// error at the commit leaves open whether they were.
    async fn alone(
        &mut self,
        statements: &[(&'static str, Vec<Value<'_>>)],
    ) -> Result<u64, StoreError> {
        let (mut connection, _, _) = self.begin().await?;
        let mut touched = 0;
        for (sql, values) in statements {
            match B::execute(&mut connection, sql, values).await {
                Ok(rows) => touched += rows,
                Err(error) => {
                    self.give_up(connection).await;
                    return Err(StoreError::from_sqlx(error));
                }
            }
        }
        B::commit(&mut connection).await.map_err(StoreError::from_sqlx)?;
        self.connection = Some(connection);
        Ok(touched)
    }
}

fn statement(row: &Resealed) -> (&'static str, Vec<Value<'_>>) {
    const TENANT: &str = "UPDATE tenant SET row_mac = $1 WHERE row_mac = $2 AND uid = $3";
    const CREDENTIAL: &str = "UPDATE credential SET row_mac = $1 WHERE row_mac = $2 AND uid = $3";
    const VIRTUAL_KEY: &str = "UPDATE virtual_key SET row_mac = $1 WHERE row_mac = $2 AND id = $3";
    const BUDGET: &str = "UPDATE budget SET row_mac = $1 WHERE row_mac = $2 AND uid = $3";
    const TEST: &str =
        "UPDATE credential_test SET row_mac = $1 WHERE row_mac = $2 AND credential_uid = $3";
    const VERSION: &str = "\
        UPDATE credential_version SET envelope = $1 \
        WHERE envelope = $2 AND credential_uid = $3 AND version = $4";
    const PERSON: &str = "\
        UPDATE person SET sealed = $1, row_mac = $4 WHERE sealed = $2 AND handle = $3";
    let mut values = vec![Value::Bytes(&row.after), Value::Bytes(&row.before)];
    let sql = match &row.place {
        Place::Tenant(uid) => {
            values.push(Value::Bytes(uid.as_ref()));
            TENANT
        }
        Place::Credential(uid) => {
            values.push(Value::Bytes(uid.as_ref()));
            CREDENTIAL
        }
        Place::VirtualKey(id) => {
            values.push(id.as_str().into());
            VIRTUAL_KEY
        }
        Place::Budget(uid) => {
            values.push(Value::Bytes(uid.as_ref()));
            BUDGET
        }
        Place::Test(uid) => {
            values.push(Value::Bytes(uid.as_ref()));
            TEST
        }
        Place::Version(uid, version) => {
            values.extend([Value::Bytes(uid.as_ref()), (*version).into()]);
            VERSION
        }
        Place::Person(handle, mac) => {
            values.extend([Value::Bytes(handle), Value::Bytes(mac)]);
            PERSON
        }
    };
    (sql, values)
}
