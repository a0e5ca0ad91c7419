//! A hardware security module, played by SoftHSM2.

use std::{error::Error, fmt::Display, fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use async_trait::async_trait;
use cryptoki::object::Attribute;
use envelope::{Kms, KmsError, KmsOpenError, Pkcs11Config, Pkcs11Kms, TokenKey, WrappedKey};

use crate::{
    Remote, Stand, block_on, context, private_file,
    softhsm::{PIN, ROOT, Token, with_a_token},
};

crate::contract::contract!(remote with_softhsm);

struct Module {
    token: Token,
    config: Pkcs11Config,
    kms: Pkcs11Kms,
}

#[async_trait]
impl Stand for Module {
    fn kms(&self) -> &dyn Kms {
        &self.kms
    }

    async fn rotate(&mut self) {
        self.token.make_key("root-2027", &[]);
        let new = TokenKey::Label("root-2027".to_owned());
        let old = std::mem::replace(&mut self.config.key, new);
        self.config.retired_keys.push(old);
        self.kms = Pkcs11Kms::open(&self.config).await.unwrap();
    }
}

#[async_trait]
impl Remote for Module {
    async fn disable(&mut self) {
        self.token.allow_root(false);
    }

    async fn enable(&mut self) {
        self.token.allow_root(true);
    }

    /// A library answers; it is the token that is not there.
    async fn silent(&self) -> Arc<dyn Kms> {
        let config = Pkcs11Config { token: "pulled out".to_owned(), ..self.config.clone() };
        Arc::new(Pkcs11Kms::open(&config).await.unwrap())
    }
}

fn with_softhsm(name: &str, test: impl AsyncFnOnce(&mut Module)) {
    with_a_token(&format!("pkcs11::{name}"), |token| {
        block_on(async {
            let config = token.config();
            let kms = Pkcs11Kms::open(&config).await.unwrap();
            test(&mut Module { token, config, kms }).await;
        });
    });
}

/// The reasons, one below the other.
fn told(error: &KmsError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[track_caller]
fn refused<T>(answer: Result<T, KmsError>, why: impl Display) {
    match answer {
        Err(error @ KmsError::Refused(_)) => {
            assert!(told(&error).contains(&why.to_string()), "{}", told(&error));
        }
        Err(error) => panic!("{}", told(&error)),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn it_goes_on_when_the_token_has_logged_everybody_out() {
    with_softhsm("it_goes_on_when_the_token_has_logged_everybody_out", async |module| {
        let (key, wrapped) = module.kms.generate(&context()).await.unwrap();
        for _ in 0..3 {
            module.token.session().logout().unwrap();
            let back = module.kms.unwrap(&context(), &wrapped).await.unwrap();
            assert_eq!(back.expose(), key.expose());
        }
        module.token.session().logout().unwrap();
        module.kms.generate(&context()).await.unwrap();
    });
}

#[test]
fn it_goes_on_when_the_library_has_lost_everything() {
    with_softhsm("it_goes_on_when_the_library_has_lost_everything", async |module| {
        let (key, wrapped) = module.kms.generate(&context()).await.unwrap();
        module.token.library().finalize().unwrap();
        let back = module.kms.unwrap(&context(), &wrapped).await.unwrap();
        assert_eq!(back.expose(), key.expose());
    });
}

#[test]
fn a_wrong_pin_is_tried_once_until_the_file_changes() {
    with_softhsm("a_wrong_pin_is_tried_once_until_the_file_changes", async |module| {
        private_file(&module.token.pin_file(), "0000-0000\n");
        let kms = Pkcs11Kms::open(&module.config).await.unwrap();
        refused(kms.generate(&context()).await, "is wrong");
        for _ in 0..20 {
            refused(kms.generate(&context()).await, "is not tried again");
        }
        private_file(&module.token.pin_file(), PIN);
        kms.generate(&context()).await.unwrap();
    });
}

#[test]
fn a_pin_that_others_can_read_or_a_library_that_is_none_is_not_opened() {
    let name = "a_pin_that_others_can_read_or_a_library_that_is_none_is_not_opened";
    with_softhsm(name, async |module| {
        let pin = module.token.pin_file();
        fs::set_permissions(&pin, fs::Permissions::from_mode(0o440)).unwrap();
        let error = Pkcs11Kms::open(&module.config).await.unwrap_err();
        assert!(matches!(error, KmsOpenError::File(_)), "{error:?}");

        private_file(&pin, PIN);
        let config = Pkcs11Config { module: pin, ..module.config.clone() };
        let error = Pkcs11Kms::open(&config).await.unwrap_err();
        assert!(matches!(error, KmsOpenError::Module(..)), "{error:?}");
    });
}

#[test]
fn a_key_that_can_be_copied_out_is_refused() {
    with_softhsm("a_key_that_can_be_copied_out_is_refused", async |module| {
        module.token.make_key("copyable", &[Attribute::Extractable(true)]);
        module.token.make_key("readable", &[Attribute::Sensitive(false)]);
        module.token.make_key("short", &[Attribute::ValueLen(16.into())]);
        for label in ["copyable", "readable", "short"] {
            let key = TokenKey::Label(label.to_owned());
            let config = Pkcs11Config { key, ..module.config.clone() };
            let kms = Pkcs11Kms::open(&config).await.unwrap();
            refused(kms.generate(&context()).await, "sensitive and not extractable");
            assert!(!kms.status().await.healthy);
        }
    });
}

#[test]
fn exactly_one_key_must_have_the_name() {
    with_softhsm("exactly_one_key_must_have_the_name", async |module| {
        module.token.make_key(ROOT, &[]);
        let kms = Pkcs11Kms::open(&module.config).await.unwrap();
        refused(kms.generate(&context()).await, "2 keys");

        let key = TokenKey::Label("never-made".to_owned());
        let config = Pkcs11Config { key, ..module.config.clone() };
        let kms = Pkcs11Kms::open(&config).await.unwrap();
        refused(kms.generate(&context()).await, "0 keys");
    });
}

#[test]
fn a_key_is_found_by_its_id_too() {
    with_softhsm("a_key_is_found_by_its_id_too", async |module| {
        module.token.make_key(ROOT, &[Attribute::Id(vec![0x0a, 0x1b])]);
        let config = Pkcs11Config { key: TokenKey::Id(vec![0x0a, 0x1b]), ..module.config.clone() };
        let kms = Pkcs11Kms::open(&config).await.unwrap();
        let (key, wrapped) = kms.generate(&context()).await.unwrap();
        assert_eq!(kms.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
        assert_eq!(kms.wrapped_by(&wrapped).unwrap(), "pkcs11:strongroom test/id:0a1b");
    });
}

#[test]
fn a_key_that_is_not_configured_is_not_asked() {
    with_softhsm("a_key_that_is_not_configured_is_not_asked", async |module| {
        let (_, wrapped) = module.kms.generate(&context()).await.unwrap();
        module.token.make_key("other", &[]);
        let key = TokenKey::Label("other".to_owned());
        let config = Pkcs11Config { key, ..module.config.clone() };
        let other = Pkcs11Kms::open(&config).await.unwrap();
        refused(other.unwrap(&context(), &wrapped).await, "not configured");
    });
}

#[test]
fn what_is_stored_is_what_the_page_says() {
    with_softhsm("what_is_stored_is_what_the_page_says", async |module| {
        let (_, wrapped) = module.kms.generate(&context()).await.unwrap();
        let name = "label:root-2026";
        let head = [b"SRP1".as_slice(), &[0, 15], name.as_bytes()].concat();
        assert!(wrapped.as_bytes().starts_with(&head));
        assert_eq!(wrapped.as_bytes().len(), head.len() + 12 + 32 + 16);
        // The name is under the tag: the same bytes under another name do not open.
        module.token.make_key("root-2025", &[]);
        let retired = TokenKey::Label("root-2025".to_owned());
        let config = Pkcs11Config { retired_keys: vec![retired], ..module.config.clone() };
        let kms = Pkcs11Kms::open(&config).await.unwrap();
        let mut renamed = wrapped.as_bytes().to_vec();
        renamed[head.len() - 1] = b'5';
        let answer = kms.unwrap(&context(), &WrappedKey::from_bytes(renamed)).await;
        assert!(matches!(answer, Err(KmsError::Corrupt)), "{answer:?}");
    });
}
