//! The short forms of the measurements: what must be right is checked as in the long ones, and no
//! time or rate is.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{path::Path, process::Command};

use serde_json::Value;

/// Runs a measurement to its end and gives each line that it prints. It fails by itself when a check
/// fails, or would not have found what is planted for it.
fn bench(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).arg("--json").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// With a `PostgreSQL` where there is one to test against.
fn postgres() -> Option<String> {
    // What the measurements start stands beside them.
    assert!(Path::new(env!("CARGO_BIN_EXE_served")).exists());
    #[expect(clippy::disallowed_methods, reason = "the test run names the server")]
    std::env::var("TEST_POSTGRES_URL").ok()
}

fn on_both(arguments: &[&str]) -> Vec<Value> {
    match postgres() {
        Some(url) => bench(&[arguments, &["--postgres", &url]].concat()),
        None => bench(arguments),
    }
}

#[test]
fn no_lease_that_was_received_is_missing_after_a_kill() {
    for outcome in on_both(&["kills", "--kills", "3", "--brokers", "2", "--concurrency", "4"]) {
        assert_eq!(outcome.get("kills"), Some(&3.into()), "{outcome}");
        let received = outcome.get("received").and_then(Value::as_u64);
        // A broker is killed only after it has lent, and lends again after each kill.
        assert!(received >= Some(4), "{outcome}");
    }
}

#[test]
fn callers_that_race_for_a_budget_spend_all_of_it_and_no_more() {
    let few = ["budget-race", "--repeats", "2", "--clients", "16", "--cap", "400"];
    for outcome in on_both(&few) {
        let figure = |name| outcome.get(name).and_then(Value::as_u64);
        assert!(figure("least") >= Some(396) && figure("most") <= Some(400), "{outcome}");
    }
}

#[test]
fn no_lease_fails_and_nothing_is_left_behind_when_keys_are_rotated() {
    let few = ["rewrap", "--tenants", "10", "--credentials", "15", "--kills", "2"];
    let few = [&few[..], &["--brokers", "2", "--concurrency", "3"]].concat();
    for outcome in on_both(&few) {
        assert_eq!(outcome.get("credentials"), Some(&150.into()), "{outcome}");
        assert!(outcome.get("leases").and_then(Value::as_u64) > Some(0), "{outcome}");
    }
}

#[test]
fn budgets_hold_when_proxies_race_and_are_killed_and_the_database_goes_away() {
    let few = ["spending", "--races", "2", "--kills", "3", "--window", "0", "--outages", "1"];
    let small = ["--callers", "16", "--proxies", "2", "--brokers", "2", "--cap", "200"];
    let brief = ["--key-lasts", "10"];
    for outcome in on_both(&[&few[..], &small, &brief].concat()) {
        let figure = |path| outcome.pointer(path).and_then(Value::as_u64);
        assert!(figure("/races/least") >= Some(198), "{outcome}");
        assert!(figure("/races/most") <= Some(200), "{outcome}");
        // Of the three that are killed the first two are proxies, one of each broker.
        assert!(figure("/killed/reconciled") > Some(0), "{outcome}");
    }
}

#[test]
fn what_is_revoked_is_not_used_for_ever() {
    let load = ["--calls", "100", "--applications", "2", "--untimed"];
    let few = ["revocations", "--revocations", "8", "--brokers", "2", "--proxies", "2"];
    let printed = on_both(&[&few[..], &load].concat());
    let rows = printed.first().unwrap().get("rows").and_then(Value::as_array).unwrap();
    let revoked = |row: &Value| row.get("revocations").and_then(Value::as_u64);
    // All of them, and two in each of four ways.
    assert_eq!(rows.iter().filter_map(revoked).collect::<Vec<_>>(), [8, 2, 2, 2, 2]);
}

#[test]
fn records_that_were_committed_together_or_alone_are_all_there() {
    let stores = if postgres().is_some() { 2 } else { 1 };
    let few = ["commits", "--records", "500", "--concurrency", "16", "--rounds", "1"];
    let printed = on_both(&few);
    let rows = printed.first().unwrap().get("rows").and_then(Value::as_array).unwrap();
    assert_eq!(rows.len(), 2 * stores);
}

#[test]
fn leases_of_several_brokers_are_all_in_the_log() {
    let Some(url) = postgres() else { return };
    let few = ["--brokers", "2", "--calls", "100", "--concurrency", "8", "--rounds", "1"];
    let printed = bench(&[&["brokers", "--postgres", &url], &few[..]].concat());
    let rows = printed.first().unwrap().get("rows").and_then(Value::as_array).unwrap();
    assert_eq!(rows.len(), 2);
}

#[test]
fn an_export_is_verified_and_a_changed_bit_is_found() {
    // Tests of the whole workspace build it; where it is not there, there is nothing to measure.
    let strongroom = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("strongroom");
    if !strongroom.exists() {
        println!("{} is missing: nothing is verified", strongroom.display());
        return;
    }
    let printed = bench(&["verify", "--entries", "3000", "--rounds", "1"]);
    let rows = printed.first().unwrap().get("rows").and_then(Value::as_array).unwrap();
    assert_eq!(rows.len(), 2);
}
