//! Every way through broker and proxy: what works, and what does not.

use std::{collections::BTreeSet, fmt::Debug};

use domain::{CredentialId, CredentialName, Secret, TenantId, Uid, VirtualKey};
use e2e::Forms;
use serde_json::{Value, json};
use strongroom_client::{Broker, ClientError};
use strongroom_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::apart::Apart;

/// The tenant for whom everything works, and the beginning of the others' names.
pub(crate) const TENANT: &str = "hygiene-acme";

/// What must not be anywhere. Nothing else in a test's run looks like any of it.
pub(crate) struct Canaries {
    pub(crate) openai: String,
    pub(crate) anthropic: String,
    pub(crate) rotated: String,
    refused: String,
    prompt: String,
    virtual_keys: Vec<VirtualKey>,
    /// Who is responsible for a key: may be stored, but says nothing to those who measure.
    pub(crate) person: String,
}

/// What came back.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) answers: Vec<Vec<u8>>,
    pub(crate) refusals: Vec<String>,
    pub(crate) keys_sent: usize,
    pub(crate) was_traced: bool,
}

/// How a provider behaves when a model's name ends so. Each manner has a tenant of its own, whose
/// credentials may come to rest.
const MANNERS: [&str; 6] = ["refuse", "limit", "break", "echo", "garble", "cut"];

impl Canaries {
    pub(crate) fn new() -> Self {
        let unique = || Uid::random().unwrap().to_string().replace('-', "");
        Self {
            openai: format!("sk-proj-{}/{}+openai", unique(), unique()),
            anthropic: format!("sk-ant-api03-{}-{}", unique(), unique()),
            rotated: format!("sk-proj-{}-{}-rotated", unique(), unique()),
            refused: format!("sk-proj-{}-{}-refused", unique(), unique()),
            prompt: format!("the prompt \"{}\" of {}", unique(), unique()),
            virtual_keys: (0..=MANNERS.len()).map(|_| VirtualKey::generate().unwrap()).collect(),
            person: format!("a-person-{}@example.com", unique()),
        }
    }

    /// All of it that no file and no memory may hold.
    pub(crate) fn forms(&self) -> Forms {
        let keys = self.virtual_keys.iter().map(VirtualKey::expose);
        Forms::of_all(
            &self
                .provider_keys()
                .into_iter()
                .chain([&*self.prompt])
                .chain(keys)
                .collect::<Vec<_>>(),
        )
    }

    /// What nobody who calls the proxy may learn.
    pub(crate) fn key_forms(&self) -> Forms {
        Forms::of_all(&self.provider_keys())
    }

    fn provider_keys(&self) -> [&str; 4] {
        [&self.openai, &self.anthropic, &self.rotated, &self.refused]
    }
}

impl Said {
    /// The status lines that came, without their reasons.
    pub(crate) fn statuses(&self) -> BTreeSet<String> {
        let status = |answer: &Vec<u8>| {
            let line = String::from_utf8_lossy(answer.get(..12)?).into_owned();
            line.strip_prefix("HTTP/1.1 ").map(str::to_owned)
        };
        self.answers.iter().filter_map(status).collect()
    }

    fn refused<T: Debug, E: Debug>(&mut self, result: Result<T, E>) {
        self.refusals.push(format!("{:?}", result.unwrap_err()));
    }
}

/// Calls of all kinds, with what goes wrong on the way.
pub(crate) async fn every_way(apart: &Apart, canaries: &Canaries, said: &mut Said) {
    let admin = apart.connect("admin");
    furnish(&admin, canaries).await;
    once_more(apart, canaries, said).await;
    for (manner, key) in MANNERS.iter().zip(&canaries.virtual_keys[1..]) {
        for streamed in [false, true] {
            for (path, model) in [(OPENAI, "gpt-4o"), (ANTHROPIC, "claude-sonnet-4-5")] {
                let body = asked(&format!("{model}-{manner}"), &canaries.prompt, streamed);
                said.answers.push(apart.post(path, key.expose(), &body).await);
            }
        }
    }
    misuse(apart, canaries, said).await;
    abandon(apart, canaries).await;
    misuse_of_the_broker(apart, &admin, canaries, said).await;
    rotate(apart, &admin, canaries, said).await;
}

