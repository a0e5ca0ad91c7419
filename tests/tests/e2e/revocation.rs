use std::time::Duration;

use e2e::{Deployment, Sdk, refused};
use tokio::time::{Instant, sleep_until};

use crate::{OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_blocked_virtual_key_stops_the_next_call_until_it_is_unblocked,
    a_disabled_credential_stops_the_next_call,
    a_lease_outlives_a_restart_of_the_broker,
    a_revoked_virtual_key_stops_the_next_call,
    a_rotated_credential_serves_the_next_call,
    an_old_value_of_a_virtual_key_without_overlap_stops_the_next_call,
];

/// The stated bound: from the answer to a revocation to the last use of what it revoked.
const BOUND: Duration = Duration::from_secs(1);

async fn a_revoked_virtual_key_stops_the_next_call(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    let (other, _) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.revoke_key(&name).await;
    within_the_bound().await;
    let got = Sdk::OpenAi.call(&deployment, &key, "once").await;

    assert_eq!(refused(&got)["class"], "AuthenticationError", "{got}");
    assert_eq!(deployment.upstream().seen().len(), 1);
    served(&deployment, &other).await;
    deployment.end().await;
}

async fn a_blocked_virtual_key_stops_the_next_call_until_it_is_unblocked(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.block_key(&name).await;
    within_the_bound().await;
    let got = Sdk::OpenAi.call(&deployment, &key, "once").await;
    assert_eq!(refused(&got)["class"], "PermissionDeniedError", "{got}");
    assert_eq!(deployment.upstream().seen().len(), 1);

    deployment.unblock_key(&name).await;
    // For as long the proxy repeats a refusal without asking.
    within_the_bound().await;
    served(&deployment, &key).await;
    deployment.end().await;
}

async fn an_old_value_of_a_virtual_key_without_overlap_stops_the_next_call(deployment: Deployment) {
    furnish(&deployment).await;
    let (old, name) = deployment.create_key("acme", &[]).await;
    served(&deployment, &old).await;

    let new = deployment.rotate_key(&old, &name).await;
    within_the_bound().await;
    let got = Sdk::OpenAi.call(&deployment, &old, "once").await;

    assert_eq!(refused(&got)["class"], "AuthenticationError", "{got}");
    assert_eq!(deployment.upstream().seen().len(), 1);
    served(&deployment, &new).await;
    deployment.end().await;
}

async fn a_disabled_credential_stops_the_next_call(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.disable("tenants/acme/credentials/openai-prod").await;
    within_the_bound().await;
    let got = Sdk::OpenAi.call(&deployment, &key, "once").await;

    assert!(refused(&got).is_object(), "{got}");
    assert_eq!(deployment.upstream().seen().len(), 1);
    deployment.end().await;
}

async fn a_rotated_credential_serves_the_next_call(deployment: Deployment) {
    const ROTATED: &str = "sk-proj-rotated4Xk9LmQ2vTz7WbRc0NfYh81PdGsJ5";
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.rotate("tenants/acme/credentials/openai-prod", ROTATED).await;
    within_the_bound().await;
    served(&deployment, &key).await;

    let keys = deployment.upstream().seen().into_iter().map(|call| call.key).collect::<Vec<_>>();
    assert_eq!(keys, [OPENAI_KEY, ROTATED]);
    deployment.end().await;
}

async fn a_lease_outlives_a_restart_of_the_broker(mut deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.restart_broker().await;
    served(&deployment, &key).await;
    // The proxy has found the broker again, and hears of what happens there.
    let revoked = Instant::now();
    deployment.revoke_key(&name).await;
    while refused(&Sdk::OpenAi.call(&deployment, &key, "once").await).is_null() {
        assert!(revoked.elapsed() < Duration::from_secs(20), "the revocation was not heard");
    }
    deployment.end().await;
}

/// A call is served, which also puts a lease into the proxy's cache.
async fn served(deployment: &Deployment, key: &str) {
    let got = Sdk::OpenAi.call(deployment, key, "once").await;
    assert_eq!(got["text"], "Hello from upstream.", "{got}");
}

/// The passing of the bound is what the promise is about; it is not a wait for something.
async fn within_the_bound() {
    sleep_until(Instant::now() + BOUND).await;
}
