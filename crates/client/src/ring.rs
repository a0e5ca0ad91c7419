use std::collections::VecDeque;

use bytes::Bytes;
use strongroom_proto::v1::{CredentialVersions, Revocation, revocation};

/// What a revocation is held against.
pub(crate) trait Lent {
    fn log_index(&self) -> u64;
    fn lease_hash(&self) -> &[u8];
    fn credential(&self) -> &str;
    fn tenant(&self) -> &str;
    fn virtual_key(&self) -> &str;
    fn credential_version(&self) -> u64;
    fn identity(&self) -> &str;
    fn session_key_sha256(&self) -> &[u8];
}

/// Which leases a revocation ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Tenant(String),
    Credential(String),
    VirtualKey(String),
    Lease(Bytes),
    Versions {
        credential: String,
        below: u64,
        /// And this one, if it is not 0.
        version: u64,
    },
    Identity(String),
    Session(Bytes),
    /// Of a kind that this program does not know: to be safe, every lease.
    Unknown,
}

/// Ends the leases of its target that were granted before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ending {
    log_index: u64,
    target: Target,
}

/// The revocations of late, and from which index on they are all there.
///
/// It orders grants against revocations: an answer that was on its way while its lease was revoked
/// is recognized when it arrives, whichever of the two arrived first.
#[derive(Debug)]
pub(crate) struct Ring {
    capacity: usize,
    endings: VecDeque<Ending>,
    /// Every revocation from this index up to `next_index` is in the ring. `None` until the
    /// stream's beginning is known.
    covers_from: Option<u64>,
    next_index: u64,
    epoch: u64,
}

impl Ending {
    pub(crate) fn ends(&self, lease: &impl Lent) -> bool {
        if self.log_index <= lease.log_index() {
            return false;
        }
        match &self.target {
            Target::Tenant(name) => {
                lease.tenant() == name || is_of_tenant(lease.credential(), name)
            }
            Target::Credential(name) => lease.credential() == name,
            Target::VirtualKey(name) => lease.virtual_key() == name,
            Target::Lease(hash) => lease.lease_hash() == hash,
            Target::Versions { credential, below, version } => {
                let leased = lease.credential_version();
                lease.credential() == credential && (leased < *below || leased == *version)
            }
            Target::Identity(identity) => lease.identity() == identity,
            Target::Session(key) => lease.session_key_sha256() == key,
            Target::Unknown => true,
        }
    }
}

impl From<Revocation> for Ending {
    fn from(revocation: Revocation) -> Self {
        let target = match revocation.target {
            Some(revocation::Target::Tenant(name)) => Target::Tenant(name),
            Some(revocation::Target::Credential(name)) => Target::Credential(name),
            Some(revocation::Target::VirtualKey(name)) => Target::VirtualKey(name),
            Some(revocation::Target::LeaseHash(hash)) => Target::Lease(hash),
            Some(revocation::Target::CredentialVersions(versions)) => {
                let CredentialVersions { credential, below, version } = versions;
                Target::Versions { credential, below, version }
            }
            Some(revocation::Target::Identity(identity)) => Target::Identity(identity),
            Some(revocation::Target::SessionKeySha256(key)) => Target::Session(key),
            None => Target::Unknown,
        };
        Self { log_index: revocation.log_index, target }
    }
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, endings: VecDeque::new(), covers_from: None, next_index: 0, epoch: 0 }
    }

    /// Where a lost stream resumes; `None` before its beginning is known.
    pub(crate) fn resume_at(&self) -> Option<u64> {
        self.covers_from.map(|_| self.next_index)
    }

    /// Changes when everything known is forgotten. An answer asked for in an earlier epoch is of no
    /// use.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The stream begins: from this index on, every revocation will be given.
    pub(crate) fn begin(&mut self, from: u64) {
        self.covers_from = Some(from);
        self.next_index = from;
        self.endings.clear();
    }

    /// Notes what the stream gave, up to `next_index`.
    pub(crate) fn note(&mut self, endings: &[Ending], next_index: u64) {
        for ending in endings {
            if self.endings.len() == self.capacity
                && let Some(oldest) = self.endings.pop_front()
            {
                let after = oldest.log_index.saturating_add(1);
                self.covers_from = self.covers_from.map(|from| from.max(after));
            }
            self.endings.push_back(ending.clone());
        }
        self.next_index = self.next_index.max(next_index);
    }

    /// Forgets everything; the stream begins anew.
    pub(crate) fn start_over(&mut self) {
        self.endings.clear();
        self.covers_from = None;
        self.next_index = 0;
        self.epoch += 1;
    }

    /// Whether a lease was revoked after it was granted, or may have been: what happened between its
    /// grant and the ring's beginning is not known.
    pub(crate) fn overtakes(&self, lease: &impl Lent) -> bool {
        self.forgot(lease) || self.endings.iter().any(|ending| ending.ends(lease))
    }

    /// Whether the ring begins too late to say anything of the lease.
    pub(crate) fn forgot(&self, lease: &impl Lent) -> bool {
        self.covers_from.is_some_and(|from| lease.log_index().saturating_add(1) < from)
    }
}

