//! What every KMS promises, run over each of them. AWS KMS is played by whatever answers at
//! `TEST_KMS_ENDPOINT`, and left out when that is not set.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use domain::Uid;
use envelope::{
    AwsConfig, AwsKms, KeyContext, KeyPurpose, Kms, KmsConfig, KmsError, LocalKms, WrappedKey,
};

macro_rules! contract {
    ($($behaviour:ident),+ $(,)?) => {
        mod file {
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour(&*super::file_kms().await).await;
            })+
        }
        mod passphrase {
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour(&*super::passphrase_kms().await).await;
            })+
        }
        mod aws {
            $(#[tokio::test]
            async fn $behaviour() {
                if let Some(kms) = super::aws_kms().await {
                    super::$behaviour(&kms).await;
                }
            })+
        }
    };
}

contract![
    a_key_unwraps_to_what_was_generated,
    no_two_keys_are_alike,
    a_wrapped_key_opens_in_its_own_context_only,
    an_altered_wrapped_key_is_corrupt,
    what_was_never_wrapped_is_corrupt_or_refused,
    a_rewrapped_key_is_the_same_key,
    rewrapping_needs_the_right_context,
    a_new_key_is_wrapped_by_the_key_of_the_status,
    debug_shows_no_key,
];

async fn a_key_unwraps_to_what_was_generated(kms: &dyn Kms) {
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    let stored = WrappedKey::from_bytes(wrapped.as_bytes().to_vec());
    assert_eq!(kms.unwrap(&context(), &stored).await.unwrap().expose(), key.expose());
}

async fn no_two_keys_are_alike(kms: &dyn Kms) {
    let (one, wrapped_one) = kms.generate(&context()).await.unwrap();
    let (other, wrapped_other) = kms.generate(&context()).await.unwrap();
    assert_ne!(one.expose(), other.expose());
    assert_ne!(wrapped_one, wrapped_other);
}

async fn a_wrapped_key_opens_in_its_own_context_only(kms: &dyn Kms) {
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    for wrong in wrong_contexts() {
        let refused = kms.unwrap(&wrong, &wrapped).await;
        assert!(matches!(refused, Err(KmsError::Corrupt)), "{wrong:?}: {refused:?}");
    }
}

async fn an_altered_wrapped_key_is_corrupt(kms: &dyn Kms) {
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    let mut altered = wrapped.as_bytes().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let refused = kms.unwrap(&context(), &WrappedKey::from_bytes(altered)).await;
    assert!(matches!(refused, Err(KmsError::Corrupt)), "{refused:?}");
}

async fn what_was_never_wrapped_is_corrupt_or_refused(kms: &dyn Kms) {
    for bytes in [vec![], vec![0], vec![0; 64], vec![0xff; 256]] {
        let never = WrappedKey::from_bytes(bytes);
        let refused = kms.unwrap(&context(), &never).await;
        assert!(
            matches!(refused, Err(KmsError::Corrupt | KmsError::Refused(_))),
            "{never:?}: {refused:?}"
        );
    }
}

async fn a_rewrapped_key_is_the_same_key(kms: &dyn Kms) {
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    let rewrapped = kms.rewrap(&context(), &wrapped).await.unwrap();
    assert_ne!(rewrapped, wrapped);
    assert_eq!(kms.unwrap(&context(), &rewrapped).await.unwrap().expose(), key.expose());
}

async fn rewrapping_needs_the_right_context(kms: &dyn Kms) {
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    for wrong in wrong_contexts() {
        assert!(matches!(kms.rewrap(&wrong, &wrapped).await, Err(KmsError::Corrupt)), "{wrong:?}");
    }
}

async fn a_new_key_is_wrapped_by_the_key_of_the_status(kms: &dyn Kms) {
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    let status = kms.status().await;
    assert!(status.healthy);
    assert_eq!(kms.wrapped_by(&wrapped), Some(status.key_ref));
}

async fn debug_shows_no_key(kms: &dyn Kms) {
    let (key, _) = kms.generate(&context()).await.unwrap();
    assert_eq!(format!("{key:?}"), "Key(…)");
}

