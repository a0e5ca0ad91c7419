use domain::{ProviderId, RequestId, Rotation, TenantId, Timestamp};

use crate::{
    Change, CredentialRow, KeyRow, PriceRow, StoreError, TenantRow, TestRow, VersionRow,
    backend::{Backend, Value},
    budgets::change::{create_budget, delete_budget, update_budget},
    erasure::{end_erasure, erase_credential, erase_tenant},
    keys, mac_version,
    mapping::{list, purpose},
    rotation::write_rotation,
    routing::write_rules,
    virtual_key::{create_virtual_key, update_virtual_key},
};

/// Carries a change out in the transaction that is open on this connection.
pub(crate) async fn carry_out<B: Backend>(
    connection: &mut B::Connection,
    change: &Change,
) -> Result<(), StoreError> {
    make::<B>(connection, change).await?;
    keys::check_mac::<B>(connection, change).await
}

async fn make<B: Backend>(
    connection: &mut B::Connection,
    change: &Change,
) -> Result<(), StoreError> {
    match change {
        Change::CreateTenant(tenant, keys) => {
            create_tenant::<B>(connection, tenant).await?;
            for key in keys {
                create_key::<B>(connection, key, &tenant.id.resource()).await?;
            }
            Ok(())
        }
        Change::UpdateTenant(tenant) => update_tenant::<B>(connection, tenant).await,
        Change::CreateCredential(credential, version) => {
            let name = credential.name().to_string();
            create_credential::<B>(connection, credential, &name).await?;
            create_version::<B>(connection, version, &name).await
        }
        Change::UpdateCredential(credential, version) => {
            let name = credential.name().to_string();
            update_credential::<B>(connection, credential, &name).await?;
            match version {
                Some(version) => create_version::<B>(connection, version, &name).await,
                None => Ok(()),
            }
        }
        Change::DropVersion(credential, version) => {
            let name = credential.name().to_string();
            update_credential::<B>(connection, credential, &name).await?;
            drop_version::<B>(connection, credential, *version, &name).await
        }
        Change::DeleteCredential(credential) => {
            const SQL: &str = "DELETE FROM credential WHERE uid = $1 AND revision = $2";
            let values = [credential.uid.as_ref().into(), before(credential.revision)];
            let name = credential.name().to_string();
            replace::<B>(connection, SQL, &values, &name).await
        }
        Change::EraseCredential(row, erasure) => {
            erase_credential::<B>(connection, row, erasure).await
        }
        Change::EraseTenant(row, people, erasure) => {
            erase_tenant::<B>(connection, row, people, erasure).await
        }
        Change::EndErasure(id) => end_erasure::<B>(connection, *id).await,
        Change::KeepTest(test) => keep_test::<B>(connection, test).await,
        Change::CreateVirtualKey(key) => create_virtual_key::<B>(connection, key).await,
        Change::UpdateVirtualKey(key) => update_virtual_key::<B>(connection, key).await,
        Change::SetPrices(prices) => set_prices::<B>(connection, prices).await,
        Change::CreateBudget(row) => create_budget::<B>(connection, row).await,
        Change::UpdateBudget(row) => update_budget::<B>(connection, row).await,
        Change::DeleteBudget(row) => delete_budget::<B>(connection, row).await,
        Change::AddKey(key) => {
            create_key::<B>(connection, key, &format!("version {} of a key", key.version)).await
        }
        Change::RetireKeys(newest) => keys::retire::<B>(connection, newest).await,
        Change::RewrapKey(key, before) => keys::rewrap::<B>(connection, key, before).await,
        Change::BeginKeyWork(work) => keys::begin_work::<B>(connection, work).await,
    }
}

async fn create_tenant<B: Backend>(
    connection: &mut B::Connection,
    tenant: &TenantRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO tenant (uid, id, display_name, preferred_provider, on_missing, suspended, \
            revision, request_id, created_at, updated_at, row_mac, rules) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let rules = write_rules(&tenant.rules);
    let values = [
        tenant.uid.as_ref().into(),
        tenant.id.as_str().into(),
        tenant.display_name.as_str().into(),
        Value::Text(tenant.preferred_provider.as_ref().map(ProviderId::as_str)),
        tenant.on_missing.as_str().into(),
        Value::Flag(tenant.suspended),
        tenant.revision.into(),
        Value::Text(tenant.request_id.as_ref().map(RequestId::as_str)),
        tenant.created_at.into(),
        tenant.updated_at.into(),
        Value::Bytes(&tenant.row_mac),
        rules.as_str().into(),
    ];
    insert::<B>(connection, SQL, &values, &tenant.id.resource()).await
}

