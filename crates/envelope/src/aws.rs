use std::{collections::HashMap, error::Error, fmt, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
    types::DataKeySpec,
};
use domain::{Key, Uid};
use zeroize::Zeroizing;

use crate::{
    AwsConfig, KeyContext, KeyPurpose, Kms, KmsError, KmsStatus, WrappedKey,
    kms::{ATTEMPT, DEADLINE},
};

/// AWS KMS: each key is wrapped under a key that never leaves it, with the [`KeyContext`] as
/// encryption context.
///
/// A call is tried twice, 800 ms each; it needs a Tokio runtime.
pub struct AwsKms {
    client: Client,
    key_id: String,
    retired_key_ids: Vec<String>,
}

const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

impl AwsKms {
    /// A client of the key. Nothing is asked of AWS yet.
    pub async fn new(config: &AwsConfig) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(ATTEMPT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(DEADLINE)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(2)
            .with_initial_backoff(BETWEEN_ATTEMPTS)
            .with_max_backoff(BETWEEN_ATTEMPTS);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .timeout_config(timeouts)
            .retry_config(retries);
        if let Some(url) = &config.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        Self {
            client: Client::new(&loader.load().await),
            key_id: config.key_id.clone(),
            retired_key_ids: config.retired_key_ids.clone(),
        }
    }

    /// The wrapping key's id and AWS's blob. Only a key that the configuration names is asked to
    /// unwrap: or else whoever writes to the database could make us use a key of theirs.
    fn parse<'a>(&self, wrapped: &'a WrappedKey) -> Result<(&'a str, Blob), KmsError> {
        let (key_id, blob) = split(wrapped).ok_or(KmsError::Corrupt)?;
        if key_id != self.key_id && !self.retired_key_ids.iter().any(|retired| retired == key_id) {
            return Err(KmsError::refused("the key was wrapped by one that is not configured"));
        }
        Ok((key_id, Blob::new(blob)))
    }

    fn join(&self, blob: Option<Blob>) -> Result<WrappedKey, KmsError> {
        let blob = blob.ok_or_else(|| KmsError::unavailable("an answer without a blob"))?;
        let length = u16::try_from(self.key_id.len()).map_err(KmsError::refused)?;
        let parts = [&length.to_be_bytes(), self.key_id.as_bytes(), blob.as_ref()];
        Ok(WrappedKey::from_bytes(parts.concat()))
    }
}

#[async_trait]
impl Kms for AwsKms {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let answer = self
            .client
            .generate_data_key()
            .key_id(&self.key_id)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(encryption_context(context)))
            .send()
            .await
            .map_err(sorted)?;
        Ok((take_key(answer.plaintext)?, self.join(answer.ciphertext_blob)?))
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        let answer = self
            .client
            .encrypt()
            .key_id(&self.key_id)
            .plaintext(Blob::new(key.expose()))
            .set_encryption_context(Some(encryption_context(context)))
            .send()
            .await
            .map_err(sorted)?;
        self.join(answer.ciphertext_blob)
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let (key_id, blob) = self.parse(wrapped)?;
        let answer = self
            .client
            .decrypt()
            .key_id(key_id)
            .ciphertext_blob(blob)
            .set_encryption_context(Some(encryption_context(context)))
            .send()
            .await
            .map_err(sorted)?;
        take_key(answer.plaintext)
    }

    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        let (key_id, blob) = self.parse(wrapped)?;
        let context = encryption_context(context);
        let answer = self
            .client
            .re_encrypt()
            .source_key_id(key_id)
            .ciphertext_blob(blob)
            .set_source_encryption_context(Some(context.clone()))
            .destination_key_id(&self.key_id)
            .set_destination_encryption_context(Some(context))
            .send()
            .await
            .map_err(sorted)?;
        self.join(answer.ciphertext_blob)
    }

    /// Makes a key and throws it away: the role may do nothing cheaper.
    async fn status(&self) -> KmsStatus {
        let nobody = Uid::from_bytes([0; 16]);
        let probe = KeyContext {
            deployment: nobody,
            owner: nobody,
            key: nobody,
            version: 0,
            purpose: KeyPurpose::Kek,
        };
        KmsStatus { key_ref: key_ref(&self.key_id), healthy: self.generate(&probe).await.is_ok() }
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        split(wrapped).map(|(key_id, _)| key_ref(key_id))
    }
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsKms({})", self.key_id)
    }
}

