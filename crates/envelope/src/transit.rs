mod http;
mod login;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{Key, SystemClock, Uid};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use zeroize::Zeroizing;

use self::{
    http::{Answer, Http, Refusal},
    login::{Login, Token},
};
use crate::{
    KeyContext, KeyPurpose, Kms, KmsError, KmsOpenError, KmsStatus, TransitConfig, WrappedKey,
    kms::DEADLINE,
};

/// The transit engine of OpenBao or Vault: each key is wrapped under a key that never leaves it,
/// which the engine derives for the [`KeyContext`].
///
/// A call is tried twice, 800 ms each; it needs a Tokio runtime.
pub struct TransitKms {
    login: Login,
    http: Arc<Http>,
    mount: String,
    /// The one that wraps, and then the retired.
    keys: Vec<String>,
}

impl TransitKms {
    /// A client of the engine. Its files are read now, to find mistakes early; the server is asked
    /// when a key is needed.
    pub fn open(config: &TransitConfig) -> Result<Self, KmsOpenError> {
        let http = Arc::new(Http::open(config)?);
        let keys: Vec<_> =
            std::iter::once(&config.key).chain(&config.retired_keys).cloned().collect();
        let segments = keys.iter().flat_map(|key| key.split('/')).chain(config.mount.split('/'));
        if keys.iter().any(|key| key.contains('/')) || !segments.clone().all(is_path_segment) {
            return Err(KmsOpenError::Configuration(
                "the mount and the keys of a transit engine are made of letters, digits, `_`, `-` \
                 and `.`; a mount may have several segments"
                    .to_owned(),
            ));
        }
        let login = Login::open(config, Arc::clone(&http), Arc::new(SystemClock), keys.len())?;
        Ok(Self { login, http, mount: config.mount.clone(), keys })
    }

    /// Asks the engine, as whoever is logged in; logs in anew, once, if the token has ended.
    async fn ask(
        &self,
        key: &str,
        action: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, KmsError> {
        let work = async {
            let mut token = self.login.token().await?;
            for last in [false, true] {
                let answer = self.ask_as(&token, key, action, body).await;
                match answer {
                    Err(Refusal::Denied(_)) if !last => {
                        let Some(newer) = self.login.after_denial(&token).await? else {
                            return answer.map_err(Refusal::into_error);
                        };
                        token = newer;
                    }
                    Ok(_) | Err(_) => return answer.map_err(Refusal::into_error),
                }
            }
            Err(KmsError::refused("the token is refused"))
        };
        let late = |_| KmsError::unavailable("the transit engine did not answer in time");
        timeout(DEADLINE, work).await.map_err(late)?
    }

    async fn ask_as(
        &self,
        token: &Token,
        key: &str,
        action: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, Refusal> {
        let place = self.keys.iter().position(|one| one == key).unwrap_or(0);
        token.fit(place, || self.check(token, key)).await?;
        let path = format!("{}/{action}/{key}", self.mount);
        let answer = self.http.ask(Method::POST, &path, Some(token), Some(body)).await?;
        token.worked();
        Ok(answer)
    }

    /// Whether the key is one that binds what it wraps to the context, and that nobody can copy. A
    /// key that was not made for derivation takes any context and heeds none.
    async fn check(&self, token: &Token, key: &str) -> Result<(), Refusal> {
        let path = format!("{}/keys/{key}", self.mount);
        let answer = self.http.ask(Method::GET, &path, Some(token), None).await?;
        let KeyProperties { derived, exportable, allow_plaintext_backup, kind, convergent } =
            answer.data()?;
        let authenticated = ["aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];
        if !derived || exportable || allow_plaintext_backup || convergent {
            return Err(Refusal::unfit(format!(
                "the transit key `{key}` must be derived, and neither convergent, nor exportable, \
                 nor open to plaintext backup: make one with `derived=true`"
            )));
        }
        if !authenticated.contains(&kind.as_str()) {
            return Err(Refusal::unfit(format!("the transit key `{key}` is no 256-bit AEAD key")));
        }
        Ok(())
    }

    /// The wrapping key's name and the engine's ciphertext. Only a key that the configuration names is
    /// asked to unwrap: or else whoever writes to the database could make us use a key of theirs.
    fn parse<'a>(&self, wrapped: &'a WrappedKey) -> Result<(&str, &'a str), KmsError> {
        let (name, ciphertext) = split(wrapped).ok_or(KmsError::Corrupt)?;
        let known = self.keys.iter().find(|key| self.name_of(key) == name);
        let key = known.ok_or_else(|| {
            KmsError::refused("the key was wrapped by one that is not configured")
        })?;
        Ok((key, ciphertext))
    }

    fn name_of(&self, key: &str) -> String {
        format!("{}/{key}", self.mount)
    }

    fn newest(&self) -> &str {
        self.keys.first().map_or("", String::as_str)
    }

    fn join(&self, ciphertext: &str) -> Result<WrappedKey, KmsError> {
        let name = self.name_of(self.newest());
        let length = u16::try_from(name.len()).map_err(KmsError::refused)?;
        let parts = [MAGIC, &length.to_be_bytes(), name.as_bytes(), ciphertext.as_bytes()];
        Ok(WrappedKey::from_bytes(parts.concat()))
    }
}

#[async_trait]
impl Kms for TransitKms {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let body = json!({ "bits": 256, "context": derivation(context) });
        let answer = self.ask(self.newest(), "datakey/plaintext", &body).await?;
        let DataKey { plaintext, ciphertext } = answer.data().map_err(Refusal::into_error)?;
        Ok((take_key(plaintext)?, self.join(ciphertext)?))
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        let plaintext = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
        let body = json!({ "plaintext": &*plaintext, "context": derivation(context) });
        let answer = self.ask(self.newest(), "encrypt", &body).await?;
        let Ciphertext { ciphertext } = answer.data().map_err(Refusal::into_error)?;
        self.join(ciphertext)
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let (key, ciphertext) = self.parse(wrapped)?;
        let body = json!({ "ciphertext": ciphertext, "context": derivation(context) });
        let answer = self.ask(key, "decrypt", &body).await?;
        let Plaintext { plaintext } = answer.data().map_err(Refusal::into_error)?;
        take_key(plaintext)
    }

    /// Inside the engine, to the key's newest version. From a retired key to another, the key is in
    /// this process's memory for a moment: the engine re-encrypts within one key only.
    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        let (key, ciphertext) = self.parse(wrapped)?;
        if key != self.newest() {
            return self.wrap(context, &self.unwrap(context, wrapped).await?).await;
        }
        let body = json!({ "ciphertext": ciphertext, "context": derivation(context) });
        let answer = self.ask(key, "rewrap", &body).await?;
        let Ciphertext { ciphertext } = answer.data().map_err(Refusal::into_error)?;
        self.join(ciphertext)
    }

