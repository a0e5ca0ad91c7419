use e2e::{Deployment, Sdk};
use strongroom_proto::v1::rotation::State;

use crate::{OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_bad_new_key_is_set_back_and_no_application_sees_it,
    a_good_new_key_takes_over_while_applications_call,
];

const CREDENTIAL: &str = "tenants/acme/credentials/openai-prod";
const NEW: &str = "sk-proj-e2eNewKey7Xk9LmQ2vTz7WbRc0NfYh81PdG";

async fn a_bad_new_key_is_set_back_and_no_application_sees_it(deployment: Deployment) {
    furnish(&deployment).await;
    deployment.upstream().refuse(NEW);
    deployment.start_rotation(CREDENTIAL, NEW, 50).await;
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
    deployment.start_rotation(CREDENTIAL, NEW, 50).await;
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
