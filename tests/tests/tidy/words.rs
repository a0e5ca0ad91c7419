use std::collections::BTreeSet;

use crate::sources::{self, Source};

#[test]
fn no_file_is_longer_than_500_lines() {
    for Source { path, text } in sources::all() {
        let written = [".rs", ".proto", ".py", ".sql"].iter().any(|end| path.ends_with(end));
        let lines = text.lines().count();
        assert!(!written || lines <= 500, "{path} has {lines} lines: split it by concept");
    }
}

#[test]
fn there_is_no_mod_rs_and_no_drawer_for_everything() {
    for Source { path, .. } in sources::of_crates() {
        let name = path.rsplit('/').next().unwrap();
        assert!(!["mod.rs", "util.rs", "utils.rs", "helpers.rs"].contains(&name), "{path}");
    }
}

#[test]
fn nothing_is_put_off_and_no_machine_is_named() {
    // Written in two parts, so that this file does not name them.
    let unwanted = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("../sh", "ared"),
        concat!("#[ig", "nore"),
        concat!("should_", "panic"),
    ];
    for Source { path, text } in sources::all() {
        for (at, line) in text.lines().enumerate() {
            let found = unwanted.iter().find(|word| line.contains(**word));
            assert_eq!(found, None, "{path}:{}", at + 1);
        }
    }
}

#[test]
fn sql_is_written_in_the_store_only() {
    stands_only_in("sqlx::", &["crates/store/src/"]);
}

#[test]
fn kms_clients_stand_in_the_envelope_only() {
    stands_only_in("aws_sdk_kms::", &["crates/envelope/src/"]);
    stands_only_in("aws_config::", &["crates/envelope/src/"]);
    stands_only_in("cryptoki::", &["crates/envelope/src/"]);
    stands_only_in("x-vault-token", &["crates/envelope/src/"]);
}

#[test]
fn unsafe_code_stands_in_the_room_for_it_only() {
    stands_only_in("unsafe {", &["crates/hardening/src/"]);
    stands_only_in("unsafe impl", &["crates/hardening/src/"]);
}

#[test]
fn every_metric_that_operators_are_told_of_exists() {
    let code = sources::of_crates().into_iter().map(|source| source.text).collect::<String>();
    let told = sources::all()
        .into_iter()
        .filter(|source| source.path.starts_with("deploy/") || source.path.starts_with("docs/"))
        .flat_map(|source| metrics(&source.text))
        .collect::<BTreeSet<_>>();
    assert!(told.len() >= 5, "found only {told:?}");
    for metric in told {
        let name = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| metric.strip_suffix(end))
            .unwrap_or(&metric);
        assert!(code.contains(&format!("\"{name}\"")), "nothing emits {metric}");
    }
}

#[test]
fn every_test_that_guards_an_invariant_exists() {
    let all = sources::all();
    let architecture = all.iter().find(|source| source.path == "ARCHITECTURE.md").unwrap();
    let named = architecture
        .text
        .split('`')
        .filter(|word| word.matches('_').count() > 3)
        .filter(|word| {
            word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect::<Vec<_>>();
    assert!(named.len() > 20, "found only {named:?}");
    for name in named {
        let test = format!("fn {name}(");
        assert!(all.iter().any(|source| source.text.contains(&test)), "there is no {name}");
    }
}

/// The names in a text that look like metrics of ours.
fn metrics(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("strongroom_"))
        .filter(|word| ENDS.iter().any(|end| word.ends_with(end)))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn stands_only_in(word: &str, places: &[&str]) {
    let mut seen = false;
    for Source { path, text } in sources::of_crates() {
        let allowed = places.iter().any(|place| path.starts_with(place));
        seen |= allowed && text.contains(word);
        assert!(allowed || !text.contains(word), "{path} has {word}");
    }
    assert!(seen, "{word} is nowhere: this test has lost its subject");
}

/// How the names of metrics end.
const ENDS: [&str; 9] =
    ["_total", "_seconds", "_bucket", "_count", "_sum", "_records", "_live", "_flight", "_info"];
