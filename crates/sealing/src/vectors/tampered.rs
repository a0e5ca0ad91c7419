use std::time::Duration;

use domain::{LeaseId, Secret, Source, Timestamp};
use serde_json::{Value, json};

use super::{ingest, lease, secret};
use crate::{BoxContext, BoxId, LeaseContext, Session};

/// Vectors of leases. Each that has no secret must not open; here, too.
pub(super) fn lease_vectors(session: &Session) -> Vec<Value> {
    let origins = vec!["https://api.openai.com".to_owned()];
    let right = lease(&origins);
    let sealed = session.seal_lease(&right, &secret()).unwrap();
    let mut vectors = Vec::new();
    let settings = [("location", "global"), ("project", "acme-1")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, context, secret) in rightful(&right, &settings) {
        let sealed = session.seal_lease(&context, &Secret::new(secret.clone())).unwrap();
        vectors.push(lease_vector(session, name, &context, &sealed, Some(&secret)));
    }
    let more = ["https://api.openai.com".to_owned(), "https://evil.example".to_owned()];
    let joined = ["https://api.openai.comhttps://evil.example".to_owned()];
    let none = Vec::new();
    for (name, context) in altered(&right) {
        vectors.push(lease_vector(session, name, &context, &sealed, None));
    }
    for (name, origins) in
        [("an origin more", &more[..]), ("origins run together", &joined), ("no origin", &none)]
    {
        let context = LeaseContext { origins, ..right };
        vectors.push(lease_vector(session, name, &context, &sealed, None));
    }
    let settings = [("region".to_owned(), "eu-west-1".to_owned())];
    let context = LeaseContext { settings: &settings, ..right };
    vectors.push(lease_vector(session, "a setting more", &context, &sealed, None));
    vectors.extend(elsewhere(session, &right));
    for (name, sealed) in damaged(&sealed) {
        vectors.push(lease_vector(session, &name, &right, &sealed, None));
    }
    let as_box = session.seal_box(&ingest(), &secret()).unwrap();
    vectors.push(lease_vector(session, "a box", &right, &as_box, None));
    vectors
}

fn rightful<'a>(
    right: &LeaseContext<'a>,
    settings: &'a [(String, String)],
) -> Vec<(&'static str, LeaseContext<'a>, Vec<u8>)> {
    let right = *right;
    let secret = b"sk-0123456789abcdef".to_vec();
    vec![
        ("a lease", right, secret.clone()),
        ("renewed once", LeaseContext { renewals: 1, ..right }, secret.clone()),
        ("managed", LeaseContext { source: Source::Managed, renewals: 2, ..right }, secret.clone()),
        (
            "without virtual key, model and prefix",
            LeaseContext { virtual_key: "", model: "", header_prefix: "", renewals: 3, ..right },
            secret.clone(),
        ),
        (
            "with settings and a fallback, at another address",
            LeaseContext {
                settings,
                has_fallback: true,
                address: "https://eu.example",
                renewals: 10,
                ..right
            },
            secret.clone(),
        ),
        ("without origins", LeaseContext { origins: &[], renewals: 4, ..right }, secret),
        ("a secret of one byte", LeaseContext { renewals: 5, ..right }, vec![0]),
        ("a secret of 1000 bytes", LeaseContext { renewals: 9, ..right }, vec![b'k'; 1000]),
    ]
}

/// A lease for some calls and networks, and what it must not be taken for.
fn elsewhere(session: &Session, right: &LeaseContext<'_>) -> Vec<Value> {
    let kinds = ["chat_completions".to_owned(), "embeddings".to_owned()];
    let nets = ["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()];
    let context = LeaseContext { endpoints: &kinds, networks: &nets, renewals: 11, ..*right };
    let sealed = session.seal_lease(&context, &secret()).unwrap();
    let opened = secret();
    let told = "for some calls from some networks";
    let mut vectors = vec![lease_vector(session, told, &context, &sealed, Some(opened.expose()))];
    let fewer = &nets[..1];
    for (name, context) in [
        ("for all calls", LeaseContext { endpoints: &[], ..context }),
        ("from everywhere", LeaseContext { networks: &[], ..context }),
        ("from fewer networks", LeaseContext { networks: fewer, ..context }),
        ("calls for networks", LeaseContext { endpoints: &nets, networks: &kinds, ..context }),
    ] {
        vectors.push(lease_vector(session, name, &context, &sealed, None));
    }
    vectors
}

/// Right but for one word.
fn altered<'a>(right: &LeaseContext<'a>) -> Vec<(&'static str, LeaseContext<'a>)> {
    let right = *right;
    let later = right.expire_time + Duration::from_millis(1);
    vec![
        ("another lease", LeaseContext { lease_id: LeaseId::from_bytes([0; 16]), ..right }),
        ("another hash", LeaseContext { lease_hash: &[0xa6; 32], ..right }),
        ("another renewal", LeaseContext { renewals: 1, ..right }),
        ("another tenant", LeaseContext { tenant: "tenants/evil", ..right }),
        (
            "another credential",
            LeaseContext { credential: "tenants/acme/credentials/openai-test", ..right },
        ),
        ("another version", LeaseContext { credential_version: 4, ..right }),
        ("another provider", LeaseContext { provider: "anthropic", ..right }),
        ("another source", LeaseContext { source: Source::Managed, ..right }),
        ("another address", LeaseContext { base_url: "https://api.openai.com/v2", ..right }),
        ("another header", LeaseContext { header_name: "x-api-key", ..right }),
        ("another prefix", LeaseContext { header_prefix: "Bearer", ..right }),
        ("a later end", LeaseContext { expire_time: later, ..right }),
        (
            "an end before the epoch",
            LeaseContext { expire_time: Timestamp::from_millis(-1), ..right },
        ),
        ("more time", LeaseContext { ttl: right.ttl + Duration::from_millis(1), ..right }),
        ("another record", LeaseContext { log_index: 4712, ..right }),
        ("another identity", LeaseContext { identity: "spiffe://acme.internal/other", ..right }),
        ("no virtual key", LeaseContext { virtual_key: "", ..right }),
        ("another model", LeaseContext { model: "gpt-5-mini", ..right }),
        ("another kind", LeaseContext { credential_kind: "admin_key", ..right }),
        ("another address in its place", LeaseContext { address: "https://evil.example", ..right }),
        ("a fallback more", LeaseContext { has_fallback: true, ..right }),
        ("another reason", LeaseContext { because: "preferred", ..right }),
        ("other prices", LeaseContext { price_version: "7", ..right }),
    ]
}

