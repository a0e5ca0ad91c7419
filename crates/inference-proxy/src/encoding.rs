use http::{HeaderMap, header::CONTENT_ENCODING};

/// Whether an answer is compressed, or encoded in another way: nobody on the way can read such a one,
/// neither for the leased secret nor for what it took, but the caller's SDK can.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let encoding = value.as_bytes().trim_ascii();
        !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: bool) {
        let values = values.iter().map(|value| (CONTENT_ENCODING, value.parse().unwrap()));
        assert_eq!(is_encoded(&values.collect()), expected);
    }

    #[test]
    fn whatever_is_not_identity_is_an_encoding() {
        for plain in [&[][..], &[""], &["identity"], &[" Identity "], &["identity", ""]] {
            check(plain, false);
        }
        for encoded in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "zstd"], &["x"]]
        {
            check(encoded, true);
        }
    }
}