fn key_ref(key_id: &str) -> String {
    format!("aws:{key_id}")
}

/// `u16 length ‖ key id ‖ blob`.
fn split(wrapped: &WrappedKey) -> Option<(&str, &[u8])> {
    let (length, rest) = wrapped.as_bytes().split_first_chunk()?;
    let (key_id, blob) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((std::str::from_utf8(key_id).ok()?, blob))
}

fn encryption_context(context: &KeyContext) -> HashMap<String, String> {
    [
        ("deployment", context.deployment.to_string()),
        ("owner", context.owner.to_string()),
        ("key", context.key.to_string()),
        ("version", context.version.to_string()),
        ("purpose", context.purpose.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn take_key(blob: Option<Blob>) -> Result<Key, KmsError> {
    let blob = blob.ok_or_else(|| KmsError::unavailable("an answer without a key"))?;
    let bytes = Zeroizing::new(blob.into_inner());
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(KmsError::Corrupt);
    }
    key.copy_from_slice(&bytes);
    Ok(Key::take(&mut key))
}

/// Sorted by who can do something about it; the codes are those of the four calls.
fn sorted<E, R>(error: SdkError<E, R>) -> KmsError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some("InvalidCiphertextException" | "IncorrectKeyException") => KmsError::Corrupt,
        Some(
            "AccessDeniedException"
            | "DisabledException"
            | "NotFoundException"
            | "InvalidKeyUsageException"
            | "InvalidArnException"
            | "KMSInvalidStateException"
            | "ValidationException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException"
            | "MissingAuthenticationTokenException",
        ) => KmsError::refused(error),
        // Throttling, a fault of theirs, or no answer at all.
        Some(_) | None => KmsError::unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::{error::ErrorMetadata, operation::decrypt::DecryptError};

    use super::*;

    fn answered(code: &str) -> KmsError {
        let metadata = ErrorMetadata::builder().code(code).build();
        sorted(SdkError::service_error(DecryptError::generic(metadata), ()))
    }

    #[test]
    fn errors_are_sorted_by_who_can_do_something_about_them() {
        for code in ["InvalidCiphertextException", "IncorrectKeyException"] {
            assert!(matches!(answered(code), KmsError::Corrupt), "{code}");
        }
        for code in [
            "AccessDeniedException",
            "DisabledException",
            "NotFoundException",
            "KMSInvalidStateException",
        ] {
            assert!(matches!(answered(code), KmsError::Refused(_)), "{code}");
        }
        for code in [
            "ThrottlingException",
            "DependencyTimeoutException",
            "KMSInternalException",
            "KeyUnavailableException",
            "SomethingNewException",
        ] {
            assert!(matches!(answered(code), KmsError::Unavailable(_)), "{code}");
        }
        let timeout = SdkError::<DecryptError, ()>::timeout_error("too late");
        assert!(matches!(sorted(timeout), KmsError::Unavailable(_)));
    }

    #[test]
    fn the_encryption_context_holds_opaque_ids_only() {
        let uid = |byte| Uid::from_bytes([byte; 16]);
        let context = KeyContext {
            deployment: uid(1),
            owner: uid(2),
            key: uid(3),
            version: 4,
            purpose: KeyPurpose::Pepper,
        };
        let encoded = encryption_context(&context);
        assert_eq!(encoded.len(), 5);
        assert_eq!(encoded["owner"], "02".repeat(16));
        assert_eq!(encoded["version"], "4");
        assert_eq!(encoded["purpose"], "pepper");
    }
}
