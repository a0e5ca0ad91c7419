use std::{
    fmt, fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use audit::{MalformedPolicy, PolicyDocument, Record};
use domain::{Permit, PolicyFault, PolicyFile, SpiffeId, TenantId};
use thiserror::Error;
use tokio::sync::{RwLock, RwLockReadGuard};

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
    ("Approvals/AdmitPolicy", Class::Plain),
    ("Approvals/Approve", Class::Plain),
    ("Approvals/Decline", Class::Plain),
    ("Approvals/GetApproval", Class::Plain),
    ("Approvals/ListApprovals", Class::Plain),
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

/// The access policy in force. Each question is answered by the one that is in force at that moment.
#[derive(Debug)]
pub(crate) struct Access {
    in_force: ArcSwap<InForce>,
    /// Shared by whoever records what the policy in force allows; alone by whoever puts another in
    /// force. So no lease stands in the log behind a policy that it was not decided by.
    changing: RwLock<()>,
}

/// A policy as its file has it, and as the log names it.
#[derive(Debug)]
pub(crate) struct InForce {
    file: PolicyFile,
    document: PolicyDocument,
}

/// What a caller lacks. It says nothing of tenants: whether one exists is not for everybody to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Missing {
    /// `Service/Method`.
    pub(crate) permission: String,
    /// The roles that have it.
    pub(crate) roles: Vec<String>,
    /// Who grants roles, if the policy says.
    pub(crate) ask: Option<String>,
    /// Whether to name a tenant would do: for some, it is not missing.
    pub(crate) for_some: bool,
}

/// A policy that cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("the access policy {path} cannot be read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no policy.
    #[error("the access policy {path}: {fault}")]
    Fault {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and in which line.
        fault: PolicyFault,
    },
    /// The rules cannot be written down for the log.
    #[error(transparent)]
    Document(#[from] MalformedPolicy),
    /// The contract has a method without a row in the table of methods.
    #[error("{0} of the contract is not known to this broker")]
    UnknownToUs(String),
}

/// A method as a request path names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    /// Whether the access policy is asked.
    pub(crate) ruled: bool,
}

impl InForce {
    /// Reads a policy file and holds it against the contract: some role names each method.
    pub(crate) fn read(path: &Path) -> Result<Self, AccessError> {
        let text = fs::read_to_string(path)
            .map_err(|source| AccessError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// As `read`, of what has been read.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let methods = strongroom_proto::methods();
        if let Some(unknown) =
            methods.iter().find(|method| !METHODS.iter().any(|(name, _)| name == method))
        {
            return Err(AccessError::UnknownToUs(unknown.clone()));
        }
        let file = PolicyFile::parse(text, &methods)
            .map_err(|fault| AccessError::Fault { path: path.to_owned(), fault })?;
        let document = PolicyDocument::of(file.policy())?;
        Ok(Self { file, document })
    }

    /// Whether an identity may call a method for a tenant, or if none is named, for every one.
    pub(crate) fn allows(
        &self,
        identity: &SpiffeId,
        method: &str,
        tenant: Option<&TenantId>,
    ) -> bool {
        self.document.policy().allows(identity, method, tenant)
    }

    /// The rules as the log names them.
    pub(crate) fn document(&self) -> &PolicyDocument {
        &self.document
    }
}

impl Access {
    pub(crate) fn new(policy: InForce) -> Self {
        Self { in_force: ArcSwap::from_pointee(policy), changing: RwLock::new(()) }
    }

    /// The policy by which questions are answered now.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Keeps a policy in force until what it allows is recorded; nothing if another has taken its
    /// place, so that all is to be decided again.
    pub(crate) async fn hold(&self, decided_by: &Arc<InForce>) -> Option<RwLockReadGuard<'_, ()>> {
        let held = self.changing.read().await;
        Arc::ptr_eq(&self.in_force.load(), decided_by).then_some(held)
    }

    /// Puts another policy in force once `recorded` says that the log names it. Nobody records a lease
    /// in between.
    pub(crate) async fn replace(&self, policy: InForce, recorded: impl Future<Output = bool>) {
        let _alone = self.changing.write().await;
        if recorded.await {
            self.in_force.store(Arc::new(policy));
        }
    }