/// One call of each format, whole and streamed, and keys that are tried out.
pub(crate) async fn once_more(apart: &Apart, canaries: &Canaries, said: &mut Said) {
    let key = canaries.virtual_keys[0].expose();
    for streamed in [false, true] {
        for (path, model) in [(OPENAI, "gpt-4o"), (ANTHROPIC, "claude-sonnet-4-5")] {
            for _ in 0..3 {
                let answer = apart.post(path, key, &asked(model, &canaries.prompt, streamed)).await;
                assert!(
                    answer.starts_with(b"HTTP/1.1 200"),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
                said.answers.push(answer);
            }
        }
    }
    let admin = apart.connect("admin");
    for name in ["openai-prod", "anthropic-prod"] {
        admin.test_credential(&credential(TENANT, name)).await.unwrap();
    }
}

/// Revokes every key and deletes every credential, so that there is no lease any more.
pub(crate) async fn end_all(apart: &Apart, canaries: &Canaries) {
    let admin = apart.connect("admin");
    for (tenant, key) in tenants().iter().zip(&canaries.virtual_keys) {
        let name = format!("tenants/{tenant}/virtualKeys/{}", key.id());
        let request = v1::RevokeVirtualKeyRequest { name };
        admin.virtual_keys().revoke_virtual_key(request).await.unwrap();
        for id in ["openai-prod", "anthropic-prod"] {
            let name = credential(tenant, id).to_string();
            let request = v1::DeleteCredentialRequest { name, ..Default::default() };
            admin.credentials().delete_credential(request).await.unwrap();
        }
    }
}

/// A tenant for what works and one for each manner, all with the same keys of the providers.
async fn furnish(admin: &Broker, canaries: &Canaries) {
    for (tenant, key) in tenants().iter().zip(&canaries.virtual_keys) {
        let request = v1::CreateTenantRequest {
            tenant_id: tenant.clone(),
            tenant: Some(v1::Tenant::default()),
            request_id: String::new(),
        };
        admin.tenants().create_tenant(request).await.unwrap();
        for (id, provider, secret) in [
            ("openai-prod", "openai", &canaries.openai),
            ("anthropic-prod", "anthropic", &canaries.anthropic),
        ] {
            store(admin, tenant, id, provider, secret).await.unwrap();
        }
        let request = v1::CreateVirtualKeyRequest {
            parent: format!("tenants/{tenant}"),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(v1::VirtualKey {
                owner: canaries.person.clone(),
                ..v1::VirtualKey::default()
            }),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        admin.virtual_keys().create_virtual_key(request).await.unwrap();
    }
}

/// What a program does wrong at the proxy.
async fn misuse(apart: &Apart, canaries: &Canaries, said: &mut Said) {
    let key = canaries.virtual_keys[0].expose();
    let prompt = &canaries.prompt;
    let good = asked("gpt-4o", prompt, false);
    let large = asked("gpt-4o", &prompt.repeat(1_500), false);
    let cases = [
        (OPENAI, "no-key-of-ours", &*good),
        (OPENAI, &*VirtualKey::generate().unwrap().expose().to_owned(), &good),
        // Somebody puts the key of a provider, or a prompt, where a virtual key belongs.
        (OPENAI, &canaries.openai, &good),
        ("/v1/nothing-here", key, &good),
        (OPENAI, key, &large),
        (OPENAI, key, &format!("{{ \"{}", prompt.escape_default())),
        (OPENAI, key, &asked("no-such-model-anywhere", prompt, false)),
        (OPENAI, key, &json!({ "model": prompt, "messages": prompt }).to_string()),
        (ANTHROPIC, key, &json!({ "model": 7, "prompt": prompt }).to_string()),
        // What is not as long as a prompt may be one all the same.
        (ANTHROPIC, key, &asked(prompt, prompt, true)),
    ];
    for (path, key, body) in cases {
        said.answers.push(apart.post(path, key, body).await);
    }
}

/// A caller who goes away in the midst of a request, and one who does not read the answer.
async fn abandon(apart: &Apart, canaries: &Canaries) {
    let key = canaries.virtual_keys[0].expose();
    let body = asked("gpt-4o", &canaries.prompt, true);
    drop(apart.send(OPENAI, key, &body).await);
    let mut connection = apart.send(OPENAI, key, &body).await;
    let _ = connection.read_u8().await;
    drop(connection);
    let mut connection = tokio::net::TcpStream::connect(apart.proxy.address).await.unwrap();
    let head = format!(
        "POST {OPENAI} HTTP/1.1\r\nhost: proxy\r\nauthorization: Bearer {key}\r\ncontent-length: 9999\r\n\r\n"
    );
    connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
}

/// What an administrator or a workload does wrong at the broker.
async fn misuse_of_the_broker(apart: &Apart, admin: &Broker, canaries: &Canaries, said: &mut Said) {
    let secret = &canaries.refused;
    said.refused(store(admin, TENANT, "openai-prod", "openai", secret).await);
    said.refused(store(admin, "nobody", "openai-prod", "openai", secret).await);
    said.refused(store(admin, TENANT, "other", "no-such-provider", secret).await);
    said.refused(store(admin, TENANT, "azure", "azure", secret).await);
    said.refused(store(admin, TENANT, "vertex", "vertex", secret).await);
    said.refused(store(admin, TENANT, "bedrock", "bedrock", &secret.repeat(1_000)).await);
    let workload = apart.connect("inference-proxy");
    said.refused(store(&workload, TENANT, "other", "openai", secret).await);
    // A key in the place of a name, and bytes that are no box at all.
    let name = format!("tenants/{TENANT}/credentials/{secret}");
    let request = v1::GetCredentialRequest { name: name.clone() };
    said.refusals.push(format!(
        "{:?}",
        admin.credentials().get_credential(request).await.unwrap_err().code()
    ));
    let request = v1::RotateCredentialRequest {
        name: credential(TENANT, "openai-prod").to_string(),
        secret: Some(v1::SealedBox {
            ciphertext: secret.as_bytes().to_vec().into(),
            ..v1::SealedBox::default()
        }),
        ..v1::RotateCredentialRequest::default()
    };
    said.refused(admin.credentials().rotate_credential(request).await);
}

async fn rotate(apart: &Apart, admin: &Broker, canaries: &Canaries, said: &mut Said) {
    let secret = Secret::new(canaries.rotated.as_bytes().to_vec());
    let name = credential(TENANT, "openai-prod");
    admin.rotate_credential(&name, &secret, None, &request_id()).await.unwrap();
    once_more(apart, canaries, said).await;
}

async fn store(
    admin: &Broker,
    tenant: &str,
    id: &str,
    provider: &str,
    secret: &str,
) -> Result<v1::Credential, ClientError> {
    let (tenant, id): (TenantId, CredentialId) = (tenant.parse().unwrap(), id.parse().unwrap());
    let spec = v1::Credential { provider: provider.to_owned(), ..v1::Credential::default() };
    let secret = Secret::new(secret.as_bytes().to_vec());
    admin.create_credential(&tenant, &id, spec, &secret, &request_id()).await
}

fn tenants() -> Vec<String> {
    let others = MANNERS.iter().map(|manner| format!("{TENANT}-{manner}"));
    [TENANT.to_owned()].into_iter().chain(others).collect()
}

fn credential(tenant: &str, id: &str) -> CredentialName {
    format!("tenants/{tenant}/credentials/{id}").parse().unwrap()
}

/// A request in both formats at once.
fn asked(model: &str, prompt: &str, streamed: bool) -> String {
    let messages = json!([{ "role": "user", "content": prompt }]);
    let mut body = json!({ "model": model, "max_tokens": 16, "messages": messages });
    body["stream"] = Value::Bool(streamed);
    body.to_string()
}

fn request_id() -> String {
    Uid::random().unwrap().to_string()
}

const OPENAI: &str = "/v1/chat/completions";
const ANTHROPIC: &str = "/v1/messages";
