//! What people get wrong with credentials, and what they are told.

use std::time::Duration;

use crate::Running;

/// Refused with words that say what to change.
#[track_caller]
fn check(running: &Running, secret: &str, arguments: &[&str], words: &[&str]) {
    let arguments = [&["credentials", "put", "acme/wrong"], arguments].concat();
    let output = running.give(&arguments, secret.as_bytes());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    for word in words {
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_credential_that_cannot_work_is_refused_with_what_to_change() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let key = "sk-hunter2-0123456789abcdef";
    check(&running, key, &["--provider", "opneai"], &["`opneai`", "mistral, openai, openrouter"]);
    let kind = &["--provider", "openai", "--kind", "aws_role"];
    check(&running, key, kind, &["kind is not one that openai takes: api_key, admin_key"]);
    let kind = &["--provider", "openai", "--kind", "passwort"];
    check(&running, key, kind, &["kind is not one that openai takes"]);
    let region = &["--provider", "bedrock", "--kind", "bedrock_api_key"];
    check(&running, key, region, &["lacks the setting `region`", "AWS region"]);
    let region = &["--provider", "bedrock", "--kind", "bedrock_api_key", "--set", "region=Bonn!"];
    check(&running, key, region, &["`region`", "eu-central-1"]);
    check(&running, key, &["--provider", "azure"], &["lacks the setting `resource`"]);
    let other = &["--provider", "xai", "--set", "region=eu-west-1"];
    check(&running, key, other, &["has no setting `region`"]);
    let place = ["--provider", "vertex", "--set", "project=my-project-123"];
    check(&running, "{}", &place, &["lacks the setting `location`"]);
    let place = [&place[..], &["--set", "location=europe-west4"]].concat();
    for (malformed, words) in [
        ("{\"type\":", "whole file of the service account"),
        ("hunter2", "whole file of the service account"),
        (r#"{"type":"authorized_user","x":"hunter2"}"#, "is not `service_account`"),
        (r#"{"type":"service_account"}"#, "has no `token_uri`: store the whole file"),
    ] {
        check(&running, malformed, &place, &[words]);
    }
    let custom = ["--provider", "custom", "--models", "m"];
    check(&running, key, &custom, &["base_url"]);
    for (address, words) in [
        ("http://llm.example", "base_url: it must be https"),
        ("llm.example", "starts with https://"),
        ("ftp://llm.example", "starts with https://"),
        ("https://user:pass@llm.example", "must not name a user"),
    ] {
        let custom = [&custom[..], &["--base-url", address]].concat();
        check(&running, key, &custom, &[words]);
    }
    running.end();
}

#[test]
fn who_reaches_nobody_is_told_where() {
    let running = Running::start(Duration::ZERO);
    // Bound and not listening: nobody answers there, and nobody else can.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = bound.local_addr().unwrap().to_string();
    let text = std::fs::read_to_string(&running.layout.cli_config).unwrap();
    let line = text.lines().find(|line| line.starts_with("broker = ")).unwrap();
    let text = text.replace(line, &format!("broker = \"{free}\""));
    let config = running.layout.cli_config.with_file_name("nobody.toml");
    std::fs::write(&config, text).unwrap();
    let output = running.give_by(&config, &["tenants", "list"], b"");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains(&free) && told.contains("revoked"), "{told}");
    running.end();
}
