use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut as _, KeyInit as _},
};
use hkdf::Hkdf;
use sha2::Sha512;

use crate::StoredAs as _;

use super::file::{CONTEXT, ContextOf, KEK, KekOf, bytes, uid};

/// A stored secret in which anything can be wrong, and the rest is right: commitment and tag are
/// made for what the header says, unless they are what is wrong.
pub(super) struct Forged {
    pub(super) magic: [u8; 4],
    pub(super) format: u8,
    pub(super) suite: u16,
    pub(super) flags: u8,
    pub(super) kek: KekOf,
    pub(super) context: ContextOf,
    /// What is encrypted: length, secret and padding.
    pub(super) padded: Vec<u8>,
    pub(super) commitment: Option<[u8; 32]>,
    /// The key that encrypts, if it is not the one that was committed to.
    pub(super) encrypts: Option<&'static str>,
    /// What the header says of the ciphertext's length, less what is true.
    pub(super) length_off: i64,
}

impl Forged {
    pub(super) fn right() -> Self {
        Self {
            magic: *b"SREV",
            format: 1,
            suite: 1,
            flags: 0,
            kek: KEK,
            context: CONTEXT,
            padded: padded(b"sk-0123456789abcdef"),
            commitment: None,
            encrypts: None,
            length_off: 0,
        }
    }

    pub(super) fn stored(&self) -> Vec<u8> {
        let salt = bytes("forged salt");
        let suite = self.suite.to_be_bytes();
        let derive = |key: &str, label: &str, out: &mut [u8]| {
            let prk = Hkdf::<Sha512>::new(Some(&salt), &bytes(key));
            prk.expand(&[label.as_bytes(), &suite].concat(), out).unwrap();
        };
        let (mut key, mut commitment, mut nonce) = ([0; 32], [0; 32], [0; 12]);
        derive(self.encrypts.unwrap_or(self.kek.key), "srev1 enc", &mut key);
        derive(self.kek.key, "srev1 commit", &mut commitment);
        derive(self.kek.key, "srev1 nonce", &mut nonce);
        let length = i64::try_from(self.padded.len() + 16).unwrap() + self.length_off;
        let header = [
            &self.magic[..],
            &[self.format],
            &suite,
            &[self.flags],
            uid(self.kek.id).as_bytes(),
            &self.kek.version.to_be_bytes(),
            &salt,
            &self.commitment.unwrap_or(commitment),
            &nonce,
            &u32::try_from(length).unwrap().to_be_bytes(),
        ]
        .concat();
        let mut body = self.padded.clone();
        let tag = Aes256Gcm::new(&key.into())
            .encrypt_inout_detached(
                &nonce.into(),
                &[&header[..], &self.context.context().encode()].concat(),
                body.as_mut_slice().into(),
            )
            .unwrap();
        [&header[..], &body, &tag].concat()
    }
}

pub(super) fn padded(secret: &[u8]) -> Vec<u8> {
    let mut padded = u32::try_from(secret.len()).unwrap().to_be_bytes().to_vec();
    padded.extend_from_slice(secret);
    padded.resize(padded.len().next_multiple_of(64), 0);
    padded
}
