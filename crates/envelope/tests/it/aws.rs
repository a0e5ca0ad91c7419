//! AWS KMS, played by moto.

use std::{net::TcpListener, sync::Arc};

use async_trait::async_trait;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use envelope::{AwsConfig, AwsKms, Kms, KmsError};
use tokio::net::TcpSocket;

use crate::{Remote, Stand, block_on, context, gate::Gate, provided};

crate::contract::contract!(remote with_moto);

struct Account {
    endpoint: String,
    config: AwsConfig,
    kms: AwsKms,
    gate: Gate,
    silent: TcpListener,
}

#[async_trait]
impl Stand for Account {
    fn kms(&self) -> &dyn Kms {
        &self.kms
    }

    async fn rotate(&mut self) {
        let new = new_key(&self.endpoint).await;
        let old = std::mem::replace(&mut self.config.key_id, new);
        self.config.retired_key_ids.push(old);
        self.kms = AwsKms::new(&self.config).await;
    }
}

#[async_trait]
impl Remote for Account {
    async fn disable(&mut self) {
        self.gate.set_closed(true);
    }

    async fn enable(&mut self) {
        self.gate.set_closed(false);
    }

    async fn silent(&self) -> Arc<dyn Kms> {
        let address = format!("http://{}", self.silent.local_addr().unwrap());
        let config = AwsConfig { endpoint_url: Some(address), ..self.config.clone() };
        Arc::new(AwsKms::new(&config).await)
    }
}

fn with_moto(_: &str, test: impl AsyncFnOnce(&mut Account)) {
    let Some(endpoint) = provided("TEST_KMS_ENDPOINT") else { return };
    block_on(async {
        let gate = Gate::before(endpoint.trim_start_matches("http://").to_owned()).await;
        let config = config(&format!("http://{}", gate.address), &new_key(&endpoint).await);
        let kms = AwsKms::new(&config).await;
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        test(&mut Account { endpoint, config, kms, gate, silent }).await;
    });
}

#[test]
fn a_key_that_is_unknown_or_not_configured_refuses() {
    with_moto("", async |account| {
        let (_, wrapped) = account.kms.generate(&context()).await.unwrap();
        let other = new_key(&account.endpoint).await;
        let elsewhere = AwsKms::new(&config(&account.endpoint, &other)).await;
        let refused = elsewhere.unwrap(&context(), &wrapped).await;
        assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");

        let nowhere = "00000000-0000-0000-0000-000000000000";
        let unknown = AwsKms::new(&config(&account.endpoint, nowhere)).await;
        let refused = unknown.generate(&context()).await;
        assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");
        assert!(!unknown.status().await.healthy);
    });
}

#[test]
fn an_address_where_nobody_listens_is_unavailable() {
    block_on(async {
        // Bound and not listening: nobody answers there, and nobody else can.
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", bound.local_addr().unwrap());
        let kms = AwsKms::new(&config(&endpoint, "some-key")).await;
        let refused = kms.generate(&context()).await;
        assert!(matches!(refused, Err(KmsError::Unavailable(_))), "{refused:?}");
    });
}

/// A key of its own, made with rights that `AwsKms` does not have.
async fn new_key(endpoint: &str) -> String {
    let settings = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
        .build();
    let client = aws_sdk_kms::Client::from_conf(settings);
    let key = client.create_key().send().await.unwrap();
    key.key_metadata.unwrap().arn.unwrap()
}

fn config(endpoint: &str, key_id: &str) -> AwsConfig {
    AwsConfig {
        key_id: key_id.to_owned(),
        retired_key_ids: Vec::new(),
        region: "us-east-1".to_owned(),
        endpoint_url: Some(endpoint.to_owned()),
    }
}