async fn create_key<B: Backend>(
    connection: &mut B::Connection,
    key: &KeyRow,
    tenant: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO wrapped_key (uid, tenant_uid, purpose, version, wrapped, created_at, \
            request_id) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values = [
        key.uid.as_ref().into(),
        Value::Bytes(key.tenant_uid.as_ref()),
        purpose(key.purpose).into(),
        u64::from(key.version).into(),
        Value::Bytes(&key.wrapped),
        key.created_at.into(),
        Value::Text(key.request_id.as_ref().map(RequestId::as_str)),
    ];
    insert::<B>(connection, SQL, &values, tenant).await
}

async fn update_tenant<B: Backend>(
    connection: &mut B::Connection,
    tenant: &TenantRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE tenant SET display_name = $1, preferred_provider = $2, on_missing = $3, \
            suspended = $4, revision = $5, request_id = $6, updated_at = $7, row_mac = $8, \
            rules = $9 \
        WHERE uid = $10 AND revision = $11";
    let rules = write_rules(&tenant.rules);
    let values = [
        tenant.display_name.as_str().into(),
        Value::Text(tenant.preferred_provider.as_ref().map(ProviderId::as_str)),
        tenant.on_missing.as_str().into(),
        Value::Flag(tenant.suspended),
        tenant.revision.into(),
        Value::Text(tenant.request_id.as_ref().map(RequestId::as_str)),
        tenant.updated_at.into(),
        Value::Bytes(&tenant.row_mac),
        rules.as_str().into(),
        tenant.uid.as_ref().into(),
        before(tenant.revision),
    ];
    replace::<B>(connection, SQL, &values, &tenant.id.resource()).await
}

async fn create_credential<B: Backend>(
    connection: &mut B::Connection,
    credential: &CredentialRow,
    name: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO credential (uid, tenant_uid, tenant, id, provider, enabled, priority, \
            base_url, models, last_four, current_version, revision, created_at, updated_at, \
            row_mac, kind, settings, rotation, rotation_due) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
            $19)";
    let rotation = write_rotation(credential.rotation.as_ref());
    let settings = serde_json::to_string(&credential.settings).unwrap_or_default();
    let models = list(&credential.models);
    let values = [
        credential.uid.as_ref().into(),
        Value::Bytes(credential.tenant_uid.as_ref()),
        credential.tenant.as_str().into(),
        credential.id.as_str().into(),
        credential.provider.as_str().into(),
        Value::Flag(credential.enabled),
        Value::Integer(Some(credential.priority.into())),
        Value::Text(credential.base_url.as_deref()),
        models.as_str().into(),
        credential.last_four.as_str().into(),
        credential.current_version.into(),
        credential.revision.into(),
        credential.created_at.into(),
        credential.updated_at.into(),
        Value::Bytes(&credential.row_mac),
        credential.kind.as_str().into(),
        settings.as_str().into(),
        rotation.as_str().into(),
        rotation_due(credential),
    ];
    insert::<B>(connection, SQL, &values, name).await
}

async fn update_credential<B: Backend>(
    connection: &mut B::Connection,
    credential: &CredentialRow,
    name: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE credential SET provider = $1, enabled = $2, priority = $3, base_url = $4, \
            models = $5, last_four = $6, current_version = $7, revision = $8, updated_at = $9, \
            row_mac = $10, kind = $11, settings = $12, rotation = $13, rotation_due = $14 \
        WHERE uid = $15 AND revision = $16";
    let rotation = write_rotation(credential.rotation.as_ref());
    let settings = serde_json::to_string(&credential.settings).unwrap_or_default();
    let models = list(&credential.models);
    let values = [
        credential.provider.as_str().into(),
        Value::Flag(credential.enabled),
        Value::Integer(Some(credential.priority.into())),
        Value::Text(credential.base_url.as_deref()),
        models.as_str().into(),
        credential.last_four.as_str().into(),
        credential.current_version.into(),
        credential.revision.into(),
        credential.updated_at.into(),
        Value::Bytes(&credential.row_mac),
        credential.kind.as_str().into(),
        settings.as_str().into(),
        rotation.as_str().into(),
        rotation_due(credential),
        credential.uid.as_ref().into(),
        before(credential.revision),
    ];
    replace::<B>(connection, SQL, &values, name).await
}