fn is_of_tenant(credential: &str, tenant: &str) -> bool {
    credential.strip_prefix(tenant).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lease(u64);

    impl Lent for Lease {
        fn log_index(&self) -> u64 {
            self.0
        }

        fn lease_hash(&self) -> &[u8] {
            b"hash"
        }

        fn credential(&self) -> &'static str {
            "tenants/platform/credentials/openai"
        }

        fn tenant(&self) -> &'static str {
            "tenants/acme"
        }

        fn virtual_key(&self) -> &'static str {
            "tenants/acme/virtualKeys/k"
        }

        fn credential_version(&self) -> u64 {
            2
        }

        fn identity(&self) -> &'static str {
            "spiffe://a.b/c"
        }

        fn session_key_sha256(&self) -> &[u8] {
            b"key"
        }
    }

    fn ending(log_index: u64, target: Target) -> Ending {
        Ending { log_index, target }
    }

    fn other(log_index: u64) -> Ending {
        ending(log_index, Target::Tenant("tenants/other".into()))
    }

    #[track_caller]
    fn check(target: &Target, ends: bool) {
        assert_eq!(ending(8, target.clone()).ends(&Lease(7)), ends, "{target:?}");
    }

    #[test]
    fn a_target_names_a_whole_family() {
        check(&Target::Tenant("tenants/acme".into()), true);
        check(&Target::Tenant("tenants/platform".into()), true);
        check(&Target::Tenant("tenants/plat".into()), false);
        check(&Target::Tenant("tenants/other".into()), false);
        check(&Target::Credential("tenants/platform/credentials/openai".into()), true);
        check(&Target::Credential("tenants/platform/credentials/openai2".into()), false);
        check(&Target::VirtualKey("tenants/acme/virtualKeys/k".into()), true);
        check(&Target::VirtualKey("tenants/acme/virtualKeys/l".into()), false);
        check(&Target::Lease(Bytes::from_static(b"hash")), true);
        check(&Target::Lease(Bytes::from_static(b"hasH")), false);
        let credential = || "tenants/platform/credentials/openai".to_owned();
        let versions = |credential, below, version| Target::Versions { credential, below, version };
        check(&versions(credential(), 3, 0), true);
        check(&versions(credential(), 2, 0), false);
        check(&versions(credential() + "2", 3, 0), false);
        check(&versions(credential(), 0, 2), true);
        check(&versions(credential(), 0, 3), false);
        check(&versions(credential() + "2", 0, 2), false);
        check(&Target::Identity("spiffe://a.b/c".into()), true);
        check(&Target::Identity("spiffe://a.b/cd".into()), false);
        check(&Target::Session(Bytes::from_static(b"key")), true);
        check(&Target::Session(Bytes::from_static(b"keY")), false);
        check(&Target::Unknown, true);
    }

    #[test]
    fn a_grant_after_the_revocation_stands() {
        let mut ring = Ring::new(4);
        ring.begin(0);
        ring.note(&[ending(10, Target::Tenant("tenants/acme".into()))], 11);
        assert!(ring.overtakes(&Lease(9)));
        assert!(!ring.overtakes(&Lease(10)));
        assert!(!ring.overtakes(&Lease(11)));
    }

    #[test]
    fn what_the_ring_no_longer_knows_counts_as_revoked() {
        let mut ring = Ring::new(2);
        ring.begin(5);
        assert!(ring.overtakes(&Lease(3)));
        assert!(!ring.overtakes(&Lease(4)));

        ring.note(&[other(6), other(9)], 10);
        assert!(!ring.overtakes(&Lease(4)));
        ring.note(&[other(12)], 13);
        assert!(ring.overtakes(&Lease(5)));
        assert!(!ring.overtakes(&Lease(6)));
    }

    #[test]
    fn a_stream_resumes_where_it_was_lost() {
        let mut ring = Ring::new(2);
        assert_eq!(ring.resume_at(), None);
        ring.begin(5);
        assert_eq!(ring.resume_at(), Some(5));
        ring.note(&[], 20);
        assert_eq!(ring.resume_at(), Some(20));
        ring.start_over();
        assert_eq!((ring.resume_at(), ring.epoch()), (None, 1));
    }

    #[test]
    fn before_the_stream_began_nothing_is_known_against_a_lease() {
        assert!(!Ring::new(2).overtakes(&Lease(0)));
    }
}
