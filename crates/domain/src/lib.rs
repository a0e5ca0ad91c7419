//! The words of Strongroom as types, and its pure rules: names, identities, time, secrets, scopes,
//! access and routing. No I/O and no async; what a value promises, it promises from when it is made.

mod access;
mod budget;
mod canonical;
mod clock;
mod detection;
mod failure;
mod health;
mod key_terms;
mod lease;
mod money;
mod name;
mod origin;
mod policy_file;
mod rotation;
mod routing;
mod ruling;
mod scope;
mod secret;
mod spiffe;
mod tokens;
mod uid;
mod virtual_key;

pub use access::{
    ADMIT_POLICY, AccessPolicy, AccessRule, PLATFORM_METHODS, Permit, TWO_PERSON_METHODS,
};
pub use budget::{
    Account, AccountKey, Allowance, Amounts, Bucket, Budget, BudgetHolder, Exhausted, Hold,
    InvalidBudget, InvalidZone, Ledger, LedgerError, Limit, Mode, Over, Period, Place, Quantity,
    RateLimits, RateView, Reservation, ReservationState, Settled, Settlement, Spending, Sums,
    Ticket, Unit, Window, Zone, slice_size,
};
pub use canonical::Fields;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use detection::Detection;
pub use failure::Failure;
pub use health::{Health, PROBE_ANSWERS, Readiness, Rest};
pub use key_terms::{
    EndpointKind, InvalidLabel, KeyTerms, KeyUse, LabelName, LabelText, ScopeRefusal, parse_network,
};
pub use lease::{DEFAULT_TTL, Dialect, LONGEST_TTL, LeaseId, Source, granted_ttl};
pub use money::{Cost, InvalidMoney, Money};
pub use name::{
    BudgetId, BudgetName, CredentialId, CredentialName, GroupId, InvalidName, ProviderId,
    RequestId, RootName, TenantId, VirtualKeyName,
};
pub use origin::{InvalidOrigin, Origin};
pub use policy_file::{PolicyFault, PolicyFile, RoleText};
pub use rotation::{Fare, Fares, Rotation, RotationPlan, RotationState, SetBack, Turns};
pub use routing::{
    Attempt, Because, Candidate, CustomRule, Decision, Fallback, FallbackRule, KeylessRule,
    NoRoute, OnMissing, PassedOver, Plan, RouteRequest, RoutingPolicy, RoutingRules, Step,
    WhenMissing, plan,
};
pub use ruling::{Question, Ruling};
pub use scope::{InvalidPattern, ModelPattern, Scope, is_model_name};
pub use secret::{Key, Secret};
pub use spiffe::{InvalidSpiffeId, SpiffeId, SpiffePattern};
pub use tokens::Tokens;
pub use uid::Uid;
pub use virtual_key::{MalformedVirtualKey, VirtualKey, VirtualKeyDigest, VirtualKeyId};
