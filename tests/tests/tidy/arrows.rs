use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use crate::sources;

/// Which of our crates each of them stands on. An arrow may only point upwards in this list, to a
/// lower layer. The promises to look for: the proxy and the command line have no store and no
/// envelope, what verifies a log offline (`audit`) does no I/O, and what sends records to other
/// systems (`sinks`) knows of nothing but records.
const ARROWS: &[(&str, &str)] = &[
    ("hardening", ""),
    ("domain", "hardening"),
    ("telemetry", ""),
    ("strongroom-proto", ""),
    ("mtls", "domain"),
    ("audit", "domain strongroom-proto"),
    ("sinks", "audit domain strongroom-proto"),
    ("envelope", "domain"),
    ("sealing", "domain"),
    ("providers", "domain"),
    ("metering", "domain"),
    ("egress", "domain"),
    ("exchange", "domain egress providers"),
    ("store", "audit domain"),
    ("witness", "audit domain"),
    ("strongroom-client", "audit domain mtls sealing strongroom-proto"),
    ("setup", "audit domain envelope"),
    ("testkit", "audit domain envelope setup store"),
    (
        "broker",
        "audit domain egress envelope exchange hardening metering mtls providers sealing sinks store \
         strongroom-proto telemetry",
    ),
    (
        "inference-proxy",
        "domain egress hardening metering providers strongroom-client strongroom-proto telemetry",
    ),
    (
        "strongroom-cli",
        "audit domain metering providers sealing setup sinks strongroom-client strongroom-proto \
         telemetry witness",
    ),
    (
        "quickstart",
        "audit broker domain hardening inference-proxy setup strongroom-client strongroom-proto \
         telemetry",
    ),
    (
        "bench",
        "audit broker domain hardening inference-proxy mtls sealing setup store \
         strongroom-client strongroom-proto telemetry",
    ),
    ("hygiene", ""),
    ("fuzz", "audit broker domain envelope inference-proxy metering mtls providers sealing"),
];

#[test]
fn crates_depend_on_what_the_list_of_arrows_says() {
    let real = arrows("normal");
    for (name, on) in ARROWS {
        let listed = on.split_whitespace().collect::<Vec<_>>();
        let real = real.get(*name).unwrap_or_else(|| panic!("there is no crate {name}"));
        assert_eq!(*real, listed, "{name}: what it depends on, and what the list says");
    }
    for name in real.keys().filter(|name| *name != "e2e") {
        assert!(ARROWS.iter().any(|(listed, _)| listed == name), "{name} is not in the list");
    }
}

#[test]
fn arrows_point_to_lower_layers_only() {
    for (at, (name, on)) in ARROWS.iter().enumerate() {
        for lower in on.split_whitespace() {
            let found = ARROWS.iter().take(at).any(|(listed, _)| *listed == lower);
            assert!(found, "{name} stands on {lower}, which is not below it");
        }
    }
}

#[test]
fn what_is_for_tests_only_is_not_shipped() {
    for (name, on) in arrows("normal").iter().filter(|(name, _)| *name != "e2e") {
        assert!(!on.iter().any(|name| name == "testkit" || name == "e2e"), "{name} ships tests");
    }
}

/// Our crates, and which of our crates each depends on, in one kind of section.
fn arrows(section: &str) -> BTreeMap<String, Vec<String>> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(sources::root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ours = packages.iter().map(|package| text(&package["name"])).collect::<Vec<_>>();
    let below = |package: &Value| {
        let mut below = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["kind"].as_str().unwrap_or("normal") == section)
            .map(|one| text(&one["name"]))
            .filter(|name| ours.contains(name))
            .collect::<Vec<_>>();
        below.sort();
        below
    };
    packages.iter().map(|package| (text(&package["name"]), below(package))).collect()
}
