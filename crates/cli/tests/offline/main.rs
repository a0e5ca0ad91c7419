//! The program as a process: verbs that need no broker, usage errors and exit codes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

mod answers;
mod export;
mod policy;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::export::{FIRST_LEASE, Log, rules};

fn strongroom(arguments: &[&str]) -> Output {
    strongroom_in(Path::new("/"), arguments, b"")
}

fn strongroom_in(directory: &Path, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn error(output: &Output) -> Value {
    assert!(output.stdout.is_empty(), "{}", stdout(output));
    serde_json::from_slice::<Value>(&output.stderr).unwrap()["error"].clone()
}

fn path(directory: &TempDir) -> &str {
    directory.path().to_str().unwrap()
}

#[test]
fn help_is_on_stdout_and_names_every_verb() {
    let output = strongroom(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for verb in
        ["init", "tenants", "credentials", "keys", "leases", "audit", "witness", "completions"]
    {
        assert!(stdout(&output).contains(verb), "{verb}");
    }
}

#[test]
fn wrong_usage_exits_with_2_in_both_forms() {
    let output = strongroom(&["tenants", "create", "Not-A-Name"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("starting with a letter"), "{}", stderr(&output));

    let output = strongroom(&["--json", "tenants", "create", "Not-A-Name"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(error(&output)["kind"], "usage");
}

#[test]
fn without_a_configuration_it_says_how_to_get_one() {
    let empty = TempDir::new().unwrap();
    let output = strongroom_in(empty.path(), &["tenants", "list"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("strongroom init"), "{}", stderr(&output));
}

#[test]
fn init_lays_out_a_deployment_that_the_tool_finds_by_itself() {
    let home = TempDir::new().unwrap();
    let output = strongroom_in(home.path(), &["init", ".strongroom", "--json"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let layout: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(Path::new(layout["cli_config"].as_str().unwrap()).exists());

    // No broker listens there: that has an exit code of its own.
    let output = strongroom_in(home.path(), &["tenants", "list", "--json"], b"");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert_eq!(error(&output)["kind"], "unreachable");

    // What is there already is not touched.
    let output = strongroom_in(home.path(), &["init", ".strongroom"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("exists already"), "{}", stderr(&output));
}

#[test]
fn an_export_becomes_lines_for_other_systems_once_it_is_verified() {
    let log = Log::new(300);
    let convert = |format: &str| {
        let (directory, vkey) = (path(&log.directory), log.vkey());
        strongroom(&["audit", "convert", directory, "--vkey", &vkey, "--format", format])
    };
    for format in ["jsonl", "ocsf"] {
        let output = convert(format);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for (index, line) in (0_u64..).zip(stdout(&output).lines()) {
            let line: Value = serde_json::from_str(line).unwrap();
            let found =
                if format == "ocsf" { &line["metadata"]["sequence"] } else { &line["index"] };
            assert_eq!(*found, index);
        }
        assert_eq!(stdout(&output).lines().count(), 300);
    }
    assert!(stdout(&convert("cef")).lines().all(|line| line.starts_with("CEF:0|Strongroom|")));

    // One changed bit in the last bundle, and not even the lines before it are printed.
    let bundle = log.directory.path().join("tile/entries/001.p/44");
    let mut bytes = std::fs::read(&bundle).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let output = convert("jsonl");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn an_empty_secret_is_refused_before_anyone_is_asked() {
    let home = TempDir::new().unwrap();
    strongroom_in(home.path(), &["init", ".strongroom"], b"");
    let put = ["credentials", "put", "acme/openai", "--provider", "openai"];
    let output = strongroom_in(home.path(), &put, b"\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("empty"), "{}", stderr(&output));
}

#[test]
fn a_secret_is_in_no_message() {
    let home = TempDir::new().unwrap();
    strongroom_in(home.path(), &["init", ".strongroom"], b"");
    let put = ["credentials", "put", "acme/openai", "--provider", "openai", "--json"];
    let output = strongroom_in(home.path(), &put, b"sk-live-0123456789\n");
    assert_eq!(output.status.code(), Some(4));
    assert!(!stdout(&output).contains("sk-live") && !stderr(&output).contains("sk-live"));
}

#[test]
fn deleting_without_a_terminal_needs_yes() {
    let home = TempDir::new().unwrap();
    strongroom_in(home.path(), &["init", ".strongroom"], b"");
    let output = strongroom_in(home.path(), &["credentials", "delete", "acme/openai"], b"delete\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
}

#[test]
fn a_true_export_verifies_and_tells_who_used_which_key() {
    let log = Log::new(300);
    let output = strongroom(&["audit", "verify", path(&log.directory), "--vkey", &log.vkey()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("300 entries of test.internal/log"), "{}", stdout(&output));

    let key_file = log.directory.path().join("log.pub");
    std::fs::write(&key_file, format!("{}\n", log.vkey())).unwrap();
    let key_file = key_file.to_str().unwrap();
    let output =
        strongroom(&["audit", "verify", path(&log.directory), "--vkey-file", key_file, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["verified"], &report["size"]), (&true.into(), &300.into()));
    assert_eq!(report["uses"][0]["actor"], "spiffe://test.internal/inference-proxy");
    assert_eq!(report["uses"][0]["credential"], "tenants/acme/credentials/openai");
    assert_eq!(report["uses"][0]["granted"], log.granted);
}

#[test]
fn a_lease_that_the_access_rules_of_its_time_forbid_is_found() {
    // Each lease lasts a minute; the rules know ten seconds and as much between two clocks.
    let short = rules(10);
    let log = Log::by(&short, 300);
    let verify = ["audit", "verify", path(&log.directory), "--vkey", &log.vkey(), "--json"];
    let output = strongroom(&verify);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(error(&output)["index"], FIRST_LEASE);

    // Other rules in their place are as good as none, and it says so.
    std::fs::write(log.rules_file(&short), rules(300)).unwrap();
    let output = strongroom(&verify);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["policies_not_given"].as_array().unwrap().len(), 1);
}

#[test]
fn a_changed_export_does_not_verify() {
    let log = Log::new(300);
    let first = log.directory.path().join("tile/entries/000");
    let good = std::fs::read(&first).unwrap();
    for at in [2, 100, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&first, bad).unwrap();
        let output =
            strongroom(&["audit", "verify", path(&log.directory), "--vkey", &log.vkey(), "--json"]);
        assert_eq!(output.status.code(), Some(3), "{at}: {}", stderr(&output));
        assert_eq!(error(&output)["kind"], "verification_failed");
    }
}

#[test]
fn a_missing_file_names_the_first_bad_index() {
    let log = Log::new(300);
    std::fs::remove_file(log.directory.path().join("tile/entries/001.p/44")).unwrap();
    let output =
        strongroom(&["audit", "verify", path(&log.directory), "--vkey", &log.vkey(), "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(error(&output)["index"], 256);
}

#[test]
fn a_missing_or_changed_tile_is_named() {
    let log = Log::new(600);
    let verify = ["audit", "verify", path(&log.directory), "--vkey", &log.vkey(), "--json"];
    assert_eq!(strongroom(&verify).status.code(), Some(0));
    for (tile, index) in
        [("tile/0/000", 0), ("tile/0/001", 256), ("tile/0/002.p/88", 512), ("tile/1/000.p/2", 0)]
    {
        let file = log.directory.path().join(tile);
        let good = std::fs::read(&file).unwrap();
        let mut changed = good.clone();
        changed[31] ^= 1;
        let longer = [&good[..], &[0; 32]].concat();
        for bad in [Some(changed), Some(longer), None] {
            match &bad {
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let output = strongroom(&verify);
            assert_eq!(output.status.code(), Some(3), "{tile}");
            let error = error(&output);
            assert_eq!(error["index"], index, "{tile}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("`{tile}`")), "{message}");
            assert_eq!(message.contains("missing"), bad.is_none(), "{message}");
        }
        std::fs::write(&file, good).unwrap();
    }
}

#[test]
fn a_witness_that_is_asked_for_must_have_cosigned() {
    let log = Log::new(3);
    let before = ["audit", "verify", path(&log.directory), "--vkey", &log.vkey(), "--json"];
    let stranger = Log::new(1).cosign();
    let witness = log.cosign();
    let with = |keys: &[&str]| {
        let keys = keys.iter().flat_map(|key| ["--witness", *key]);
        strongroom(&before.into_iter().chain(keys).collect::<Vec<_>>())
    };
    assert_eq!(with(&[]).status.code(), Some(0));
    let output = with(&[&witness]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["witnesses"][0]["witness"], "witness.internal");
    assert_eq!(report["witnesses"][0]["time"], "2023-11-14T22:13:20Z");

    let output = with(&[&witness, &stranger]);
    assert_eq!(output.status.code(), Some(3));
    assert!(error(&output)["message"].as_str().unwrap().contains("witness.internal"));
    assert_eq!(with(&[&log.vkey()]).status.code(), Some(2));
}

#[test]
fn another_implementation_verifies_the_export() {
    #[expect(clippy::disallowed_methods, reason = "the test run names the interpreter")]
    let Ok(python) = std::env::var("TEST_PYTHON") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/static_log.py");
    let log = Log::new(66_000);
    let witness = log.cosign();
    let verify = || {
        let mut command = Command::new(&python);
        command.arg("-B").arg(&script).args([path(&log.directory), &log.vkey()]);
        command.args(["--witness", &witness]).output().unwrap()
    };
    let output = verify();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["size"], &report["tiles"]), (&66_000.into(), &261.into()));

    // It must be able to find something.
    let tile = log.directory.path().join("tile/1/000");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&tile, bytes).unwrap();
    assert!(!verify().status.success());
}

#[test]
fn anothers_key_verifies_nothing() {
    let (log, other) = (Log::new(3), Log::new(3));
    let output = strongroom(&["audit", "verify", path(&log.directory), "--vkey", &other.vkey()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("checkpoint"), "{}", stderr(&output));
}

#[test]
fn a_log_that_was_cut_back_is_found_by_the_checkpoint_of_before() {
    let log = Log::new(300);
    let before = log.directory.path().join("before");
    std::fs::copy(log.directory.path().join("checkpoint"), &before).unwrap();
    log.cut_to(200);
    let verify = ["audit", "verify", path(&log.directory), "--vkey", &log.vkey()];
    assert_eq!(strongroom(&verify).status.code(), Some(0));
    let mut with_earlier = verify.to_vec();
    with_earlier.extend(["--earlier", before.to_str().unwrap()]);
    assert_eq!(strongroom(&with_earlier).status.code(), Some(3));
}

#[test]
fn a_proof_stands_alone_and_a_changed_record_breaks_it() {
    let log = Log::new(300);
    let proof = log.write_proof(7);
    let verify = ["audit", "verify-proof", proof.to_str().unwrap(), "--vkey", &log.vkey()];
    let output = strongroom(&verify);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("verified"), "{}", stdout(&output));

    let record = log.directory.path().join("proof.record");
    let mut body = std::fs::read(&record).unwrap();
    *body.last_mut().unwrap() ^= 1;
    std::fs::write(&record, body).unwrap();
    assert_eq!(strongroom(&verify).status.code(), Some(3));
}

#[test]
fn a_witness_key_is_made_once_and_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let init = ["witness", "init", "--name", "witness.internal", "--key", "w.key", "--json"];
    let output = strongroom_in(folder.path(), &init, b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(made["vkey"].as_str().unwrap().parse::<audit::WitnessKey>().is_ok());
    let file = folder.path().join("w.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&file).unwrap();
    assert_eq!(strongroom_in(folder.path(), &init, b"").status.code(), Some(1));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_witness_does_not_listen_beyond_the_machine_without_tls() {
    let folder = TempDir::new().unwrap();
    let init = ["witness", "init", "--name", "witness.internal", "--key", "w.key"];
    strongroom_in(folder.path(), &init, b"");
    std::fs::write(folder.path().join("log.pub"), Log::new(1).vkey()).unwrap();
    let run = ["witness", "run", "--key", "w.key", "--log", "log.pub", "--state", "s"];
    let listen = [&run[..], &["--listen", "0.0.0.0:0"]].concat();
    let output = strongroom_in(folder.path(), &listen, b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--certificate"), "{}", stderr(&output));
}

#[test]
fn completions_come_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = strongroom(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("strongroom"), "{shell}");
    }
}
