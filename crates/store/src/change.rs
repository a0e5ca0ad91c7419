use domain::{ModelPattern, ProviderId, RequestId, Timestamp};

use crate::{
    Change, CredentialRow, KeyRow, StoreError, TenantRow, VersionRow, VirtualKeyRow,
    backend::{Backend, Value},
    keys,
    mapping::{list, purpose},
    routing::write_rules,
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
        Change::DeleteCredential(credential) => {
            const SQL: &str = "DELETE FROM credential WHERE uid = $1 AND revision = $2";
            let values = [credential.uid.as_ref().into(), before(credential.revision)];
            let name = credential.name().to_string();
            replace::<B>(connection, SQL, &values, &name).await
        }
        Change::CreateVirtualKey(key) => create_virtual_key::<B>(connection, key).await,
        Change::UpdateVirtualKey(key) => update_virtual_key::<B>(connection, key).await,
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
            row_mac, kind, settings) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
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
            row_mac = $10, kind = $11, settings = $12 \
        WHERE uid = $13 AND revision = $14";
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
        credential.uid.as_ref().into(),
        before(credential.revision),
    ];
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

async fn create_virtual_key<B: Backend>(
    connection: &mut B::Connection,
    key: &VirtualKeyRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO virtual_key (id, tenant_uid, tenant, display_name, verifier, \
            scope_providers, scope_models, expires_at, revoked, revision, created_at, updated_at, \
            row_mac) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let providers = list(key.scope.providers.iter().map(ProviderId::as_str));
    let models = list(key.scope.models.iter().map(ModelPattern::as_str));
    let values = [
        key.id.as_str().into(),
        Value::Bytes(key.tenant_uid.as_ref()),
        key.tenant.as_str().into(),
        key.display_name.as_str().into(),
        Value::Bytes(&key.verifier),
        providers.as_str().into(),
        models.as_str().into(),
        Value::Integer(key.expires_at.map(Timestamp::as_millis)),
        Value::Flag(key.revoked),
        key.revision.into(),
        key.created_at.into(),
        key.updated_at.into(),
        Value::Bytes(&key.row_mac),
    ];
    insert::<B>(connection, SQL, &values, &name(key)).await
}

async fn update_virtual_key<B: Backend>(
    connection: &mut B::Connection,
    key: &VirtualKeyRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE virtual_key SET display_name = $1, verifier = $2, scope_providers = $3, \
            scope_models = $4, expires_at = $5, revoked = $6, revision = $7, updated_at = $8, \
            row_mac = $9 \
        WHERE id = $10 AND revision = $11";
    let providers = list(key.scope.providers.iter().map(ProviderId::as_str));
    let models = list(key.scope.models.iter().map(ModelPattern::as_str));
    let values = [
        key.display_name.as_str().into(),
        Value::Bytes(&key.verifier),
        providers.as_str().into(),
        models.as_str().into(),
        Value::Integer(key.expires_at.map(Timestamp::as_millis)),
        Value::Flag(key.revoked),
        key.revision.into(),
        key.updated_at.into(),
        Value::Bytes(&key.row_mac),
        key.id.as_str().into(),
        before(key.revision),
    ];
    replace::<B>(connection, SQL, &values, &name(key)).await
}

async fn insert<B: Backend>(
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

fn name(key: &VirtualKeyRow) -> String {
    format!("{}/virtualKeys/{}", key.tenant.resource(), key.id)
}

fn before(revision: u64) -> Value<'static> {
    revision.saturating_sub(1).into()
}
