use crate::{CredentialId, Detection, Dialect, ProviderId, Readiness, Scope, Source};

mod explain;
mod planner;
mod policy;

pub use explain::{Because, PassedOver, Step};
pub use planner::plan;
pub use policy::{
    CustomRule, Fallback, FallbackRule, KeylessRule, OnMissing, RoutingPolicy, RoutingRules,
    WhenMissing,
};

/// What a call asks for.
#[derive(Clone, Debug)]
pub struct RouteRequest<'a> {
    /// The model as the caller wrote it, perhaps with a `provider/` in front; empty when the call
    /// names none.
    pub written: &'a str,
    /// The model without a `provider/` in front.
    pub model: &'a str,
    /// The provider that the call names itself, by its path or in front of the model.
    pub named: Option<&'a ProviderId>,
    /// Whether it is named by the path: then the call is in that provider's own format.
    pub by_path: bool,
    /// What the name as written says about who serves it.
    pub detected: &'a Detection,
    /// In which format the caller speaks.
    pub dialect: Dialect,
    /// What the caller's virtual key may reach.
    pub scope: &'a Scope,
}

/// A credential as routing sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name within its tenant.
    pub name: CredentialId,
    /// Its provider.
    pub provider: ProviderId,
    /// Whether it may be leased.
    pub enabled: bool,
    /// Lower numbers are tried first.
    pub priority: i32,
    /// The models of a `custom` endpoint.
    pub models: Vec<String>,
    /// Whether its provider serves the dialect of the call.
    pub serves_dialect: bool,
    /// Whether it works, as far as is known.
    pub readiness: Readiness,
    /// The same, when no other one stands in for it.
    pub alone: Readiness,
}

/// One credential that a call may go out with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// Whose list of credentials it is in: the tenant's or, for managed and keyless, the platform's.
    pub source: Source,
    /// Its place in that list.
    pub index: usize,
    /// Its name within its tenant.
    pub credential: CredentialId,
    /// Its provider.
    pub provider: ProviderId,
    /// The model that the provider is asked for; empty when the call names none.
    pub model: String,
    /// Why it stands where it does.
    pub because: Because,
    /// Whether the credential rested and this call is to see if it works again.
    pub is_probe: bool,
}

/// The credentials that a call may go out with, in the order in which they are tried. Never empty,
/// and nothing is ever added to it: what is not in here, the tenant's policy did not name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// What is tried first.
    pub first: Attempt,
    /// What is tried when those before it failed.
    pub rest: Vec<Attempt>,
}

impl Plan {
    /// The attempt at this place.
    pub fn get(&self, at: usize) -> Option<&Attempt> {
        at.checked_sub(1).map_or(Some(&self.first), |at| self.rest.get(at))
    }

    /// All of them, in order.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

/// What came of planning, with how it came about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Every step to the decision, in order.
    pub steps: Vec<Step>,
    /// The decision.
    pub outcome: Result<Plan, NoRoute>,
}

/// Why there is no route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoRoute {
    /// Neither the request nor the model's name nor the tenant says which provider.
    UnknownModel,
    /// Several providers serve such models, and the tenant has credentials for more than one.
    Ambiguous(Vec<ProviderId>),
    /// The tenant has no credential for this provider, and its policy allows no other.
    NoCredential(ProviderId),
    /// The tenant has no credential for any of these, and its policy allows no other.
    NoCredentialOfAny(Vec<ProviderId>),
    /// There are credentials, but none of them is enabled.
    AllDisabled(ProviderId),
    /// There are credentials, but all of them rest after failures, this one the shortest.
    AllResting {
        /// Whose credentials they are.
        provider: ProviderId,
        /// When the first of them may be asked again.
        until: crate::Timestamp,
        /// What that one rests from.
        why: crate::Failure,
    },
    /// The provider does not serve the dialect of the call.
    DialectNotServed(ProviderId),
    /// The virtual key may not reach this provider.
    ProviderNotInScope(ProviderId),
    /// The virtual key may not reach this model.
    ModelNotInScope(String),
}

/// The slug of a tenant's own endpoint.
const CUSTOM: &str = "custom";

#[cfg(test)]
mod tests;
