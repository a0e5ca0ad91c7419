use crate::{KeyContext, KmsError, TokenKey, WrappedKey};

/// The bytes of an IV.
pub(super) const IV: usize = 12;

const MAGIC: &[u8; 4] = b"SRP1";
const SEALED: usize = 32 + 16;

/// What a wrapped key is made of.
pub(super) struct Parts<'a> {
    /// The name of the key that wrapped it, as [`TokenKey`] prints it.
    pub(super) key: &'a str,
    pub(super) iv: [u8; IV],
    /// Ciphertext and tag.
    pub(super) sealed: &'a [u8],
}

/// What the tag covers beside the key: which key wrapped it, and what it is.
pub(super) fn associated_data(key: &TokenKey, context: &KeyContext) -> Vec<u8> {
    [head(&key.to_string()), context.encode()].concat()
}

/// `"SRP1" ‖ u16 length ‖ key name ‖ iv ‖ ciphertext ‖ tag`.
pub(super) fn join(key: &TokenKey, iv: [u8; IV], sealed: &[u8]) -> Result<WrappedKey, KmsError> {
    // A token may pad or prepend: then it does not do what was asked of it.
    if sealed.len() != SEALED {
        return Err(KmsError::refused(format!(
            "the token's AES-GCM made {} bytes of 32, and not {SEALED}: it cannot be used",
            sealed.len()
        )));
    }
    Ok(WrappedKey::from_bytes([&head(&key.to_string()), &iv[..], sealed].concat()))
}

/// Takes a wrapped key apart. Whether it is one, only the token tells.
pub(super) fn split(wrapped: &WrappedKey) -> Option<Parts<'_>> {
    let rest = wrapped.as_bytes().strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (iv, sealed) = rest.split_first_chunk()?;
    let key = std::str::from_utf8(key).ok()?;
    (sealed.len() == SEALED).then_some(Parts { key, iv: *iv, sealed })
}

fn head(key: &str) -> Vec<u8> {
    // A name in a configuration is far shorter; were it longer, nothing would open.
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
    [MAGIC.as_slice(), &length, key.as_bytes()].concat()
}
