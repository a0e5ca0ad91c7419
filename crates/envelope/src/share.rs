use domain::{Key, Uid};
use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::{Kek, derive::expand};

/// A tenant's key: what the KMS unwrapped, and the tenant's share. Neither half says anything of it
/// without the other, so that destroying the share erases what is under the key from every copy.
pub fn tenant_key(unwrapped: &Key, tenant: Uid, share: &Key) -> Key {
    of_both(unwrapped, share, "srev1 tenant share", tenant)
}

impl Kek {
    /// The key of one credential's secrets under this key: it takes the credential's share as well, so
    /// that one credential can be erased alone. It has this key's id and version.
    #[must_use]
    pub fn for_credential(&self, credential: Uid, share: &Key) -> Self {
        let (id, version) = self.reference();
        Self::new(id, version, of_both(self.key(), share, "srev1 credential share", credential))
    }
}

fn of_both(key: &Key, share: &Key, label: &str, of: Uid) -> Key {
    let mut both = Zeroizing::new([0; 64]);
    for (at, byte) in both.iter_mut().zip(key.expose().iter().chain(share.expose())) {
        *at = *byte;
    }
    let prk = Hkdf::<Sha512>::new(None, &*both);
    Key::take(&mut expand(&prk, label, of.as_bytes()))
}

#[cfg(test)]
mod tests {
    use domain::Secret;

    use super::*;
    use crate::PersonContext;

    fn key(byte: u8) -> Key {
        Key::take(&mut [byte; 32])
    }

    fn uid(byte: u8) -> Uid {
        Uid::from_bytes([byte; 16])
    }

    #[test]
    fn both_halves_count_and_so_does_whose_they_are() {
        let made = *tenant_key(&key(1), uid(1), &key(2)).expose();
        assert_eq!(made, *tenant_key(&key(1), uid(1), &key(2)).expose());
        for other in [
            tenant_key(&key(3), uid(1), &key(2)),
            tenant_key(&key(1), uid(1), &key(3)),
            tenant_key(&key(1), uid(3), &key(2)),
            tenant_key(&key(2), uid(1), &key(1)),
        ] {
            assert_ne!(made, *other.expose());
        }
    }

    #[test]
    fn what_a_credentials_key_sealed_opens_with_its_share_only() {
        let kek = Kek::new(uid(9), 1, key(1));
        let context = PersonContext { deployment: uid(1), tenant: uid(2), commitment: [3; 32] };
        let sealed = kek.for_credential(uid(4), &key(5));
        let sealed = sealed.seal(&context, &Secret::new(b"sk-1".to_vec())).unwrap();
        let opened = kek.for_credential(uid(4), &key(5)).open(&context, &sealed).unwrap();
        assert_eq!(opened.expose(), b"sk-1");
        assert!(kek.for_credential(uid(4), &key(6)).open(&context, &sealed).is_err());
        assert!(kek.for_credential(uid(5), &key(5)).open(&context, &sealed).is_err());
        assert!(kek.open(&context, &sealed).is_err());
    }
}
