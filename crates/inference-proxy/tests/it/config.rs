use std::path::{Path, PathBuf};

use inference_proxy::{Config, ConfigError};

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn annotated() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/proxy.toml");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_annotated_example_is_the_defaults() {
    let (folder, path) = file(&annotated());
    let config = Config::load(&path).unwrap();
    let key = format!("key: {:?}", folder.path().join("pki/inference-proxy.key"));
    assert!(format!("{:?}", config.broker.tls).contains(&key));
    assert_eq!(config.tls.unwrap().key, folder.path().join("pki/listener.key"));
    let defaults = crate::harness::config("[egress]");
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", defaults.limits));
    assert_eq!(format!("{:?}", config.egress), format!("{:?}", defaults.egress));
    assert_eq!(format!("{:?}", config.leases), format!("{:?}", defaults.leases));
}

#[test]
fn a_mistake_is_named_with_its_line() {
    let text = annotated().replace("body_bytes = 10485760", "body_byte = 10485760");
    let line = text.lines().position(|line| line.starts_with("body_byte =")).unwrap() + 1;
    let Err(ConfigError::Malformed { message, .. }) = Config::load(&file(&text).1) else {
        panic!("not malformed");
    };
    assert!(message.contains("body_byte"), "{message}");
    assert!(message.contains(&format!("line {line}")), "{message}");
}

#[test]
fn plain_http_beyond_loopback_must_be_said_twice() {
    let plain = |danger: &str| {
        let text = annotated().replace("\n[tls]\n", "\n[unused]\n");
        let start = text.find("[unused]").unwrap();
        let end = text.find("[broker]").unwrap();
        let text = format!("{danger}\n{}{}", &text[..start], &text[end..]);
        let (_folder, path) = file(&text);
        Config::load(&path)
    };
    assert!(matches!(plain(""), Err(ConfigError::PlainHttp(_))));
    assert!(plain("danger_plain_http_on = \"0.0.0.0:8443\"").is_ok());
    let other = plain("danger_plain_http_on = \"0.0.0.0:8080\"");
    assert!(matches!(other, Err(ConfigError::PlainHttp(_))));
}
