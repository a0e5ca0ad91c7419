//! The words of Strongroom as types, and its pure rules: names, identities, time, secrets, scopes,
//! access and routing. No I/O and no async; what a value promises, it promises from when it is made.

mod access;
mod canonical;
mod clock;
mod lease;
mod name;
mod origin;
mod routing;
mod scope;
mod secret;
mod spiffe;
mod uid;
mod virtual_key;

pub use access::{AccessPolicy, AccessRule, Permit};
pub use canonical::Fields;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use lease::{DEFAULT_TTL, Dialect, LONGEST_TTL, LeaseId, Source, granted_ttl};
pub use name::{
    CredentialId, CredentialName, InvalidName, ProviderId, RequestId, RootName, TenantId,
    VirtualKeyName,
};
pub use origin::{InvalidOrigin, Origin};
pub use routing::{Candidate, NoRoute, OnMissing, Route, RouteRequest, choose_provider, route};
pub use scope::{InvalidPattern, ModelPattern, Scope};
pub use secret::{Key, Secret};
pub use spiffe::{InvalidSpiffeId, SpiffeId, SpiffePattern};
pub use uid::Uid;
pub use virtual_key::{MalformedVirtualKey, VirtualKey, VirtualKeyDigest, VirtualKeyId};
