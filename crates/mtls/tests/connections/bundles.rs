use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mtls::{CaFiles, HandshakeError, LoadError, Refusal, ServerTls, TlsFiles};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::{
    handshake::pair,
    pki::{Authority, Pki, domains, leaf},
};

const OURS: &str = "acme.internal";
const THEIRS: &str = "partner.example";

/// An authority as an entry of a SPIFFE trust bundle.
fn entry(authority: &Authority) -> Value {
    let der = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
    json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(&der)] })
}

fn bundle(keys: &[Value]) -> String {
    json!({ "keys": keys, "spiffe_sequence": 7, "spiffe_refresh_hint": 300 }).to_string()
}

/// A bundle with what else such a document may hold.
fn full(authority: &Authority) -> String {
    bundle(&[
        json!({ "kty": "EC", "use": "jwt-svid", "kid": "1", "crv": "P-256", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "use": "later-svid" }),
        json!({ "kty": "RSA" }),
        entry(authority),
    ])
}

fn write(pki: &Pki, name: &str, text: &str) -> PathBuf {
    fs::write(pki.path(name), text).unwrap();
    pki.path(name)
}

fn load(pki: &Pki, ca: impl Into<CaFiles>, admitted: &[&str]) -> Result<Arc<ServerTls>, LoadError> {
    let files = TlsFiles { ca: ca.into(), ..pki.good("broker") };
    ServerTls::load(files, domains(admitted), pki.clock())
}

/// What a server makes of a client that shows a certificate.
async fn shown(pki: &Pki, server: &ServerTls, files: TlsFiles) -> Result<String, HandshakeError> {
    let client = mtls::ClientTls::load(
        files,
        domains(&[OURS, THEIRS]),
        format!("spiffe://{OURS}/broker").parse().unwrap(),
        pki.clock(),
    )
    .unwrap();
    let (ours, theirs) = pair().await;
    let (accepted, _) = tokio::join!(server.accept(theirs), client.connect(ours));
    accepted.map(|connection| connection.identity().spiffe_id.to_string())
}

fn is_stranger(shown: &Result<String, HandshakeError>) -> bool {
    matches!(shown, Err(HandshakeError::Refused(Refusal::UnknownIssuer)))
}

#[tokio::test]
async fn a_spiffe_bundle_is_read_like_pem_and_read_again() {
    let pki = Pki::new();
    let path = write(&pki, "bundle.json", &full(&pki.authority));
    let server = load(&pki, path.clone(), &[OURS]).unwrap();
    assert!(shown(&pki, &server, pki.good("proxy")).await.is_ok());

    // A rotation: both, and then the next alone.
    let next = Authority::new("next");
    let new = leaf(&format!("spiffe://{OURS}/proxy"));
    let new = pki.issue_by(&next, "new", &new);
    assert!(is_stranger(&shown(&pki, &server, new.clone()).await));
    fs::write(&path, bundle(&[entry(&pki.authority), entry(&next)])).unwrap();
    assert!(server.reload().unwrap());
    assert!(shown(&pki, &server, new.clone()).await.is_ok());
    assert!(shown(&pki, &server, pki.good("proxy")).await.is_ok());
    fs::write(&path, bundle(&[entry(&next)])).unwrap();
    assert!(server.reload().unwrap());
    assert!(is_stranger(&shown(&pki, &server, pki.good("proxy")).await));

    // Withdrawn, by the standard: that is no mistake in the file.
    fs::write(&path, bundle(&[])).unwrap();
    assert!(server.reload().unwrap());
    assert!(is_stranger(&shown(&pki, &server, new).await));
}

#[tokio::test]
async fn an_authority_vouches_for_its_own_trust_domain_only() {
    let pki = Pki::new();
    let partner = Authority::new("partner");
    let ca = BTreeMap::from([
        (OURS.to_owned(), pki.path("ca.pem")),
        (THEIRS.to_owned(), write(&pki, "partner.json", &full(&partner))),
    ]);
    let server = load(&pki, CaFiles::ByDomain(ca), &[OURS, THEIRS]).unwrap();
    let theirs = leaf(&format!("spiffe://{THEIRS}/proxy"));
    let ours = leaf(&format!("spiffe://{OURS}/proxy"));
    assert!(shown(&pki, &server, pki.issue("1", &ours)).await.is_ok());
    assert!(shown(&pki, &server, pki.issue_by(&partner, "2", &theirs)).await.is_ok());
    assert!(is_stranger(&shown(&pki, &server, pki.issue_by(&partner, "3", &ours)).await));
    assert!(is_stranger(&shown(&pki, &server, pki.issue("4", &theirs)).await));
}

#[test]
fn bundles_that_cannot_be_meant_are_refused() {
    let pki = Pki::new();
    let good = write(&pki, "good.json", &full(&pki.authority));
    let several = load(&pki, good.clone(), &[OURS, THEIRS]);
    assert!(matches!(several, Err(LoadError::BundleOfOneDomain(path)) if path == good));

    let by = |domain: &str| CaFiles::ByDomain(BTreeMap::from([(domain.to_owned(), good.clone())]));
    assert!(load(&pki, by(OURS), &[OURS]).is_ok());
    let foreign = load(&pki, by(THEIRS), &[OURS]);
    assert!(matches!(foreign, Err(LoadError::ForeignAuthorities(name)) if name == THEIRS));
    let without = load(&pki, by(OURS), &[OURS, THEIRS]);
    assert!(matches!(without, Err(LoadError::NoAuthorities(name)) if name == THEIRS));

    let two = [entry(&pki.authority)["x5c"][0].clone(), entry(&pki.authority)["x5c"][0].clone()];
    for malformed in [
        "{".to_owned(),
        json!({}).to_string(),
        bundle(&[json!({ "use": "x509-svid", "x5c": two[..1] })]),
        bundle(&[json!({ "kty": "EC", "use": "x509-svid" })]),
        bundle(&[json!({ "kty": "EC", "use": "x509-svid", "x5c": two })]),
        bundle(&[json!({ "kty": "EC", "use": "x509-svid", "x5c": ["?"] })]),
    ] {
        let path = write(&pki, "bad.json", &malformed);
        let refused = load(&pki, path, &[OURS]);
        assert!(matches!(refused, Err(LoadError::Malformed { .. })), "{malformed}");
    }
    let path = write(
        &pki,
        "bad.json",
        &bundle(&[json!({ "kty": "EC", "use": "x509-svid", "x5c": ["AAAA"] })]),
    );
    assert!(matches!(load(&pki, path, &[OURS]), Err(LoadError::NotAuthorities(_))));
}
