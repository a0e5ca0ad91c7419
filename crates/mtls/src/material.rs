use std::collections::{BTreeMap, BTreeSet, HashSet};

use domain::{Clock, SpiffeId, Timestamp};
use rustls::DistinguishedName;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor, pem::PemObject,
};
use sha2::{Digest, Sha256};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{
    prelude::{ASN1Time, FromDer, X509Certificate},
    revocation_list::CertificateRevocationList,
};

use crate::{
    Identity, LoadError, TrustDomains,
    bundle::Bundles,
    files::malformed,
    source::{Contents, Crl},
};

/// The contents of a source, parsed and checked.
pub(crate) struct Material {
    /// Who the chain's leaf says that we are.
    pub(crate) own: Option<SpiffeId>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authorities: Authorities,
    pub(crate) revoked: Revoked,
    pub(crate) ends: Ends,
}

/// When what was loaded is over, so that somebody is told before it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ends {
    /// The one of the own certificates that ends first.
    pub(crate) certificate: Option<Span>,
    /// The revocation list whose next update is due first: without that, all peers are refused.
    pub(crate) revocation_list: Option<Span>,
}

/// From when until when something holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) begins: Timestamp,
    pub(crate) ends: Timestamp,
}

impl Span {
    fn of(begins: ASN1Time, ends: ASN1Time) -> Self {
        let time = |at: ASN1Time| Timestamp::from_millis(at.timestamp().saturating_mul(1000));
        Self { begins: time(begins), ends: time(ends) }
    }

    fn first(spans: impl Iterator<Item = Self>) -> Option<Self> {
        spans.min_by_key(|span| span.ends)
    }
}

/// Who may issue a peer's certificate, and what they took back.
#[derive(Debug)]
pub(crate) struct Authorities {
    /// By trust domain: an authority vouches for no other.
    anchors: BTreeMap<String, Vec<TrustAnchor<'static>>>,
    pub(crate) subjects: Vec<DistinguishedName>,
    pub(crate) crls: Option<Vec<CertRevocationList<'static>>>,
}

/// The revoked serial numbers, for looking at connections that are already open.
#[derive(Debug, Default)]
pub(crate) struct Revoked(HashSet<([u8; 32], String)>);

impl Material {
    pub(crate) fn parse(
        contents: Contents,
        trust_domains: &TrustDomains,
        clock: &dyn Clock,
    ) -> Result<Self, LoadError> {
        let Contents { chain, key, bundles, crl } = contents;
        let own = check_own(&chain, trust_domains, clock)?;
        if let Some(without) = trust_domains.names().find(|name| !bundles.contains_key(*name)) {
            return Err(LoadError::NoAuthorities(without.to_owned()));
        }
        let (crls, revoked, revocation_list) = match &crl {
            Some(crl) => {
                let (crls, revoked, next_update) = revocations(crl, clock)?;
                (Some(crls), revoked, next_update)
            }
            None => (None, Revoked::default(), None),
        };
        let ends = Ends { certificate: lasts(&chain), revocation_list };
        let anchors = anchors(&bundles)?;
        let subjects = anchors.values().flatten().map(|anchor| anchor.subject.as_ref());
        let subjects: BTreeSet<&[u8]> = subjects.collect();
        let subjects = subjects.into_iter().map(DistinguishedName::in_sequence).collect();
        let authorities = Authorities { anchors, subjects, crls };
        Ok(Self { own, chain, key, authorities, revoked, ends })
    }
}

impl Authorities {
    /// Who may vouch for the workloads of a trust domain.
    pub(crate) fn of(&self, domain: &str) -> &[TrustAnchor<'static>] {
        self.anchors.get(domain).map(Vec::as_slice).unwrap_or_default()
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
) -> Result<Option<SpiffeId>, LoadError> {
    let Some(leaf) = chain.first() else { return Ok(None) };
    let own = Identity::read(leaf, trust_domains).map_err(LoadError::NotAnIdentity)?;
    if own.not_after <= clock.now() {
        return Err(LoadError::Expired);
    }
    Ok(Some(own.spiffe_id))
}

/// How long the own certificates hold together.
fn lasts(chain: &[CertificateDer<'_>]) -> Option<Span> {
    Span::first(chain.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Span::of(validity.not_before, validity.not_after))
    }))
}

fn anchors(bundles: &Bundles) -> Result<BTreeMap<String, Vec<TrustAnchor<'static>>>, LoadError> {
    let mut anchors = BTreeMap::new();
    for (domain, authorities) in bundles {
        let mut of_domain = Vec::new();
        for certificate in authorities {
            let anchor = webpki::anchor_from_trusted_cert(certificate)
                .map_err(|_| LoadError::NotAuthorities(domain.clone()))?;
            of_domain.push(anchor.to_owned());
        }
        anchors.insert(domain.clone(), of_domain);
    }
    Ok(anchors)
}

fn revocations(
    Crl { path, pem }: &Crl,
    clock: &dyn Clock,
) -> Result<(Vec<CertRevocationList<'static>>, Revoked, Option<Span>), LoadError> {
    let unreadable = || malformed(path, "revocation list");
    let (mut lists, mut spans) = (Vec::new(), Vec::new());
    let mut revoked = HashSet::new();
    for der in CertificateRevocationListDer::pem_slice_iter(pem) {
        let der = der.map_err(|_| unreadable())?;
        let list = OwnedCertRevocationList::from_der(&der).map_err(|_| unreadable())?;
        lists.push(CertRevocationList::Owned(list));
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|_| unreadable())?;
        spans.extend(list.next_update().map(|next| Span::of(list.last_update(), next)));
        if list.next_update().is_some_and(|next| next.timestamp() <= clock.now().as_millis() / 1000)
        {
            tracing::warn!(
                path = %path.display(),
                issuer = %list.issuer(),
                "the revocation list is past its next update: who has a certificate of this issuer is \
                 refused until a newer list is there"
            );
        }
        let issuer = Sha256::digest(list.issuer().as_raw()).into();
        revoked.extend(
            list.iter_revoked_certificates().map(|entry| (issuer, hex::encode(entry.raw_serial()))),
        );
    }
    if lists.is_empty() {
        return Err(unreadable());
    }
    Ok((lists, Revoked(revoked), Span::first(spans.into_iter())))
}
