use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::{AwsKms, KeyFileError, Kms, LocalKms};

/// Which KMS holds the root key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum KmsConfig {
    /// A file on this machine.
    Local {
        /// The key file, made by `strongroom init`; refused if others can read it.
        key_file: PathBuf,
        /// The file with the passphrase that locks the key file, if one does; refused if others
        /// can read it.
        passphrase_file: Option<PathBuf>,
    },
    /// AWS KMS.
    Aws(AwsConfig),
}

impl KmsConfig {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        match self {
            Self::Local { key_file, passphrase_file } => {
                for path in [key_file].into_iter().chain(passphrase_file) {
                    *path = folder.join(&*path);
                }
            }
            Self::Aws(_) => {}
        }
    }

    /// Opens the KMS. A local key file is read now; AWS is asked when a key is needed.
    pub async fn open(&self) -> Result<Arc<dyn Kms>, KeyFileError> {
        match self {
            Self::Local { key_file, passphrase_file } => {
                let (path, passphrase) = (key_file.clone(), passphrase_file.clone());
                // Argon2id takes some hundred milliseconds.
                let opened = tokio::task::spawn_blocking(move || {
                    LocalKms::open(&path, passphrase.as_deref())
                });
                let kms = opened.await.map_err(|error| {
                    KeyFileError::Io(key_file.clone(), std::io::Error::other(error))
                })??;
                Ok(Arc::new(kms))
            }
            Self::Aws(config) => Ok(Arc::new(AwsKms::new(config).await)),
        }
    }
}

/// A symmetric key in AWS KMS. Credentials come from where AWS SDKs find them; the role needs
/// `kms:GenerateDataKey`, `kms:Decrypt` and `kms:ReEncrypt*`, best with a condition on the
/// encryption context.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    /// The key's ARN, under which new keys are wrapped.
    pub key_id: String,
    /// Keys used before, under which stored keys may still be wrapped until they are rewrapped.
    #[serde(default)]
    pub retired_key_ids: Vec<String>,
    /// The region.
    pub region: String,
    /// Another address than the region's own, such as a VPC endpoint.
    pub endpoint_url: Option<String>,
}
