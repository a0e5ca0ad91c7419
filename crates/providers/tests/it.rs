//! What the catalogue says of each provider, compared with what the vendors' own packages and pages do.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::sync::LazyLock;

use providers::{Catalogue, Provider};

#[path = "it/catalogue.rs"]
mod endpoints;
#[path = "it/facts.rs"]
mod facts;
#[path = "it/failures.rs"]
mod failures;
#[path = "it/manual.rs"]
mod manual;
#[path = "it/models.rs"]
mod models;
#[path = "it/places.rs"]
mod places;
#[path = "it/replaced.rs"]
mod replaced;
#[path = "it/secrets.rs"]
mod secrets;
#[path = "it/targets.rs"]
mod targets;
#[path = "it/verdicts.rs"]
mod verdicts;

/// Read once: compiling its rules for each row of each table would take most of the time.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::builtin().unwrap());

fn catalogue() -> Catalogue {
    CATALOGUE.clone()
}

fn provider(slug: &str) -> Provider {
    catalogue().provider(&slug.parse().unwrap()).unwrap().clone()
}
