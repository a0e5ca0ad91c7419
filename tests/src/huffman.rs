//! The Huffman code of HTTP/2's header compression, RFC 7541, appendix B, of the characters that a
//! header's value may have.

/// A text's bits as they stand in memory when `skipped` of them share a byte with what is before it.
/// Only whole bytes are given: they do not depend on what stands around.
pub(crate) fn huffman(text: &[u8], skipped: usize) -> Vec<u8> {
    let mut bits = vec![false; skipped];
    for byte in text {
        let Some((length, code)) = CODES.get(usize::from(byte.wrapping_sub(FIRST))) else { break };
        bits.extend((0..*length).rev().map(|at| code >> at & 1 == 1));
    }
    let first = if skipped == 0 { 0 } else { 8 };
    let whole = bits.get(first..).unwrap_or_default().chunks_exact(8);
    whole.map(|byte| byte.iter().fold(0, |so_far, bit| so_far << 1 | u8::from(*bit))).collect()
}

const FIRST: u8 = b' ';

/// From the space to the tilde: how many bits, and which.
#[rustfmt::skip]
const CODES: [(u8, u32); 95] = [
    (6, 0x14), (10, 0x3f8), (10, 0x3f9), (12, 0xffa), (13, 0x1ff9), (6, 0x15), (8, 0xf8), (11, 0x7fa),
    (10, 0x3fa), (10, 0x3fb), (8, 0xf9), (11, 0x7fb), (8, 0xfa), (6, 0x16), (6, 0x17), (6, 0x18),
    (5, 0x0), (5, 0x1), (5, 0x2), (6, 0x19), (6, 0x1a), (6, 0x1b), (6, 0x1c), (6, 0x1d),
    (6, 0x1e), (6, 0x1f), (7, 0x5c), (8, 0xfb), (15, 0x7ffc), (6, 0x20), (12, 0xffb), (10, 0x3fc),
    (13, 0x1ffa), (6, 0x21), (7, 0x5d), (7, 0x5e), (7, 0x5f), (7, 0x60), (7, 0x61), (7, 0x62),
    (7, 0x63), (7, 0x64), (7, 0x65), (7, 0x66), (7, 0x67), (7, 0x68), (7, 0x69), (7, 0x6a),
    (7, 0x6b), (7, 0x6c), (7, 0x6d), (7, 0x6e), (7, 0x6f), (7, 0x70), (7, 0x71), (7, 0x72),
    (8, 0xfc), (7, 0x73), (8, 0xfd), (13, 0x1ffb), (19, 0x7fff0), (13, 0x1ffc), (14, 0x3ffc), (6, 0x22),
    (15, 0x7ffd), (5, 0x3), (6, 0x23), (5, 0x4), (6, 0x24), (5, 0x5), (6, 0x25), (6, 0x26),
    (6, 0x27), (5, 0x6), (7, 0x74), (7, 0x75), (6, 0x28), (6, 0x29), (6, 0x2a), (5, 0x7),
    (6, 0x2b), (7, 0x76), (6, 0x2c), (5, 0x8), (5, 0x9), (6, 0x2d), (7, 0x77), (7, 0x78),
    (7, 0x79), (7, 0x7a), (7, 0x7b), (15, 0x7ffe), (11, 0x7fc), (14, 0x3ffd), (13, 0x1ffd),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, C.4.1 and C.6.1; what is left of the last byte is padding.
    #[test]
    fn the_examples_of_the_specification_come_out() {
        for (text, code) in [
            ("www.example.com", &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]),
            (
                "https://www.example.com",
                b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3",
            ),
        ] {
            let encoded = huffman(text.as_bytes(), 0);
            assert_eq!(encoded, &code[..encoded.len()], "{text}");
            assert!(encoded.len() + 1 >= code.len());
        }
    }

    #[test]
    fn a_text_is_the_same_from_the_next_byte_on() {
        // A digit takes five bits, so that eight of them end where a byte does.
        let behind =
            |digits: usize| huffman(&[&vec![b'0'; digits], &b"a-secret-text"[..]].concat(), 0);
        for digits in 1..8 {
            let inner = huffman(b"a-secret-text", digits * 5 % 8);
            let all = behind(digits);
            assert!(all.windows(inner.len()).any(|part| part == inner), "{digits}");
        }
    }
}
