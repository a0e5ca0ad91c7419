use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// A virtual key as an application holds it: `vk_{id}_{secret}_{crc}`.
///
/// The id is 10 random bytes and the secret 32, both in base32 (`a-z2-7`, no padding): 16 and 52
/// characters. The check is the CRC-32 of everything before its underscore, as 8 hex digits, so that
/// a truncated key is told apart from a wrong one before anyone is asked.
pub struct VirtualKey {
    text: Zeroizing<String>,
    id: VirtualKeyId,
}

/// The public part of a virtual key: 16 of `[a-z2-7]`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct VirtualKeyId(String);

/// SHA-256 of a whole virtual key: what proves to the broker that the caller has seen it.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct VirtualKeyDigest([u8; 32]);

/// A text that cannot be a virtual key. It says nothing of what was wrong, nor repeats it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("this is not a virtual key: one looks like vk_<id>_<secret>_<check>")]
pub struct MalformedVirtualKey;

impl VirtualKey {
    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails; there is nothing to fall back to.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 10];
        getrandom::fill(&mut bytes)?;
        let mut id = String::with_capacity(16);
        base32(&bytes, &mut id);
        Self::renew(VirtualKeyId(id))
    }

    /// A new key for an id that there is already: what an application is given when its key is
    /// rotated.
    ///
    /// # Errors
    /// As with [`Self::generate`].
    pub fn renew(id: VirtualKeyId) -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice())?;
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str("vk_");
        text.push_str(id.as_str());
        text.push('_');
        base32(secret.as_slice(), &mut text);
        let check = crc32fast::hash(text.as_bytes());
        text.push('_');
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{check:08x}");
        Ok(Self { text, id })
    }

    /// The key itself, to be shown once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The id inside the key.
    pub fn id(&self) -> &VirtualKeyId {
        &self.id
    }

    /// What the broker is sent in place of the key.
    pub fn digest(&self) -> VirtualKeyDigest {
        VirtualKeyDigest(Sha256::digest(self.text.as_bytes()).into())
    }

    /// Reads what an application presented, without keeping it: its id and digest.
    pub fn inspect(text: &str) -> Result<(VirtualKeyId, VirtualKeyDigest), MalformedVirtualKey> {
        if text.len() != LENGTH || !text.is_ascii() {
            return Err(MalformedVirtualKey);
        }
        let (body, check) = text.rsplit_once('_').ok_or(MalformedVirtualKey)?;
        let (id, secret) = body
            .strip_prefix("vk_")
            .and_then(|rest| rest.split_once('_'))
            .ok_or(MalformedVirtualKey)?;
        if secret.len() != 52 || format!("{:08x}", crc32fast::hash(body.as_bytes())) != check {
            return Err(MalformedVirtualKey);
        }
        Ok((id.parse()?, VirtualKeyDigest(Sha256::digest(text.as_bytes()).into())))
    }
}

impl fmt::Debug for VirtualKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualKey({}, …)", self.id)
    }
}

impl VirtualKeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VirtualKeyId {
    type Err = MalformedVirtualKey;

    fn from_str(text: &str) -> Result<Self, MalformedVirtualKey> {
        let valid =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        if valid { Ok(Self(text.to_owned())) } else { Err(MalformedVirtualKey) }
    }
}

impl TryFrom<String> for VirtualKeyId {
    type Error = MalformedVirtualKey;

    fn try_from(text: String) -> Result<Self, MalformedVirtualKey> {
        text.parse()
    }
}

