//! Writes the seeds that only code can make: `cargo run -p fuzz --example seeds`. All others are
//! written by hand. Seeds that are there already stay as they are.
#![expect(clippy::unwrap_used, reason = "it runs where somebody is looking")]

use std::{fs, path::Path};

use audit::{
    Checkpoint, Kind, Note, PolicyDocument, Record, RecordProof, SignerKey, encode_bundle,
    leaf_hash, proto_time,
};
use domain::{AccessRule, Key, Secret, Timestamp, Uid, VirtualKey};
use envelope::{Context, Kek};
use prost::Message as _;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

fn main() {
    let leaf = leaf();
    keep("leaf", "lease-granted", &leaf);
    let key = SignerKey::from_seed("log.acme.internal", &[8; 32]).unwrap();
    let checkpoint = Checkpoint::sign(1, &leaf_hash(&leaf), &key).unwrap();
    keep("note", "checkpoint", checkpoint.as_bytes());
    keep("note", "text", Note::sign("a\n\nb\n", &key).unwrap().encode().as_bytes());
    let proof = RecordProof { index: 0, hashes: vec![], checkpoint };
    keep("proof", "one-leaf", proof.encode().as_bytes());
    let bundle = encode_bundle([&leaf, &leaf]).unwrap();
    keep("tiles", "bundle-of-two", &[&[2], bundle.as_slice()].concat());
    keep("tiles", "path", b"tile/entries/x001/x234/067.p/12");
    keep("tiles", "hashes", b"tile/0/x001/067");
    let rule: AccessRule = toml::from_str(RULE).unwrap();
    keep(
        "policy",
        "one-rule",
        PolicyDocument::of(&domain::AccessPolicy::new(vec![rule])).unwrap().as_bytes(),
    );
    keep("envelope", "sealed", &sealed());
    keep("certificate", "workload", &certificate("spiffe://acme.internal/proxy"));
    keep("certificate", "foreign", &certificate("spiffe://evil.example/proxy"));
    let key = VirtualKey::generate().unwrap();
    keep("virtual-key", "whole", key.expose().as_bytes());
    keep("box", "public-key", &sealing::ClientKeys::generate().unwrap().public_key());
}

const RULE: &str = r#"
identities = ["spiffe://acme.internal/proxy"]
methods = ["Leases/*"]
tenants = ["*"]
"#;

fn leaf() -> Vec<u8> {
    let record = Record {
        index: 0,
        time: Some(proto_time(Timestamp::from_millis(1_800_000_000_000))),
        kind: Kind::BrokerStarted.into(),
        config_sha256: vec![1; 32].into(),
        broker: vec![2; 16].into(),
        ..Record::default()
    };
    record.encode_to_vec()
}

fn sealed() -> Vec<u8> {
    let kek = Kek::new(Uid::from_bytes([1; 16]), 1, Key::take(&mut [7; 32]));
    let context = Context {
        deployment: Uid::from_bytes([2; 16]),
        tenant: Uid::from_bytes([3; 16]),
        credential: Uid::from_bytes([4; 16]),
        provider: "openai".parse().unwrap(),
        version: 1,
        purpose: "secret",
    };
    kek.seal(&context, &Secret::new(b"sk-fuzz-0123456789".to_vec())).unwrap()
}

fn certificate(uri: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn keep(target: &str, name: &str, seed: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    if !path.exists() {
        fs::write(path, seed).unwrap();
    }
}
