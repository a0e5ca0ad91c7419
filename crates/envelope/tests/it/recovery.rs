//! A second root, for the day on which the first is lost.

use std::sync::Arc;

use domain::Uid;
use envelope::{KeyContext, Kms, KmsError, Roots, WrappedKey};

use crate::{context, kms};

fn roots(first: &Arc<dyn Kms>, recovery: Option<&Arc<dyn Kms>>) -> Roots {
    let roots = Roots::only(Arc::clone(first));
    match recovery {
        Some(recovery) => roots.with_recovery(None, Arc::clone(recovery)).unwrap(),
        None => roots,
    }
}

/// Whether `kms rewrap` would have something to do.
async fn is_due(roots: &Roots, wrapped: &WrappedKey) -> bool {
    roots.wrapped_by(wrapped) != Some(roots.status().await.key_ref)
}

#[tokio::test]
async fn a_key_under_two_roots_opens_by_the_second_when_the_first_is_lost() {
    let (first, second, newer) = (kms(), kms(), kms());
    let before = roots(&first, Some(&second));
    let (key, wrapped) = before.generate(&context()).await.unwrap();
    assert!(!is_due(&before, &wrapped).await);
    assert_eq!(before.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());

    let after = roots(&newer, Some(&second));
    let lost = after.unwrap(&context(), &wrapped).await;
    assert!(matches!(lost, Err(KmsError::Corrupt)), "nothing falls back by itself");
    let elsewhere = KeyContext { owner: Uid::from_bytes([9; 16]), ..context() };
    let refused = after.open_by_recovery(&elsewhere, &wrapped).await;
    assert!(matches!(refused, Err(KmsError::Corrupt)));
    let opened = after.open_by_recovery(&context(), &wrapped).await.unwrap();
    assert_eq!(opened.expose(), key.expose());
    let recovered = after.recover(&context(), &wrapped).await.unwrap();
    assert!(!is_due(&after, &recovered).await);
    assert_eq!(after.unwrap(&context(), &recovered).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn without_the_second_root_nothing_is_recovered() {
    let (first, second) = (kms(), kms());
    let (_, under_both) = roots(&first, Some(&second)).generate(&context()).await.unwrap();
    let (_, under_one) = roots(&first, None).generate(&context()).await.unwrap();
    for (recovery, wrapped) in [
        (None, &under_both),
        // Another root than the one that it is under.
        (Some(kms()), &under_both),
        (Some(second), &under_one),
    ] {
        let roots = roots(&kms(), recovery.as_ref());
        let refused = roots.recover(&context(), wrapped).await;
        assert!(matches!(refused, Err(KmsError::Refused(_) | KmsError::Corrupt)), "{refused:?}");
    }
}

#[tokio::test]
async fn rewrapping_adds_changes_and_takes_away_the_second_root() {
    let (first, second, third) = (kms(), kms(), kms());
    let (key, mut wrapped) = roots(&first, None).generate(&context()).await.unwrap();
    for recovery in [Some(&second), Some(&third), None] {
        let now = roots(&first, recovery);
        assert!(is_due(&now, &wrapped).await);
        assert_eq!(now.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
        wrapped = now.rewrap(&context(), &wrapped).await.unwrap();
        assert!(!is_due(&now, &wrapped).await);
        if recovery.is_some() {
            let opened = now.open_by_recovery(&context(), &wrapped).await.unwrap();
            assert_eq!(opened.expose(), key.expose());
        }
    }
    assert!(wrapped.as_bytes().starts_with(b"SREV"));
}

#[tokio::test]
async fn what_is_cut_short_is_corrupt() {
    let roots = roots(&kms(), Some(&kms()));
    let (_, wrapped) = roots.generate(&context()).await.unwrap();
    for kept in [4, 5, 6, 100] {
        let cut = WrappedKey::from_bytes(wrapped.as_bytes().get(..kept).unwrap().to_vec());
        assert!(matches!(roots.unwrap(&context(), &cut).await, Err(KmsError::Corrupt)), "{kept}");
        assert!(roots.open_by_recovery(&context(), &cut).await.is_err(), "{kept}");
    }
}

#[tokio::test]
async fn a_tenants_own_root_is_recovered_by_its_own_second_only() {
    let (name, theirs, second) = ("acme".parse().unwrap(), kms(), kms());
    let with = |own, theirs, recovery: Option<Arc<dyn Kms>>| {
        let roots = Roots::only(own).with_recovery(None, kms()).unwrap();
        let roots = roots.with(&name, &["acme".parse().unwrap()], theirs).unwrap();
        match recovery {
            Some(recovery) => roots.with_recovery(Some(&name), recovery).unwrap(),
            None => roots,
        }
    };
    let before = with(kms(), Arc::clone(&theirs), Some(Arc::clone(&second)));
    let (key, wrapped) = before.generate_under(Some(&name), &context()).await.unwrap();
    assert!(wrapped.as_bytes().starts_with(b"SRR1\x04acmeSRD1"));
    let after = with(kms(), kms(), Some(second));
    let recovered = after.recover(&context(), &wrapped).await.unwrap();
    assert_eq!(after.unwrap(&context(), &recovered).await.unwrap().expose(), key.expose());

    // The deployment's recovery root is not for the keys of who brought a root.
    let uncovered = with(kms(), theirs, None);
    let (_, alone) = uncovered.generate_under(Some(&name), &context()).await.unwrap();
    assert!(alone.as_bytes().starts_with(b"SRR1\x04acmeSREV"));
    assert!(uncovered.recover(&context(), &wrapped).await.is_err());
    assert!(Roots::only(kms()).with_recovery(Some(&name), kms()).is_err());
}
