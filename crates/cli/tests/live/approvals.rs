//! Two people and their tools, up to a policy that both have admitted.

use std::{fs, path::PathBuf, sync::Arc, thread, time::Duration};

use domain::{ADMIT_POLICY, SystemClock};
use serde_json::Value;
use setup::Pki;

use crate::{Running, answer};

/// The configuration of another person.
fn second(running: &Running) -> PathBuf {
    let layout = &running.layout;
    let pki = Pki::open(&layout.pki, &layout.trust_domain, Arc::new(SystemClock)).unwrap();
    pki.issue(&layout.pki, "second", "admin/second", Duration::from_hours(1)).unwrap();
    let text = fs::read_to_string(&layout.cli_config).unwrap();
    let config = layout.cli_config.with_file_name("second.toml");
    fs::write(&config, text.replace("/admin.", "/second.")).unwrap();
    config
}

fn without_ask(policy: &str) -> String {
    policy.split_inclusive('\n').filter(|line| !line.starts_with("ask = ")).collect()
}

fn error(said: &str) -> Value {
    serde_json::from_str::<Value>(said).unwrap().get("error").cloned().unwrap_or_default()
}

/// A broker whose policy asks two people for this, and another person.
fn asking_two_for(method: &str) -> (Running, PathBuf) {
    let running = Running::start(Duration::ZERO);
    let second = second(&running);
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    let asks = policy.replace("two_people = []", &format!("two_people = [\"{method}\"]"));
    fs::write(&running.layout.policy, &asks).unwrap();
    let explain = ["policy", "explain", method];
    while running.json(&explain).get("two_people") != Some(&true.into()) {
        thread::sleep(Duration::from_millis(50));
    }
    (running, second)
}

/// What a refused command was kept as.
#[track_caller]
fn needed(running: &Running, arguments: &[&str]) -> String {
    let (_, said) = running.refused(arguments);
    let error = error(&said);
    assert_eq!(error.get("reason"), Some(&"APPROVAL_NEEDED".into()), "{said}");
    error.pointer("/metadata/approval").unwrap().as_str().unwrap().to_owned()
}

#[test]
fn the_same_command_again_uses_the_approval() {
    let (running, second) = asking_two_for("Kms/RotateKek");
    running.json(&["tenants", "create", "acme"]);
    for command in [&["kms", "rotate", "acme"][..], &["kms", "rotate", "--all", "--detach"]] {
        let name = needed(&running, command);
        assert_eq!(needed(&running, command), name, "it is one request");
        let approve = ["approvals", "approve", &name, "--yes"];
        answer(&approve, &running.give_by(&second, &approve, b""));
        assert!(running.json(command)["log_index"].as_u64().unwrap() > 0);
        assert_ne!(needed(&running, command), name, "once");
        let again = running.json(&["approvals", "run", &name]);
        assert_eq!(again, serde_json::json!({}), "nothing is done, and no record named");
        assert_eq!(running.told(&["approvals", "run", &name]).trim(), "it was done already");
    }
    running.end();
}

#[test]
fn nobody_but_the_proposer_runs_what_was_approved_and_nobody_what_is_over() {
    let (running, second) = asking_two_for("Kms/RewrapKeys");
    let name = needed(&running, &["kms", "rewrap"]);
    let by_second = |arguments: &[&str]| running.give_by(&second, arguments, b"");
    assert!(by_second(&["approvals", "approve", &name, "--yes"]).status.success());
    let twice = by_second(&["approvals", "approve", &name, "--yes"]);
    let said = String::from_utf8(twice.stderr).unwrap();
    assert!(said.contains("it is approved already"), "{said}");
    let run = by_second(&["approvals", "run", &name]);
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("only spiffe://strongroom.local/admin/local can do it"), "{said}");
    let count = || running.json(&["approvals", "list"])["approvals"].as_array().unwrap().len();
    assert_eq!(count(), 1, "nothing was proposed by that");
    running.json(&["approvals", "decline", &name]);
    let (code, said) = running.refused(&["approvals", "run", &name]);
    assert!(code == 1 && said.contains("it was declined"), "{said}");
    assert_eq!(count(), 1);
    running.end();
}

#[test]
fn a_policy_is_admitted_by_two() {
    let running = Running::start(Duration::ZERO);
    let second = second(&running);
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    let asks = policy.replace("two_people = []", &format!("two_people = [\"{ADMIT_POLICY}\"]"));
    fs::write(&running.layout.policy, &asks).unwrap();
    let two_people = || running.json(&["policy", "explain", ADMIT_POLICY])["two_people"] == true;
    while !two_people() {
        thread::sleep(Duration::from_millis(50));
    }

    let wanted = running.path("wanted.toml");
    let member = "\n[[grants]]\nrole = \"member\"\nto = [\"spiffe://strongroom.local/m\"]\n\
                  tenants = [\"acme\"]\n";
    fs::write(&wanted, format!("ask = \"mallory\"\n{}{member}", without_ask(&asks))).unwrap();
    let (code, said) = running.refused(&["policy", "admit", &wanted]);
    assert_eq!((code, &error(&said)["reason"]), (1, &"APPROVAL_NEEDED".into()), "{said}");
    let name = error(&said)["metadata"]["approval"].as_str().unwrap().to_owned();
    let (_, said) = running.refused(&["approvals", "approve", &name, "--yes"]);
    assert_eq!(error(&said)["reason"], "SAME_PERSON", "{said}");
    let (_, said) = running.refused(&["approvals", "run", &name]);
    assert_eq!(error(&said)["reason"], "APPROVAL_NEEDED", "{said}");

    let by_second =
        |arguments: &[&str]| answer(arguments, &running.give_by(&second, arguments, b""));
    let listed = by_second(&["approvals", "list"]);
    assert_eq!(listed["approvals"][0]["name"], name.as_str());
    let shown = by_second(&["approvals", "show", &name]);
    let what: Vec<_> =
        shown["what"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(
        what[0].starts_with("+ member to spiffe://strongroom.local/m, tenants acme"),
        "{what:?}"
    );
    assert!(!what[1].starts_with(['+', '-']), "{what:?}");
    assert!(what.contains(&"whoever is refused will be told to ask: mallory"), "{what:?}");
    assert_eq!(by_second(&["approvals", "approve", &name, "--yes"])["state"], "approved");
    assert!(running.json(&["approvals", "run", &name])["log_index"].as_u64().unwrap() > 0);
    assert_eq!(running.json(&["approvals", "show", &name])["state"], "used");
    let (_, said) = running.refused(&["approvals", "decline", &name]);
    assert_eq!(error(&said)["reason"], "APPROVAL_IS_OVER", "{said}");
    running.end();
}