/// Finds a rotation whose next step is due; what is due, the rotation itself says.
fn rotation_due(credential: &CredentialRow) -> Value<'static> {
    let due = credential.rotation.as_ref().and_then(Rotation::due);
    Value::Integer(due.map(Timestamp::as_millis))
}

async fn drop_version<B: Backend>(
    connection: &mut B::Connection,
    credential: &CredentialRow,
    version: u64,
    name: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM credential_version WHERE credential_uid = $1 AND version = $2";
    let values = [credential.uid.as_ref().into(), version.into()];
    replace::<B>(connection, SQL, &values, name).await
}

async fn create_version<B: Backend>(
    connection: &mut B::Connection,
    version: &VersionRow,
    name: &str,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO credential_version (credential_uid, version, envelope, request_id, created_at) \
        VALUES ($1, $2, $3, $4, $5)";
    let values = [
        Value::Bytes(version.credential_uid.as_ref()),
        version.version.into(),
        Value::Bytes(&version.envelope),
        Value::Text(version.request_id.as_ref().map(RequestId::as_str)),
        version.created_at.into(),
    ];
    insert::<B>(connection, SQL, &values, name).await
}

async fn keep_test<B: Backend>(
    connection: &mut B::Connection,
    test: &TestRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO credential_test (credential_uid, version, verdict, tested_at, row_mac) \
        SELECT uid, $2, $3, $4, $5 FROM credential AS c WHERE uid = $1 AND EXISTS ( \
            SELECT 1 FROM wrapped_key \
            WHERE tenant_uid = c.tenant_uid AND purpose = 'kek' AND version = $6) \
        ON CONFLICT (credential_uid) DO UPDATE SET version = excluded.version, \
            verdict = excluded.verdict, tested_at = excluded.tested_at, row_mac = excluded.row_mac";
    let values = [
        test.credential_uid.as_ref().into(),
        test.version.into(),
        test.verdict.as_str().into(),
        test.tested_at.into(),
        Value::Bytes(&test.row_mac),
        mac_version(&test.row_mac).into(),
    ];
    replace::<B>(connection, SQL, &values, "the credential").await
}

async fn set_prices<B: Backend>(
    connection: &mut B::Connection,
    prices: &PriceRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO price (tenant, revision, sha256, document, created_at) \
        VALUES ($1, $2, $3, $4, $5)";
    let values = [
        prices.tenant.as_ref().map_or("", TenantId::as_str).into(),
        prices.revision.into(),
        Value::Bytes(&prices.sha256),
        Value::Bytes(&prices.document),
        prices.created_at.into(),
    ];
    let name = prices.tenant.as_ref().map_or("prices".to_owned(), TenantId::resource);
    insert::<B>(connection, SQL, &values, &name).await
}

pub(crate) async fn insert<B: Backend>(
    connection: &mut B::Connection,
    sql: &'static str,
    values: &[Value<'_>],
    name: &str,
) -> Result<(), StoreError> {
    let inserted = B::execute(connection, sql, values).await;
    inserted.map(drop).map_err(|error| StoreError::writing(error, name))
}

/// Runs a statement that touches one row, or none when that row has changed.
pub(crate) async fn replace<B: Backend>(
    connection: &mut B::Connection,
    sql: &'static str,
    values: &[Value<'_>],
    name: &str,
) -> Result<(), StoreError> {
    let touched = B::execute(connection, sql, values).await;
    match touched.map_err(|error| StoreError::writing(error, name))? {
        0 => Err(StoreError::Changed(name.to_owned())),
        _ => Ok(()),
    }
}

pub(crate) fn before(revision: u64) -> Value<'static> {
    revision.saturating_sub(1).into()
}