    /// Whether the caller may call its method for anyone at all.
    pub(crate) fn admit(&self, caller: &Caller) -> Result<(), Why> {
        let policy = self.in_force.load();
        if policy.document.policy().may_call(&caller.identity, caller.method) {
            Ok(())
        } else {
            Err(policy.refusal(caller.method))
        }
    }

    /// Whether the policy asks for a second person for a method.
    pub(crate) fn needs_two_people(&self, method: &str) -> bool {
        self.in_force.load().document.policy().needs_two_people(method)
    }

    /// The one tenant that an identity may act for, if it is one.
    pub(crate) fn sole_tenant(&self, identity: &SpiffeId) -> Option<TenantId> {
        self.in_force.load().document.policy().sole_tenant(identity)
    }

    /// Leave for the caller's method and a tenant.
    pub(crate) fn permit(&self, caller: &Caller, tenant: &TenantId) -> Result<Permit, Why> {
        self.permit_to(caller, caller.method, tenant)
    }

    /// Leave to be lent credentials for a tenant, whichever method the caller calls now.
    pub(crate) fn permit_borrowing(
        &self,
        caller: &Caller,
        tenant: &TenantId,
    ) -> Result<Permit, Why> {
        self.permit_to(caller, "Leases/AcquireLease", tenant)
    }

    fn permit_to(
        &self,
        caller: &Caller,
        method: &'static str,
        tenant: &TenantId,
    ) -> Result<Permit, Why> {
        let policy = self.in_force.load();
        let permit = policy.document.policy().permit(&caller.identity, method, tenant);
        permit.ok_or_else(|| policy.refusal(method))
    }

    /// Leave for the caller's method and every tenant.
    pub(crate) fn permit_all(&self, caller: &Caller) -> Result<(), Why> {
        let policy = self.in_force.load();
        if policy.document.policy().may_call_for_all(&caller.identity, caller.method) {
            return Ok(());
        }
        let mut missing = policy.missing(caller.method);
        missing.for_some = policy.document.policy().may_call(&caller.identity, caller.method);
        Err(Why::NotPermitted(Box::new(missing)))
    }

    /// The refusal of the caller's method, with what it lacks.
    pub(crate) fn refusal(&self, caller: &Caller) -> Why {
        self.in_force.load().refusal(caller.method)
    }

    /// Whether the caller may see a record: its tenant's, or any for who may see all.
    pub(crate) fn shows(&self, caller: &Caller, record: &Record) -> bool {
        self.permit_all(caller).is_ok()
            || record.tenant.parse().is_ok_and(|tenant| self.permit(caller, &tenant).is_ok())
    }
}

impl InForce {
    fn refusal(&self, method: &str) -> Why {
        Why::NotPermitted(Box::new(self.missing(method)))
    }

