use std::time::Duration;

use e2e::{Deployment, Sdk, refused};
use serde_json::Value;
use tokio::time::Instant;

use crate::{OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_blocked_virtual_key_stops_the_next_call_until_it_is_unblocked,
    a_disabled_credential_stops_the_next_call,
    a_lease_outlives_a_restart_of_the_broker,
    a_revoked_virtual_key_stops_the_next_call,
    a_rotated_credential_serves_the_next_call,
    an_old_value_of_a_virtual_key_without_overlap_stops_the_next_call,
];

/// Far less than a lease lasts: what is refused by then was told to the proxy. That it takes less than a
/// second is for `bench revocations` to show, on a machine that does nothing else.
const PUSHED: Duration = Duration::from_secs(20);

async fn a_revoked_virtual_key_stops_the_next_call(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    let (other, _) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.revoke_key(&name).await;
    let got = until_refused(&deployment, &key).await;

    assert_eq!(refused(&got)["class"], "AuthenticationError", "{got}");
    served(&deployment, &other).await;
    deployment.end().await;
}

async fn a_blocked_virtual_key_stops_the_next_call_until_it_is_unblocked(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.block_key(&name).await;
    let got = until_refused(&deployment, &key).await;
    assert_eq!(refused(&got)["class"], "PermissionDeniedError", "{got}");

    deployment.unblock_key(&name).await;
    until(&deployment, &key, |got| refused(got).is_null()).await;
    deployment.end().await;
}

async fn an_old_value_of_a_virtual_key_without_overlap_stops_the_next_call(deployment: Deployment) {
    furnish(&deployment).await;
    let (old, name) = deployment.create_key("acme", &[]).await;
    served(&deployment, &old).await;

    let new = deployment.rotate_key(&old, &name).await;
    let got = until_refused(&deployment, &old).await;

    assert_eq!(refused(&got)["class"], "AuthenticationError", "{got}");
    served(&deployment, &new).await;
    deployment.end().await;
}

async fn a_disabled_credential_stops_the_next_call(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.disable("tenants/acme/credentials/openai-prod").await;
    until_refused(&deployment, &key).await;
    deployment.end().await;
}

async fn a_rotated_credential_serves_the_next_call(deployment: Deployment) {
    const ROTATED: &str = "sk-proj-rotated4Xk9LmQ2vTz7WbRc0NfYh81PdGsJ5";
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.rotate("tenants/acme/credentials/openai-prod", ROTATED).await;
    let newest = || deployment.upstream().seen().last().map(|call| call.key.clone());
    assert_eq!(newest().as_deref(), Some(OPENAI_KEY));
    until(&deployment, &key, |_| newest().as_deref() == Some(ROTATED)).await;
    served(&deployment, &key).await;
    assert_eq!(newest().as_deref(), Some(ROTATED), "and the old one never again");
    deployment.end().await;
}

async fn a_lease_outlives_a_restart_of_the_broker(mut deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    served(&deployment, &key).await;

    deployment.restart_broker().await;
    served(&deployment, &key).await;
    // The proxy has found the broker again, and hears of what happens there.
    deployment.revoke_key(&name).await;
    until_refused(&deployment, &key).await;
    deployment.end().await;
}

/// A call is served, which also puts a lease into the proxy's cache.
async fn served(deployment: &Deployment, key: &str) {
    let got = Sdk::OpenAi.call(deployment, key, "once").await;
    assert_eq!(got["text"], "Hello from upstream.", "{got}");
}

/// Calls until the proxy has heard that it must refuse; then nothing more reaches the provider.
async fn until_refused(deployment: &Deployment, key: &str) -> Value {
    until(deployment, key, |got| refused(got).is_object()).await;
    let before = deployment.upstream().seen().len();
    let got = Sdk::OpenAi.call(deployment, key, "once").await;
    assert!(refused(&got).is_object(), "{got}");
    assert_eq!(deployment.upstream().seen().len(), before);
    got
}

async fn until(deployment: &Deployment, key: &str, done: impl Fn(&Value) -> bool) {
    let changed = Instant::now();
    while !done(&Sdk::OpenAi.call(deployment, key, "once").await) {
        assert!(changed.elapsed() < PUSHED, "the proxy has not heard of it");
    }
}
