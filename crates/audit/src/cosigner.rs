use std::{fmt, str::FromStr};

use domain::Secret;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::{
    KeyError,
    key::{is_name, key_id, parse_private, parse_public, private_text, public_text},
};

/// The key with which a witness cosigns checkpoints, <https://c2sp.org/tlog-cosignature>: wiped when
/// dropped, never shown.
pub struct CosignerKey {
    witness: WitnessKey,
    key: SigningKey,
}

/// The key that verifies a witness's cosignatures. Its text form is that of a log's key, with another
/// signature type: `<name>+<id>+<base64>`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WitnessKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// The signature type of Ed25519 cosignatures.
const COSIGNATURE: u8 = 0x04;

impl CosignerKey {
    /// A new key from the operating system's random source. It is to be used for nothing else: what
    /// is signed does not name the witness.
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
        Ok(Self { witness: WitnessKey::new(name, key.verifying_key()), key })
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, seed) = parse_private(text, COSIGNATURE)?;
        let key = Self::from_seed(name, &seed)?;
        if key.witness.id == id { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// The text form, to be stored where only the witness can read it.
    pub fn to_text(&self) -> Secret {
        private_text(&self.witness.name, self.witness.id, COSIGNATURE, &self.key)
    }

    /// The key that verifies what this one cosigns.
    pub fn witness(&self) -> &WitnessKey {
        &self.witness
    }

    /// The time and the signature, as a signature line holds them.
    pub(crate) fn cosign(&self, text: &str, time: u64) -> Vec<u8> {
        let signature = self.key.sign(message(text, time).as_bytes());
        [&time.to_be_bytes()[..], &signature.to_bytes()].concat()
    }
}

impl WitnessKey {
    fn new(name: &str, key: VerifyingKey) -> Self {
        Self { name: name.to_owned(), id: key_id(name, COSIGNATURE, &key), key }
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name ‖ newline ‖ 0x04 ‖ public key).
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// When the witness cosigned the text, if it did.
    pub(crate) fn verify(&self, text: &str, bytes: &[u8]) -> Option<u64> {
        let (time, signature) = bytes.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        // The specification's bound.
        i64::try_from(time).ok()?;
        let signature = Signature::from_slice(signature).ok()?;
        self.key.verify_strict(message(text, time).as_bytes(), &signature).ok().map(|()| time)
    }
}

impl FromStr for WitnessKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = parse_public(text, COSIGNATURE)?;
        let key = Self::new(name, key);
        if key.id == id { Ok(key) } else { Err(KeyError::Malformed) }
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&public_text(&self.name, self.id, COSIGNATURE, &self.key))
    }
}

fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}
