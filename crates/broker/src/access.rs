use audit::Record;
use domain::{AccessPolicy, AccessRule, Permit, SpiffeId, TenantId};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use thiserror::Error;

use crate::{caller::Caller, refused::Why};

/// How urgent a method is when the broker is at its limit, and whether it needs a deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Class {
    /// Ends or keeps what has been lent: a tenth of the places is kept for these.
    First,
    /// Everything else.
    Plain,
    /// A stream without an end: no deadline, and no place in the count of calls in hand.
    Stream,
}

/// Every method of the contract. One that is missing here stops the start.
pub(crate) const METHODS: &[(&str, Class)] = &[
    ("Audit/CheckRows", Class::Stream),
    ("Audit/GetCheckpoint", Class::Plain),
    ("Audit/GetPolicy", Class::Plain),
    ("Audit/ListRecords", Class::Plain),
    ("Audit/ProveConsistency", Class::Plain),
    ("Audit/ProveInclusion", Class::Plain),
    ("Audit/PruneRecords", Class::Plain),
    ("Audit/TailRecords", Class::Stream),
    ("Budgets/CreateBudget", Class::Plain),
    ("Budgets/DeleteBudget", Class::Plain),
    ("Budgets/GetBudget", Class::Plain),
    ("Budgets/ListBudgets", Class::Plain),
    ("Budgets/ListUnknownAllowances", Class::Plain),
    ("Budgets/ReconcileAllowances", Class::Plain),
    ("Budgets/UpdateBudget", Class::First),
    ("Credentials/CancelRotation", Class::First),
    ("Credentials/CreateCredential", Class::Plain),
    ("Credentials/DeleteCredential", Class::First),
    ("Credentials/DisableCredential", Class::First),
    ("Credentials/EnableCredential", Class::Plain),
    ("Credentials/GetCredential", Class::Plain),
    ("Credentials/ListCredentials", Class::Plain),
    ("Credentials/PromoteRotation", Class::First),
    ("Credentials/RotateCredential", Class::First),
    ("Credentials/ShredCredential", Class::First),
    ("Credentials/StartRotation", Class::Plain),
    ("Credentials/TestCredential", Class::Plain),
    ("Identities/BlockIdentity", Class::First),
    ("Identities/ListBlockedIdentities", Class::Plain),
    ("Identities/RevokeSession", Class::First),
    ("Identities/UnblockIdentity", Class::Plain),
    ("Kms/GetStatus", Class::Plain),
    ("Kms/RewrapKeys", Class::Plain),
    ("Kms/RotateKek", Class::Plain),
    ("Leases/AcquireLease", Class::Plain),
    ("Leases/DrawAllowance", Class::Plain),
    ("Leases/ExplainRoute", Class::Plain),
    ("Leases/ListLeases", Class::Plain),
    ("Leases/ListModels", Class::Plain),
    ("Leases/OpenSession", Class::Plain),
    ("Leases/ReleaseLease", Class::First),
    ("Leases/RenewLease", Class::First),
    ("Leases/ReportFailures", Class::Plain),
    ("Leases/RevokeLease", Class::First),
    ("Leases/SettleUsage", Class::First),
    ("Leases/WatchRevocations", Class::Stream),
    ("Prices/GetPrices", Class::Plain),
    ("Prices/ImportPrices", Class::Plain),
    ("Prices/SetTenantPrices", Class::Plain),
    ("Tenants/CreateTenant", Class::Plain),
    ("Tenants/GetTenant", Class::Plain),
    ("Tenants/ListTenants", Class::Plain),
    ("Tenants/ResumeTenant", Class::Plain),
    ("Tenants/ShredTenant", Class::First),
    ("Tenants/SuspendTenant", Class::First),
    ("Tenants/UpdateTenant", Class::Plain),
    ("Usage/ListCalls", Class::Plain),
    ("Usage/QueryUsage", Class::Plain),
    ("VirtualKeys/BlockVirtualKey", Class::First),
    ("VirtualKeys/CreateVirtualKey", Class::Plain),
    ("VirtualKeys/GetVirtualKey", Class::Plain),
    ("VirtualKeys/ListVirtualKeys", Class::Plain),
    ("VirtualKeys/RetireVirtualKeyValues", Class::First),
    ("VirtualKeys/RevokeVirtualKey", Class::First),
    ("VirtualKeys/RotateVirtualKey", Class::First),
    ("VirtualKeys/UnblockVirtualKey", Class::Plain),
    ("VirtualKeys/UpdateVirtualKey", Class::Plain),
];

/// Health and reflection: open to whoever has a certificate of a trusted domain.
const SERVICE_METHODS: &[(&str, &str, Class)] = &[
    ("/grpc.health.v1.Health/Check", "Health/Check", Class::Plain),
    ("/grpc.health.v1.Health/Watch", "Health/Watch", Class::Stream),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "ServerReflection/ServerReflectionInfo",
        Class::Stream,
    ),
];

/// The access rules, checked against the contract.
#[derive(Debug)]
pub(crate) struct Access(AccessPolicy);

/// Rules that cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// Some method has no rule, or the broker does not know it.
    #[error(
        "no [[access]] rule names {0}; add one, with `identities = []` if nobody is to call it"
    )]
    Unruled(String),
    /// A rule names something that is no method.
    #[error("an [[access]] rule names `{0}`, which is no method; methods are Service/Method")]
    UnknownMethod(String),
    /// The contract has a method without a row in the table of methods.
    #[error("{0} of the contract is not known to this broker")]
    UnknownToUs(String),
}

