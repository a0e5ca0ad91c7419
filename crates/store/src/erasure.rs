use domain::{CredentialName, TenantId, Timestamp, Uid};

use crate::{
    CredentialRow, PersonRow, StoreError, TenantRow,
    backend::{Backend, Row, Value},
    change::{before, insert, replace},
    mapping::Columns,
};

/// Shares that are to be destroyed, so that what was sealed with them cannot be opened again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ErasureRow {
    /// The uid of the tenant or credential that was erased.
    pub id: Uid,
    /// Whose it was.
    pub tenant: TenantId,
    /// The credential, unless it was all of the tenant.
    pub credential: Option<CredentialName>,
    /// The ids of the shares.
    pub shares: Vec<Uid>,
    /// When it was asked for.
    pub begun_at: Timestamp,
    /// The MAC over the other columns, under a key of the deployment's own.
    pub row_mac: [u8; 32],
}

pub(crate) fn erasure(row: &Row) -> Result<ErasureRow, StoreError> {
    let of = Columns { row, table: "erasure" };
    let shares = of.bytes("shares")?;
    let (shares, []) = shares.as_chunks::<16>() else { return Err(of.corrupt("shares")) };
    Ok(ErasureRow {
        id: of.uid("id")?,
        tenant: of.parsed("tenant")?,
        credential: of.optional_parsed("credential")?,
        shares: shares.iter().copied().map(Uid::from_bytes).collect(),
        begun_at: of.time("begun_at")?,
        row_mac: of.array("row_mac")?,
    })
}

pub(crate) async fn erase_credential<B: Backend>(
    connection: &mut B::Connection,
    credential: &CredentialRow,
    erasure: &ErasureRow,
) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM credential WHERE uid = $1 AND revision = $2";
    let values = [credential.uid.as_ref().into(), before(credential.revision)];
    replace::<B>(connection, SQL, &values, &credential.name().to_string()).await?;
    begin::<B>(connection, erasure).await
}

/// Deletes what a tenant owns, in the order of what refers to what. What calls have cost stays, as figures
/// under the tenant's name.
pub(crate) async fn erase_tenant<B: Backend>(
    connection: &mut B::Connection,
    tenant: &TenantRow,
    people: &[PersonRow],
    erasure: &ErasureRow,
) -> Result<(), StoreError> {
    const PERSON: &str = "\
        UPDATE person SET tenant_uid = $1, sealed = $2, row_mac = $3 \
        WHERE handle = $4 AND tenant_uid = $5";
    const OWNED: [&str; 5] = [
        "DELETE FROM budget_account WHERE budget IN (SELECT uid FROM budget WHERE tenant_uid = $1)",
        "DELETE FROM budget WHERE tenant_uid = $1",
        "DELETE FROM virtual_key WHERE tenant_uid = $1",
        "DELETE FROM credential WHERE tenant_uid = $1",
        "DELETE FROM wrapped_key WHERE tenant_uid = $1",
    ];
    const SQL: &str = "DELETE FROM tenant WHERE uid = $1 AND revision = $2 \
        AND NOT EXISTS (SELECT 1 FROM person WHERE tenant_uid = $1)";
    let (uid, name) = (Value::Bytes(tenant.uid.as_ref()), tenant.id.resource());
    for person in people {
        let to = Value::Bytes(person.tenant_uid.as_ref());
        let (sealed, mac) = (Value::Bytes(&person.sealed), Value::Bytes(&person.row_mac));
        let values = [to, sealed, mac, Value::Bytes(&person.handle), uid];
        replace::<B>(connection, PERSON, &values, &name).await?;
    }
    for sql in OWNED {
        let deleted = B::execute(connection, sql, &[uid]).await;
        deleted.map_err(|error| StoreError::writing(error, &name))?;
    }
    replace::<B>(connection, SQL, &[uid, before(tenant.revision)], &name).await?;
    begin::<B>(connection, erasure).await
}

pub(crate) async fn end_erasure<B: Backend>(
    connection: &mut B::Connection,
    id: Uid,
) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM erasure WHERE id = $1";
    replace::<B>(connection, SQL, &[id.as_ref().into()], "an erasure").await
}

async fn begin<B: Backend>(
    connection: &mut B::Connection,
    erasure: &ErasureRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO erasure (id, tenant, credential, shares, begun_at, row_mac) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    let credential = erasure.credential.as_ref().map(ToString::to_string);
    let shares: Vec<u8> = erasure.shares.iter().flat_map(|id| *id.as_bytes()).collect();
    let values = [
        Value::Bytes(erasure.id.as_ref()),
        erasure.tenant.as_str().into(),
        Value::Text(credential.as_deref()),
        Value::Bytes(&shares),
        erasure.begun_at.into(),
        Value::Bytes(&erasure.row_mac),
    ];
    insert::<B>(connection, SQL, &values, "an erasure").await
}
