//! The behaviours. Each backend's module runs them by `contract!`.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use domain::Key;
use envelope::{KeyContext, KmsError, WrappedKey};

use crate::{Remote, Stand, context, wrong_contexts};

/// Makes a test of each behaviour, run by `$run` on a stand: all of them, or those too that a KMS
/// elsewhere must have.
macro_rules! contract {
    ($run:path) => {
        $crate::contract::contract!(
            $run,
            a_key_unwraps_to_what_was_generated,
            no_two_keys_are_alike,
            a_wrapped_key_opens_in_its_own_context_only,
            a_wrapped_key_altered_anywhere_opens_no_more,
            a_wrapped_key_cut_short_opens_no_more,
            what_was_never_wrapped_is_corrupt_or_refused,
            a_rewrapped_key_is_the_same_key,
            rewrapping_needs_the_right_context,
            a_new_key_is_wrapped_by_the_key_of_the_status,
            a_key_of_another_root_is_wrapped_and_opens_in_its_own_context_only,
            after_a_rotation_rewrapping_leaves_the_old_root,
            sixty_four_at_once_each_get_their_own_key,
            debug_shows_no_key,
        );
    };
    (remote $run:path) => {
        $crate::contract::contract!($run);
        $crate::contract::contract!(
            $run,
            a_disabled_root_key_refuses_until_it_is_enabled,
            where_nothing_answers_it_is_unavailable_in_time,
        );
    };
    ($run:path, $($behaviour:ident),+ $(,)?) => {
        $(#[test]
        fn $behaviour() {
            $run(stringify!($behaviour), async |stand| {
                $crate::contract::$behaviour(stand).await;
            });
        })+
    };
}
pub(crate) use contract;

pub(crate) async fn a_key_unwraps_to_what_was_generated(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    let stored = WrappedKey::from_bytes(wrapped.as_bytes().to_vec());
    assert_eq!(kms.unwrap(&context(), &stored).await.unwrap().expose(), key.expose());
}

pub(crate) async fn no_two_keys_are_alike(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (one, wrapped_one) = kms.generate(&context()).await.unwrap();
    let (other, wrapped_other) = kms.generate(&context()).await.unwrap();
    assert_ne!(one.expose(), other.expose());
    assert_ne!(wrapped_one, wrapped_other);
}

pub(crate) async fn a_wrapped_key_opens_in_its_own_context_only(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    for wrong in wrong_contexts() {
        let refused = kms.unwrap(&wrong, &wrapped).await;
        assert!(matches!(refused, Err(KmsError::Corrupt)), "{wrong:?}: {refused:?}");
    }
    kms.unwrap(&context(), &wrapped).await.unwrap();
}

