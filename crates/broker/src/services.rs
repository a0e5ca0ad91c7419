//! One file for each service of the contract: take the request apart, ask the policy, do the work,
//! answer.

pub(crate) mod audit;
pub(crate) mod budgets;
pub(crate) mod credentials;
pub(crate) mod identities;
pub(crate) mod kms;
pub(crate) mod leases;
pub(crate) mod prices;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod virtual_keys;
