use crate::{Failure, SetBack};

/// How one version has fared since a rotation began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fare {
    /// Leases and renewals.
    pub leases: u64,
    /// Reports that the provider does not accept the key.
    pub refused: u64,
    /// Reports that its account has no quota.
    pub no_quota: u64,
    /// Reports that it may not do what was asked.
    pub not_allowed: u64,
}

/// How both versions of a rotation have fared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fares {
    /// The new one.
    pub candidate: Fare,
    /// The old one.
    pub previous: Fare,
}

impl Fare {
    /// Takes note of a failed call. What says nothing of the key is no matter.
    pub fn failed(&mut self, failure: Failure) {
        let count = match failure {
            Failure::CredentialRefused | Failure::Unusable => &mut self.refused,
            Failure::NoQuota => &mut self.no_quota,
            Failure::NotAllowed => &mut self.not_allowed,
            Failure::RateLimited { .. }
            | Failure::ProviderTrouble
            | Failure::TimedOut
            | Failure::Unreachable
            | Failure::CallersFault
            | Failure::SecretInAnswer => return,
        };
        *count = count.saturating_add(1);
    }
}

impl Fares {
    /// Why the rotation is to be set back, if it is: the provider turns the new key away, and does not
    /// do so with the old one.
    pub fn verdict(&self) -> Option<SetBack> {
        let (new, old) = (&self.candidate, &self.previous);
        let is_worse = |new_failures: u64, old_failures: u64| {
            let many = new.leases >= ENOUGH_LEASES && new_failures.saturating_mul(5) >= new.leases;
            // By lease, because the old version has had more of them. A few failures of the old key
            // are nobody's proof that the new one is as good.
            let wide =
                |failures: u64, leases: u64| u128::from(failures) * u128::from(leases.max(1));
            let rises = wide(new_failures, old.leases) > 4 * wide(old_failures, new.leases);
            (new_failures >= ENOUGH_FAILURES || many) && rises
        };
        if is_worse(new.refused, old.refused) {
            Some(SetBack::CredentialRefused)
        } else if is_worse(new.no_quota, old.no_quota) {
            Some(SetBack::NoQuota)
        } else if is_worse(new.not_allowed, old.not_allowed) {
            Some(SetBack::NotAllowed)
        } else {
            None
        }
    }
}

/// So many refusals are no accident.
const ENOUGH_FAILURES: u64 = 3;
/// Of so many leases or more, a fifth is enough.
const ENOUGH_LEASES: u64 = 10;