pub(crate) async fn a_wrapped_key_altered_anywhere_opens_no_more(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    for at in 0..wrapped.as_bytes().len() {
        let mut altered = wrapped.as_bytes().to_vec();
        altered[at] ^= 1;
        match kms.unwrap(&context(), &WrappedKey::from_bytes(altered)).await {
            Err(KmsError::Corrupt | KmsError::Refused(_)) => {}
            // Transit's ciphertext is text: the last letter of base64 has bits that mean nothing, and
            // version 0 is another name of version 1.
            Ok(same) if same.expose() == key.expose() => {
                assert!(wrapped.as_bytes().starts_with(b"SRT1"), "byte {at} means nothing");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    let mut altered = wrapped.as_bytes().to_vec();
    let in_the_tag = altered.len() - 4;
    altered[in_the_tag] ^= 1;
    let refused = kms.unwrap(&context(), &WrappedKey::from_bytes(altered)).await;
    assert!(matches!(refused, Err(KmsError::Corrupt)), "{refused:?}");
}

pub(crate) async fn a_wrapped_key_cut_short_opens_no_more(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    let length = wrapped.as_bytes().len();
    for kept in [0, 1, 4, 6, length / 2, length - 16, length - 1] {
        let cut = WrappedKey::from_bytes(wrapped.as_bytes()[..kept].to_vec());
        let refused = kms.unwrap(&context(), &cut).await;
        assert!(matches!(refused, Err(KmsError::Corrupt | KmsError::Refused(_))), "{refused:?}");
    }
    let longer = [wrapped.as_bytes(), b"A"].concat();
    let refused = kms.unwrap(&context(), &WrappedKey::from_bytes(longer)).await;
    assert!(matches!(refused, Err(KmsError::Corrupt | KmsError::Refused(_))), "{refused:?}");
}

pub(crate) async fn what_was_never_wrapped_is_corrupt_or_refused(stand: &mut dyn Stand) {
    for bytes in [vec![], vec![0], vec![0; 64], vec![0xff; 256]] {
        let never = WrappedKey::from_bytes(bytes);
        let refused = stand.kms().unwrap(&context(), &never).await;
        assert!(
            matches!(refused, Err(KmsError::Corrupt | KmsError::Refused(_))),
            "{never:?}: {refused:?}"
        );
    }
}

pub(crate) async fn a_rewrapped_key_is_the_same_key(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    let rewrapped = kms.rewrap(&context(), &wrapped).await.unwrap();
    assert_eq!(kms.unwrap(&context(), &rewrapped).await.unwrap().expose(), key.expose());
}

pub(crate) async fn rewrapping_needs_the_right_context(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    for wrong in wrong_contexts() {
        assert!(matches!(kms.rewrap(&wrong, &wrapped).await, Err(KmsError::Corrupt)), "{wrong:?}");
    }
}

pub(crate) async fn a_new_key_is_wrapped_by_the_key_of_the_status(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    let status = kms.status().await;
    assert!(status.healthy);
    assert_eq!(kms.wrapped_by(&wrapped), Some(status.key_ref));
    assert_eq!(kms.root_of(&wrapped), None);
}

pub(crate) async fn a_key_of_another_root_is_wrapped_and_opens_in_its_own_context_only(
    stand: &mut dyn Stand,
) {
    let kms = stand.kms();
    let key = Key::random().unwrap();
    let wrapped = kms.wrap(&context(), &key).await.unwrap();
    assert_eq!(kms.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
    assert_eq!(kms.wrapped_by(&wrapped), Some(kms.status().await.key_ref));
    for wrong in wrong_contexts() {
        assert!(matches!(kms.unwrap(&wrong, &wrapped).await, Err(KmsError::Corrupt)), "{wrong:?}");
    }
}

pub(crate) async fn after_a_rotation_rewrapping_leaves_the_old_root(stand: &mut dyn Stand) {
    let (key, wrapped) = stand.kms().generate(&context()).await.unwrap();
    let before = stand.kms().status().await.key_ref;
    stand.rotate().await;

    let kms = stand.kms();
    let after = kms.status().await.key_ref;
    assert_ne!(before, after);
    assert_eq!(kms.wrapped_by(&wrapped), Some(before));
    assert_eq!(kms.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
    for wrong in wrong_contexts() {
        assert!(matches!(kms.rewrap(&wrong, &wrapped).await, Err(KmsError::Corrupt)), "{wrong:?}");
    }
    let rewrapped = kms.rewrap(&context(), &wrapped).await.unwrap();
    assert_eq!(kms.wrapped_by(&rewrapped), Some(after));
    assert_eq!(kms.unwrap(&context(), &rewrapped).await.unwrap().expose(), key.expose());
}

pub(crate) async fn sixty_four_at_once_each_get_their_own_key(stand: &mut dyn Stand) {
    let kms = stand.kms();
    let (one, wrapped) = kms.generate(&context()).await.unwrap();
    let (one, wrapped, left) = (&one, &wrapped, Cell::new(64));
    let left = &left;
    let calls = (0..64_u32).map(async |version| {
        let context = KeyContext { version, ..context() };
        let (key, own) = answered(left, async || kms.generate(&context).await).await;
        let opened = answered(left, async || kms.unwrap(&context, &own).await).await;
        assert_eq!(opened.expose(), key.expose());
        let again = answered(left, async || kms.unwrap(&crate::context(), wrapped).await).await;
        assert_eq!(again.expose(), one.expose());
        *key.expose()
    });
    let mut keys = futures_util::future::join_all(calls).await;
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 64);
}

/// What a KMS says that may say that it is busy, so many times in all.
async fn answered<T>(left: &Cell<usize>, call: impl AsyncFn() -> Result<T, KmsError>) -> T {
    loop {
        match call().await {
            Err(KmsError::Unavailable(_)) if left.get() > 0 => {
                left.set(left.get() - 1);
                tokio::task::yield_now().await;
            }
            answer => return answer.unwrap(),
        }
    }
}

pub(crate) async fn debug_shows_no_key(stand: &mut dyn Stand) {
    let (key, _) = stand.kms().generate(&context()).await.unwrap();
    assert_eq!(format!("{key:?}"), "Key(…)");
    let shown = format!("{:?}", stand.kms());
    assert!(shown.len() < 128 && !shown.contains(&hex::encode(key.expose())), "{shown}");
}

pub(crate) async fn a_disabled_root_key_refuses_until_it_is_enabled(stand: &mut dyn Remote) {
    let (key, wrapped) = stand.kms().generate(&context()).await.unwrap();
    stand.disable().await;
    let refused = stand.kms().unwrap(&context(), &wrapped).await;
    assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");
    let refused = stand.kms().generate(&context()).await;
    assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");
    let refused = stand.kms().rewrap(&context(), &wrapped).await;
    assert!(matches!(refused, Err(KmsError::Refused(_))), "{refused:?}");
    assert!(!stand.kms().status().await.healthy);

    stand.enable().await;
    let back = stand.kms().unwrap(&context(), &wrapped).await.unwrap();
    assert_eq!(back.expose(), key.expose());
}

pub(crate) async fn where_nothing_answers_it_is_unavailable_in_time(stand: &mut dyn Remote) {
    let (_, wrapped) = stand.kms().generate(&context()).await.unwrap();
    let silent = stand.silent().await;
    #[expect(clippy::disallowed_methods, reason = "the time that a caller waits is real")]
    let begun = Instant::now();
    let refused = silent.unwrap(&context(), &wrapped).await;
    assert!(matches!(refused, Err(KmsError::Unavailable(_))), "{refused:?}");
    let refused = silent.generate(&context()).await;
    assert!(matches!(refused, Err(KmsError::Unavailable(_))), "{refused:?}");
    // Two calls of at most 1.7 s, and whatever else this machine does; by itself nothing ends here.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
