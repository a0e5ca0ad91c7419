use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use audit::{Hash, Kind, Record};
use domain::TenantId;
use metering::BUILTIN_VERSION;

/// Which prices there are, as the log tells it: their documents' digests, by tenant and for list
/// prices. So a lease names its prices without a look into the database.
#[derive(Debug, Default)]
pub(crate) struct Prices {
    /// Looked at with every lease, changed seldom.
    now: ArcSwap<Known>,
    changing: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    list: Vec<Revision>,
    tenants: HashMap<TenantId, Vec<Revision>>,
}

/// One document of prices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Revision {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) sha256: Hash,
}

/// The documents that price a tenant's calls, as of one place in the log.
#[derive(Clone, Debug)]
pub(crate) struct Revisions {
    /// What leases call them.
    pub(crate) version: String,
    /// List prices, in the order in which they came in.
    pub(crate) list: Vec<Revision>,
    /// The tenant's own, likewise.
    pub(crate) own: Vec<Revision>,
}

impl Prices {
    /// Takes a change in.
    pub(crate) fn apply(&self, record: &Record) {
        let Ok(sha256) = Hash::try_from(&*record.prices_sha256) else { return };
        if record.kind() != Kind::PricesChanged {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Known::clone(&self.now.load());
        let revisions = match record.tenant.parse() {
            Ok(tenant) => known.tenants.entry(tenant).or_default(),
            Err(_) => &mut known.list,
        };
        if last(revisions) < record.revision {
            revisions.push(Revision { number: record.revision, sha256 });
            self.now.store(Arc::new(known));
        }
    }

    /// What leases call the prices of a tenant, or the list prices.
    pub(crate) fn version(&self, tenant: Option<&TenantId>) -> String {
        let known = self.now.load();
        version(last(&known.list), tenant.map_or(0, |tenant| last(known.of(tenant))))
    }

    /// The documents of a tenant's prices, or of list prices.
    pub(crate) fn revisions(&self, tenant: Option<&TenantId>) -> Revisions {
        let known = self.now.load();
        let own = tenant.map(|tenant| known.of(tenant).to_vec()).unwrap_or_default();
        let list = known.list.clone();
        Revisions { version: version(last(&list), last(&own)), list, own }
    }
}

impl Known {
    fn of(&self, tenant: &TenantId) -> &[Revision] {
        self.tenants.get(tenant).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The number of the last of some revisions, or 0.
pub(crate) fn last(revisions: &[Revision]) -> u64 {
    revisions.last().map_or(0, |last| last.number)
}

/// Revision 0 is the table of this build, and other builds have others.
fn version(list: u64, own: u64) -> String {
    let list = if list == 0 { format!("0.{BUILTIN_VERSION}") } else { list.to_string() };
    if own == 0 { list } else { format!("{list}-{own}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_a_version_of_its_own() {
        let prices = Prices::default();
        let acme: TenantId = "acme".parse().unwrap();
        let globex: TenantId = "globex".parse().unwrap();
        let change = |tenant: &str, revision, sha: u8| {
            prices.apply(&Record {
                kind: Kind::PricesChanged.into(),
                tenant: tenant.to_owned(),
                revision,
                prices_sha256: vec![sha; 32].into(),
                ..Record::default()
            });
        };
        let versions = || [Some(&acme), Some(&globex), None].map(|it| prices.version(it));
        let builtin = format!("0.{BUILTIN_VERSION}");
        assert_eq!(versions(), [&*builtin; 3]);
        change("acme", 1, 1);
        assert_eq!(versions(), [&*format!("{builtin}-1"), &builtin, &builtin]);
        change("", 1, 2);
        change("acme", 2, 3);
        // Told again, as after a restart.
        change("acme", 1, 1);
        assert_eq!(versions(), ["1-2", "1", "1"]);
        let Revisions { version, list, own } = prices.revisions(Some(&acme));
        assert_eq!((&*version, list.len(), own.len()), ("1-2", 1, 2));
        assert_eq!(own.last(), Some(&Revision { number: 2, sha256: [3; 32] }));
    }
}
