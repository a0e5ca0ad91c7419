use std::str::FromStr;

use domain::{
    CredentialName, Dialect, Money, Origin, SpiffeId, SpiffePattern, TenantId, VirtualKey,
    VirtualKeyName, Zone,
};
use mtls::{Identity, TrustDomains};
use rustls_pki_types::CertificateDer;

use crate::text;

/// A certificate that is accepted names one workload of an admitted trust domain.
pub(crate) fn certificate(input: &[u8]) -> bool {
    let Ok(domains) = TrustDomains::new(["acme.internal"]) else { return false };
    let Ok(identity) = Identity::read(&CertificateDer::from(input), &domains) else { return false };
    let name = identity.spiffe_id.as_str();
    assert!(name.starts_with("spiffe://acme.internal/"), "a foreign workload is admitted");
    assert_eq!(name.parse::<SpiffeId>().as_ref(), Ok(&identity.spiffe_id));
    true
}

/// Names come out as they went in, so that nothing has two names.
pub(crate) fn names(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let known = [
        is_one_spelling::<SpiffeId>(text),
        is_one_spelling::<CredentialName>(text),
        is_one_spelling::<VirtualKeyName>(text),
        is_one_spelling::<TenantId>(text),
        reads_back::<Origin>(text),
        reads_back::<Money>(text),
    ];
    let pattern = text.parse::<SpiffePattern>();
    let (zone, dialect) = (text.parse::<Zone>(), text.parse::<Dialect>());
    known.contains(&true) || pattern.is_ok() || zone.is_ok() || dialect.is_ok()
}

fn is_one_spelling<T: FromStr + ToString>(text: &str) -> bool {
    let Ok(read) = text.parse::<T>() else { return false };
    assert_eq!(read.to_string(), text, "a name has two spellings");
    true
}

fn reads_back<T: FromStr + ToString>(text: &str) -> bool {
    let Ok(read) = text.parse::<T>() else { return false };
    let told = read.to_string();
    let again = told.parse::<T>().map(|again| again.to_string());
    assert_eq!(again.ok().as_deref(), Some(told.as_str()), "{told} does not read back");
    true
}

/// What an application presents. The check value keeps typing errors out and nothing else.
pub(crate) fn virtual_key(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let Ok((id, digest)) = VirtualKey::inspect(text) else { return false };
    assert!(text.contains(id.as_str()), "the id is not the key's");
    let other = VirtualKey::inspect(text).map(|(_, digest)| digest);
    assert_eq!(other.map(|other| *other.as_bytes()).ok(), Some(*digest.as_bytes()));
    true
}
