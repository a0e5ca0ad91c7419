use std::fs;

use broker::Config;

use crate::harness::{layout, repository};

#[test]
fn the_annotated_configuration_is_one() {
    let (config, _) = Config::load(&repository("deploy/broker.toml")).unwrap();
    assert_eq!(config.listen.port(), 7443);
    let policy = fs::read_to_string(&config.policy).unwrap();
    domain::PolicyFile::parse(&policy, &strongroom_proto::methods()).unwrap();
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
fn what_it_says_of_publishing_the_log_is_right_too() {
    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    let (before, after) = text.split_once("# [log.tiles]\n").unwrap();
    let (publishing, after) = after.split_once("\n\n# A provider at another address").unwrap();
    let settings = format!("# [log.tiles]\n{publishing}");
    let settings = settings.lines().filter_map(|line| line.strip_prefix("# "));
    let is_setting = |line: &&str| line.starts_with('[') || line.contains(" = ");
    let settings = settings.filter(is_setting).collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, format!("{before}{settings}\n\n# Who may call what{after}")).unwrap();
    let (config, _) = Config::load(&path).unwrap();
    let tiles = config.log.tiles.unwrap();
    assert_eq!((tiles.listen.port(), tiles.connections), (7444, 64));
    let witness = &config.log.witnesses[0];
    assert!(witness.ca.is_some() && witness.url.scheme() == "https");
    assert!(witness.key.parse::<audit::WitnessKey>().is_ok());
}

#[test]
fn every_kms_that_is_commented_out_in_it_is_right_too() {
    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    let (_, rest) = text.split_once("[kms]\n").unwrap();
    let (ours, rest) = rest.split_once("\n\n").unwrap();
    let is_setting = |line: &&str| {
        let key = line.split(" = ").next().unwrap();
        line.starts_with('[') || (line.contains(" = ") && !key.contains(' '))
    };
    let settings = |text: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting);
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut kinds = Vec::new();
    for other in ours.split("\n#\n").skip(1).map(settings) {
        let _: envelope::KmsConfig = toml::from_str(&other).unwrap();
        kinds.push(other.lines().next().unwrap().to_owned());
    }
    assert_eq!(kinds, ["kind = \"local\"", "kind = \"pkcs11\"", "kind = \"transit\""]);

    let (second, rest) = rest.split_once("\n\n").unwrap();
    let (roots, _) = rest.split_once("\n\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, format!("{text}\n{}\n{}", settings(second), settings(roots))).unwrap();
    let (config, _) = Config::load(&path).unwrap();
    assert!(config.kms_recovery.is_some());
    assert_eq!(config.kms_roots[0].name.as_str(), "globex");
    assert!(config.kms_roots[0].recovery.is_some());
}

#[test]
fn a_tenant_with_two_roots_is_refused() {
    let (_folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let root = |name: &str, tenant: &str| {
        let kms = "kms = { kind = \"local\", key_file = \"keys/kms.key\" }";
        format!("[[kms_roots]]\nname = \"{name}\"\ntenants = [\"{tenant}\"]\n{kms}\n")
    };
    let load = |roots: [String; 2]| {
        fs::write(&layout.broker_config, format!("{text}\n{}{}", roots[0], roots[1])).unwrap();
        Config::load(&layout.broker_config).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(load([root("one", "acme"), root("two", "globex")]), Ok(()));
    let refused = load([root("one", "acme"), root("two", "acme")]).unwrap_err();
    assert!(refused.contains("`acme` more than once"), "{refused}");
    let refused = load([root("one", "acme"), root("one", "globex")]).unwrap_err();
    assert!(refused.contains("called `one`"), "{refused}");
}

#[test]
fn the_sinks_that_are_commented_out_in_it_are_right_too() {
    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    let (before, rest) = text.split_once("# [[log.sinks]]").unwrap();
    let (sinks, after) = rest.split_once("\n\n").unwrap();
    let is_setting = |line: &&str| {
        let key = line.split(" = ").next().unwrap();
        line.starts_with('[') || (line.contains(" = ") && !key.contains(' '))
    };
    let sinks = sinks.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting);
    let sinks = sinks.collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    fs::write(&path, format!("{before}[[log.sinks]]\n{sinks}\n\n{after}")).unwrap();
    let (config, _) = Config::load(&path).unwrap();
    let names: Vec<_> = config.log.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["siem", "agent", "lake", "collector"]);
}

#[test]
fn the_webhook_that_is_commented_out_in_it_is_right_too() {
    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    let (before, rest) = text.split_once("# [[log.webhooks]]").unwrap();
    let (webhook, after) = rest.split_once("\n\n").unwrap();
    let is_setting =
        |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let webhook = webhook.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting);
    let webhook = webhook.collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    let load = |webhook: &str| {
        fs::write(&path, format!("{before}[[log.webhooks]]\n{webhook}\n\n{after}")).unwrap();
        Config::load(&path).map(|(config, _)| config.log.webhooks.len())
    };
    assert_eq!(load(&webhook).unwrap(), 1);
    let refused = load(&webhook.replace("BUDGET_*", "BUGDET_*")).unwrap_err().to_string();
    assert!(refused.contains("`alerts`") && refused.contains("BUGDET_*"), "{refused}");
}

#[test]
fn sinks_that_would_get_in_each_others_way_are_refused() {
    let (_folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let sink =
        |name: &str, to: &str| format!("[[log.sinks]]\nname = \"{name}\"\nto = {{ {to} }}\n");
    let file = |path: &str| format!("kind = \"file\", format = \"cef\", path = \"{path}\"");
    let refused = |sinks: [String; 2], expected: &str| {
        fs::write(&layout.broker_config, format!("{text}\n{}{}", sinks[0], sinks[1])).unwrap();
        let error = Config::load(&layout.broker_config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused([sink("a", &file("x")), sink("a", &file("y"))], "two are named `a`");
    refused([sink("a", &file("x")), sink("b", &file("x"))], "give each its own");
    let nowhere = "kind = \"otlp\", endpoint = \"https://collector:4317\"";
    refused([sink("a", &file("x")), sink("b", nowhere)], "https needs `tls`");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let (_folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    fs::write(&layout.broker_config, format!("lisen = \"127.0.0.1:1\"\n{text}")).unwrap();
    let error = Config::load(&layout.broker_config).unwrap_err().to_string();
    assert!(error.contains("lisen") && error.contains("line 1"), "{error}");
}

#[test]
fn rows_are_checked_within_the_quarter_of_an_hour_and_this_cannot_be_turned_off() {
    let text = fs::read_to_string(repository("deploy/broker.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    let load = |settings: &str| {
        fs::write(&path, format!("{text}\n[row_checks]\n{settings}\n")).unwrap();
        Config::load(&path).map_err(|error| error.to_string())
    };
    load("every = \"15m\"\nrows = 1").unwrap();
    for (settings, expected) in
        [("every = \"0s\"", "every"), ("every = \"16m\"", "every"), ("rows = 0", "rows")]
    {
        let refused = load(settings).unwrap_err();
        assert!(refused.contains(&format!("row_checks.{expected} is")), "{refused}");
    }
}
