use std::collections::BTreeMap;

use audit::{Kind, Names, Record, revocation, timestamp};
use domain::Timestamp;
use strongroom_proto::v1::revocation::Target;

use crate::audit_search::Seen;

/// Leases as the records tell of them, and the revocations that may have ended them.
#[derive(Debug, Default)]
pub(crate) struct Loans {
    by_hash: BTreeMap<Vec<u8>, Loan>,
    revocations: BTreeMap<u64, Seen>,
}

/// What is known of one lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loan {
    pub(crate) granted: Option<Seen>,
    pub(crate) renewed: Vec<Seen>,
    /// Its release or its own revocation, whichever came first.
    ended: Option<Seen>,
}

/// How a lease ended, or will.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// A word for programs: `released`, `expired`, `live`, or what was revoked.
    pub(crate) how: &'static str,
    pub(crate) time: Option<Timestamp>,
    /// The record that ended it; none for a lease that ended by itself.
    pub(crate) by: Option<Seen>,
}

impl Loans {
    /// The kinds that tell of one lease.
    pub(crate) const LEASE: [Kind; 4] =
        [Kind::LeaseGranted, Kind::LeaseRenewed, Kind::LeaseReleased, Kind::LeaseRevoked];

    /// The kinds that end leases without naming them.
    pub(crate) const REVOCATIONS: [Kind; 15] = [
        Kind::TenantUpdated,
        Kind::TenantSuspended,
        Kind::SessionRevoked,
        Kind::IdentityBlocked,
        Kind::CredentialRotated,
        Kind::CredentialRotationFinished,
        Kind::CredentialRotationRolledBack,
        Kind::CredentialDisabled,
        Kind::CredentialDeleted,
        Kind::CredentialShredded,
        Kind::TenantShredded,
        Kind::VirtualKeyRevoked,
        Kind::VirtualKeyUpdated,
        Kind::VirtualKeyRotated,
        Kind::VirtualKeyBlocked,
    ];

    /// Takes a record in; the same one twice is no matter.
    pub(crate) fn take(&mut self, seen: Seen) {
        let kind = seen.record.kind();
        if Self::LEASE.contains(&kind) {
            let loan = self.by_hash.entry(seen.record.lease_hash.to_vec()).or_default();
            loan.take(kind, seen);
        } else if revocation(&seen.record).is_some() {
            self.revocations.insert(seen.record.index, seen);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Loan)> {
        self.by_hash.iter().map(|(hash, loan)| (hash.as_slice(), loan))
    }

    /// How a lease ended. A revocation before the lease's last grant or renewal did not concern it.
    pub(crate) fn end(&self, loan: &Loan, now: Timestamp) -> End {
        let Some(last) = loan.last() else {
            let time = loan.ended.as_ref().and_then(Seen::time);
            return End { how: "unknown", time, by: loan.ended.clone() };
        };
        let expiry = last.record.lease_expire_time.as_ref().and_then(timestamp);
        let revoked = self
            .revocations
            .range(last.record.index..)
            .map(|(_, seen)| seen)
            .find(|seen| concerns(&seen.record, last));
        let first = [loan.ended.as_ref(), revoked]
            .into_iter()
            .flatten()
            .min_by_key(|seen| seen.record.index)
            .filter(|seen| seen.time() < expiry);
        match first {
            Some(seen) => End { how: how(&seen.record), time: seen.time(), by: Some(seen.clone()) },
            None if expiry <= Some(now) => End { how: "expired", time: expiry, by: None },
            None => End { how: "live", time: expiry, by: None },
        }
    }
}

impl Loan {
    fn take(&mut self, kind: Kind, seen: Seen) {
        let index = seen.record.index;
        if kind == Kind::LeaseGranted {
            self.granted = Some(seen);
        } else if kind == Kind::LeaseRenewed {
            let place = self.renewed.partition_point(|it| it.record.index < index);
            if self.renewed.get(place).is_none_or(|it| it.record.index != index) {
                self.renewed.insert(place, seen);
            }
        } else if self.ended.as_ref().is_none_or(|ended| index < ended.record.index) {
            self.ended = Some(seen);
        }
    }

    /// The last record that lent it.
    pub(crate) fn last(&self) -> Option<&Seen> {
        self.renewed.last().or(self.granted.as_ref())
    }

