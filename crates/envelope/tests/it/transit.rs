//! The transit engine of a real OpenBao.

use std::{fs, net::TcpListener, sync::Arc, time::Duration};

use async_trait::async_trait;
use envelope::{
    Kms, KmsConfig, KmsError, KmsOpenError, TransitConfig, TransitKms, TransitLogin, WrappedKey,
};

use crate::{Remote, Stand, block_on, context, openbao::OpenBao, private_file, provided};

crate::contract::contract!(remote with_openbao);

struct Engine {
    bao: OpenBao,
    config: TransitConfig,
    kms: TransitKms,
    silent: TcpListener,
}

#[async_trait]
impl Stand for Engine {
    fn kms(&self) -> &dyn Kms {
        &self.kms
    }

    async fn rotate(&mut self) {
        self.bao.run(&["write", "-f", "transit/keys/base/rotate"]);
    }
}

#[async_trait]
impl Remote for Engine {
    async fn disable(&mut self) {
        self.bao.run(&["delete", "transit/keys/base/soft-delete"]);
    }

    async fn enable(&mut self) {
        self.bao.run(&["write", "-f", "transit/keys/base/soft-delete-restore"]);
    }

    async fn silent(&self) -> Arc<dyn Kms> {
        let address = format!("http://{}", self.silent.local_addr().unwrap());
        let config = TransitConfig { address: address.parse().unwrap(), ..self.config.clone() };
        Arc::new(TransitKms::open(&config).unwrap())
    }
}

const POLICY: &str = r#"
path "transit/keys/base" { capabilities = ["read"] }
path "transit/datakey/plaintext/base" { capabilities = ["update"] }
path "transit/decrypt/base" { capabilities = ["update"] }
path "transit/rewrap/base" { capabilities = ["update"] }
path "transit/encrypt/base" { capabilities = ["update"] }
"#;

fn with_openbao(_: &str, test: impl AsyncFnOnce(&mut Engine)) {
    with(false, &[], test);
}

/// With an AppRole that has these settings.
fn with(tls: bool, role: &[&str], test: impl AsyncFnOnce(&mut Engine)) {
    let Some(binary) = provided("TEST_OPENBAO") else { return };
    let bao = OpenBao::start(&binary, tls);
    let policy = bao.folder.path().join("policy.hcl");
    fs::write(&policy, POLICY).unwrap();
    bao.run(&["policy", "write", "strongroom", policy.to_str().unwrap()]);
    bao.run(&["secrets", "enable", "transit"]);
    bao.run(&["write", "-f", "transit/keys/base", "derived=true"]);
    bao.run(&["auth", "enable", "approle"]);
    let named = "auth/approle/role/strongroom";
    bao.run(&[&["write", named, "token_policies=strongroom"], role].concat());
    let secret_id_file = bao.folder.path().join("secret-id");
    let secret_id = format!("{named}/secret-id");
    private_file(&secret_id_file, &bao.run(&["write", "-f", "-field=secret_id", &secret_id]));
    let config = TransitConfig {
        address: bao.address.parse().unwrap(),
        mount: "transit".to_owned(),
        key: "base".to_owned(),
        retired_keys: Vec::new(),
        namespace: None,
        ca: bao.ca.clone(),
        login: TransitLogin::AppRole {
            role_id: bao.run(&["read", "-field=role_id", &format!("{named}/role-id")]),
            secret_id_file,
            mount: "approle".to_owned(),
        },
    };
    block_on(async {
        let kms = TransitKms::open(&config).unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        test(&mut Engine { bao, config, kms, silent }).await;
    });
}

