use domain::Key;
use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroizing;

/// HKDF-SHA512 with the salt, to be expanded by [`expand`].
pub(crate) fn extract(salt: Option<&[u8]>, key: &Key) -> Hkdf<Sha512> {
    Hkdf::new(salt, key.expose())
}

/// N bytes for the label and what follows it.
#[expect(clippy::expect_used, reason = "the length is checked when this is compiled")]
pub(crate) fn expand<const N: usize>(
    prk: &Hkdf<Sha512>,
    label: &str,
    rest: &[u8],
) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 64, "HKDF gives no more") };
    let mut bytes = Zeroizing::new([0; N]);
    prk.expand_multi_info(&[label.as_bytes(), rest], bytes.as_mut_slice()).expect("N is checked");
    bytes
}

/// A key that follows from `key` and the label.
pub(crate) fn subkey(key: &Key, label: &str) -> Key {
    Key::take(&mut expand(&extract(None, key), label, &[]))
}