impl fmt::Display for VirtualKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl VirtualKeyDigest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What is stored: HMAC-SHA256 under the pepper of the id and the digest.
    pub fn verifier(&self, pepper: &crate::Key, id: &VirtualKeyId) -> [u8; 32] {
        pepper.hmac(
            &crate::Fields::new("strongroom virtual key v1")
                .field(1, id.as_str())
                .field(2, self.0)
                .finish(),
        )
    }

    /// Which of what is stored it matches, in a time that depends on how many there are and on
    /// nothing else.
    pub fn place_among(
        &self,
        pepper: &crate::Key,
        id: &VirtualKeyId,
        stored: &[[u8; 32]],
    ) -> Option<usize> {
        let presented = self.verifier(pepper, id);
        let mut found = None;
        for (place, stored) in stored.iter().enumerate() {
            if bool::from(presented.ct_eq(stored)) {
                found = Some(place);
            }
        }
        found
    }
}

impl fmt::Debug for VirtualKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtualKeyDigest(…)")
    }
}

impl crate::LeaseId {
    /// What records, lists and revocations call this lease: HMAC-SHA256 under the pepper.
    pub fn hash(&self, pepper: &crate::Key) -> [u8; 32] {
        pepper
            .hmac(&crate::Fields::new("strongroom lease id v1").field(1, self.as_bytes()).finish())
    }
}

/// `vk_` + 16 + `_` + 52 + `_` + 8.
const LENGTH: usize = 3 + 16 + 1 + 52 + 1 + 8;

/// RFC 4648 base32 in lower case, without padding.
fn base32(bytes: &[u8], out: &mut String) {
    let mut held = 0_u32;
    let mut bits = 0;
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(digit(held >> bits));
            held &= (1 << bits) - 1;
        }
    }
    if bits > 0 {
        out.push(digit(held << (5 - bits)));
    }
}

fn digit(value: u32) -> char {
    let value = u8::try_from(value & 31).unwrap_or(0);
    char::from(if value < 26 { b'a' + value } else { b'2' + value - 26 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_reads_back() {
        let key = VirtualKey::generate().unwrap();
        assert_eq!(key.expose().len(), LENGTH);
        let (id, digest) = VirtualKey::inspect(key.expose()).unwrap();
        assert_eq!(&id, key.id());
        assert_eq!(digest, key.digest());
        assert!(!format!("{key:?}").contains(&key.expose()[20..]));
    }

    #[test]
    fn a_rotated_key_has_the_same_id_and_another_secret() {
        let old = VirtualKey::generate().unwrap();
        let new = VirtualKey::renew(old.id().clone()).unwrap();
        let (id, digest) = VirtualKey::inspect(new.expose()).unwrap();
        assert_eq!(&id, old.id());
        assert_ne!(digest, old.digest());
    }

    #[test]
    fn one_wrong_character_is_seen_before_anyone_is_asked() {
        let key = VirtualKey::generate().unwrap();
        for at in 0..LENGTH {
            let mut text = key.expose().to_owned().into_bytes();
            text[at] = if text[at] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(text).unwrap();
            assert_eq!(VirtualKey::inspect(&text), Err(MalformedVirtualKey), "{at}");
        }
        assert!(VirtualKey::inspect(&key.expose()[..LENGTH - 1]).is_err());
        assert!(VirtualKey::inspect("sk-proj-123").is_err());
    }

    #[test]
    fn a_verifier_depends_on_key_id_and_pepper() {
        let pepper = crate::Key::take(&mut [7; 32]);
        let (one, other) = (VirtualKey::generate().unwrap(), VirtualKey::generate().unwrap());
        let stored = one.digest().verifier(&pepper, one.id());
        let place = |key: &VirtualKey, pepper: &crate::Key, id: &VirtualKeyId| {
            key.digest().place_among(pepper, id, &[[0; 32], stored])
        };
        assert_eq!(place(&one, &pepper, one.id()), Some(1));
        assert_eq!(place(&one, &pepper, other.id()), None);
        assert_eq!(place(&other, &pepper, one.id()), None);
        assert_eq!(place(&one, &crate::Key::take(&mut [8; 32]), one.id()), None);
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        let mut out = String::new();
        base32(b"foobar", &mut out);
        assert_eq!(out, "mzxw6ytboi");
    }
}
