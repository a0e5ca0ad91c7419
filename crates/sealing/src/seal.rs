use aes_gcm::{
    Aes256Gcm, Nonce, Tag,
    aead::{AeadInOut as _, KeyInit as _, consts::U12},
};
use domain::{Key, Secret};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{DoesNotOpen, SealError};

/// The longest secret that a box or a lease carries, in bytes.
pub const LONGEST_SECRET: usize = 16_384;

const TAG: usize = 16;

/// Seals with the single-use key that `info` derives: ciphertext and tag.
pub(crate) fn seal(
    key: &Key,
    info: &[u8],
    associated_data: &[u8],
    secret: &Secret,
) -> Result<Vec<u8>, SealError> {
    if secret.is_empty() || secret.len() > LONGEST_SECRET {
        return Err(SealError::SecretLength);
    }
    let (cipher, nonce) = single_use(key, info);
    // One allocation at the final size: what is encrypted in place leaves no plaintext behind.
    let mut sealed = Zeroizing::new(Vec::with_capacity(secret.len() + TAG));
    sealed.extend_from_slice(secret.expose());
    let tag = cipher
        .encrypt_inout_detached(&nonce, associated_data, sealed.as_mut_slice().into())
        .map_err(|_| SealError::SecretLength)?;
    sealed.extend_from_slice(&tag);
    Ok(std::mem::take(&mut *sealed))
}

/// Opens what [`seal`] made of the same key, info and associated data.
pub(crate) fn open(
    key: &Key,
    info: &[u8],
    associated_data: &[u8],
    sealed: &[u8],
) -> Result<Secret, DoesNotOpen> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(DoesNotOpen)?;
    if ciphertext.is_empty() || ciphertext.len() > LONGEST_SECRET {
        return Err(DoesNotOpen);
    }
    let (cipher, nonce) = single_use(key, info);
    // A `Secret` from the start, so that it is wiped however this ends.
    let mut opened = Zeroizing::new(ciphertext.to_vec());
    cipher
        .decrypt_inout_detached(
            &nonce,
            associated_data,
            opened.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .map_err(|_| DoesNotOpen)?;
    Ok(Secret::new(std::mem::take(&mut *opened)))
}

/// HKDF-Expand: the session's key is uniform already. 32 bytes of key and 12 of nonce.
#[expect(clippy::expect_used, reason = "both lengths are right, and constants")]
fn single_use(key: &Key, info: &[u8]) -> (Aes256Gcm, Nonce<U12>) {
    let mut material = Zeroizing::new([0; 44]);
    Hkdf::<Sha256>::from_prk(key.expose())
        .expect("32 bytes are enough")
        .expand(info, material.as_mut_slice())
        .expect("44 bytes are few");
    let (left, right) = material.split_at(32);
    let (mut key, mut nonce) = (Zeroizing::new([0; 32]), Nonce::default());
    key.copy_from_slice(left);
    nonce.copy_from_slice(right);
    (Aes256Gcm::new((&*key).into()), nonce)
}
