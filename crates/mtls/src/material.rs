use std::{collections::HashSet, path::Path};

use domain::Clock;
use rustls::DistinguishedName;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor, pem::PemObject,
};
use sha2::{Digest, Sha256};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::{Identity, LoadError, TlsFiles, TrustDomains, files::Contents};

/// The files, parsed and checked.
pub(crate) struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authorities: Authorities,
    pub(crate) revoked: Revoked,
}

/// Who may issue a peer's certificate, and what they took back.
#[derive(Debug)]
pub(crate) struct Authorities {
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    pub(crate) subjects: Vec<DistinguishedName>,
    pub(crate) crls: Option<Vec<CertRevocationList<'static>>>,
}

/// The revoked serial numbers, for looking at connections that are already open.
#[derive(Debug, Default)]
pub(crate) struct Revoked(HashSet<([u8; 32], String)>);

impl Material {
    pub(crate) fn parse(
        files: &TlsFiles,
        contents: &Contents,
        trust_domains: &TrustDomains,
        clock: &dyn Clock,
    ) -> Result<Self, LoadError> {
        let chain = certificates(&files.certificate, &contents.certificate)?;
        check_own(&chain, trust_domains, clock)?;
        let key = PrivateKeyDer::from_pem_slice(contents.key.expose())
            .map_err(|_| malformed(&files.key, "private key"))?;
        let (crls, revoked) = match (&files.crl, &contents.crl) {
            (Some(path), Some(pem)) => revocations(path, pem).map(|(c, r)| (Some(c), r))?,
            _ => (None, Revoked::default()),
        };
        let (anchors, subjects) = anchors(&files.ca, &contents.ca)?;
        Ok(Self { chain, key, authorities: Authorities { anchors, subjects, crls }, revoked })
    }
}

impl Revoked {
    pub(crate) fn names(&self, identity: &Identity) -> bool {
        self.0.contains(&(identity.issuer_sha256, identity.serial.clone()))
    }
}

/// A certificate that every peer would refuse is better refused here, where somebody looks.
fn check_own(
    chain: &[CertificateDer<'_>],
    trust_domains: &TrustDomains,
    clock: &dyn Clock,
) -> Result<(), LoadError> {
    for leaf in chain.iter().take(1) {
        let own = Identity::read(leaf, trust_domains).map_err(LoadError::NotAnIdentity)?;
        if own.not_after <= clock.now() {
            return Err(LoadError::Expired);
        }
    }
    Ok(())
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(malformed(path, "certificate")),
    }
}

type Anchors = (Vec<TrustAnchor<'static>>, Vec<DistinguishedName>);

fn anchors(path: &Path, pem: &[u8]) -> Result<Anchors, LoadError> {
    let mut anchors = Vec::new();
    for certificate in certificates(path, pem)? {
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|_| malformed(path, "certificate of an authority"))?;
        anchors.push(anchor.to_owned());
    }
    let subjects = anchors
        .iter()
        .map(|anchor| DistinguishedName::in_sequence(anchor.subject.as_ref()))
        .collect();
    Ok((anchors, subjects))
}

fn revocations(
    path: &Path,
    pem: &[u8],
) -> Result<(Vec<CertRevocationList<'static>>, Revoked), LoadError> {
    let unreadable = || malformed(path, "revocation list");
    let mut lists = Vec::new();
    let mut revoked = HashSet::new();
    for der in CertificateRevocationListDer::pem_slice_iter(pem) {
        let der = der.map_err(|_| unreadable())?;
        let list = OwnedCertRevocationList::from_der(&der).map_err(|_| unreadable())?;
        lists.push(CertRevocationList::Owned(list));
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|_| unreadable())?;
        let issuer = Sha256::digest(list.issuer().as_raw()).into();
        revoked.extend(
            list.iter_revoked_certificates().map(|entry| (issuer, hex::encode(entry.raw_serial()))),
        );
    }
    if lists.is_empty() { Err(unreadable()) } else { Ok((lists, Revoked(revoked))) }
}

fn malformed(path: &Path, expected: &'static str) -> LoadError {
    LoadError::Malformed { path: path.to_owned(), expected }
}
