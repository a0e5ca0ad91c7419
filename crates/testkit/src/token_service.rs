use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use domain::{Clock as _, SystemClock};
use http::{Method, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{Server, StandIn};

/// The services of Google, Microsoft, `OpenAI`, `OpenRouter` and `xAI` that make short-lived tokens and
/// keys, on one port. Whoever proves itself in the provider's way is given what that provider's
/// stand-in takes; everybody else is refused in its form. It ends when it is dropped.
#[derive(Debug)]
pub struct TokenService {
    server: Server,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// What each provider's stand-in takes, by its slug.
    keys: HashMap<&'static str, &'static str>,
    account: KeyPair,
    down: AtomicBool,
    calls: Mutex<Vec<String>>,
}

type Answer = Response<Full<Bytes>>;

impl TokenService {
    /// Starts it on a free port of the loopback address, for these providers.
    pub async fn start(stand_ins: &[StandIn]) -> io::Result<Self> {
        let keys = stand_ins.iter().map(|stand_in| (stand_in.slug(), stand_in.key()));
        let account = KeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        let state = Arc::new(State {
            keys: keys.collect(),
            account,
            down: AtomicBool::new(false),
            calls: Mutex::default(),
        });
        let asked = Arc::clone(&state);
        let answer = move |request| respond(request, Arc::clone(&asked));
        Ok(Self { server: Server::start(None, answer).await?, state })
    }

    /// Where it listens: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The file of the one service account that it knows.
    pub fn service_account(&self) -> String {
        let der: Result<Pkcs8V1Der<'_>, _> = self.state.account.as_der();
        let der = der.map(|der| BASE64_STANDARD.encode(der.as_ref())).unwrap_or_default();
        let file = json!({
            "type": "service_account",
            "project_id": "stand-in-123",
            "private_key_id": KEY_ID,
            "private_key":
                format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n"),
            "client_email": ACCOUNT,
            "token_uri": GOOGLE,
        });
        file.to_string()
    }

    /// The one secret that it takes from applications in Entra.
    pub fn client_secret(&self) -> &'static str {
        CLIENT_SECRET
    }

    /// The one admin key that it takes of all providers that have such.
    pub fn admin_key(&self) -> &'static str {
        ADMIN_KEY
    }

    /// Answers everybody with 503 from now on, or as before.
    pub fn be_down(&self, down: bool) {
        self.state.down.store(down, SeqCst);
    }

    /// Method and path of each call so far.
    pub fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let line = format!("{} {}", head.method, head.uri.path());
    state.calls.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    Ok(if state.down.load(SeqCst) { answer(503, &Value::Null) } else { state.answer(&head, &body) })
}

impl State {
    fn answer(&self, head: &Parts, body: &[u8]) -> Answer {
        let path = head.uri.path();
        if path == "/token" {
            return self.google(body);
        }
        if path.ends_with("/oauth2/v2.0/token") {
            return self.entra(body);
        }
        let bearer = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        if bearer != Some(&format!("Bearer {ADMIN_KEY}")) {
            return answer(401, &json!({ "error": { "code": "invalid_api_key" } }));
        }
        if head.method == Method::DELETE {
            return answer(200, &json!({ "deleted": true }));
        }
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let ends = |member: &str| told.get(member).is_some_and(|value| !value.is_null());
        match path {
            "/api/v1/keys" if ends("expires_at") => {
                answer(201, &json!({ "key": self.key("openrouter"), "data": { "hash": "h4sh" } }))
            }
            _ if path.starts_with("/v1/organization/") && ends("expires_in_seconds") => {
                answer(200, &json!({ "id": "key_1", "value": self.key("openai") }))
            }
            _ if path.starts_with("/auth/teams/") && ends("expireTime") => {
                answer(200, &json!({ "apiKey": self.key("xai"), "apiKeyId": "id-1" }))
            }
            _ => answer(404, &json!({ "error": { "code": "not_found" } })),
        }
    }

    fn google(&self, body: &[u8]) -> Answer {
        let form = form(body);
        let is_grant = form.get("grant_type").is_some_and(|how| how == JWT_BEARER);
        let assertion = form.get("assertion").map(String::as_str).unwrap_or_default();
        if !is_grant || self.is_signed(assertion).is_none() {
            let says = "Invalid JWT Signature.";
            return answer(400, &json!({ "error": "invalid_grant", "error_description": says }));
        }
        granted(self.key("vertex"))
    }

    /// Whether an assertion is of the one account, for this service and for now.
    fn is_signed(&self, assertion: &str) -> Option<()> {
        let (signed, signature) = assertion.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let public: PublicKeyX509Der<'_> = self.account.public_key().as_der().ok()?;
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.as_ref());
        public.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        let read = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).ok();
        let (head, claims) = (read(head)?, read(claims)?);
        let now = u64::try_from(SystemClock.now().as_millis() / 1000).ok()?;
        let number = |name: &str| claims.get(name)?.as_u64();
        let (issued, ends) = (number("iat")?, number("exp")?);
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let right = head.get("kid")? == KEY_ID
            && (text("iss"), text("aud"), text("scope"))
                == (Some(ACCOUNT), Some(GOOGLE), Some(SCOPE))
            && issued <= now + 5
            && ends > now
            && ends - issued <= 3600;
        right.then_some(())
    }

    fn entra(&self, body: &[u8]) -> Answer {
        let form = form(body);
        let given = |name: &str| form.get(name).map(String::as_str);
        let right = given("grant_type") == Some("client_credentials")
            && given("client_secret") == Some(CLIENT_SECRET)
            && given("scope") == Some("https://cognitiveservices.azure.com/.default");
        if right {
            granted(self.key("azure"))
        } else {
            answer(401, &json!({ "error": "invalid_client", "error_codes": [7_000_215] }))
        }
    }

    fn key(&self, slug: &str) -> &'static str {
        self.keys.get(slug).copied().unwrap_or_default()
    }
}

fn granted(token: &str) -> Answer {
    answer(200, &json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 }))
}

fn answer(status: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    answer
}

/// The members of a form, RFC 6749 appendix B.
fn form(body: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

const ACCOUNT: &str = "models@stand-in-123.iam.gserviceaccount.com";
const ADMIN_KEY: &str = "sk-admin-standin0123456789012345678901234567890123456789";
const CLIENT_SECRET: &str = "a1b8Q~standin8901234567890123456789012345";
const GOOGLE: &str = "https://oauth2.googleapis.com/token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const KEY_ID: &str = "key-1";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
