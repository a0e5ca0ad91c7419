use domain::{EndpointKind, GroupId, LabelText, ModelPattern, ProviderId, Timestamp};

use crate::{
    PreviousKey, StoreError, VirtualKeyRow,
    backend::{Backend, Value},
    change::{before, insert, replace},
    mapping::list,
};

pub(crate) async fn create_virtual_key<B: Backend>(
    connection: &mut B::Connection,
    key: &VirtualKeyRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO virtual_key (display_name, verifier, previous, scope_providers, scope_models, \
            endpoints, networks, expires_at, labels, owner, key_group, requests_per_minute, \
            tokens_per_minute, concurrent, blocked, revoked, revision, updated_at, row_mac, id, \
            tenant_uid, tenant, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
            $19, $20, $21, $22, $23)";
    let texts = Texts::of(key);
    let mut values = state(key, &texts).to_vec();
    values.extend([
        key.id.as_str().into(),
        Value::Bytes(key.tenant_uid.as_ref()),
        key.tenant.as_str().into(),
        key.created_at.into(),
    ]);
    insert::<B>(connection, SQL, &values, &key.name().to_string()).await
}

pub(crate) async fn update_virtual_key<B: Backend>(
    connection: &mut B::Connection,
    key: &VirtualKeyRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE virtual_key SET display_name = $1, verifier = $2, previous = $3, \
            scope_providers = $4, scope_models = $5, endpoints = $6, networks = $7, \
            expires_at = $8, labels = $9, owner = $10, key_group = $11, \
            requests_per_minute = $12, tokens_per_minute = $13, concurrent = $14, blocked = $15, \
            revoked = $16, revision = $17, updated_at = $18, row_mac = $19 \
        WHERE id = $20 AND revision = $21";
    let texts = Texts::of(key);
    let mut values = state(key, &texts).to_vec();
    values.extend([key.id.as_str().into(), before(key.revision)]);
    replace::<B>(connection, SQL, &values, &key.name().to_string()).await
}

/// The lists of a row, each as its column holds it.
struct Texts {
    previous: Vec<u8>,
    providers: String,
    models: String,
    endpoints: String,
    networks: String,
    labels: String,
}

impl Texts {
    fn of(key: &VirtualKeyRow) -> Self {
        let terms = &key.terms;
        let labels: Vec<_> =
            terms.labels.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Self {
            previous: previous(&key.previous),
            providers: list(terms.scope.providers.iter().map(ProviderId::as_str)),
            models: list(terms.scope.models.iter().map(ModelPattern::as_str)),
            endpoints: list(terms.endpoints.iter().map(|kind| EndpointKind::as_str(*kind))),
            networks: list(terms.networks.iter().map(ToString::to_string)),
            labels: serde_json::to_string(&labels).unwrap_or_default(),
        }
    }
}

/// The columns that can change, in the order of both statements.
fn state<'a>(key: &'a VirtualKeyRow, texts: &'a Texts) -> [Value<'a>; 19] {
    let count = |most: Option<u64>| most.map_or(Value::Integer(None), Value::from);
    [
        key.display_name.as_str().into(),
        Value::Bytes(&key.verifier),
        Value::Bytes(&texts.previous),
        texts.providers.as_str().into(),
        texts.models.as_str().into(),
        texts.endpoints.as_str().into(),
        texts.networks.as_str().into(),
        Value::Integer(key.terms.expires_at.map(Timestamp::as_millis)),
        texts.labels.as_str().into(),
        Value::Text(key.terms.owner.as_ref().map(LabelText::as_str)),
        Value::Text(key.group.as_ref().map(GroupId::as_str)),
        count(key.rates.requests_per_minute),
        count(key.rates.tokens_per_minute),
        count(key.rates.concurrent),
        Value::Flag(key.blocked),
        Value::Flag(key.revoked),
        key.revision.into(),
        key.updated_at.into(),
        Value::Bytes(&key.row_mac),
    ]
}

/// Each value's verifier and when it ends, one after the other.
fn previous(values: &[PreviousKey]) -> Vec<u8> {
    let value = |value: &PreviousKey| {
        [&value.verifier[..], &value.ends_at.as_millis().to_be_bytes()].concat()
    };
    values.iter().flat_map(value).collect()
}