/// A method as a request path names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    /// Whether the access rules are asked.
    pub(crate) ruled: bool,
}

impl Access {
    /// Checks the rules: each method of the contract must be named by one.
    pub(crate) fn new(rules: Vec<AccessRule>) -> Result<Self, AccessError> {
        let methods = contract_methods();
        if let Some(unknown) =
            methods.iter().find(|method| !METHODS.iter().any(|(name, _)| name == method))
        {
            return Err(AccessError::UnknownToUs(unknown.clone()));
        }
        let policy = AccessPolicy::new(rules);
        if let Some(unknown) = policy.unknown_methods(&methods).next() {
            return Err(AccessError::UnknownMethod(unknown.to_owned()));
        }
        if let Some(unruled) = methods.iter().find(|method| !policy.mentions(method)) {
            return Err(AccessError::Unruled(unruled.clone()));
        }
        Ok(Self(policy))
    }

    /// Whether the caller may call its method for anyone at all.
    pub(crate) fn admits(&self, caller: &Caller) -> bool {
        self.0.may_call(&caller.identity, caller.method)
    }

    /// The one tenant that an identity may act for, if it is one.
    pub(crate) fn sole_tenant(&self, identity: &SpiffeId) -> Option<TenantId> {
        self.0.sole_tenant(identity)
    }

    /// Leave for the caller's method and a tenant.
    pub(crate) fn permit(&self, caller: &Caller, tenant: &TenantId) -> Result<Permit, Why> {
        self.0.permit(&caller.identity, caller.method, tenant).ok_or(Why::NotPermitted)
    }

    /// Whether the caller may be lent credentials for a tenant, whichever method it calls now.
    pub(crate) fn may_borrow(&self, caller: &Caller, tenant: &TenantId) -> bool {
        self.0.permit(&caller.identity, "Leases/AcquireLease", tenant).is_some()
    }

    /// Leave for the caller's method and every tenant.
    pub(crate) fn permit_all(&self, caller: &Caller) -> Result<(), Why> {
        if self.0.may_call_for_all(&caller.identity, caller.method) {
            Ok(())
        } else {
            Err(Why::NotPermitted)
        }
    }

    /// Whether the caller may see a record: its tenant's, or any for who may see all.
    pub(crate) fn shows(&self, caller: &Caller, record: &Record) -> bool {
        self.permit_all(caller).is_ok()
            || record.tenant.parse().is_ok_and(|tenant| self.permit(caller, &tenant).is_ok())
    }
}

/// The method that a request path names, if it is one of ours, spelled exactly.
pub(crate) fn method_of(path: &str) -> Option<Method> {
    if let Some((_, name, class)) = SERVICE_METHODS.iter().find(|(known, _, _)| *known == path) {
        return Some(Method { name, class: *class, ruled: false });
    }
    let name = path.strip_prefix("/strongroom.v1.")?;
    METHODS.iter().find(|(known, _)| *known == name).map(|(name, class)| Method {
        name,
        class: *class,
        ruled: true,
    })
}

/// Every method of the contract as `Service/Method`, from its descriptors.
fn contract_methods() -> Vec<String> {
    let contract = FileDescriptorSet::decode(strongroom_proto::DESCRIPTORS).unwrap_or_default();
    contract
        .file
        .iter()
        .filter(|file| file.package() == "strongroom.v1")
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(methods: &[&str]) -> AccessRule {
        AccessRule {
            identities: vec!["spiffe://a.b/c".parse().unwrap()],
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            tenants: vec!["*".to_owned()],
            providers: vec!["*".to_owned()],
            longest_lease_seconds: domain::LONGEST_TTL,
        }
    }

    const SERVICES: [&str; 10] = [
        "Audit/*",
        "Budgets/*",
        "Credentials/*",
        "Identities/*",
        "Kms/*",
        "Leases/*",
        "Prices/*",
        "Tenants/*",
        "Usage/*",
        "VirtualKeys/*",
    ];

    #[test]
    fn every_rpc_is_in_the_table() {
        let methods = contract_methods();
        assert_eq!(methods.len(), METHODS.len());
        for method in methods {
            assert!(METHODS.iter().any(|(name, _)| *name == method), "{method} has no row");
        }
    }

    #[test]
    fn a_method_without_a_rule_stops_the_start() {
        assert!(Access::new(vec![rule(&SERVICES)]).is_ok());
        let error = Access::new(vec![rule(&SERVICES[1..])]).unwrap_err();
        assert!(matches!(error, AccessError::Unruled(method) if method.starts_with("Audit/")));
        let mut rules = SERVICES.to_vec();
        rules.push("Leases/Aquire");
        let error = Access::new(vec![rule(&rules)]).unwrap_err();
        assert!(matches!(error, AccessError::UnknownMethod(method) if method == "Leases/Aquire"));
    }

    #[test]
    fn only_the_exact_path_names_a_method() {
        assert!(method_of("/strongroom.v1.Leases/AcquireLease").is_some());
        for path in [
            "strongroom.v1.Leases/AcquireLease",
            "//strongroom.v1.Leases/AcquireLease",
            "/strongroom.v1.Leases/AcquireLease/",
            "/strongroom.v1.leases/AcquireLease",
            "/strongroom.v1.Leases/acquirelease",
            "/strongroom.v1.Leases//AcquireLease",
            "/strongroom.v1.Leases/AcquireLease?x",
            "/strongroom.v1.Leases%2fAcquireLease",
            "/",
            "",
        ] {
            assert_eq!(method_of(path), None, "{path:?}");
        }
    }
}
