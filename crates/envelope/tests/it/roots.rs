//! Several roots: which one a key is under, and who may have keys there.

use std::error::Error as _;

use domain::{RootName, TenantId};
use envelope::{Kms as _, KmsError, KmsOpenError, RootConfig, Roots, WrappedKey};

use crate::{context, kms};

fn root(name: &str) -> RootName {
    name.parse().unwrap()
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn roots() -> Roots {
    let roots = Roots::only(kms());
    let roots = roots.with(&root("acme"), &[tenant("acme"), tenant("acme-eu")], kms()).unwrap();
    roots.with(&root("globex"), &[tenant("globex")], kms()).unwrap()
}

#[tokio::test]
async fn a_key_says_which_root_it_is_under_and_opens_there() {
    let roots = roots();
    let (key, wrapped) = roots.generate_under(Some(&root("acme")), &context()).await.unwrap();
    assert!(wrapped.as_bytes().starts_with(b"SRR1\x04acmeSREV"));
    assert_eq!(roots.root_of(&wrapped), Some(root("acme")));
    assert_eq!(roots.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
    let theirs = roots.status_of(Some(&root("acme"))).await.unwrap().key_ref;
    assert_eq!(roots.wrapped_by(&wrapped), Some(theirs));
    assert_ne!(roots.wrapped_by(&wrapped), Some(roots.status().await.key_ref));

    let rewrapped = roots.rewrap(&context(), &wrapped).await.unwrap();
    assert_eq!(roots.root_of(&rewrapped), Some(root("acme")));
    assert_eq!(roots.unwrap(&context(), &rewrapped).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn without_a_name_a_key_is_stored_as_it_always_was() {
    let own = kms();
    let (key, wrapped) = own.generate(&context()).await.unwrap();
    let roots = Roots::only(own).with(&root("acme"), &[tenant("acme")], kms()).unwrap();
    assert_eq!(roots.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
    let (_, wrapped) = roots.generate(&context()).await.unwrap();
    assert!(wrapped.as_bytes().starts_with(b"SREV"));
    assert_eq!(roots.root_of(&wrapped), None);
}

#[tokio::test]
async fn a_key_passed_off_as_under_another_root_does_not_open() {
    let roots = roots();
    let (_, wrapped) = roots.generate_under(Some(&root("acme")), &context()).await.unwrap();
    let inner = wrapped.as_bytes().strip_prefix(b"SRR1\x04acme").unwrap();
    let elsewhere = WrappedKey::from_bytes([b"SRR1\x06globex", inner].concat());
    assert!(matches!(roots.unwrap(&context(), &elsewhere).await, Err(KmsError::Corrupt)));
    let ours = WrappedKey::from_bytes(inner.to_vec());
    assert!(matches!(roots.unwrap(&context(), &ours).await, Err(KmsError::Corrupt)));
}

#[tokio::test]
async fn a_root_that_is_not_configured_is_named() {
    let (_, wrapped) = roots().generate_under(Some(&root("globex")), &context()).await.unwrap();
    let fewer = Roots::only(kms());
    let Err(KmsError::Refused(why)) = fewer.unwrap(&context(), &wrapped).await else { panic!() };
    assert!(why.to_string().contains("`globex`"), "{why}");
    assert!(why.source().is_none());
    assert_eq!(fewer.root_of(&wrapped), None, "names that nobody configured are not kept");
}

#[tokio::test]
async fn keys_are_taken_from_under_a_tenants_own_root_only() {
    let roots = roots();
    assert_eq!(roots.of(&tenant("acme-eu")), Some(&root("acme")));
    assert_eq!(roots.of(&tenant("initech")), None);
    let (_, acmes) = roots.generate_under(Some(&root("acme")), &context()).await.unwrap();
    let (_, ours) = roots.generate(&context()).await.unwrap();
    for (name, allowed) in
        [("acme", true), ("acme-eu", true), ("globex", false), ("initech", false)]
    {
        assert_eq!(roots.check(&tenant(name), &acmes).is_ok(), allowed, "{name}");
        assert!(roots.check(&tenant(name), &ours).is_ok(), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_name_of_a_root_is_corrupt() {
    let roots = roots();
    let cut: [&[u8]; 5] =
        [b"SRR1", b"SRR1\x09acme", b"SRR1\x00", b"SRR1\x04ACMESREV", b"SRR1\x02\xff\xfe"];
    for bytes in cut {
        let wrapped = WrappedKey::from_bytes(bytes.to_vec());
        let refused = roots.unwrap(&context(), &wrapped).await;
        assert!(matches!(refused, Err(KmsError::Corrupt)), "{bytes:?}: {refused:?}");
        assert!(roots.check(&tenant("acme"), &wrapped).is_err());
    }
}

#[test]
fn a_tenant_has_one_root_and_a_name_stands_for_one() {
    let refused = |with: Result<Roots, KmsOpenError>| {
        assert!(matches!(with, Err(KmsOpenError::Configuration(_))), "{with:?}");
    };
    refused(roots().with(&root("acme"), &[tenant("initech")], kms()));
    refused(roots().with(&root("initech"), &[tenant("acme")], kms()));
    refused(roots().with(&root("initech"), &[tenant("platform")], kms()));
}

#[test]
fn a_root_is_configured_with_its_name_and_its_tenants() {
    let text = "name = \"acme\"\ntenants = [\"acme\", \"acme-eu\"]\n\
                [kms]\nkind = \"aws\"\nkey_id = \"arn:aws:kms:eu-west-1:4444:key/1\"\n\
                region = \"eu-west-1\"\n";
    let config: RootConfig = toml::from_str(text).unwrap();
    assert_eq!((config.name, config.tenants.len()), (root("acme"), 2));
    for wrong in [text.replace("acme-eu", "ACME"), text.replace("name = \"acme\"", "name = \"\"")] {
        assert!(toml::from_str::<RootConfig>(&wrong).is_err(), "{wrong}");
    }
}
