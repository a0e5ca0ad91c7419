mod failure;
mod format;
mod token;
mod workers;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use cryptoki::{
    mechanism::{Mechanism, aead::GcmParams},
    object::ObjectHandle,
    session::Session,
};
use domain::{Key, Uid};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use self::{
    failure::Failure,
    format::{IV, Parts, associated_data, join, split},
    token::Token,
    workers::Workers,
};
use crate::{
    KeyContext, KeyPurpose, Kms, KmsError, KmsOpenError, KmsStatus, Pkcs11Config, TokenKey,
    WrappedKey, kms::DEADLINE,
};

/// A hardware security module, or anything else behind PKCS#11: each key is encrypted with AES-256-GCM
/// inside the token, under a key that the token does not give away, with the [`KeyContext`] as
/// associated data.
///
/// Calls run on threads of their own, as many at once as there are sessions; one that the token does
/// not answer within 1.7 s is given up. It needs a Tokio runtime.
pub struct Pkcs11Kms {
    room: Arc<Room>,
    workers: Workers,
}

struct Room {
    token: Token,
    label: String,
    key: TokenKey,
    retired_keys: Vec<TokenKey>,
}

impl Pkcs11Kms {
    /// Loads the module and reads the PIN's file, to find mistakes early. The token is asked when a
    /// key is needed: it may be away for now.
    pub async fn open(config: &Pkcs11Config) -> Result<Self, KmsOpenError> {
        let settings = config.clone();
        let opened = spawn_blocking(move || Token::open(&settings));
        let token = opened.await.map_err(|error| KmsOpenError::Interrupted(error.into()))??;
        Ok(Self {
            room: Arc::new(Room {
                token,
                label: config.token.clone(),
                key: config.key.clone(),
                retired_keys: config.retired_keys.clone(),
            }),
            workers: Workers::new(config.concurrent_sessions.clamp(1, MOST_SESSIONS), DEADLINE),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Room) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let room = Arc::clone(&self.room);
        self.workers.run(move || work(&room)).await
    }
}

const MOST_SESSIONS: usize = 64;

impl Room {
    /// A new key. It is random as long as either the token's source or the machine's is.
    fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let mut key = Zeroizing::new([0; 32]);
        self.token.randomize(key.as_mut_slice())?;
        let wrapped = self.wrap(context, &key)?;
        Ok((Key::take(&mut key), wrapped))
    }

    fn wrap(&self, context: &KeyContext, key: &[u8; 32]) -> Result<WrappedKey, KmsError> {
        let mut iv = [0; IV];
        self.token.randomize(&mut iv)?;
        let associated = associated_data(&self.key, context);
        let sealed = self.token.with_key(&self.key, |session, handle| {
            encrypt(session, handle, &mut iv, &associated, key)
        })?;
        // Some tokens insist on an IV of their own and have put it in the place of ours.
        join(&self.key, iv, &sealed)
    }

    fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let Parts { key, iv, sealed } = split(wrapped).ok_or(KmsError::Corrupt)?;
        let name = self.configured(key)?;
        let associated = associated_data(name, context);
        let opened = self.token.with_key(name, |session, handle| {
            let opened = decrypt(session, handle, iv, &associated, sealed);
            // Many tokens have one answer to a wrong tag and to a fault of their own. If the key
            // works, it was the tag.
            opened.map_err(|failure| match failure {
                Failure::Ambiguous(_) if works(session, handle) => {
                    Failure::Answered(KmsError::Corrupt)
                }
                Failure::Ambiguous(_) | Failure::Answered(_) | Failure::Lost(_) => failure,
            })
        })?;
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(KmsError::Corrupt);
        }
        key.copy_from_slice(&opened);
        Ok(Key::take(&mut key))
    }

    fn rewrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<WrappedKey, KmsError> {
        self.wrap(context, self.unwrap(context, wrapped)?.expose())
    }

    /// Only a key that the configuration names is asked to unwrap: or else whoever writes to the
    /// database could make us use any other key of the token.
    fn configured(&self, name: &str) -> Result<&TokenKey, KmsError> {
        std::iter::once(&self.key)
            .chain(&self.retired_keys)
            .find(|key| key.to_string() == name)
            .ok_or_else(|| KmsError::refused("the key was wrapped by one that is not configured"))
    }

    fn key_ref(&self, key: &str) -> String {
        format!("pkcs11:{}/{key}", self.label)
    }
}

fn encrypt(
    session: &Session,
    key: ObjectHandle,
    iv: &mut [u8; IV],
    associated: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, Failure> {
    let parameters = GcmParams::new(iv, associated, TAG_BITS.into())?;
    Ok(session.encrypt(&Mechanism::AesGcm(parameters), key, plaintext)?)
}

fn decrypt(
    session: &Session,
    key: ObjectHandle,
    mut iv: [u8; IV],
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let parameters = GcmParams::new(&mut iv, associated, TAG_BITS.into())?;
    Ok(Zeroizing::new(session.decrypt(&Mechanism::AesGcm(parameters), key, sealed)?))
}

/// Whether the key encrypts and decrypts. The text is no secret, and the IV is as random as any.
fn works(session: &Session, key: ObjectHandle) -> bool {
    let mut iv = [0; IV];
    if getrandom::fill(&mut iv).is_err() {
        return false;
    }
    let text = [0; 32];
    let there = encrypt(session, key, &mut iv, PROBE, &text);
    let back = there.and_then(|sealed| decrypt(session, key, iv, PROBE, &sealed));
    back.is_ok_and(|back| *back == text)
}

const TAG_BITS: u64 = 128;
const PROBE: &[u8] = b"strongroom probe";

#[async_trait]
impl Kms for Pkcs11Kms {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let context = *context;
        self.run(move |room| room.generate(&context)).await
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        let (context, key) = (*context, Zeroizing::new(*key.expose()));
        self.run(move |room| room.wrap(&context, &key)).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let (context, wrapped) = (*context, wrapped.clone());
        self.run(move |room| room.unwrap(&context, &wrapped)).await
    }

    /// The key is in this process's memory for a moment: PKCS#11 has no way to re-encrypt inside the
    /// token that all tokens know.
    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        let (context, wrapped) = (*context, wrapped.clone());
        self.run(move |room| room.rewrap(&context, &wrapped)).await
    }

    /// Makes a key and throws it away: nothing less tells whether the key can be used.
    async fn status(&self) -> KmsStatus {
        let nobody = Uid::from_bytes([0; 16]);
        let probe = KeyContext {
            deployment: nobody,
            owner: nobody,
            key: nobody,
            version: 0,
            purpose: KeyPurpose::Kek,
        };
        let healthy = self.generate(&probe).await.is_ok();
        KmsStatus { key_ref: self.room.key_ref(&self.room.key.to_string()), healthy }
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        split(wrapped).map(|parts| self.room.key_ref(parts.key))
    }
}

impl fmt::Debug for Pkcs11Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Kms({})", self.room.key_ref(&self.room.key.to_string()))
    }
}
