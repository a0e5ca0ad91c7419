//! Rotations in steps, as the program shows them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{Running, answer, retention};

const NEW: &[u8] = b"sk-proj-the-new-one-0123456789abcdwxyz";

/// A broker that has the credential `acme/openai`.
fn furnished() -> Running {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let put = ["credentials", "put", "acme/openai", "--provider", "openai"];
    answer(&put, &running.give(&put, b"sk-proj-0123456789abcdef0123456789"));
    running
}

fn verified(running: &Running) -> Value {
    // Until what was done is signed.
    retention::read(running, 60);
    let export = running.path("log");
    running.json(&["audit", "export", &export]);
    let vkey = running.layout.log_verifier.to_str().unwrap();
    running.json(&["audit", "verify", &export, "--vkey-file", vkey])
}

#[test]
fn a_rotation_in_steps_is_shown_until_it_is_done() {
    let running = furnished();
    let rotate = ["credentials", "rotate", "acme/openai", "--canary", "5%"];
    let rotate = [&rotate[..], &["--hold", "1m", "--overlap", "1m"]].concat();
    let shown = thread::scope(|scope| {
        let program = scope.spawn(|| running.give(&rotate, NEW));
        // The program waits for the broker's steps, and these for the clock.
        while !program.is_finished() {
            running.clock.advance(Duration::from_secs(10));
            thread::sleep(Duration::from_millis(200));
        }
        program.join().unwrap()
    });
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success(), "{said}");
    let lines = String::from_utf8(shown.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
    assert_eq!((&first["state"], &first["percent"]), (&"canary".into(), &5.into()));
    assert_eq!((&last["state"], &last["percent"]), (&"done".into(), &100.into()));
    let credential = running.json(&["credentials", "get", "acme/openai"]);
    assert_eq!(credential["current_version"], 2);
    assert_eq!(credential["last_four"], "wxyz");
    let kinds = verified(&running)["kinds"].clone();
    assert_eq!(kinds["CREDENTIAL_ROTATION_STARTED"], 1);
    assert_eq!(kinds["CREDENTIAL_ROTATION_ADVANCED"], 2);
    assert_eq!(kinds["CREDENTIAL_ROTATION_FINISHED"], 1);
    running.end();
}

#[test]
fn a_rotation_goes_on_or_back_by_hand() {
    let running = furnished();
    let (code, said) = running.refused(&["credentials", "rotation", "acme/openai"]);
    assert!(code == 5 && said.contains("never rotated in steps"), "{code}: {said}");
    let rotate = ["credentials", "rotate", "acme/openai", "--canary", "10%", "--detach"];
    let started = answer(&rotate, &running.give(&rotate, NEW));
    assert_eq!((&started["state"], &started["percent"]), (&"canary".into(), &10.into()));

    let again = running.give(&rotate, NEW);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("ROTATION_IS_RUNNING") && said.contains("promote or cancel"), "{said}");
    let show = ["credentials", "rotation", "acme/openai"];
    assert_eq!(running.json(&show)["operation_id"], started["operation_id"]);
    let promoted = running.json(&[&show[..], &["--promote"]].concat());
    assert_eq!(promoted["state"], "overlap");
    let cancelled = running.json(&[&show[..], &["--cancel"]].concat());
    assert_eq!(cancelled["because"], "cancelled");
    let (code, said) = running.refused(&[&show[..], &["--promote"]].concat());
    assert!(code == 1 && said.contains("NO_SUCH_ROTATION"), "{code}: {said}");
    // Whoever waits for it learns that the old key serves on.
    let (code, said) = running.refused(&[&show[..], &["--watch"]].concat());
    assert!(code == 1 && said.contains("was set back: cancelled"), "{code}: {said}");
    assert_eq!(verified(&running)["kinds"]["CREDENTIAL_ROTATION_ROLLED_BACK"], 1);
    running.end();
}

#[test]
fn an_interrupt_leaves_the_rotation_running_and_says_how_to_watch_it() {
    let running = furnished();
    let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .arg("--config")
        .arg(&running.layout.cli_config)
        .args(["credentials", "rotate", "acme/openai", "--canary", "5%"])
        .current_dir(running.folder.path())
        .env("HOME", running.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(NEW).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("canary: version 2 serves 5 % of new leases"), "{line}");
    let mut said = String::new();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let interrupted = child.wait().unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(interrupted.success(), "{interrupted}: {said}");
    assert!(said.contains("strongroom credentials rotation acme/openai --watch"), "{said}");
    let shown = running.json(&["credentials", "rotation", "acme/openai"]);
    assert_eq!(shown["state"], "canary");
    running.end();
}