    fn missing(&self, method: &str) -> Missing {
        Missing {
            permission: method.to_owned(),
            roles: self.file.roles_naming(method),
            ask: self.file.ask().map(str::to_owned),
            for_some: false,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { permission, roles, ask, for_some } = self;
        if *for_some {
            return write!(
                f,
                "you may call `{permission}` for some tenants only: name one, `--tenant`"
            );
        }
        let ask = ask.as_deref().unwrap_or("whoever keeps the broker's access policy");
        write!(f, "no role that you hold allows `{permission}` here; ")?;
        match roles.as_slice() {
            [] => write!(f, "ask {ask}"),
            [role] => write!(f, "ask {ask} for the role {role}"),
            roles => write!(f, "ask {ask} for one of the roles {}", roles.join(", ")),
        }
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

#[cfg(test)]
impl Access {
    /// Rules without a file, for tests of what is done with them.
    pub(crate) fn of(rules: &[domain::AccessRule]) -> Self {
        Self::new(InForce::of(&domain::AccessPolicy::new(rules.to_vec())))
    }
}

#[cfg(test)]
impl InForce {
    /// A policy without a file.
    pub(crate) fn of(policy: &domain::AccessPolicy) -> Self {
        Self { file: PolicyFile::default(), document: PolicyDocument::of(policy).unwrap() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{AccessPolicy, AccessRule, LONGEST_TTL, PLATFORM_METHODS, TWO_PERSON_METHODS};

    use super::*;
    use crate::people::Called;

    #[test]
    fn every_rpc_is_in_the_table() {
        let methods = strongroom_proto::methods();
        assert_eq!(methods.len(), METHODS.len());
        for method in methods {
            assert!(METHODS.iter().any(|(name, _)| *name == method), "{method} has no row");
        }
        for method in PLATFORM_METHODS.iter().chain(TWO_PERSON_METHODS) {
            assert!(METHODS.iter().any(|(name, _)| name == method), "{method} is no method");
        }
    }

    #[test]
    fn a_method_without_a_role_stops_the_start() {
        let services = METHODS.iter().filter_map(|(name, _)| name.split('/').next());
        let services = Vec::from_iter(services.collect::<BTreeSet<_>>());
        let policy = |services: &[&str]| {
            let may: Vec<_> = services.iter().map(|service| format!("\"{service}/*\"")).collect();
            let text = format!("[roles.all]\nsays = \"All.\"\nmay = [{}]", may.join(", "));
            InForce::parse(Path::new("policy.toml"), &text)
        };
        assert!(policy(&services).is_ok());
        let error = policy(&services[1..]).unwrap_err().to_string();
        assert!(error.contains("no role names Approvals/"), "{error}");
    }

    #[test]
    fn who_is_refused_learns_what_is_missing_and_whom_to_ask() {
        let missing = |roles: &[&str], ask: Option<&str>| {
            let roles = roles.iter().map(|&role| role.to_owned()).collect();
            let permission = "Audit/ListRecords".to_owned();
            Missing { permission, roles, ask: ask.map(str::to_owned), for_some: false }.to_string()
        };
        let lacks = "no role that you hold allows `Audit/ListRecords` here; ";
        assert_eq!(
            missing(&["auditor", "owner"], Some("the platform team")),
            format!("{lacks}ask the platform team for one of the roles auditor, owner")
        );
        assert_eq!(
            missing(&[], None),
            format!("{lacks}ask whoever keeps the broker's access policy")
        );
    }

    #[test]
    fn who_leaves_the_tenant_out_is_told_to_name_it() {
        let rule = |tenant: &str| AccessRule {
            role: "auditor".to_owned(),
            identities: vec!["spiffe://a.b/ada".parse().unwrap()],
            methods: vec!["Audit/*".to_owned()],
            tenants: vec![tenant.to_owned()],
            providers: vec!["*".to_owned()],
            longest_lease_seconds: LONGEST_TTL,
        };
        let told = |tenant: &str, method: &'static str| {
            let ada = "spiffe://a.b/ada".parse().unwrap();
            let caller = Caller::new(ada, Called::ById, [1; 32], method, None);
            Access::of(&[rule(tenant)]).permit_all(&caller).err().map(|why| why.public())
        };
        assert_eq!(told("*", "Audit/ListRecords"), None);
        assert!(told("acme", "Audit/ListRecords").unwrap().contains("name one, `--tenant`"));
        // It concerns the whole deployment: no tenant can be named.
        assert!(told("acme", "Audit/CheckRows").unwrap().contains("no role that you hold"));
    }

    #[tokio::test]
    async fn what_another_policy_decided_is_decided_again() {
        let policy = || InForce {
            file: PolicyFile::default(),
            document: PolicyDocument::of(&AccessPolicy::default()).unwrap(),
        };
        let access = Access::new(policy());
        let first = access.in_force();
        access.replace(policy(), async { false }).await;
        assert!(access.hold(&first).await.is_some(), "what is not recorded is not in force");
        access.replace(policy(), async { true }).await;
        assert!(access.hold(&first).await.is_none());
        assert!(access.hold(&access.in_force()).await.is_some());
    }

    #[tokio::test]
    async fn no_policy_takes_the_place_of_one_that_is_held() {
        let policy = || InForce {
            file: PolicyFile::default(),
            document: PolicyDocument::of(&AccessPolicy::default()).unwrap(),
        };
        let access = Access::new(policy());
        let first = access.in_force();
        let held = access.hold(&first).await.unwrap();
        let mut replacing = Box::pin(access.replace(policy(), async { true }));
        assert!(futures_util::poll!(&mut replacing).is_pending());
        assert!(Arc::ptr_eq(&access.in_force(), &first));
        drop(held);
        replacing.await;
        assert!(!Arc::ptr_eq(&access.in_force(), &first));
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
