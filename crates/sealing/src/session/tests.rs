use super::*;
use crate::{
    LONGEST_SECRET,
    vectors::{LOW_ORDER, SESSION, ingest, lease, secret},
};

fn pair() -> (Session, Session) {
    let keys = ClientKeys::generate().unwrap();
    let (encapsulated, broker) = Session::establish(&keys.public_key(), SESSION).unwrap();
    (broker, keys.open(&encapsulated, SESSION).unwrap())
}

#[test]
fn what_one_end_seals_the_other_opens() {
    let (broker, client) = pair();
    let origins = ["https://api.openai.com".to_owned()];
    let sealed = broker.seal_lease(&lease(&origins), &secret()).unwrap();
    let opened = client.unseal_lease(&lease(&origins), &sealed).unwrap();
    assert_eq!(opened.expose(), secret().expose());

    let sealed = client.seal_box(&ingest(), &secret()).unwrap();
    assert_eq!(broker.open_box(&ingest(), &sealed).unwrap().expose(), secret().expose());
}

#[test]
fn another_session_opens_nothing() {
    let ((broker, _), (_, other)) = (pair(), pair());
    let sealed = broker.seal_lease(&lease(&[]), &secret()).unwrap();
    assert_eq!(other.unseal_lease(&lease(&[]), &sealed).unwrap_err(), DoesNotOpen);
}

#[test]
fn a_session_of_another_id_or_key_is_another_session() {
    let keys = ClientKeys::generate().unwrap();
    let (encapsulated, broker) = Session::establish(&keys.public_key(), SESSION).unwrap();
    let sealed = broker.seal_lease(&lease(&[]), &secret()).unwrap();
    let other_id = keys.open(&encapsulated, [0; 16]).unwrap();
    assert!(other_id.unseal_lease(&lease(&[]), &sealed).is_err());
    let other_keys = ClientKeys::generate().unwrap().open(&encapsulated, SESSION).unwrap();
    assert!(other_keys.unseal_lease(&lease(&[]), &sealed).is_err());
}

#[test]
fn one_public_key_gives_another_session_each_time() {
    let keys = ClientKeys::generate().unwrap();
    let (one_key, one) = Session::establish(&keys.public_key(), SESSION).unwrap();
    let (other_key, other) = Session::establish(&keys.public_key(), SESSION).unwrap();
    assert_ne!(one_key, other_key);
    assert_ne!(one.keys(), other.keys());
    assert_ne!(one.keys().0, one.keys().1);
}

#[test]
fn public_keys_of_low_order_are_refused_at_both_ends() {
    let keys = ClientKeys::generate().unwrap();
    for point in LOW_ORDER {
        let point = hex::decode(point).unwrap();
        let refused = Session::establish(&point, SESSION).unwrap_err();
        assert_eq!(refused, EstablishError::MalformedPublicKey);
        assert!(keys.open(&point, SESSION).is_err());
    }
}

#[test]
fn public_keys_of_another_length_are_refused_at_both_ends() {
    let keys = ClientKeys::generate().unwrap();
    for length in [0, 1, 31, 33, 64] {
        assert!(Session::establish(&vec![9; length], SESSION).is_err(), "{length}");
        assert!(keys.open(&vec![9; length], SESSION).is_err(), "{length}");
    }
}

#[test]
fn each_bit_of_a_sealed_lease_counts() {
    let (broker, client) = pair();
    let sealed = broker.seal_lease(&lease(&[]), &secret()).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(client.unseal_lease(&lease(&[]), &altered).is_err(), "bit {bit}");
    }
}

#[test]
fn secrets_are_bounded() {
    let (broker, _) = pair();
    let seal = |length| broker.seal_lease(&lease(&[]), &Secret::new(vec![b'k'; length]));
    assert_eq!(seal(0), Err(SealError::SecretLength));
    assert_eq!(seal(LONGEST_SECRET).unwrap().len(), LONGEST_SECRET + 16);
    assert_eq!(seal(LONGEST_SECRET + 1), Err(SealError::SecretLength));
}

#[test]
fn debug_shows_no_key() {
    let keys = ClientKeys::generate().unwrap();
    assert_eq!(format!("{keys:?} {:?}", pair().0), "ClientKeys(…) Session(…)");
}
