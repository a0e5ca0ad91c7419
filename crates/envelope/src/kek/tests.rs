use std::collections::HashSet;

use super::*;
use crate::Context;

const CONSTANT: [u8; 32] = [7; 32];

fn kek() -> Kek {
    Kek::new(Uid::from_bytes([1; 16]), 3, Key::take(&mut [2; 32]))
}

fn context() -> Context {
    Context {
        deployment: Uid::from_bytes([4; 16]),
        tenant: Uid::from_bytes([5; 16]),
        credential: Uid::from_bytes([6; 16]),
        provider: "openai".parse().unwrap(),
        version: 1,
        purpose: "secret",
    }
}

fn secret() -> Secret {
    Secret::new(b"sk-0123456789abcdef".to_vec())
}

#[test]
fn a_sealed_secret_opens() {
    let stored = kek().seal(&context(), &secret()).unwrap();
    assert_eq!(kek().open(&context(), &stored).unwrap().expose(), secret().expose());
    assert_eq!(crate::key_reference(&stored), Some(kek().reference()));
    assert_eq!(stored.len(), 108 + 64 + 16);
}

#[test]
fn each_bit_of_the_header_counts_and_the_answer_is_always_the_same() {
    let stored = kek().seal(&context(), &secret()).unwrap();
    let mut refusals = Vec::new();
    for bit in 0..HEADER * 8 {
        let mut altered = stored.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let refused = kek().open(&context(), &altered).unwrap_err();
        refusals.push((refused, refused.to_string()));
    }
    assert_eq!(refusals.len(), 864);
    assert!(refusals.iter().all(|refusal| *refusal == (DoesNotOpen, "it does not open".into())));
}

#[test]
fn each_bit_of_the_body_counts() {
    let stored = kek().seal(&context(), &secret()).unwrap();
    for bit in HEADER * 8..stored.len() * 8 {
        let mut altered = stored.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(kek().open(&context(), &altered).is_err(), "bit {bit}");
    }
}

#[test]
fn each_field_of_the_context_counts() {
    let stored = kek().seal(&context(), &secret()).unwrap();
    let other = Uid::from_bytes([9; 16]);
    for wrong in [
        Context { deployment: other, ..context() },
        Context { tenant: other, ..context() },
        Context { credential: other, ..context() },
        Context { provider: "anthropic".parse().unwrap(), ..context() },
        Context { version: 2, ..context() },
        Context { purpose: "token", ..context() },
    ] {
        assert!(kek().open(&wrong, &stored).is_err(), "{wrong:?}");
    }
}

#[test]
fn another_key_opens_nothing() {
    let stored = kek().seal(&context(), &secret()).unwrap();
    let (id, version) = kek().reference();
    for other in [
        Kek::new(id, version, Key::take(&mut [3; 32])),
        Kek::new(id, version + 1, Key::take(&mut [2; 32])),
        Kek::new(Uid::from_bytes([9; 16]), version, Key::take(&mut [2; 32])),
    ] {
        assert!(other.open(&context(), &stored).is_err(), "{other:?}");
    }
}

#[test]
fn a_random_source_that_repeats_itself_repeats_no_salt_and_no_nonce() {
    let kek = kek();
    let mut seen = HashSet::new();
    for number in 0..10_000_u32 {
        let secret = Secret::new(number.to_be_bytes().to_vec());
        let stored = kek.seal_with(CONSTANT, &context().encode(), &secret).unwrap();
        seen.insert((stored[28..60].to_vec(), stored[92..104].to_vec()));
    }
    assert_eq!(seen.len(), 10_000);
}

#[test]
fn a_random_source_that_repeats_itself_shows_only_that_all_is_the_same() {
    let kek = kek();
    let salt = |context: &Context, secret: Secret| {
        kek.seal_with(CONSTANT, &context.encode(), &secret).unwrap()[28..60].to_vec()
    };
    let one = salt(&context(), secret());
    assert_eq!(one, salt(&context(), secret()));
    assert_ne!(one, salt(&Context { version: 2, ..context() }, secret()));
}

#[test]
fn the_same_secret_is_never_stored_alike() {
    let stored: HashSet<_> =
        (0..100).map(|_| kek().seal(&context(), &secret()).unwrap()[28..].to_vec()).collect();
    assert_eq!(stored.len(), 100);
}

#[test]
fn lengths_are_hidden_in_blocks_and_bounded() {
    let length = |secret: usize| kek().seal(&context(), &Secret::new(vec![b'a'; secret]));
    assert_eq!(length(1).unwrap().len(), length(60).unwrap().len());
    assert_eq!(length(61).unwrap().len(), length(60).unwrap().len() + 64);
    assert!(length(LONGEST_SECRET).is_ok());
    assert!(matches!(length(LONGEST_SECRET + 1), Err(SealError::SecretLength)));
    assert!(matches!(length(0), Err(SealError::SecretLength)));
}

#[test]
fn a_row_is_genuine_as_it_was_and_not_otherwise() {
    let mac = kek().row_mac(b"disabled");
    assert!(kek().row_is_genuine(b"disabled", &mac));
    assert!(!kek().row_is_genuine(b"enabled", &mac));
    assert!(!kek().row_is_genuine(b"disabled", &mac[..31]));
    assert!(!kek().row_is_genuine(b"disabled", &[]));
    assert!(
        !Kek::new(Uid::from_bytes([1; 16]), 3, Key::take(&mut [3; 32]))
            .row_is_genuine(b"disabled", &mac)
    );
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", kek()), "Kek(01010101010101010101010101010101/3)");
}
