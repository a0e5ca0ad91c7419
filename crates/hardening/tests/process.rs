//! A process of its own, because hardening cannot be taken back.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{env, process::Command};

use rustix::{
    process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit},
    thread::no_new_privs,
};

/// Runs one of this file's tests in a process of its own, and returns what it printed.
fn child(test: &str, case: &str) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("HARDENING_CASE", case)
        .output()
        .unwrap();
    String::from_utf8(output.stderr).unwrap()
}

fn case() -> Option<String> {
    env::var_os("HARDENING_CASE").map(|case| case.into_string().unwrap())
}

#[test]
fn a_hardened_process_keeps_its_memory_to_itself() {
    let Some(case) = case() else {
        assert!(child("a_hardened_process_keeps_its_memory_to_itself", "check").contains("held"));
        return;
    };
    assert_eq!(case, "check");
    // The control: nothing of it holds before.
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    assert!(!no_new_privs().unwrap());
    hardening::harden_process().unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let limit = getrlimit(Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    assert!(no_new_privs().unwrap());
    assert!(std::thread::spawn(|| no_new_privs().unwrap()).join().unwrap());
    eprintln!("held");
}

#[test]
fn a_panic_names_its_place_and_not_its_message() {
    let Some(case) = case() else {
        let silent = child("a_panic_names_its_place_and_not_its_message", "silent");
        assert!(silent.contains("panicked at ") && silent.contains("process.rs:"), "{silent}");
        assert!(!silent.contains("sk-secret"), "{silent}");
        // The control: without the hook the message is there.
        let loud = child("a_panic_names_its_place_and_not_its_message", "loud");
        assert!(loud.contains("sk-secret"), "{loud}");
        return;
    };
    if case == "silent" {
        hardening::silence_panics();
    }
    // In a thread, so that the test harness does not repeat the message.
    let key = String::from("sk-secret");
    drop(std::thread::spawn(move || panic!("{key}")).join());
}
