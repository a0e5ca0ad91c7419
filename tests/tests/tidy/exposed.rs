use std::collections::BTreeMap;

use crate::sources::{self, Source};

/// How often each file reads a `Secret`, a `Key` or a virtual key: the whole surface on which
/// plaintext can get lost. A change here is a change to review.
const EXPOSED: &[(&str, usize)] = &[
    ("crates/bench/src/deployment.rs", 1),
    ("crates/bench/src/spending/world.rs", 1),
    ("crates/broker/src/custody.rs", 1),
    ("crates/broker/src/services/credentials/testing.rs", 1),
    ("crates/cli/src/keys.rs", 2),
    ("crates/domain/src/secret.rs", 1),
    ("crates/envelope/src/aws.rs", 1),
    ("crates/envelope/src/derive.rs", 1),
    ("crates/envelope/src/kek.rs", 3),
    ("crates/envelope/src/keyset.rs", 3),
    ("crates/envelope/src/local.rs", 2),
    ("crates/envelope/src/pkcs11.rs", 2),
    ("crates/envelope/src/share.rs", 2),
    ("crates/envelope/src/transit.rs", 1),
    ("crates/exchange/src/answer.rs", 1),
    ("crates/exchange/src/aws/sign.rs", 2),
    ("crates/exchange/src/google.rs", 3),
    ("crates/exchange/src/order.rs", 1),
    ("crates/exchange/src/trial.rs", 5),
    ("crates/inference-proxy/src/leak.rs", 1),
    ("crates/inference-proxy/src/listener_tls.rs", 1),
    ("crates/inference-proxy/src/outgoing.rs", 1),
    ("crates/inference-proxy/src/redact.rs", 2),
    ("crates/inference-proxy/src/upstream.rs", 1),
    ("crates/mtls/src/files.rs", 1),
    ("crates/quickstart/src/stand_in.rs", 2),
    ("crates/quickstart/src/system.rs", 1),
    ("crates/sealing/src/seal.rs", 2),
    ("crates/sealing/src/session.rs", 3),
    ("crates/setup/src/layout.rs", 1),
    ("crates/store/src/shares.rs", 1),
    ("crates/witness/src/desk.rs", 1),
    ("crates/witness/src/files.rs", 1),
    ("crates/witness/src/listener.rs", 1),
];

#[test]
fn plaintext_is_read_where_the_list_says_and_nowhere_else() {
    let real = sources::of_crates()
        .into_iter()
        .filter(|source| !source.path.starts_with("crates/testkit/"))
        .map(|Source { path, text }| (path, text.matches(".expose()").count()))
        .filter(|(_, times)| *times > 0)
        .collect::<BTreeMap<_, _>>();
    let listed = EXPOSED
        .iter()
        .map(|(path, times)| ((*path).to_owned(), *times))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(real, listed, "where plaintext is read, and what the list says");
}
