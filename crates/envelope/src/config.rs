use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use domain::{RootName, TenantId};
use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

use crate::{AwsKms, Kms, KmsOpenError, LocalKms, Pkcs11Kms, TransitKms};

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
    /// A hardware security module.
    Pkcs11(Pkcs11Config),
    /// The transit engine of OpenBao or Vault.
    Transit(TransitConfig),
}

impl KmsConfig {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        let paths = match self {
            Self::Local { key_file, passphrase_file } => {
                vec![Some(key_file), passphrase_file.as_mut()]
            }
            Self::Aws(_) => Vec::new(),
            Self::Pkcs11(config) => vec![Some(&mut config.module), Some(&mut config.pin_file)],
            Self::Transit(config) => vec![
                config.ca.as_mut(),
                Some(match &mut config.login {
                    TransitLogin::AppRole { secret_id_file, .. } => secret_id_file,
                    TransitLogin::Token { token_file } => token_file,
                }),
            ],
        };
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Adds a root key to the key file, under which new keys are wrapped by whoever opens the file from
    /// then on, and says which version it is. Other kinds keep their root keys elsewhere.
    pub fn add_root_key(&self) -> Result<u32, KmsOpenError> {
        let Self::Local { key_file, passphrase_file } = self else {
            let how = "the root key is in a KMS: make another one there, name it in the configuration \
                       and the one before it among the retired keys, and restart the brokers";
            return Err(KmsOpenError::Configuration(how.to_owned()));
        };
        Ok(LocalKms::rotate(key_file, passphrase_file.as_deref())?)
    }

    /// Whether both name one key of one KMS. Of files, their names say nothing.
    pub(crate) fn names_key_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Aws(one), Self::Aws(other)) => one.key_id == other.key_id,
            (Self::Pkcs11(one), Self::Pkcs11(other)) => {
                (&one.module, &one.token, &one.key) == (&other.module, &other.token, &other.key)
            }
            (Self::Transit(one), Self::Transit(other)) => {
                let names = |it: &TransitConfig| {
                    let TransitConfig { address, mount, namespace, key, .. } = it;
                    (address.clone(), mount.clone(), namespace.clone(), key.clone())
                };
                names(one) == names(other)
            }
            _ => false,
        }
    }

    /// Opens the KMS. Files are read now; whatever is elsewhere is asked when a key is needed.
    pub async fn open(&self) -> Result<Arc<dyn Kms>, KmsOpenError> {
        Ok(match self {
            Self::Local { key_file, passphrase_file } => {
                let (path, passphrase) = (key_file.clone(), passphrase_file.clone());
                // Argon2id takes some hundred milliseconds.
                let opened = tokio::task::spawn_blocking(move || {
                    LocalKms::open(&path, passphrase.as_deref())
                });
                let opened = opened.await;
                Arc::new(opened.map_err(|error| KmsOpenError::Interrupted(error.into()))??)
            }
            Self::Aws(config) => Arc::new(AwsKms::new(config).await),
            Self::Pkcs11(config) => Arc::new(Pkcs11Kms::open(config).await?),
            Self::Transit(config) => Arc::new(TransitKms::open(config)?),
        })
    }
}

/// A root key beside the one that `[kms]` names: a tenant's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootConfig {
    /// What stored keys call it. It must not change while there are any.
    pub name: RootName,
    /// The tenants whose keys it wraps, by the last segment of their names. Whoever holds a root key
    /// can open, and make, what it wraps: nobody else's keys are taken from under it.
    pub tenants: Vec<TenantId>,
    /// What holds it.
    pub kms: KmsConfig,
    /// What holds a second root key, if there is one, for the day on which the first is lost.
    pub recovery: Option<KmsConfig>,
}

/// A symmetric key in AWS KMS. Credentials come from where AWS SDKs find them; the role needs
/// `kms:GenerateDataKey`, `kms:Decrypt` and `kms:ReEncrypt*`, best with a condition on the
/// encryption context; where it recovers or is recovered, `kms:Encrypt` too.
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

/// An AES-256 key in a PKCS#11 token. The key must be sensitive and not extractable; the user whose
/// PIN it is needs nothing but to encrypt, to decrypt and to draw random bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The vendor's library. It becomes part of this process.
    pub module: PathBuf,
    /// The token's label. Slots are not named by number: those change.
    pub token: String,
    /// The file with the user's PIN; refused if others can read it.
    pub pin_file: PathBuf,
    /// The key under which new keys are wrapped.
    pub key: TokenKey,
    /// Keys used before, under which stored keys may still be wrapped until they are rewrapped.
    #[serde(default)]
    pub retired_keys: Vec<TokenKey>,
    /// Sessions at once, 1 to 64.
    #[serde(default = "concurrent_sessions")]
    pub concurrent_sessions: usize,
}

/// What finds a key in a token: `{ label = "…" }`, or `{ id = "…" }` in hex digits. Exactly one key
/// must be found.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum TokenKey {
    /// `CKA_LABEL`.
    Label(String),
    /// `CKA_ID`.
    #[serde(deserialize_with = "hex_digits")]
    Id(Vec<u8>),
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label:{label}"),
            Self::Id(id) => write!(f, "id:{}", hex::encode(id)),
        }
    }
}

/// A key of a transit engine. The key must have been made with `derived=true`, so that what it wraps
/// is bound to its context; the policy needs `read` on `keys/NAME`, and `update` on
/// `datakey/plaintext/NAME`, `decrypt/NAME` and `rewrap/NAME`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransitConfig {
    /// The server, or a balancer before its active node: `https://`, or `http://` on this machine.
    pub address: Url,
    /// Where the engine is mounted.
    #[serde(default = "transit")]
    pub mount: String,
    /// The key under which new keys are wrapped, in its newest version.
    pub key: String,
    /// Keys of the same engine used before, until what they wrapped is rewrapped. Older versions of
    /// a key need no entry.
    #[serde(default)]
    pub retired_keys: Vec<String>,
    /// The namespace, if it is not the root.
    pub namespace: Option<String>,
    /// The authorities that may vouch for the server's certificate, PEM; the machine's without this.
    pub ca: Option<PathBuf>,
    /// How to log in.
    pub login: TransitLogin,
}

/// How a broker logs in to OpenBao or Vault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "method")]
pub enum TransitLogin {
    /// As an AppRole. The token is renewed, and got anew when it can be renewed no more.
    AppRole {
        /// The role's ID.
        role_id: String,
        /// The file with the secret ID; refused if others can read it. Read at each login.
        secret_id_file: PathBuf,
        /// Where the method is mounted.
        #[serde(default = "app_role")]
        mount: String,
    },
    /// By a token that somebody else puts into a file, such as an agent. It is renewed, and read anew
    /// when it is refused.
    Token {
        /// The file with the token; refused if others can read it.
        token_file: PathBuf,
    },
}

fn hex_digits<'de, D: Deserializer<'de>>(text: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(text)?;
    match hex::decode(&text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        Ok(_) | Err(_) => Err(D::Error::custom("a key's id is one or more bytes in hex digits")),
    }
}

fn concurrent_sessions() -> usize {
    4
}

fn transit() -> String {
    "transit".to_owned()
}

fn app_role() -> String {
    "approle".to_owned()
}
