use domain::Key;
use subtle::ConstantTimeEq as _;

use crate::derive::subkey;

/// The key of MACs over rows that are the deployment's own, and no tenant's. It follows from the deployment's
/// pepper, which every broker has in memory and the database has only wrapped.
#[derive(Debug)]
pub struct RowKey(Key);

impl RowKey {
    /// The key that follows from a pepper.
    pub fn of(pepper: &Key) -> Self {
        Self(subkey(pepper, "srev1 deployment row mac"))
    }

    /// The MAC over a row: all its columns, encoded with [`domain::Fields`].
    pub fn mac(&self, row: &[u8]) -> [u8; 32] {
        self.0.hmac(row)
    }

    /// Whether the row is as it was when the MAC was made.
    pub fn is_genuine(&self, row: &[u8], mac: &[u8; 32]) -> bool {
        self.mac(row).ct_eq(mac).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_depends_on_the_row_and_the_pepper_and_is_none_of_the_peppers_own() {
        let pepper = |byte| Key::take(&mut [byte; 32]);
        let (key, other) = (RowKey::of(&pepper(7)), RowKey::of(&pepper(8)));
        let mac = key.mac(b"row");
        assert!(key.is_genuine(b"row", &mac));
        assert!(!key.is_genuine(b"raw", &mac));
        assert!(!other.is_genuine(b"row", &mac));
        assert_ne!(mac, pepper(7).hmac(b"row"));
    }
}