#[track_caller]
fn refused<T>(answer: &Result<T, KmsError>, why: &str) {
    match answer {
        Err(KmsError::Refused(source)) => assert!(source.to_string().contains(why), "{source}"),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn a_key_that_does_not_bind_its_context_or_can_be_copied_is_refused() {
    with_openbao("", async |engine| {
        let made = [
            ("heedless", ["derived=false", "exportable=false"]),
            ("exportable", ["derived=true", "exportable=true"]),
            ("backed-up", ["derived=true", "allow_plaintext_backup=true"]),
        ];
        for (key, properties) in made {
            let path = format!("transit/keys/{key}");
            engine.bao.run(&[&["write", "-f", path.as_str()], &properties[..]].concat());
            let policy = engine.bao.folder.path().join("policy.hcl");
            fs::write(&policy, POLICY.replace("/base", &format!("/{key}"))).unwrap();
            engine.bao.run(&["policy", "write", "strongroom", policy.to_str().unwrap()]);
            let config = TransitConfig { key: key.to_owned(), ..engine.config.clone() };
            let kms = TransitKms::open(&config).unwrap();
            refused(&kms.generate(&context()).await, "must be derived");
            assert!(!kms.status().await.healthy);
        }
    });
}

#[test]
fn a_revoked_token_is_replaced_within_the_call() {
    with_openbao("", async |engine| {
        let before = engine.bao.accessors();
        let (key, wrapped) = engine.kms.generate(&context()).await.unwrap();
        for accessor in engine.bao.accessors().iter().filter(|one| !before.contains(one)) {
            engine.bao.run(&["token", "revoke", "-accessor", accessor]);
        }
        let back = engine.kms.unwrap(&context(), &wrapped).await.unwrap();
        assert_eq!(back.expose(), key.expose());
    });
}

#[test]
fn a_policy_that_says_no_does_not_make_it_log_in_again_and_again() {
    with_openbao("", async |engine| {
        engine.kms.generate(&context()).await.unwrap();
        let before = engine.bao.accessors().len();
        let policy = engine.bao.folder.path().join("policy.hcl");
        fs::write(&policy, POLICY.replace("update", "deny")).unwrap();
        engine.bao.run(&["policy", "write", "strongroom", policy.to_str().unwrap()]);
        for _ in 0..20 {
            refused(&engine.kms.generate(&context()).await, "permission denied");
        }
        assert_eq!(engine.bao.accessors().len(), before + 1);
    });
}

/// Waits for something that the server and the renewal in the background do by themselves.
async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..100 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} has not happened within ten seconds");
}

#[test]
fn a_token_is_renewed_before_it_ends_without_being_used() {
    with(false, &["token_period=3s"], async |engine| {
        let before = engine.bao.accessors();
        let (_, wrapped) = engine.kms.generate(&context()).await.unwrap();
        let after = engine.bao.accessors();
        let own = after.iter().find(|one| !before.contains(one)).unwrap().clone();
        let look = ["token", "lookup", "-format=json", "-accessor", &own];
        let mut renewals = Vec::new();
        until("a third renewal", || {
            let said: serde_json::Value = serde_json::from_str(&engine.bao.run(&look)).unwrap();
            if let Some(renewed) = said["data"]["last_renewal_time"].as_u64()
                && !renewals.contains(&renewed)
            {
                renewals.push(renewed);
            }
            renewals.len() == 3
        })
        .await;
        engine.kms.unwrap(&context(), &wrapped).await.unwrap();
        assert_eq!(engine.bao.accessors().len(), after.len(), "it is still the same token");
    });
}

#[test]
fn a_token_that_cannot_be_renewed_is_replaced_before_it_ends() {
    with(false, &["token_ttl=3s", "token_max_ttl=4s"], async |engine| {
        let known = engine.bao.accessors();
        engine.kms.generate(&context()).await.unwrap();
        let mut seen = Vec::new();
        until("a third login", || {
            let new = engine.bao.accessors().into_iter().filter(|one| !known.contains(one));
            let new: Vec<_> = new.filter(|one| !seen.contains(one)).collect();
            seen.extend(new);
            seen.len() >= 3
        })
        .await;
        engine.kms.generate(&context()).await.unwrap();
    });
}

#[test]
fn a_secret_that_is_refused_is_not_tried_again_until_its_file_changes() {
    with_openbao("", async |engine| {
        let TransitLogin::AppRole { secret_id_file, .. } = &engine.config.login else { panic!() };
        let right = fs::read_to_string(secret_id_file).unwrap();
        private_file(secret_id_file, "00000000-0000-0000-0000-000000000000\n");
        let kms = TransitKms::open(&engine.config).unwrap();
        // The server would lock the role after five tries.
        for _ in 0..20 {
            refused(&kms.generate(&context()).await, "invalid role or secret ID");
        }
        private_file(secret_id_file, &right);
        kms.generate(&context()).await.unwrap();
    });
}

#[test]
fn a_token_in_a_file_is_read_anew_when_it_is_refused() {
    with_openbao("", async |engine| {
        let token_file = engine.bao.folder.path().join("token");
        let first = engine.bao.token("strongroom", "1h");
        private_file(&token_file, &format!("{first}\n"));
        let login = TransitLogin::Token { token_file: token_file.clone() };
        let kms = TransitKms::open(&TransitConfig { login, ..engine.config.clone() }).unwrap();
        let (key, wrapped) = kms.generate(&context()).await.unwrap();

        engine.bao.run(&["token", "revoke", &first]);
        refused(&kms.unwrap(&context(), &wrapped).await, "permission denied");
        private_file(&token_file, &engine.bao.token("strongroom", "1h"));
        let back = kms.unwrap(&context(), &wrapped).await.unwrap();
        assert_eq!(back.expose(), key.expose());
    });
}