    /// Makes a key and throws it away: the policy may allow nothing cheaper.
    async fn status(&self) -> KmsStatus {
        let nobody = Uid::from_bytes([0; 16]);
        let probe = KeyContext {
            deployment: nobody,
            owner: nobody,
            key: nobody,
            version: 0,
            purpose: KeyPurpose::Kek,
        };
        let made = self.generate(&probe).await.ok();
        let key_ref = made.as_ref().and_then(|(_, wrapped)| self.wrapped_by(wrapped));
        let unknown = || format!("transit:{}", self.name_of(self.newest()));
        KmsStatus { key_ref: key_ref.unwrap_or_else(unknown), healthy: made.is_some() }
    }

    /// `transit:MOUNT/KEY/vVERSION`: the engine's ciphertexts begin with the key's version.
    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        let (name, ciphertext) = split(wrapped)?;
        let mut parts = ciphertext.split(':');
        let version = parts.nth(1).filter(|version| version.starts_with('v'))?;
        parts.next()?;
        Some(format!("transit:{name}/{version}"))
    }
}

impl fmt::Debug for TransitKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransitKms({})", self.name_of(self.newest()))
    }
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the engine says it in this way")]
struct KeyProperties {
    derived: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, rename = "convergent_encryption")]
    convergent: bool,
}

/// What comes as text of the answer's own is not copied: the answer is wiped, copies are not.
#[derive(Deserialize)]
struct DataKey<'a> {
    plaintext: &'a str,
    ciphertext: &'a str,
}

#[derive(Deserialize)]
struct Plaintext<'a> {
    plaintext: &'a str,
}

#[derive(Deserialize)]
struct Ciphertext<'a> {
    ciphertext: &'a str,
}

const MAGIC: &[u8] = b"SRT1";

/// `"SRT1" ‖ u16 length ‖ mount/key ‖ ciphertext`.
fn split(wrapped: &WrappedKey) -> Option<(&str, &str)> {
    let rest = wrapped.as_bytes().strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (name, ciphertext) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(ciphertext).ok()?))
}

/// What the engine derives the wrapping key for.
fn derivation(context: &KeyContext) -> String {
    BASE64_STANDARD.encode(context.encode())
}

fn take_key(text: &str) -> Result<Key, KmsError> {
    // Decoding may need a little more room than it fills.
    let mut bytes = Zeroizing::new([0; 48]);
    let length =
        BASE64_STANDARD.decode_slice(text, bytes.as_mut_slice()).map_err(|_| KmsError::Corrupt)?;
    let mut key = Zeroizing::new([0; 32]);
    match bytes.get(..length) {
        Some(bytes) if bytes.len() == key.len() => key.copy_from_slice(bytes),
        Some(_) | None => return Err(KmsError::Corrupt),
    }
    Ok(Key::take(&mut key))
}

/// Nothing that could make a path another one.
pub(crate) fn is_path_segment(segment: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(fits)
}
