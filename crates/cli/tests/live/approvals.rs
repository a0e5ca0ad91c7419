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

fn error(said: &str) -> Value {
    serde_json::from_str::<Value>(said).unwrap().get("error").cloned().unwrap_or_default()
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
    fs::write(&wanted, asks + member).unwrap();
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
    let what = shown["what"][0].as_str().unwrap();
    assert!(what.starts_with("+ member to spiffe://strongroom.local/m, tenants acme"), "{what}");
    assert_eq!(shown["what"].as_array().unwrap().len(), 1);
    assert_eq!(by_second(&["approvals", "approve", &name, "--yes"])["state"], "approved");
    assert!(running.json(&["approvals", "run", &name])["log_index"].as_u64().unwrap() > 0);
    assert_eq!(running.json(&["approvals", "show", &name])["state"], "used");
    let (_, said) = running.refused(&["approvals", "decline", &name]);
    assert_eq!(error(&said)["reason"], "APPROVAL_IS_OVER", "{said}");
    running.end();
}
