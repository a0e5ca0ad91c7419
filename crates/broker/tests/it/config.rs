use std::fs;

use broker::Config;

use crate::harness::{layout, repository};

#[test]
fn the_annotated_configuration_is_one() {
    let (config, _) = Config::load(&repository("deploy/broker.toml")).unwrap();
    assert_eq!(config.listen.port(), 7443);
    assert_eq!(config.access.len(), 5);
    assert_eq!(config.log.keep, None);

    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, text.replace("# keep = ", "keep = ")).unwrap();
    let (config, _) = Config::load(&path).unwrap();
    assert_eq!(config.log.keep, Some(std::time::Duration::from_hours(400 * 24)));
}

#[test]
fn what_is_commented_out_in_it_is_right_too() {
    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    // Settings, not prose: `# key = value` and `# [section]`; the second KMS and store are others.
    let settings = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || (line.contains(" = ") && !key.contains(' '))
    });
    let folder = tempfile::tempdir().unwrap();
    let (mut head, mut sections) = (String::new(), String::new());
    for line in settings {
        let known = [
            "concurrent_calls",
            "connections = 1024",
            "streams_per_connection",
            "drain",
            "connection_age",
            "sessions",
            "kek_ttl",
            "[limits]",
        ];
        if known.iter().any(|known| line.starts_with(known)) {
            sections.push_str(line);
            sections.push('\n');
        } else if line.starts_with("reflection") {
            head.push_str(line);
            head.push('\n');
        }
    }
    assert!(sections.lines().count() >= 8, "{sections}");
    let path = folder.path().join("broker.toml");
    fs::write(&path, format!("{head}{text}{sections}")).unwrap();
    let (config, _) = Config::load(&path).unwrap();
    let defaults = broker::Limits::default();
    assert_eq!(config.limits.concurrent_calls, defaults.concurrent_calls);
    assert_eq!(config.limits.connection_age, defaults.connection_age);
    assert_eq!(config.limits.kek_ttl, defaults.kek_ttl);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let (_folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    fs::write(&layout.broker_config, format!("lisen = \"127.0.0.1:1\"\n{text}")).unwrap();
    let error = Config::load(&layout.broker_config).unwrap_err().to_string();
    assert!(error.contains("lisen") && error.contains("line 1"), "{error}");
}
