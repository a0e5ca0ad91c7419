use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::{error, path, stderr, stdout, strongroom, strongroom_in};

fn shipped(name: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy")).join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_shipped_policy_can_be_used_and_says_what_is_expected_of_it() {
    let output = strongroom(&["policy", "check", &shipped("policy.toml"), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(checked["sha256"].as_str().unwrap().len(), 64);

    let output = strongroom(&["policy", "test", &shipped("policy-test.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("expectations are met"));
}

#[test]
fn the_policy_that_init_writes_can_be_used() {
    let home = TempDir::new().unwrap();
    let output = strongroom_in(home.path(), &["init", "here"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = strongroom_in(home.path(), &["policy", "check", "here/policy.toml"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_mistake_is_told_with_its_line() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(shipped("policy.toml")).unwrap();
    let wrong = text.replacen("Leases/AcquireLease", "Leases/AquireLease", 1);
    let line = wrong.lines().position(|line| line.contains("Aquire")).unwrap() + 1;
    fs::write(folder.path().join("p.toml"), wrong).unwrap();
    let output = strongroom_in(folder.path(), &["policy", "check", "p.toml"], b"");
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("p.toml: line {line}: `Leases/AquireLease` is no method");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn an_expectation_that_is_not_met_fails_and_says_why() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(shipped("policy-test.toml")).unwrap();
    let text =
        text.replace("policy = \"policy.toml\"", &format!("policy = {:?}", shipped("policy.toml")));
    // The first that is refused is expected to be allowed.
    let text = text.replacen("allowed = false", "allowed = true", 1);
    fs::write(folder.path().join("t.toml"), text).unwrap();
    let output = strongroom_in(folder.path(), &["policy", "test", "t.toml"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("proxy does not allow it"), "{}", stdout(&output));
    assert!(stderr(&output).contains("1 of "), "{}", stderr(&output));

    fs::write(folder.path().join("t.toml"), "policy = \"x\"\nexpect = [{ who = 1 }]").unwrap();
    let output = strongroom_in(folder.path(), &["policy", "test", "t.toml", "--json"], b"");
    assert!(error(&output)["message"].as_str().unwrap().contains("line 2"), "{}", path(&folder));
}

#[test]
fn an_answer_names_the_role_that_decides() {
    let ask = |arguments: &[&str]| {
        let file = shipped("policy.toml");
        let arguments = [&["policy", "explain", "--json", "--file", &file], arguments].concat();
        let output = strongroom(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let auditor = "spiffe://acme.internal/auditor/ada";
    let said = ask(&["--as", auditor, "Audit/ListRecords"]);
    assert_eq!((&said["allowed"], &said["rules"][0]["role"]), (&true.into(), &"auditor".into()));
    let said = ask(&["--as", auditor, "Leases/AcquireLease", "--tenant", "acme"]);
    assert_eq!(
        (&said["allowed"], said["because"].as_str().unwrap()),
        (&false.into(), "refused: auditor does not allow it; borrower or proxy would")
    );

    let who = ask(&["Leases/AcquireLease", "--tenant", "acme"]);
    let roles: Vec<_> = who["rules"].as_array().unwrap().iter().map(|it| &it["role"]).collect();
    assert_eq!(roles, ["proxy", "borrower"]);
    let who = ask(&["Audit/PruneRecords"]);
    assert_eq!(who["rules"], Value::Array(vec![]));

    let output = strongroom(&["policy", "explain", "--file", &shipped("policy.toml"), "No/Such"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_provider_that_is_none_is_warned_of_with_the_nearest_one() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(shipped("policy.toml")).unwrap();
    let check = |providers: &str| {
        let grant = format!(
            "\n[[grants]]\nrole = \"provisioner\"\nto = [\"spiffe://a.b/c\"]\ntenants = [\"*\"]\n\
             providers = [{providers}]\n"
        );
        fs::write(folder.path().join("p.toml"), format!("{text}{grant}")).unwrap();
        let output = strongroom_in(folder.path(), &["policy", "check", "p.toml"], b"");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).to_owned()
    };
    assert_eq!(check("\"openai\", \"anthropic\""), "");
    let told = check("\"openai\", \"opnai\"");
    assert!(told.contains("`opnai` is no provider") && told.contains("`openai` meant"), "{told}");
}

#[test]
fn whoever_needs_a_second_person_is_told_that_both_are_people() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(shipped("policy.toml")).unwrap();
    fs::write(folder.path().join("p.toml"), text).unwrap();
    let ask = |method: &str| {
        let arguments = ["policy", "explain", "--file", "p.toml", method];
        stdout(&strongroom_in(folder.path(), &arguments, b"")).to_owned()
    };
    assert!(ask("Tenants/ShredTenant").contains("only people can ask for it"));
    assert!(!ask("Tenants/GetTenant").contains("people"));
}
