//! Names of people in answers, and what is left when they are forgotten.

use std::time::Duration;

use crate::{Running, retention};

const ADMIN: &str = "spiffe://strongroom.local/admin/local";

#[test]
fn a_person_is_named_until_the_name_is_forgotten() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let did = running.json(&["audit", "what-did", ADMIN]);
    assert_eq!(did["summary"]["TENANT_CREATED"], 1);
    assert_eq!(did["records"][0]["actor"], ADMIN);
    // Until what was done is signed.
    retention::read(&running, 8);
    let export = running.path("log");
    running.json(&["audit", "export", &export]);
    let vkey = running.layout.log_verifier.to_str().unwrap();
    let from = ["--from", &export, "--vkey-file", vkey];
    let asked = [&["audit", "what-did", ADMIN][..], &from].concat();
    let did = running.json(&asked);
    assert_eq!(
        (&did["summary"]["TENANT_CREATED"], &did["records"][0]["actor"]),
        (&1.into(), &ADMIN.into())
    );

    // A line that was changed names nobody.
    let people = running.folder.path().join("log/people.jsonl");
    let lines = std::fs::read_to_string(&people).unwrap();
    std::fs::write(&people, lines.replace("admin/local", "admin/other")).unwrap();
    running.refused(&asked);
    running.refused(
        &[&["audit", "what-did", "spiffe://strongroom.local/admin/other"][..], &from].concat(),
    );

    std::fs::remove_file(&people).unwrap();
    running.refused(&asked);
    let list = [&["audit", "list", "--kind", "tenant-created"][..], &from].concat();
    let listed = running.json(&list);
    let actor = listed["records"][1]["actor"].as_str().unwrap();
    assert!(actor.starts_with("sha256:"), "{actor}");
    let did = running.json(&[&["audit", "what-did", actor][..], &from].concat());
    assert_eq!(did["summary"]["TENANT_CREATED"], 1);
    running.json(&["audit", "verify", &export, "--vkey-file", vkey]);
    running.end();
}
