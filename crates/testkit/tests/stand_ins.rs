//! What the stand-ins refuse, so that a test that they pass says something; and whether the catalogue
//! leads to each of them.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use http::Method;
use providers::{
    Ask, Call, Catalogue, CredentialForm, KeyHint, Operation, Proof, Provider, Settings,
};
use serde_json::{Value, json};
use testkit::{SAID, StandIn};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CHAT: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hello."}]}"#;

#[tokio::test]
async fn what_is_not_right_in_every_way_is_refused() {
    let openai = StandIn::start("openai").await.unwrap();
    let key = format!("authorization: Bearer {}", openai.key());
    let none = "accept: */*";
    let vk = "x-api-key: vk_0123456789";
    for (request, headers, body, status) in [
        ("POST /v1/chat/completions", [&*key, none], CHAT, 200),
        ("GET /v1/chat/completions", [&*key, none], "", 404),
        ("POST /v1/chat/completions/", [&*key, none], CHAT, 404),
        ("POST /openai/v1/chat/completions", [&*key, none], CHAT, 404),
        ("POST /v1/chat/completions?key=1", [&*key, none], CHAT, 400),
        ("POST /v1/chat/completions", [none, none], CHAT, 401),
        ("POST /v1/chat/completions", ["authorization: Bearer wrong", none], CHAT, 401),
        ("POST /v1/chat/completions", [&*key.replace("Bearer ", ""), none], CHAT, 401),
        ("POST /v1/chat/completions", [&*key.replace("authorization", "api-key"), none], CHAT, 401),
        // What a caller proved itself with to somebody else must not come along.
        ("POST /v1/chat/completions", [&*key, vk], CHAT, 401),
        ("POST /v1/chat/completions", [&*key, "cookie: session=1"], CHAT, 401),
        ("POST /v1/chat/completions", [&*key, none], "not JSON", 400),
        ("POST /v1/chat/completions", [&*key, none], r#"{"model":"gpt-4o"}"#, 400),
        ("POST /v1/chat/completions", [&*key, none], &CHAT.replace("gpt-4o", "openai/gpt-4o"), 404),
    ] {
        let (got, answer) = call(&openai, request, &headers.map(str::to_owned), body).await;
        assert_eq!(got, status, "{request} {headers:?} {body}: {answer}");
        assert!(got == 200 || answer["error"]["message"].is_string(), "{request}: {answer}");
    }
}

#[tokio::test]
async fn each_refuses_in_its_own_way() {
    for (slug, path, status, pointer) in [
        ("anthropic", "/v1/messages", 401, "/error/type"),
        ("azure", "/openai/v1/chat/completions", 401, "/error/code"),
        ("bedrock", "/openai/v1/chat/completions", 403, "/message"),
        (
            "cloudflare",
            "/client/v4/accounts/00112233445566778899aabbccddeeff/ai/v1/chat/completions",
            401,
            "/errors/0/code",
        ),
        ("cohere", "/v2/chat", 401, "/message"),
        ("google", "/v1/models/gemini-2.5-flash:generateContent", 400, "/error/details/0/reason"),
        ("mistral", "/v1/chat/completions", 401, "/message"),
        ("openrouter", "/api/v1/chat/completions", 401, "/error/code"),
        ("xai", "/v1/chat/completions", 400, "/code"),
    ] {
        let stand_in = StandIn::start(slug).await.unwrap();
        let wrong = ["authorization: Bearer wrong-key".to_owned(), String::from("accept: */*")];
        let (got, answer) = call(&stand_in, &format!("POST {path}"), &wrong, CHAT).await;
        assert_eq!(got, status, "{slug}: {answer}");
        assert!(answer.pointer(pointer).is_some(), "{slug}: {answer}");
    }
}

/// A version of the API must be named; the SDKs of AWS, Google and Microsoft have it elsewhere.
#[tokio::test]
async fn anthropics_format_wants_a_version() {
    let anthropic = StandIn::start("anthropic").await.unwrap();
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":8,"messages":[]}"#;
    let key = format!("x-api-key: {}", anthropic.key());
    for (version, status) in [("2023-06-01", 200), ("2026-10-21", 200), ("2024-01-01", 400)] {
        let headers = [key.clone(), format!("anthropic-version: {version}")];
        let (got, answer) = call(&anthropic, "POST /v1/messages", &headers, body).await;
        assert_eq!(got, status, "{version}: {answer}");
    }
}

#[tokio::test]
async fn the_catalogue_leads_to_each_of_them() {
    for (slug, model) in [
        ("openai", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-flash"),
        ("vertex", "gemini-2.5-flash"),
        ("bedrock", "openai.gpt-oss-120b-1:0"),
        ("azure", "my-gpt-4o"),
        ("openrouter", "openai/gpt-4o-mini"),
        ("xai", "grok-4.3"),
        ("vercel", "openai/gpt-4o-mini"),
        ("mistral", "mistral-small-latest"),
        ("deepseek", "deepseek-chat"),
        ("perplexity", "sonar"),
        ("cohere", "command-a-03-2025"),
        ("cloudflare", "@cf/meta/llama-3.2-3b-instruct"),
    ] {
        // Members that not everybody takes: what has to go is taken out on the way.
        let body = json!({
            "messages": [{ "role": "user", "content": "Hello." }], "user": "u", "store": false,
            "seed": 7,
        });
        let answer = follow(slug, Call::Operation(Operation::ChatCompletions), model, body).await;
        let said = answer.pointer("/choices/0/message/content");
        assert_eq!(said, Some(&SAID.concat().into()), "{slug}: {answer}");
    }
}

#[tokio::test]
async fn the_catalogue_leads_to_anthropics_format_and_to_their_own() {
    let say = json!([{ "role": "user", "content": "Hello." }]);
    for (slug, model) in [
        ("anthropic", "claude-sonnet-4-5"),
        ("azure", "my-claude"),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("deepseek", "deepseek-chat"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
        ("vercel", "anthropic/claude-sonnet-4.5"),
        ("vertex", "claude-sonnet-4-5@20250929"),
        ("xai", "grok-4.3"),
    ] {
        let body = json!({ "messages": say, "max_tokens": 64 });
        let answer = follow(slug, Call::Operation(Operation::Messages), model, body).await;
        assert_eq!(answer["content"][0]["text"], SAID.concat(), "{slug}: {answer}");
    }
    let contents = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello." }] }] });
    let messages = json!({ "messages": [{ "role": "user", "content": [{ "text": "Hello." }] }] });
    let cohere = json!({ "model": "command-a-03-2025", "messages": say, "stream": false });
    for (slug, path, body, pointer) in [
        (
            "google",
            "/v1/models/gemini-2.5-flash:generateContent",
            &contents,
            "/candidates/0/content/parts/0/text",
        ),
        // The SDK's version, and somebody else's project.
        (
            "vertex",
            "/v1beta1/projects/p/locations/us/publishers/google/models/gemini-2.5-flash:generateContent",
            &contents,
            "/candidates/0/content/parts/0/text",
        ),
        (
            "bedrock",
            "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
            &messages,
            "/output/message/content/0/text",
        ),
        ("cohere", "/v2/chat", &cohere, "/message/content/0/text"),
        ("cloudflare", "/ai/run/@cf/meta/llama-3.2-3b-instruct", &messages, "/result/response"),
    ] {
        let native = Call::Native { method: &Method::POST, path };
        let answer = follow(slug, native, "", body.clone()).await;
        assert_eq!(answer.pointer(pointer), Some(&SAID.concat().into()), "{slug}: {answer}");
    }
}

/// Every key and every setting is one that the catalogue would let be stored.
#[tokio::test]
async fn their_credentials_look_like_the_real_ones() {
    let catalogue = Catalogue::builtin().unwrap();
    for slug in StandIn::slugs() {
        let stand_in = StandIn::start(slug).await.unwrap();
        let provider = catalogue.find(slug).unwrap();
        let form = form(provider, &stand_in);
        provider.check_settings(form.kind, &settings(&stand_in)).unwrap();
        assert_eq!(form.check(stand_in.key().as_bytes()), KeyHint::Plausible, "{slug}");
    }
}

fn form<'a>(provider: &'a Provider, stand_in: &StandIn) -> &'a CredentialForm {
    let mut forms = provider.credential_forms().iter();
    forms.find(|form| form.kind.as_str() == stand_in.credential_kind()).unwrap()
}

fn settings(stand_in: &StandIn) -> Settings {
    stand_in.settings().iter().copied().collect()
}

/// Calls a stand-in as the catalogue says that its provider is to be called.
async fn follow(slug: &str, what: Call<'_>, model: &str, body: Value) -> Value {
    let stand_in = StandIn::start(slug).await.unwrap();
    let id = slug.parse().unwrap();
    let catalogue = Catalogue::builtin().unwrap().with_base_url(&id, &stand_in.url()).unwrap();
    let provider = catalogue.find(slug).unwrap();
    let kind = form(provider, &stand_in).kind;
    let settings = settings(&stand_in);
    let ask = Ask { call: what, model, kind, settings: &settings, base_url: None, streams: false };
    let target = provider.target(&ask).unwrap_or_else(|error| panic!("{slug}: {error}"));
    assert_eq!(target.origin.to_string(), stand_in.url());

    let Value::Object(mut members) = body else { panic!("{body} is no object") };
    if let Call::Operation(_) = what {
        members.insert("model".to_owned(), target.model.clone().into());
    }
    for rewrite in &target.rewrites {
        rewrite.apply(&mut members);
    }
    let query = target.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let request = format!("POST {}{}{query}", target.base_path, target.path);
    let Proof::Header { name, prefix } = &target.proof else { panic!("{slug}: {target:?}") };
    let mut headers = vec![format!("{name}: {prefix}{}", stand_in.key())];
    let more = target.headers.iter().chain(&target.defaults);
    headers.extend(more.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    let (status, answer) =
        call(&stand_in, &request, &headers, &Value::Object(members).to_string()).await;
    assert_eq!(status, 200, "{slug}: {request}: {answer}");
    answer
}

/// One call, written out: no client of HTTP mends it on the way.
async fn call(stand_in: &StandIn, request: &str, headers: &[String], body: &str) -> (u16, Value) {
    let address = stand_in.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let (headers, length) = (headers.join("\r\n"), body.len());
    let sent = format!(
        "{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\
         {headers}\r\n\r\n{body}"
    );
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // Whole or in chunks, it is one object in braces.
    let inside = body.find('{').zip(body.rfind('}')).map(|(start, end)| &body[start..=end]);
    (status, serde_json::from_str(inside.unwrap_or_default()).unwrap_or_default())
}
