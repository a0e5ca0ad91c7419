//! Makes `vectors/sealing.json` from a fixed key pair, and checks that each vector does as it says.

mod tampered;

use std::{convert::Infallible, fs, path::Path, time::Duration};

use domain::{LeaseId, Secret, Source, Timestamp};
use hpke::{Deserializable as _, Kem as _, Serializable as _, kem::X25519HkdfSha256, rand_core};
use serde_json::{Value, json};

use self::tampered::{box_vectors, lease_vectors};
use crate::{BoxContext, BoxId, ClientKeys, LeaseContext, Session};

#[test]
fn each_vector_does_as_it_says() {
    let document = document();
    let both = ["leases", "boxes"].map(|kind| document[kind].as_array().unwrap().clone()).concat();
    let opening = both.iter().filter(|vector| vector.get("secret").is_some()).count();
    assert!(opening >= 10, "{opening}");
    assert!(both.len() - opening >= 40, "{}", both.len() - opening);
}

#[test]
fn the_published_vectors_are_these() {
    let text = format!("{:#}\n", document());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/sealing.json");
    if fs::read_to_string(&path).is_ok_and(|published| published == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    panic!("the published vectors differed; they have been written anew, see what changed");
}

fn document() -> Value {
    let (keys, session, encapsulated) = session();
    let (lease_key, ingest_key) = session.keys();
    json!({
        "about": "Test vectors for docs/sealing.md. Bytes are hex, numbers decimal text.",
        "session": {
            "client_private_key": hex::encode(private_key().to_bytes()),
            "client_public_key": hex::encode(keys.public_key()),
            "encapsulated_key": hex::encode(encapsulated),
            "session_id": hex::encode(SESSION),
            "lease_key": hex::encode(lease_key),
            "ingest_key": hex::encode(ingest_key),
        },
        "public_keys_of_low_order": LOW_ORDER,
        "leases": lease_vectors(&session),
        "boxes": box_vectors(&session),
    })
}

pub(crate) const SESSION: [u8; 16] = [0x51; 16];

/// Points with which every shared secret is zero (RFC 7748, section 6.1), and one not reduced.
pub(crate) const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

pub(crate) fn private_key() -> <X25519HkdfSha256 as hpke::Kem>::PrivateKey {
    <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(&[0x42; 32]).unwrap()
}

/// Both ends of the vectors' session: the client's is returned.
pub(crate) fn session() -> (ClientKeys, Session, [u8; 32]) {
    let keys = ClientKeys::from_private(private_key());
    let (encapsulated, broker) =
        Session::establish_with(&keys.public_key(), SESSION, &mut Constant).unwrap();
    let client = keys.open(&encapsulated, SESSION).unwrap();
    assert_eq!(client.keys(), broker.keys());
    (keys, client, encapsulated)
}

pub(crate) fn secret() -> Secret {
    Secret::new(b"sk-0123456789abcdef".to_vec())
}

pub(crate) fn lease(origins: &[String]) -> LeaseContext<'_> {
    LeaseContext {
        lease_id: LeaseId::from_bytes([0x1e; 16]),
        lease_hash: &[0xa5; 32],
        renewals: 0,
        tenant: "tenants/acme",
        credential: "tenants/acme/credentials/openai-prod",
        credential_version: 3,
        provider: "openai",
        source: Source::Byok,
        origins,
        base_url: "https://api.openai.com/v1",
        header_name: "authorization",
        header_prefix: "Bearer ",
        expire_time: Timestamp::from_millis(1_800_000_000_123),
        ttl: Duration::from_mins(1),
        log_index: 4711,
        identity: "spiffe://acme.internal/inference-proxy",
        virtual_key: "tenants/acme/virtualKeys/abcdefghijklmnop",
        model: "gpt-5",
        credential_kind: "api_key",
        settings: &[],
        address: "",
        has_fallback: false,
        because: "detected",
        price_version: "7-2",
        endpoints: &[],
        networks: &[],
    }
}

pub(crate) fn ingest() -> BoxContext<'static> {
    BoxContext {
        box_id: BoxId::from_bytes([0xb0; 16]),
        credential: "tenants/acme/credentials/openai-prod",
        provider: "openai",
        identity: "spiffe://acme.internal/admin",
    }
}

/// For the vectors' encapsulated key only.
struct Constant;

impl rand_core::TryRng for Constant {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0x2424_2424)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0x2424_2424_2424_2424)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0x24);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Constant {}

#[test]
fn a_private_key_gives_the_public_key_that_is_sent() {
    let (keys, ..) = session();
    let public = X25519HkdfSha256::sk_to_pk(&private_key()).to_bytes();
    assert_eq!(keys.public_key()[..], public[..]);
}