fn lease_vector(
    session: &Session,
    name: &str,
    context: &LeaseContext<'_>,
    sealed: &[u8],
    secret: Option<&[u8]>,
) -> Value {
    let opened = session.unseal_lease(context, sealed);
    assert_eq!(opened.as_ref().ok().map(Secret::expose), secret, "{name}");
    let mut vector = json!({
        "name": name,
        "context": {
            "lease_id": hex::encode(context.lease_id.as_bytes()),
            "lease_hash": hex::encode(context.lease_hash),
            "renewals": context.renewals.to_string(),
            "tenant": context.tenant,
            "credential": context.credential,
            "credential_version": context.credential_version.to_string(),
            "provider": context.provider,
            "source": context.source.as_str(),
            "origins": context.origins,
            "base_url": context.base_url,
            "header_name": context.header_name,
            "header_prefix": context.header_prefix,
            "expire_time_ms": context.expire_time.as_millis().to_string(),
            "ttl_ms": context.ttl.as_millis().to_string(),
            "log_index": context.log_index.to_string(),
            "identity": context.identity,
            "virtual_key": context.virtual_key,
            "model": context.model,
            "credential_kind": context.credential_kind,
            "settings": context.settings,
            "address": context.address,
            "has_fallback": context.has_fallback,
            "because": context.because,
            "price_version": context.price_version,
            "endpoints": context.endpoints,
            "networks": context.networks,
        },
        "sealed": hex::encode(sealed),
    });
    if let Some(secret) = secret {
        vector["secret"] = hex::encode(secret).into();
        vector["associated_data"] = hex::encode(context.associated_data()).into();
    }
    vector
}

/// Vectors of boxes, likewise.
pub(super) fn box_vectors(session: &Session) -> Vec<Value> {
    let right = ingest();
    let sealed = session.seal_box(&right, &secret()).unwrap();
    let mut vectors = Vec::new();
    for (name, context, length) in [
        ("a box", right, 19),
        ("of one byte", BoxContext { box_id: BoxId::from_bytes([1; 16]), ..right }, 1),
        ("of 16384 bytes", BoxContext { box_id: BoxId::from_bytes([2; 16]), ..right }, 16_384),
    ] {
        let secret = vec![b'k'; length];
        let sealed = session.seal_box(&context, &Secret::new(secret.clone())).unwrap();
        vectors.push(box_vector(session, name, &context, &sealed, Some(&secret)));
    }
    for (name, context) in [
        ("another box", BoxContext { box_id: BoxId::from_bytes([0; 16]), ..right }),
        (
            "another credential",
            BoxContext { credential: "tenants/acme/credentials/openai-test", ..right },
        ),
        ("another provider", BoxContext { provider: "anthropic", ..right }),
        ("another identity", BoxContext { identity: "spiffe://acme.internal/other", ..right }),
    ] {
        vectors.push(box_vector(session, name, &context, &sealed, None));
    }
    for (name, sealed) in damaged(&sealed) {
        vectors.push(box_vector(session, &name, &right, &sealed, None));
    }
    let origins = ["https://api.openai.com".to_owned()];
    let as_lease = session.seal_lease(&lease(&origins), &secret()).unwrap();
    vectors.push(box_vector(session, "a lease", &right, &as_lease, None));
    vectors
}

fn box_vector(
    session: &Session,
    name: &str,
    context: &BoxContext<'_>,
    sealed: &[u8],
    secret: Option<&[u8]>,
) -> Value {
    let opened = session.open_box(context, sealed);
    assert_eq!(opened.as_ref().ok().map(Secret::expose), secret, "{name}");
    let mut vector = json!({
        "name": name,
        "context": {
            "box_id": hex::encode(context.box_id.as_bytes()),
            "credential": context.credential,
            "provider": context.provider,
            "identity": context.identity,
        },
        "sealed": hex::encode(sealed),
    });
    if let Some(secret) = secret {
        vector["secret"] = hex::encode(secret).into();
    }
    vector
}

fn damaged(sealed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut vectors = Vec::new();
    for at in [0, sealed.len() - 17, sealed.len() - 16, sealed.len() - 1] {
        let mut altered = sealed.to_vec();
        altered[at] ^= 1;
        vectors.push((format!("byte {at} differs"), altered));
    }
    for length in [0, 15, 16, sealed.len() - 1] {
        vectors.push((format!("cut after {length} bytes"), sealed[..length].to_vec()));
    }
    vectors.push(("a byte behind".to_owned(), [sealed, &[0]].concat()));
    vectors.push(("too long to be a secret".to_owned(), vec![0; 16_384 + 17]));
    vectors
}