#[test]
fn the_server_is_known_by_its_authority() {
    with(true, &[], async |engine| {
        let (key, wrapped) = engine.kms.generate(&context()).await.unwrap();
        let back = engine.kms.unwrap(&context(), &wrapped).await.unwrap();
        assert_eq!(back.expose(), key.expose());

        let by_the_machine = TransitConfig { ca: None, ..engine.config.clone() };
        let kms = TransitKms::open(&by_the_machine).unwrap();
        let answer = kms.generate(&context()).await;
        assert!(matches!(answer, Err(KmsError::Unavailable(_))), "{answer:?}");

        let address = engine.config.address.as_str().replace("https://", "http://");
        let plain = TransitConfig { address: address.parse().unwrap(), ..engine.config.clone() };
        let kms = TransitKms::open(&plain).unwrap();
        assert!(kms.generate(&context()).await.is_err());
    });
}

#[test]
fn a_sealed_server_is_unavailable() {
    with_openbao("", async |engine| {
        let (_, wrapped) = engine.kms.generate(&context()).await.unwrap();
        engine.bao.run(&["operator", "seal"]);
        let answer = engine.kms.unwrap(&context(), &wrapped).await;
        assert!(matches!(answer, Err(KmsError::Unavailable(_))), "{answer:?}");
    });
}

#[test]
fn a_retired_key_opens_and_rewrapping_leaves_it() {
    with_openbao("", async |engine| {
        let (key, wrapped) = engine.kms.generate(&context()).await.unwrap();
        engine.bao.run(&["write", "-f", "transit/keys/next", "derived=true"]);
        let policy = engine.bao.folder.path().join("policy.hcl");
        let both = format!("{POLICY}{}", POLICY.replace("/base", "/next"));
        fs::write(&policy, both).unwrap();
        engine.bao.run(&["policy", "write", "strongroom", policy.to_str().unwrap()]);

        let next = TransitConfig { key: "next".to_owned(), ..engine.config.clone() };
        let kms = TransitKms::open(&next).unwrap();
        refused(&kms.unwrap(&context(), &wrapped).await, "not configured");

        let kms =
            TransitKms::open(&TransitConfig { retired_keys: vec!["base".to_owned()], ..next })
                .unwrap();
        assert_eq!(kms.unwrap(&context(), &wrapped).await.unwrap().expose(), key.expose());
        let rewrapped = kms.rewrap(&context(), &wrapped).await.unwrap();
        assert_eq!(kms.wrapped_by(&rewrapped).unwrap(), "transit:transit/next/v1");
        assert_eq!(kms.unwrap(&context(), &rewrapped).await.unwrap().expose(), key.expose());
    });
}

#[test]
fn what_is_stored_is_what_the_page_says() {
    with_openbao("", async |engine| {
        let (_, wrapped) = engine.kms.generate(&context()).await.unwrap();
        let head = [b"SRT1".as_slice(), &[0, 12], b"transit/base", b"vault:v1:"].concat();
        assert!(wrapped.as_bytes().starts_with(&head), "{wrapped:?}");
        let elsewhere = [b"SRT1".as_slice(), &[0, 12], b"transit/bass", b"vault:v1:AAAA"].concat();
        let answer = engine.kms.unwrap(&context(), &WrappedKey::from_bytes(elsewhere)).await;
        refused(&answer, "not configured");
    });
}

#[test]
fn a_configuration_that_cannot_be_meant_is_not_opened() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        private_file(&folder.path().join("token"), "s.1234\n");
        let open = async |address: &str, mount: &str, key: &str| {
            let text = format!(
                "kind = \"transit\"\naddress = \"{address}\"\nmount = \"{mount}\"\nkey = \"{key}\"\n\
                 login = {{ method = \"token\", token_file = \"token\" }}"
            );
            let mut config: KmsConfig = toml::from_str(&text).unwrap();
            config.resolve(folder.path());
            config.open().await.map(|_| ())
        };
        open("http://127.0.0.1:8200", "kms/transit", "base").await.unwrap();
        for (address, mount, key) in [
            ("http://vault.example:8200", "transit", "base"),
            ("ftp://127.0.0.1", "transit", "base"),
            ("http://127.0.0.1:8200", "../sys", "base"),
            ("http://127.0.0.1:8200", "transit", "keys/base"),
            ("http://127.0.0.1:8200", "transit", "root?x"),
            ("http://127.0.0.1:8200", "transit", ""),
        ] {
            let refused = open(address, mount, key).await;
            assert!(
                matches!(refused, Err(KmsOpenError::Configuration(_))),
                "{address} {mount} {key}: {refused:?}"
            );
        }
    });
}