    /// The first record that lent it, as far as it was found.
    pub(crate) fn first(&self) -> Option<&Seen> {
        self.granted.as_ref().or(self.renewed.first())
    }
}

fn concerns(revoked: &Record, lease: &Seen) -> bool {
    let record = &lease.record;
    match revocation(revoked).and_then(|revocation| revocation.target) {
        Some(Target::LeaseHash(hash)) => hash == record.lease_hash,
        Some(Target::Credential(name)) => name == record.credential,
        Some(Target::CredentialVersions(versions)) => {
            let version = record.credential_version;
            versions.credential == record.credential
                && (version < versions.below || version == versions.version)
        }
        Some(Target::VirtualKey(name)) => {
            name == format!("tenants/{}/virtualKeys/{}", record.tenant, record.virtual_key)
        }
        Some(Target::Tenant(name)) => name == format!("tenants/{}", record.tenant),
        // By what both records hold, whether or not the name is known.
        Some(Target::Identity(identity)) => {
            !identity.is_empty() && identity == Names::default().show_actor(record)
        }
        Some(Target::SessionKeySha256(key)) => key == record.session_key_sha256,
        None => false,
    }
}

fn how(record: &Record) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind ends a lease")]
    match record.kind() {
        Kind::LeaseReleased => "released",
        Kind::LeaseRevoked => "lease_revoked",
        Kind::TenantUpdated => "tenant_updated",
        Kind::TenantSuspended => "tenant_suspended",
        Kind::SessionRevoked => "session_revoked",
        Kind::IdentityBlocked => "identity_blocked",
        Kind::CredentialRotated | Kind::CredentialRotationFinished => "credential_rotated",
        Kind::CredentialRotationRolledBack => "rotation_rolled_back",
        Kind::CredentialDisabled => "credential_disabled",
        Kind::CredentialDeleted => "credential_deleted",
        Kind::CredentialShredded => "credential_shredded",
        Kind::TenantShredded => "tenant_shredded",
        Kind::VirtualKeyRevoked => "virtual_key_revoked",
        Kind::VirtualKeyUpdated => "virtual_key_updated",
        Kind::VirtualKeyRotated => "virtual_key_rotated",
        Kind::VirtualKeyBlocked => "virtual_key_blocked",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use audit::proto_time;

    use super::*;

    fn record(index: u64, seconds: i64, kind: Kind) -> Record {
        Record {
            index,
            time: Some(proto_time(Timestamp::from_millis(seconds * 1000))),
            kind: kind.into(),
            actor: "spiffe://a.b/proxy".into(),
            tenant: "acme".into(),
            credential: "tenants/acme/credentials/openai".into(),
            credential_version: 1,
            virtual_key: "aaaaaaaaaaaaaaaa".into(),
            lease_hash: vec![7; 32].into(),
            session_key_sha256: vec![1; 32].into(),
            ..Record::default()
        }
    }

    fn lent(index: u64, seconds: i64, kind: Kind) -> Record {
        let lease_expire_time = Some(proto_time(Timestamp::from_millis((seconds + 60) * 1000)));
        Record { lease_expire_time, ..record(index, seconds, kind) }
    }

    /// Of a lease that was granted at second 100 for a minute, at index 10.
    #[track_caller]
    fn check(then: &[Record], how: &str, by: Option<u64>) {
        let mut loans = Loans::default();
        for record in [&lent(10, 100, Kind::LeaseGranted)].into_iter().chain(then) {
            loans.take(Seen::new(record.clone(), &Names::default()));
        }
        let (_, loan) = loans.iter().next().unwrap();
        let end = loans.end(loan, Timestamp::from_millis(1_000_000));
        assert_eq!((end.how, end.by.map(|seen| seen.record.index)), (how, by));
    }

    #[test]
    fn a_lease_ends_by_what_came_first() {
        check(&[], "expired", None);
        check(&[lent(11, 940, Kind::LeaseRenewed)], "expired", None);
        check(&[lent(11, 990, Kind::LeaseRenewed)], "live", None);
        check(&[record(11, 130, Kind::LeaseReleased)], "released", Some(11));
        check(&[record(11, 130, Kind::VirtualKeyRevoked)], "virtual_key_revoked", Some(11));
        let released = record(12, 131, Kind::LeaseReleased);
        check(
            &[record(11, 130, Kind::CredentialDeleted), released],
            "credential_deleted",
            Some(11),
        );
        // Too late to have ended anything.
        check(&[record(11, 160, Kind::LeaseReleased)], "expired", None);
    }

    #[test]
    fn a_revocation_of_something_else_ends_nothing() {
        let other = |kind| Record {
            tenant: "other".into(),
            credential: "tenants/acme/credentials/other".into(),
            lease_hash: vec![].into(),
            session_key_sha256: vec![2; 32].into(),
            ..record(11, 130, kind)
        };
        for kind in Loans::REVOCATIONS {
            check(&[other(kind)], "expired", None);
        }
        let rotated = |version| Record {
            credential_version: version,
            ..record(11, 130, Kind::CredentialRotated)
        };
        check(&[rotated(2)], "credential_rotated", Some(11));
        check(&[rotated(1)], "expired", None);
        // One that a renewal survived did not concern the lease.
        let renewed = lent(12, 131, Kind::LeaseRenewed);
        check(&[record(11, 130, Kind::TenantUpdated), renewed], "expired", None);
        let blocked =
            Record { subject: "spiffe://a.b/proxy".into(), ..other(Kind::IdentityBlocked) };
        check(&[blocked], "identity_blocked", Some(11));
    }

    #[test]
    fn a_lease_ends_with_its_session_and_with_its_tenants_suspension() {
        check(&[record(11, 130, Kind::SessionRevoked)], "session_revoked", Some(11));
        check(&[record(11, 130, Kind::TenantSuspended)], "tenant_suspended", Some(11));
        let subject = "spiffe://a.b/other".to_owned();
        check(&[Record { subject, ..record(11, 130, Kind::IdentityBlocked) }], "expired", None);
        check(&[record(11, 130, Kind::IdentityUnblocked)], "expired", None);
        check(&[record(11, 130, Kind::TenantResumed)], "expired", None);
    }
}
