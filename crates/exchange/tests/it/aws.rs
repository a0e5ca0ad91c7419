//! Against moto in its strict mode, which checks each signature and permission. It is named by
//! `TEST_STS_ENDPOINT`; without that variable there is nothing to test against.

use std::{process::Command, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{Clock, Secret, SystemClock};
use exchange::{AwsIdentity, AwsKeys, ExchangeError, Minter, Order, Token};
use providers::{CredentialKind, Verdict};
use serde::Deserialize;

use crate::world::{Scripted, at_this_machine, json, order, text, word};

/// What `tests/clients/new_sts_role.py` has made at moto: a user for the broker, one for the customer,
/// a role that asks for an external id, and one that does not.
#[derive(Clone, Debug, Deserialize)]
struct Made {
    broker: Keys,
    customer: Keys,
    role_arn: String,
    own_role_arn: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
}

#[derive(Debug)]
struct Identity(Option<Keys>);

#[async_trait]
impl AwsIdentity for Identity {
    async fn keys(&self) -> Option<AwsKeys> {
        let keys = self.0.clone()?;
        Some(AwsKeys {
            access_key_id: keys.access_key_id,
            secret_access_key: Secret::new(keys.secret_access_key.into_bytes()),
            session_token: None,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the test runner names the endpoint this way")]
fn moto() -> Option<(String, Made)> {
    let endpoint = std::env::var("TEST_STS_ENDPOINT").ok()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/new_sts_role.py");
    let made = Command::new(std::env::var("TEST_PYTHON").unwrap()).arg(script).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some((endpoint, serde_json::from_slice(&made.stdout).unwrap()))
}

async fn mint(order: &Order, broker: Option<Keys>) -> Result<Token, ExchangeError> {
    let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
    let identity = Arc::new(Identity(broker)) as Arc<dyn AwsIdentity>;
    Minter::new(at_this_machine(), clock, Some(identity)).mint(order).await
}

fn role(endpoint: &str, arn: &str, external_id: &str) -> Order {
    let settings = format!("region=us-east-1 role_arn={arn}");
    let mut order = order("bedrock", CredentialKind::AwsRole, &settings, external_id);
    order.minting.url = Some(format!("{endpoint}/"));
    order.lifetime = Duration::from_mins(15);
    order
}

/// The presigned address that a short-term key is.
fn inside(token: &Token) -> String {
    let key = text(token).strip_prefix("bedrock-api-key-").unwrap();
    String::from_utf8(BASE64_STANDARD.decode(key).unwrap()).unwrap()
}

#[tokio::test]
async fn a_role_is_taken_with_its_external_id_and_becomes_a_key_of_bedrock() {
    let Some((endpoint, made)) = moto() else { return };
    let good = role(&endpoint, &made.role_arn, "customer-42");
    let token = mint(&good, Some(made.broker.clone())).await.unwrap();
    assert_eq!(token.lifetime(), Duration::from_mins(15));
    let inside = inside(&token);
    assert!(inside.starts_with("bedrock.amazonaws.com/?Action=CallWithBearerToken&"), "{inside}");
    // The role's keys and not the broker's sign it, for as long as they live.
    assert!(inside.contains("Credential=ASIA") && inside.contains("&X-Amz-Security-Token="));
    assert!(inside.contains("X-Amz-Expires=900") && !inside.contains(&made.broker.access_key_id));

    // With another external id the role is not to be had.
    let wrong = role(&endpoint, &made.role_arn, "customer-43");
    let error = mint(&wrong, Some(made.broker.clone())).await.unwrap_err();
    assert_eq!(word(&error, &["customer-43"]), "region_or_permission", "{error}");

    // Keys that AWS does not accept are the broker's fault and no credential's.
    let mut forged = made.broker.clone();
    forged.secret_access_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned();
    let error = mint(&good, Some(forged)).await.unwrap_err();
    assert!(
        matches!(&error, ExchangeError::OwnIdentity { code } if code == "SignatureDoesNotMatch")
    );
    let error = mint(&good, None).await.unwrap_err();
    assert!(matches!(error, ExchangeError::NoIdentity));

    // The customer's own user takes the role too, and its keys are the customer's.
    let settings =
        |id: &str| format!("region=us-east-1 role_arn={} access_key_id={id}", made.own_role_arn);
    let mut own = order(
        "bedrock",
        CredentialKind::AwsAccessKey,
        &settings(&made.customer.access_key_id),
        &made.customer.secret_access_key,
    );
    own.minting.url = Some(format!("{endpoint}/"));
    own.lifetime = Duration::from_mins(15);
    let token = mint(&own, None).await.unwrap();
    assert!(self::inside(&token).contains("Credential=ASIA"));
    own.secret = Secret::new(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec());
    let error = mint(&own, None).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Invalid, "{error}");
}

#[tokio::test]
async fn a_users_key_becomes_a_key_of_bedrock_without_a_call() {
    let courier = Scripted::new(|_| json(500, ""));
    let order = order(
        "bedrock",
        CredentialKind::AwsAccessKey,
        "region=us-east-1 access_key_id=AKIAEXAMPLEEXAMPLE00",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    );
    let token = crate::world::mint(&courier, &order).await.unwrap();
    assert!(courier.seen().is_empty());
    let inside = inside(&token);
    assert!(inside.contains("&X-Amz-Date=20260102T030405Z&X-Amz-Expires=3600&"), "{inside}");
    assert!(!inside.contains("wJalr"));
}
