use std::time::Duration;

use e2e::{Deployment, Sdk};
use strongroom_proto::v1::{RotationPlan, rotation::State};

use crate::{OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_bad_new_key_is_set_back_and_no_application_sees_it,
    a_good_new_key_takes_over_while_applications_call,
    a_new_key_that_serves_takes_over_by_itself,
];

const CREDENTIAL: &str = "tenants/acme/credentials/openai-prod";
const NEW: &str = "sk-proj-e2eNewKey7Xk9LmQ2vTz7WbRc0NfYh81PdG";

async fn a_bad_new_key_is_set_back_and_no_application_sees_it(deployment: Deployment) {
    furnish(&deployment).await;
    deployment.upstream().refuse(NEW);
    deployment.start_rotation(CREDENTIAL, NEW, half()).await;
    // Each application has a lease of its own, and every second one is of the new key.
    let rotation = loop {
        served(&deployment).await;
        let rotation = deployment.credential(CREDENTIAL).await.rotation.unwrap();
        if rotation.state() != State::Canary {
            break rotation;
        }
        assert!(with(&deployment, NEW) < 3, "{rotation:?}");
    };
    assert_eq!(rotation.state(), State::RolledBack);
    assert_eq!(rotation.because, "credential_refused");
    assert_eq!(with(&deployment, NEW), 3);
    // From here on nobody shows it to the provider any more.
    for _ in 0..2 {
        served(&deployment).await;
    }
    assert_eq!(with(&deployment, NEW), 3);
    deployment.end().await;
}

async fn a_good_new_key_takes_over_while_applications_call(deployment: Deployment) {
    furnish(&deployment).await;
    deployment.start_rotation(CREDENTIAL, NEW, half()).await;
    for _ in 0..4 {
        served(&deployment).await;
    }
    let old = with(&deployment, OPENAI_KEY);
    assert!(old > 0 && with(&deployment, NEW) > 0, "{:?}", deployment.upstream().seen());
    deployment.promote(CREDENTIAL).await;
    served(&deployment).await;
    deployment.promote(CREDENTIAL).await;
    // The old key is gone; the provider may forget it.
    deployment.upstream().refuse(OPENAI_KEY);
    served(&deployment).await;
    let credential = deployment.credential(CREDENTIAL).await;
    assert_eq!(credential.rotation.unwrap().state(), State::Done);
    assert_eq!(with(&deployment, OPENAI_KEY), old);
    assert_eq!(with(&deployment, NEW), 6 - old);
    deployment.end().await;
}

async fn a_new_key_that_serves_takes_over_by_itself(deployment: Deployment) {
    furnish(&deployment).await;
    let second = Duration::from_secs(1).try_into().ok();
    let plan = RotationPlan { hold: second, overlap: second, ..half() };
    deployment.start_rotation(CREDENTIAL, NEW, plan).await;
    // It was not tested, and nobody calls: its time comes, and it stays where it is.
    let rotation = loop {
        let rotation = deployment.credential(CREDENTIAL).await.rotation.unwrap();
        if rotation.waits {
            break rotation;
        }
        assert_eq!(rotation.state(), State::Canary);
        tokio::task::yield_now().await;
    };
    assert_eq!((rotation.state(), rotation.percent), (State::Canary, 50));
    // The calls that it answers are what it waits for.
    let mut calls = 0;
    while deployment.credential(CREDENTIAL).await.rotation.unwrap().state() != State::Done {
        served(&deployment).await;
        calls += 1;
        assert!(calls < 60);
    }
    assert!(with(&deployment, NEW) > 0);
    deployment.end().await;
}

/// Every second lease is of the new key.
fn half() -> RotationPlan {
    RotationPlan { canary_percent: 50, ..RotationPlan::default() }
}

/// An application of its own calls, and is served.
async fn served(deployment: &Deployment) {
    let (key, _) = deployment.create_key("acme", &[]).await;
    let got = Sdk::OpenAi.call(deployment, &key, "once").await;
    assert_eq!(got["text"], "Hello from upstream.", "{got}");
}

/// How many calls the provider has seen with a key.
fn with(deployment: &Deployment, key: &str) -> usize {
    deployment.upstream().seen().iter().filter(|call| call.key == key).count()
}
