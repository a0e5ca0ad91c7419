use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use aes_gcm::{
    Aes256Gcm, Tag,
    aead::{AeadInOut as _, KeyInit as _},
};
use domain::{Key, Secret, Uid};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

use crate::{
    DoesNotOpen, SealError, StoredAs,
    derive::{expand, extract, subkey},
    header::{HEADER, Header, SUITE},
};

/// The longest secret that can be stored, in bytes.
pub const LONGEST_SECRET: usize = 16_384;

const TAG: usize = 16;
const PREFIX: usize = 4;
const BLOCK: usize = 64;

/// One version of a tenant's key-encryption key.
///
/// It encrypts nothing itself: each stored secret has a key of its own, derived from this one.
pub struct Kek {
    id: Uid,
    version: u32,
    key: Key,
    hedge: Key,
    mac: Key,
    overdue: AtomicBool,
}

impl Kek {
    /// The key with this id and version.
    pub fn new(id: Uid, version: u32, key: Key) -> Self {
        let (hedge, mac) = (subkey(&key, "srev1 hedge"), subkey(&key, "srev1 row mac"));
        Self { id, version, key, hedge, mac, overdue: AtomicBool::new(false) }
    }

    /// The key's id and version.
    pub fn reference(&self) -> (Uid, u32) {
        (self.id, self.version)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether it has been used past its time, because the KMS does not answer: what is done with it is
    /// marked as such.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    pub(crate) fn set_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Seals a secret: the bytes to store.
    pub fn seal(&self, context: &impl StoredAs, secret: &Secret) -> Result<Vec<u8>, SealError> {
        self.seal_in(&context.encode(), secret)
    }

    /// Opens what [`Kek::seal`] made in the same context. Whatever is wrong, the answer is the same,
    /// and takes the same time.
    pub fn open(&self, context: &impl StoredAs, stored: &[u8]) -> Result<Secret, DoesNotOpen> {
        self.open_in(&context.encode(), stored)
    }

    /// The MAC over a row: all its columns, encoded with [`domain::Fields`]. Without it, whoever can
    /// write to the database could enable a disabled credential or send it elsewhere.
    pub fn row_mac(&self, row: &[u8]) -> [u8; 32] {
        hmac(&self.mac, &[row])
    }

    /// Whether the row is as it was when the MAC was made.
    pub fn row_is_genuine(&self, row: &[u8], mac: &[u8]) -> bool {
        self.row_mac(row).ct_eq(mac).into()
    }

    pub(crate) fn seal_in(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, SealError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(SealError::Random)?;
        self.seal_with(random, context, secret)
    }

    /// The salt depends on secret and context too: a machine that is cloned, or whose random source
    /// repeats itself, still uses each derived key for one plaintext.
    pub(crate) fn seal_with(
        &self,
        random: [u8; 32],
        context: &[u8],
        secret: &Secret,
    ) -> Result<Vec<u8>, SealError> {
        let salt = hmac(&self.hedge, &[&random, &Sha256::digest(context), secret.expose()]);
        let record = Record::derive(&self.key, &salt);
        let padded = pad(secret)?;
        let header = Header {
            kek_id: self.id,
            kek_version: self.version,
            salt,
            commitment: record.commitment,
            nonce: record.nonce,
            ciphertext_length: u32::try_from(padded.len() + TAG)
                .map_err(|_| SealError::SecretLength)?,
        }
        .encode();
        let mut stored = Vec::with_capacity(HEADER + padded.len() + TAG);
        stored.extend_from_slice(&header);
        let mut body = padded;
        let tag = Aes256Gcm::new((&*record.key).into())
            .encrypt_inout_detached(
                &record.nonce.into(),
                &[&header, context].concat(),
                body.as_mut_slice().into(),
            )
            .map_err(|_| SealError::SecretLength)?;
        stored.extend_from_slice(&body);
        stored.extend_from_slice(&tag);
        Ok(stored)
    }

    pub(crate) fn open_in(&self, context: &[u8], stored: &[u8]) -> Result<Secret, DoesNotOpen> {
        let (header_bytes, body) = stored.split_first_chunk::<HEADER>().ok_or(DoesNotOpen)?;
        let (ciphertext, tag) = body.split_last_chunk::<TAG>().ok_or(DoesNotOpen)?;
        if ciphertext.is_empty() || ciphertext.len() > padded_length(LONGEST_SECRET) {
            return Err(DoesNotOpen);
        }
        let (header, known) = Header::decode(header_bytes);
        let mut record = Record::derive(&self.key, &header.salt);
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let fits = known
            & header.kek_id.as_bytes().ct_eq(self.id.as_bytes())
            & header.kek_version.ct_eq(&self.version)
            & u64::from(header.ciphertext_length).ct_eq(&length)
            & header.commitment.ct_eq(&record.commitment);
        // A header that does not fit is never decrypted with its key, yet costs the same time: the
        // tag is checked with a key that nobody has, and fails.
        record.spoil_key(!fits);
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        Aes256Gcm::new((&*record.key).into())
            .decrypt_inout_detached(
                &header.nonce.into(),
                &[header_bytes, context].concat(),
                opened.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| DoesNotOpen)?;
        if bool::from(fits) { unpad(&opened) } else { Err(DoesNotOpen) }
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({}/{})", self.id, self.version)
    }
}

/// What one stored secret is sealed with. The commitment names the key: AES-GCM alone would let a
/// ciphertext open under two.
struct Record {
    key: Zeroizing<[u8; 32]>,
    commitment: [u8; 32],
    nonce: [u8; 12],
}

impl Record {
    fn derive(key: &Key, salt: &[u8; 32]) -> Self {
        let (prk, suite) = (extract(Some(salt), key), SUITE.to_be_bytes());
        Self {
            key: expand(&prk, "srev1 enc", &suite),
            commitment: *expand(&prk, "srev1 commit", &suite),
            nonce: *expand(&prk, "srev1 nonce", &suite),
        }
    }

    fn spoil_key(&mut self, spoil: Choice) {
        let mask = u8::conditional_select(&0, &0xff, spoil);
        self.key.iter_mut().for_each(|byte| *byte ^= mask);
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("any length will do");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn padded_length(length: usize) -> usize {
    (PREFIX + length).next_multiple_of(BLOCK)
}

/// `u32 length ‖ secret ‖ zeros`, to a multiple of 64.
fn pad(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if secret.is_empty() || secret.len() > LONGEST_SECRET {
        return Err(SealError::SecretLength);
    }
    let length = u32::try_from(secret.len()).map_err(|_| SealError::SecretLength)?;
    let mut padded = Zeroizing::new(Vec::with_capacity(padded_length(secret.len())));
    padded.extend_from_slice(&length.to_be_bytes());
    padded.extend_from_slice(secret.expose());
    padded.resize(padded_length(secret.len()), 0);
    Ok(padded)
}

/// Refuses every padding but the one that [`pad`] makes.
fn unpad(padded: &[u8]) -> Result<Secret, DoesNotOpen> {
    let (length, rest) = padded.split_first_chunk::<PREFIX>().ok_or(DoesNotOpen)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| DoesNotOpen)?;
    let (secret, zeros) = rest.split_at_checked(length).ok_or(DoesNotOpen)?;
    let exact = (1..=LONGEST_SECRET).contains(&length) && padded_length(length) == padded.len();
    if exact && zeros.iter().all(|byte| *byte == 0) {
        Ok(Secret::new(secret.to_vec()))
    } else {
        Err(DoesNotOpen)
    }
}

#[cfg(test)]
mod tests;
