use std::fmt;

use hardening::Place;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// Plaintext: wiped when dropped, absent from `Debug`, neither `Clone` nor serializable.
///
/// Build it at its final size: a buffer that grows leaves copies behind.
///
/// ```
/// let secret = domain::Secret::new(b"sk-0123456789ab".to_vec());
/// assert_eq!(format!("{secret:?}"), "Secret(…)");
/// ```
///
/// There is no second one of it:
///
/// ```compile_fail,E0599
/// let secret = domain::Secret::new(b"sk-0123456789ab".to_vec());
/// let copy = secret.clone();
/// ```
///
/// It has no text:
///
/// ```compile_fail,E0277
/// let secret = domain::Secret::new(b"sk-0123456789ab".to_vec());
/// println!("{secret}");
/// ```
///
/// And it is part of nothing that is written out:
///
/// ```compile_fail,E0277
/// fn write(value: impl serde::Serialize) {}
/// write(domain::Secret::new(b"sk-0123456789ab".to_vec()));
/// ```
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A shorter one is not searched for in what must not hold it: it would be found by chance.
    pub const SHORTEST_SEARCHED: usize = 12;

    /// Takes the bytes over; no copy is made.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The plaintext. Every call of this is listed in `tests/src/tidy.rs`.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last four characters for people to recognize it by; nothing of a secret so short that
    /// four characters would give much of it away.
    pub fn last_four(&self) -> String {
        let Ok(text) = std::str::from_utf8(&self.0) else { return String::new() };
        let count = text.chars().count();
        if count < 12 { String::new() } else { text.chars().skip(count - 4).collect() }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A 256-bit key that lasts: kept apart from other memory, wiped when dropped, absent from `Debug`,
/// not `Clone`.
///
/// ```compile_fail,E0599
/// let key = domain::Key::take(&mut [7; 32]);
/// let copy = key.clone();
/// ```
///
/// ```compile_fail,E0277
/// let key = domain::Key::take(&mut [7; 32]);
/// println!("{key}");
/// ```
pub struct Key(Place);

impl Key {
    /// Takes a key over and wipes where it stood.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let mut place = Place::zeroed();
        place.bytes_mut().copy_from_slice(bytes);
        bytes.zeroize();
        Self(place)
    }

    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails; there is nothing to fall back to.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut place = Place::zeroed();
        getrandom::fill(place.bytes_mut())?;
        Ok(Self(place))
    }

    /// HMAC-SHA256 of a message under this key.
    pub fn hmac(&self, message: &[u8]) -> [u8; 32] {
        use hmac::{KeyInit as _, Mac as _};

        // HMAC fills a shorter key up with zeros to a block; done here it cannot fail.
        let mut block = Zeroizing::new([0; 64]);
        for (at, byte) in block.iter_mut().zip(self.expose()) {
            *at = *byte;
        }
        let mut mac = hmac::Hmac::<Sha256>::new((&*block).into());
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// The key's bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_secrets_show_nothing() {
        assert_eq!(Secret::new(b"sk-12345678".to_vec()).last_four(), "");
        assert_eq!(Secret::new(b"sk-123456789".to_vec()).last_four(), "6789");
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new(b"sk-123456789".to_vec())), "Secret(…)");
    }
}
