use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::base64;
use domain::Secret;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A key's name is not empty and has neither spaces nor `+`.
    #[error("a key's name has neither spaces, control characters nor plus signs")]
    Name,
    /// The text is not a key of the form asked for, or its parts contradict each other.
    #[error("this is not an Ed25519 note key")]
    Malformed,
    /// The operating system gave no randomness; there is nothing to fall back to.
    #[error("the random source failed")]
    Random(#[source] getrandom::Error),
}

/// The key that signs checkpoints: wiped when dropped, never shown.
///
/// Its text form is `PRIVATE+KEY+<name>+<id>+<base64>`, the one that Go's `sumdb/note` reads.
pub struct SignerKey {
    verifier: VerifierKey,
    key: SigningKey,
}

impl SignerKey {
    /// A new key from the operating system's random source.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Random)?;
        Self::from_seed(name, &seed)
    }

    /// The key with this seed, RFC 8032.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        let key = SigningKey::from_bytes(seed);
        Ok(Self { verifier: VerifierKey::new(name, key.verifying_key()), key })
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, seed) = parse_private(text, ED25519)?;
        let key = Self::from_seed(name, &seed)?;
        if key.verifier.id == id { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// The text form, to be stored where only the log can read it.
    pub fn to_text(&self) -> Secret {
        private_text(self.verifier.name(), self.verifier.id, ED25519, &self.key)
    }

    /// The key that verifies what this one signs.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign(&self, text: &str) -> [u8; 64] {
        self.key.sign(text.as_bytes()).to_bytes()
    }
}

/// The key that verifies checkpoints. Its text form is `<name>+<id>+<base64>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, key: VerifyingKey) -> Self {
        Self { name: name.to_owned(), id: key_id(name, ED25519, &key), key }
    }

    /// The key's name; for a log's key, the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name ‖ newline ‖ 0x01 ‖ public key).
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Small-order keys and signatures that are not canonical are refused too, so that all
    /// verifiers agree.
    pub(crate) fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(text.as_bytes(), &signature).is_ok())
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = parse_public(text, ED25519)?;
        let key = Self::new(name, key);
        if key.id == id { Ok(key) } else { Err(KeyError::Malformed) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&public_text(&self.name, self.id, ED25519, &self.key))
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

const PRIVATE: &str = "PRIVATE+KEY+";

/// The signature type of c2sp.org/signed-note.
const ED25519: u8 = 0x01;

/// The parts of a key's text form: name, id and the key itself.
type Named<'a, K> = (&'a str, [u8; 4], K);

type Seed = Zeroizing<[u8; 32]>;

/// The first four bytes of SHA-256(name ‖ newline ‖ signature type ‖ public key).
pub(crate) fn key_id(name: &str, kind: u8, key: &VerifyingKey) -> [u8; 4] {
    let digest = Sha256::new_with_prefix(name).chain_update([b'\n', kind]);
    let [a, b, c, d, ..]: [u8; 32] = digest.chain_update(key.as_bytes()).finalize().into();
    [a, b, c, d]
}

/// The text form of a public key with this signature type.
pub(crate) fn public_text(name: &str, id: [u8; 4], kind: u8, key: &VerifyingKey) -> String {
    let data = [&[kind][..], key.as_bytes()].concat();
    format!("{name}+{}+{}", hex::encode(id), base64::encode(&data))
}

/// Reads a public key. The caller compares the id with the one that follows from the rest.
pub(crate) fn parse_public(text: &str, kind: u8) -> Result<Named<'_, VerifyingKey>, KeyError> {
    let (name, id, data) = parts(text)?;
    let (found, key) = data.split_first().ok_or(KeyError::Malformed)?;
    if *found != kind {
        return Err(KeyError::Malformed);
    }
    let key = key.try_into().map_err(|_| KeyError::Malformed)?;
    let key = VerifyingKey::from_bytes(key).map_err(|_| KeyError::Malformed)?;
    Ok((name, id, key))
}

/// The text form of a private key with this signature type.
pub(crate) fn private_text(name: &str, id: [u8; 4], kind: u8, key: &SigningKey) -> Secret {
    let mut data = Zeroizing::new([0; 33]);
    if let Some((first, seed)) = data.split_first_mut() {
        *first = kind;
        seed.copy_from_slice(key.as_bytes());
    }
    let data = Zeroizing::new(base64::encode(data.as_slice()));
    // At its final size from the start, so that no copy is left behind.
    let mut text = Vec::with_capacity(PRIVATE.len() + name.len() + 10 + data.len());
    text.extend_from_slice(PRIVATE.as_bytes());
    text.extend_from_slice(name.as_bytes());
    text.push(b'+');
    text.extend_from_slice(hex::encode(id).as_bytes());
    text.push(b'+');
    text.extend_from_slice(data.as_bytes());
    Secret::new(text)
}

/// Reads a private key. The caller compares the id with the one that follows from the rest.
pub(crate) fn parse_private(text: &str, kind: u8) -> Result<Named<'_, Seed>, KeyError> {
    let rest = text.strip_prefix(PRIVATE).ok_or(KeyError::Malformed)?;
    let (name, id, mut data) = parts(rest)?;
    let seed = <&[u8; 33]>::try_from(data.as_slice()).ok().and_then(|data| match data {
        [found, seed @ ..] if *found == kind => Some(Zeroizing::new(*seed)),
        _ => None,
    });
    data.zeroize();
    Ok((name, id, seed.ok_or(KeyError::Malformed)?))
}

/// Splits `<name>+<id>+<base64>`. The base64 may hold `+` itself.
fn parts(text: &str) -> Result<(&str, [u8; 4], Vec<u8>), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Malformed);
    };
    if !is_name(name) {
        return Err(KeyError::Name);
    }
    if id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(KeyError::Malformed);
    }
    let mut bytes = [0; 4];
    hex::decode_to_slice(id, &mut bytes).map_err(|_| KeyError::Malformed)?;
    Ok((name, bytes, base64::decode(data).ok_or(KeyError::Malformed)?))
}
