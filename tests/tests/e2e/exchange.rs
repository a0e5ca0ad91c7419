//! Credentials that are exchanged, through the whole system: what arrives at the provider is the token,
//! and what was stored goes nowhere but to the token service.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use e2e::{Backing, Deployment};
use serde_json::{Value, json};
use strongroom_proto::v1::{self, credential_test::Verdict};
use testkit::{SAID, StandIn, TokenService};

/// A kind of credential, at its provider.
struct Exchanged {
    slug: &'static str,
    kind: &'static str,
    settings: Vec<(&'static str, String)>,
    secret: String,
    model: &'static str,
}

impl Exchanged {
    fn new(
        (slug, kind): (&'static str, &'static str),
        settings: &[(&'static str, &str)],
        secret: &str,
        model: &'static str,
    ) -> Self {
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self { slug, kind, settings: settings.collect(), secret: secret.to_owned(), model }
    }

    async fn store(&self, deployment: &Deployment, test: bool) -> v1::Credential {
        let setting = |(name, value): &(&str, String)| v1::Setting {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let spec = v1::Credential {
            provider: self.slug.to_owned(),
            kind: self.kind.to_owned(),
            settings: self.settings.iter().map(setting).collect(),
            ..v1::Credential::default()
        };
        let id = format!("{}-{}", self.slug, self.kind.replace('_', "-")).parse().unwrap();
        let (admin, tenant) = (deployment.admin(), "acme".parse().unwrap());
        let secret = domain::Secret::new(self.secret.clone().into_bytes());
        let stored = if test {
            admin.create_tested_credential(&tenant, &id, spec, &secret, "").await
        } else {
            admin.create_credential(&tenant, &id, spec, &secret, "").await
        };
        stored.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_exchanged_kind_serves_calls_with_a_token_of_its_own() {
    let slugs = ["azure", "openai", "openrouter", "vertex", "xai"];
    let mut stand_ins = Vec::new();
    for slug in slugs {
        stand_ins.push(StandIn::start(slug).await.unwrap());
    }
    let tokens = TokenService::start(&stand_ins).await.unwrap();
    let deployment =
        Deployment::with_tokens(Backing::Embedded, &stand_ins, &tokens.url(), None).await;
    deployment.create_tenant("acme").await;
    let kinds = kinds(&tokens);
    for kind in &kinds {
        kind.store(&deployment, false).await;
    }
    let (key, _) = deployment.create_key("acme", &[]).await;
    for kind in &kinds {
        let said = chat(&deployment, &key, kind.model).await;
        assert_eq!(said["choices"][0]["message"]["content"], SAID.concat(), "{said}");
    }
    // Each was asked for once, and what is stored was sent to no provider.
    let asked = tokens.calls();
    assert_eq!(asked.len(), kinds.len(), "{asked:?}");
    for kind in &kinds {
        chat(&deployment, &key, kind.model).await;
    }
    assert_eq!(tokens.calls(), asked, "they are at hand");
    for (stand_in, call) in
        stand_ins.iter().flat_map(|it| it.calls().into_iter().map(move |call| (it, call)))
    {
        assert_eq!(call.wrong, None, "{}", stand_in.slug());
        let seen = format!("{:?} {:?}", call.headers, call.body);
        assert!(kinds.iter().all(|kind| !seen.contains(&kind.secret)), "{}", stand_in.slug());
    }
    deployment.end().await;
}

fn kinds(tokens: &TokenService) -> Vec<Exchanged> {
    let admin = tokens.admin_key();
    vec![
        Exchanged::new(
            ("vertex", "google_service_account"),
            &[("project", "stand-in-123"), ("location", "europe-west4")],
            &tokens.service_account(),
            "vertex/gemini-2.5-flash",
        ),
        Exchanged::new(
            ("azure", "entra_client"),
            &[
                ("resource", "stand-in"),
                ("tenant_id", "acme.example"),
                ("client_id", "11111111-2222-3333-4444-555555555555"),
            ],
            tokens.client_secret(),
            "azure/my-gpt-4o",
        ),
        Exchanged::new(("openrouter", "admin_key"), &[], admin, "openrouter/openai/gpt-4o-mini"),
        Exchanged::new(
            ("openai", "admin_key"),
            &[("project", "proj_1"), ("service_account", "user-1")],
            admin,
            "openai/gpt-4o-mini",
        ),
        Exchanged::new(
            ("xai", "admin_key"),
            &[("team_id", "00000000-0000-0000-0000-000000000000")],
            admin,
            "xai/grok-4.3",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_token_service_is_down_calls_say_so_and_go_on_when_it_is_back() {
    let stand_ins = [StandIn::start("azure").await.unwrap()];
    let tokens = TokenService::start(&stand_ins).await.unwrap();
    let deployment =
        Deployment::with_tokens(Backing::Embedded, &stand_ins, &tokens.url(), None).await;
    deployment.create_tenant("acme").await;
    let kind = kinds(&tokens).into_iter().find(|kind| kind.slug == "azure").unwrap();
    kind.store(&deployment, false).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    tokens.be_down(true);
    let refused = chat(&deployment, &key, kind.model).await;
    assert_eq!(refused["error"]["code"], "token_service_unavailable", "{refused}");
    tokens.be_down(false);
    // What failed a moment ago is left alone for some seconds, and no longer.
    let said = loop {
        let said = chat(&deployment, &key, kind.model).await;
        if said.get("error").is_none() {
            break said;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!(said["choices"][0]["message"]["content"], SAID.concat(), "{said}");
    deployment.end().await;
}

/// Against moto in its strict mode, which checks each signature and permission.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_and_an_access_key_serve_calls_to_bedrock() {
    let Some((sts, made)) = moto() else {
        return eprintln!("not tested without an STS: run tests/run");
    };
    let stand_ins = [StandIn::start("bedrock").await.unwrap()];
    let folder = tempfile::tempdir().unwrap();
    let identity = identity(folder.path(), &made["broker"]);
    let deployment =
        Deployment::with_tokens(Backing::Embedded, &stand_ins, &sts, Some(&identity)).await;
    deployment.create_tenant("acme").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let role = Exchanged::new(
        ("bedrock", "aws_role"),
        &[("region", "us-east-1"), ("role_arn", &text(&made["role_arn"]))],
        "customer-42",
        "bedrock/openai.gpt-oss-120b-1:0",
    );
    let stored = role.store(&deployment, true).await;
    // That it can be taken is the proof.
    assert_eq!(stored.test.as_ref().unwrap().verdict(), Verdict::Valid, "{stored:?}");
    let (key, _) = deployment.create_key("acme", &[]).await;
    let said = chat(&deployment, &key, role.model).await;
    assert_eq!(said["choices"][0]["message"]["content"], SAID.concat(), "{said}");

    let user = Exchanged::new(
        ("bedrock", "aws_access_key"),
        &[("region", "us-east-1"), ("access_key_id", &text(&made["customer"]["access_key_id"]))],
        &text(&made["customer"]["secret_access_key"]),
        "bedrock/openai.gpt-oss-120b-1:0",
    );
    deployment.disable(&stored.name).await;
    let stored = user.store(&deployment, true).await;
    assert_eq!(stored.test.as_ref().unwrap().verdict(), Verdict::Valid, "{stored:?}");
    let said = chat(&deployment, &key, user.model).await;
    assert_eq!(said["choices"][0]["message"]["content"], SAID.concat(), "{said}");
    let calls = stand_ins[0].calls();
    let sent = calls.iter().map(|call| call.headers["authorization"].to_str().unwrap());
    assert!(sent.into_iter().all(|sent| sent.starts_with("Bearer bedrock-api-key-")));
    deployment.end().await;
}

/// A file with the broker's keys, as AWS's own tools have them.
fn identity(folder: &Path, keys: &Value) -> std::path::PathBuf {
    let path = folder.join("aws.json");
    let keys = json!({
        "Version": 1,
        "AccessKeyId": keys["access_key_id"],
        "SecretAccessKey": keys["secret_access_key"],
    });
    fs::write(&path, keys.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    path
}

#[expect(clippy::disallowed_methods, reason = "the test runner names the endpoint this way")]
fn moto() -> Option<(String, Value)> {
    let endpoint = env::var("TEST_STS_ENDPOINT").ok()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/new_sts_role.py");
    let made = Command::new(env::var("TEST_PYTHON").unwrap()).arg(script).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some((endpoint, serde_json::from_slice(&made.stdout).unwrap()))
}

async fn chat(deployment: &Deployment, key: &str, model: &str) -> Value {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Hello." }] });
    deployment.post("/v1/chat/completions", key, &body).await
}
