use serde_json::Value;

use super::{
    file::{CONTEXT, ContextOf, KEK, KekOf, bytes, opens, stored_in},
    forge::{Forged, padded},
};

#[test]
fn what_is_forged_without_a_fault_opens() {
    let vector = stored_in("right", KEK, CONTEXT, &Forged::right().stored(), None);
    assert_eq!(opens(&vector), Some(hex::encode("sk-0123456789abcdef")));
}

pub(super) fn must_fail() -> Vec<Value> {
    let mut vectors = Vec::new();
    let mut add = |name: &str, stored: &[u8]| {
        vectors.push(stored_in(name, KEK, CONTEXT, stored, None));
    };
    flips(&mut add);
    lengths(&mut add);
    forged(&mut add);
    for (name, padded) in paddings() {
        add(name, &Forged { padded, ..Forged::right() }.stored());
    }
    vectors.extend(elsewhere());
    vectors
}

/// One bit each, at the first and last byte of every part.
fn flips(add: &mut impl FnMut(&str, &[u8])) {
    let right = Forged::right().stored();
    let parts = [
        ("magic", 0, 4),
        ("format", 4, 5),
        ("suite", 5, 7),
        ("flags", 7, 8),
        ("key id", 8, 24),
        ("key version", 24, 28),
        ("salt", 28, 60),
        ("commitment", 60, 92),
        ("nonce", 92, 104),
        ("length", 104, 108),
        ("ciphertext", 108, right.len() - 16),
        ("tag", right.len() - 16, right.len()),
    ];
    for (part, start, end) in parts {
        for (at, bit) in [(start, 0x80), (end - 1, 0x01)] {
            let mut stored = right.clone();
            stored[at] ^= bit;
            add(&format!("the {part} differs at byte {at} in bit {bit:#04x}"), &stored);
        }
    }
}

fn lengths(add: &mut impl FnMut(&str, &[u8])) {
    let right = Forged::right().stored();
    for length in [0, 1, 4, 107, 108, 109, 123, 124, 125, right.len() - 16, right.len() - 1] {
        add(&format!("cut after {length} bytes"), &right[..length]);
    }
    add("a byte behind", &[&right[..], &[0]].concat());
    add("twice", &[&right[..], &right].concat());
    add("without its first byte", &right[1..]);
    for length_off in [-64, -1, 1, 64] {
        let stored = Forged { length_off, ..Forged::right() }.stored();
        add(&format!("a length that is off by {length_off}"), &stored);
        if let Ok(more) = usize::try_from(length_off) {
            add(
                &format!("a length that is off by {length_off}, and as many bytes behind"),
                &[&stored[..], &vec![0; more]].concat(),
            );
        }
    }
    let stored = Forged { padded: Vec::new(), ..Forged::right() }.stored();
    add("a tag and nothing else", &stored);
    let stored = Forged { padded: padded(&vec![b'a'; 16_385]), ..Forged::right() }.stored();
    add("a secret of 16385 bytes in the largest ciphertext", &stored);
    let stored = Forged { padded: padded(&vec![b'a'; 20_000]), ..Forged::right() }.stored();
    add("a secret of 20000 bytes", &stored);
}

/// Consistent in itself, and yet not this format.
fn forged(add: &mut impl FnMut(&str, &[u8])) {
    let right = Forged::right;
    add("another magic", &Forged { magic: *b"BKEV", ..right() }.stored());
    add("another magic in lower case", &Forged { magic: *b"srev", ..right() }.stored());
    for format in [0, 2, 255] {
        add(&format!("format {format}"), &Forged { format, ..right() }.stored());
    }
    for suite in [0, 2, 256, 65_535] {
        add(&format!("suite {suite}"), &Forged { suite, ..right() }.stored());
    }
    for flags in [1, 128] {
        add(&format!("flags {flags}"), &Forged { flags, ..right() }.stored());
    }
    let commitment = |commitment| Forged { commitment: Some(commitment), ..right() };
    add("a commitment of zeros", &commitment([0; 32]).stored());
    add("a commitment of ones", &commitment([0xff; 32]).stored());
    let other = Forged { kek: KekOf { key: "other kek", ..KEK }, ..right() }.stored();
    let to_other: [u8; 32] = other[60..92].try_into().unwrap();
    add("a commitment to another key", &commitment(to_other).stored());
    add("a commitment to the salt", &commitment(bytes("forged salt")).stored());
    let encrypted = Forged { encrypts: Some("other kek"), ..right() };
    add("a commitment to this key, encrypted with another", &encrypted.stored());
    let both = Forged { commitment: Some(to_other), ..encrypted };
    add("commitment and encryption with another key", &both.stored());
}

fn paddings() -> Vec<(&'static str, Vec<u8>)> {
    let secret = b"sk-0123456789abcdef";
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut padded = padded(secret);
        change(&mut padded);
        padded
    };
    vec![
        ("a length of 0", vec![0; 64]),
        ("a length beyond the end", with(&|bytes| bytes[3] = 61)),
        ("a length of 2^32 - 1", with(&|bytes| bytes[..4].fill(0xff))),
        ("a length that leaves a byte over", with(&|bytes| bytes[3] -= 1)),
        ("padding that is not zero at its start", with(&|bytes| bytes[23] = 0x80)),
        ("padding that is not zero at its end", with(&|bytes| bytes[63] = 1)),
        ("a block of padding too many", with(&|bytes| bytes.resize(128, 0))),
        ("no padding", with(&|bytes| bytes.truncate(23))),
        ("a byte of padding too few", with(&|bytes| bytes.truncate(63))),
        ("a byte of padding too many", with(&|bytes| bytes.push(0))),
        ("no room for the length", vec![0; 3]),
    ]
}

/// Right, but asked for as something else, or with another key.
fn elsewhere() -> Vec<Value> {
    let right = Forged::right().stored();
    let contexts = [
        ("another deployment", ContextOf { deployment: "other", ..CONTEXT }),
        ("another tenant", ContextOf { tenant: "other", ..CONTEXT }),
        ("another credential", ContextOf { credential: "other", ..CONTEXT }),
        ("another provider", ContextOf { provider: "anthropic", ..CONTEXT }),
        ("another version", ContextOf { version: 2, ..CONTEXT }),
        ("another purpose", ContextOf { purpose: "token", ..CONTEXT }),
        ("tenant and credential exchanged", {
            ContextOf { tenant: "credential", credential: "tenant", ..CONTEXT }
        }),
        ("a purpose that goes on", ContextOf { purpose: "secrets", ..CONTEXT }),
    ];
    let keks = [
        ("another key id", KekOf { id: "other", ..KEK }),
        ("another key version", KekOf { version: 8, ..KEK }),
        ("another key", KekOf { key: "other kek", ..KEK }),
    ];
    let in_context = |(name, context)| stored_in(name, KEK, context, &right, None);
    let with_key = |(name, kek)| stored_in(name, kek, CONTEXT, &right, None);
    contexts.map(in_context).into_iter().chain(keks.map(with_key)).collect()
}
