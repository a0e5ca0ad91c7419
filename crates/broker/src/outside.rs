use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use domain::Secret;
use egress::{AddressRules, Exit, SystemResolver, client_tls};
use exchange::{AwsIdentity, AwsKeys};
use serde::Deserialize;
use tokio::fs;

use crate::config::{AwsConfig, EgressConfig};

#[cfg(test)]
pub(crate) mod scripted;

/// The guarded way out to providers and their token services.
pub(crate) fn exit(config: &EgressConfig) -> anyhow::Result<Arc<Exit>> {
    Ok(Arc::new(Exit {
        rules: AddressRules::new(config.allow.clone())
            .with_danger_plain_http_to_loopback(config.danger_plain_http_to_loopback),
        resolver: Arc::new(SystemResolver),
        tls: client_tls(config.ca.as_deref())
            .context("[egress]: name the authorities of providers' certificates as `ca`")?,
        connect_timeout: config.connect_timeout,
    }))
}

/// Who the broker is at AWS, if it is anybody.
pub(crate) async fn aws(
    config: Option<&AwsConfig>,
) -> anyhow::Result<Option<Arc<dyn AwsIdentity>>> {
    match config {
        Some(config) => AwsFile::open(config).await.map(Some),
        None => Ok(None),
    }
}

/// Who the broker is at AWS, by a file that is read each time: whoever renews the keys replaces it.
#[derive(Debug)]
struct AwsFile(PathBuf);

/// What AWS's own tools write and read between each other (`credential_process`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
}

impl AwsFile {
    /// Refuses a file that cannot be used.
    async fn open(config: &AwsConfig) -> anyhow::Result<Arc<dyn AwsIdentity>> {
        let file = Self(config.identity_file.clone());
        file.read().await.context("[aws]")?;
        Ok(Arc::new(file))
    }

    async fn read(&self) -> anyhow::Result<AwsKeys> {
        let place = self.0.display();
        let metadata = fs::metadata(&self.0).await.with_context(|| format!("reading {place}"))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            bail!("{place} can be read by others; make it yours alone: chmod 0400");
        }
        let text = fs::read(&self.0).await.with_context(|| format!("reading {place}"))?;
        let text = zeroize::Zeroizing::new(text);
        // The library's errors quote what they read, so they end here.
        let Ok(keys) = serde_json::from_slice::<Keys>(&text) else {
            bail!(
                "{place} is not what `credential_process` of AWS calls for: a JSON object with \
                 `AccessKeyId`, `SecretAccessKey` and perhaps `SessionToken`"
            );
        };
        let secret = |text: String| Secret::new(text.into_bytes());
        Ok(AwsKeys {
            access_key_id: keys.access_key_id,
            secret_access_key: secret(keys.secret_access_key),
            session_token: keys.session_token.map(secret),
        })
    }
}

#[async_trait]
impl AwsIdentity for AwsFile {
    async fn keys(&self) -> Option<AwsKeys> {
        let keys = self.read().await;
        keys.inspect_err(|error| tracing::warn!("no identity at AWS: {error:#}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_identity_is_read_anew_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aws.json");
        let config = AwsConfig { identity_file: path.clone() };
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(AwsFile::open(&config).await.is_err());
        write(r#"{"AccessKeyId":"AKIA1","SecretAccessKey":"s3cret","Version":1}"#, 0o644);
        assert!(format!("{:#}", AwsFile::open(&config).await.unwrap_err()).contains("chmod 0400"));
        write(r#"{"AccessKeyId":"AKIA1","SecretAccessKey":["s3cret"]}"#, 0o600);
        let error = format!("{:#}", AwsFile::open(&config).await.unwrap_err());
        assert!(error.contains("SecretAccessKey") && !error.contains("s3cret"), "{error}");
        write(r#"{"AccessKeyId":"AKIA1","SecretAccessKey":"s3cret","Version":1}"#, 0o600);
        let identity = AwsFile::open(&config).await.unwrap();
        assert_eq!(identity.keys().await.unwrap().access_key_id, "AKIA1");
        let renewed = r#"{"AccessKeyId":"ASIA2","SecretAccessKey":"x","SessionToken":"t"}"#;
        write(renewed, 0o600);
        let keys = identity.keys().await.unwrap();
        assert_eq!(keys.access_key_id, "ASIA2");
        assert!(keys.session_token.is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(identity.keys().await.is_none());
    }
}
