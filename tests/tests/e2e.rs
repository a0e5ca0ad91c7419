//! The whole system, as its users see it: official SDKs call a real proxy that leases from a real
//! broker. Every test runs on both stacks, and ends with the verification of its log.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

#[path = "e2e/budgets.rs"]
mod budgets;
#[path = "e2e/certificates.rs"]
mod certificates;
#[path = "e2e/erasure.rs"]
mod erasure;
#[path = "e2e/exchange.rs"]
mod exchange;
#[path = "e2e/key_tests.rs"]
mod key_tests;
#[path = "e2e/plaintext.rs"]
mod plaintext;
#[path = "e2e/providers.rs"]
mod providers;
#[path = "e2e/record.rs"]
mod record;
#[path = "e2e/revocation.rs"]
mod revocation;
#[path = "e2e/rotation.rs"]
mod rotation;
#[path = "e2e/routes.rs"]
mod routes;
#[path = "e2e/rows.rs"]
mod rows;
#[path = "e2e/sdks.rs"]
mod sdks;

use e2e::{Deployment, NewCredential};

/// Makes of each function a test on each stack. Without what a stack needs there is nothing to test
/// on; `tests/run` provides it all.
macro_rules! on_both_stacks {
    ($($name:ident),+ $(,)?) => {
        mod embedded { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() { crate::on(e2e::Backing::Embedded, super::$name).await; }
        )+ }
        mod scaled { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() { crate::on(e2e::Backing::Scaled, super::$name).await; }
        )+ }
    };
}
pub(crate) use on_both_stacks;

pub(crate) async fn on(backing: e2e::Backing, test: impl AsyncFnOnce(Deployment)) {
    if backing.is_available() {
        test(Deployment::start(backing).await).await;
    } else {
        eprintln!("not tested on this stack: run tests/run");
    }
}

/// A deployment with one tenant, `acme`, that has a key of `OpenAI` and one of Anthropic.
pub(crate) async fn furnish(deployment: &Deployment) {
    deployment.create_tenant("acme").await;
    for (id, provider, secret) in
        [("openai-prod", "openai", OPENAI_KEY), ("anthropic-prod", "anthropic", ANTHROPIC_KEY)]
    {
        let new = NewCredential { tenant: "acme", id, provider, secret };
        deployment.store(new).await.unwrap();
    }
}

pub(crate) const OPENAI_KEY: &str = "sk-proj-e2eQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAo";
pub(crate) const ANTHROPIC_KEY: &str = "sk-ant-api03-e2eW4kXn8RtLq27VbMz05HcFyPjS19dGoU";