#[tokio::test]
async fn a_key_of_aws_that_is_unknown_or_not_configured_refuses() {
    let Some(endpoint) = endpoint() else { return };
    let (_, key_id) = aws_key(&endpoint).await;
    let kms = AwsKms::new(&config(&endpoint, &key_id)).await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();

    let (_, other) = aws_key(&endpoint).await;
    let elsewhere = AwsKms::new(&config(&endpoint, &other)).await;
    let refused = elsewhere.unwrap(&context(), &wrapped).await;
    assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");

    let unknown = AwsKms::new(&config(&endpoint, "00000000-0000-0000-0000-000000000000")).await;
    let refused = unknown.generate(&context()).await.map(|_| ());
    assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");
    assert!(!unknown.status().await.healthy);
}

#[tokio::test]
async fn a_retired_key_of_aws_unwraps_and_rewrapping_leaves_it() {
    let Some(endpoint) = endpoint() else { return };
    let (_, old) = aws_key(&endpoint).await;
    let (_, new) = aws_key(&endpoint).await;
    let before = AwsKms::new(&config(&endpoint, &old)).await;
    let (key, wrapped) = before.generate(&context()).await.unwrap();
    let after =
        AwsKms::new(&AwsConfig { retired_key_ids: vec![old], ..config(&endpoint, &new) }).await;
    assert_eq!(after.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
    let rewrapped = after.rewrap(&context(), &wrapped).await.unwrap();
    assert_eq!(after.wrapped_by(&rewrapped), Some(format!("aws:{new}")));
    assert_eq!(after.unwrap(&context(), &rewrapped).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_unavailable() {
    // A port that was just free: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kms = AwsKms::new(&config(&format!("http://{free}"), "some-key")).await;
    let refused = kms.generate(&context()).await.map(|_| ());
    assert!(matches!(refused, Err(KmsError::Unavailable(_))), "{refused:?}");
}

fn context() -> KeyContext {
    let uid = |byte| Uid::from_bytes([byte; 16]);
    KeyContext {
        deployment: uid(1),
        owner: uid(2),
        key: uid(3),
        version: 1,
        purpose: KeyPurpose::Kek,
    }
}

fn wrong_contexts() -> [KeyContext; 5] {
    let other = Uid::from_bytes([9; 16]);
    [
        KeyContext { deployment: other, ..context() },
        KeyContext { owner: other, ..context() },
        KeyContext { key: other, ..context() },
        KeyContext { version: 2, ..context() },
        KeyContext { purpose: KeyPurpose::Pepper, ..context() },
    ]
}

async fn file_kms() -> Arc<dyn Kms> {
    let directory = tempfile::tempdir().unwrap();
    let key_file = directory.path().join("root.keyset");
    LocalKms::create_new(&key_file, None).unwrap();
    KmsConfig::Local { key_file, passphrase_file: None }.open().await.unwrap()
}

async fn passphrase_kms() -> Arc<dyn Kms> {
    let directory = tempfile::tempdir().unwrap();
    let passphrase = directory.path().join("passphrase");
    fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o400)).unwrap();
    let key_file = directory.path().join("root.keyset");
    LocalKms::create_new(&key_file, Some(&passphrase)).unwrap();
    KmsConfig::Local { key_file, passphrase_file: Some(passphrase) }.open().await.unwrap()
}

async fn aws_kms() -> Option<AwsKms> {
    let endpoint = endpoint()?;
    let (_, key_id) = aws_key(&endpoint).await;
    Some(AwsKms::new(&config(&endpoint, &key_id)).await)
}

/// A key of its own, made with rights that `AwsKms` does not have.
async fn aws_key(endpoint: &str) -> (aws_sdk_kms::Client, String) {
    let settings = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint)
        .build();
    let client = aws_sdk_kms::Client::from_conf(settings);
    let key = client.create_key().send().await.unwrap();
    (client, key.key_metadata.unwrap().arn.unwrap())
}

fn config(endpoint: &str, key_id: &str) -> AwsConfig {
    AwsConfig {
        key_id: key_id.to_owned(),
        retired_key_ids: Vec::new(),
        region: "us-east-1".to_owned(),
        endpoint_url: Some(endpoint.to_owned()),
    }
}

#[expect(clippy::disallowed_methods, reason = "the test runner names the endpoint this way")]
fn endpoint() -> Option<String> {
    std::env::var("TEST_KMS_ENDPOINT").ok()
}
