//! Questions about an export: answered after it has been verified, and from nothing else.

use serde_json::Value;

use crate::{
    error,
    export::{FIRST_LEASE, Log},
    path, stderr, stdout, strongroom,
};

const PROXY: &str = "spiffe://test.internal/inference-proxy";

fn ask(log: &Log, question: &[&str]) -> std::process::Output {
    let vkey = log.vkey();
    let mut arguments = vec!["audit"];
    arguments.extend(question);
    arguments.extend(["--from", path(&log.directory), "--vkey", &vkey]);
    strongroom(&arguments)
}

fn json(log: &Log, question: &[&str]) -> Value {
    let output = ask(log, &[question, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn who_used_a_key_is_told_for_people_programs_and_spreadsheets() {
    let log = Log::new(300);
    let answer = json(&log, &["who-used", "acme/openai"]);
    assert_eq!(answer["summary"]["leases"], log.granted);
    assert_eq!(answer["summary"]["workloads"], 1);
    let first = &answer["leases"][0];
    assert_eq!((&first["who"], &first["granted_at_index"]), (&PROXY.into(), &FIRST_LEASE.into()));
    assert_eq!((&first["ended"], &first["source"]), (&"expired".into(), &"byok".into()));
    assert_eq!(first["from"], "2023-11-14T22:13:20.004Z");
    assert_eq!(first["to"], "2023-11-14T22:14:20.004Z");

    let output = ask(&log, &["who-used", "acme/openai", "--tz", "Asia/Kolkata"]);
    let text = stdout(&output);
    assert!(text.contains("2023-11-15 03:43:20.299 +05:30"), "{text}");
    assert!(text.contains("(246 earlier leases are not shown: --limit)"), "{text}");
    assert!(text.contains("1 workload, 296 leases, last at 2023-11-15"), "{text}");

    let output = ask(&log, &["who-used", "acme/openai", "--csv", "--limit", "2"]);
    let lines: Vec<&str> = stdout(&output).split("\r\n").collect();
    assert!(lines[0].starts_with("who,tenant,virtual_key,version"), "{}", lines[0]);
    assert!(lines[1].starts_with(PROXY), "{}", lines[1]);
    assert_eq!(lines.len(), 4);
}

#[test]
fn a_time_narrows_the_answer_to_leases_that_touch_it() {
    let log = Log::new(300);
    let since = ["who-used", "acme/openai", "--since", "2023-11-14T22:14:20.250Z"];
    // Leases of a minute that began up to a minute before were still held.
    assert_eq!(json(&log, &since)["summary"]["leases"], 50);
    let until = ["who-used", "acme/openai", "--until", "2023-11-14T22:13:20.011Z"];
    assert_eq!(json(&log, &until)["summary"]["leases"], 11 - FIRST_LEASE);
}

#[test]
fn nothing_found_says_where_it_was_not() {
    let log = Log::new(300);
    let output = ask(&log, &["who-used", "acme/other", "--since", "2023-11-01", "--tz", "UTC"]);
    assert_eq!(output.status.code(), Some(5));
    let text = stderr(&output);
    assert!(text.contains("from 2023-11-01 00:00:00.000 +00:00 on"), "{text}");
    assert!(text.contains("in entries 0 to 300"), "{text}");
    let output = ask(&log, &["explain", &"00".repeat(32), "--json"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(error(&output)["kind"], "nothing_found");
}

#[test]
fn an_export_that_does_not_verify_answers_nothing() {
    let log = Log::new(300);
    let first = log.directory.path().join("tile/entries/000");
    let mut bytes = std::fs::read(&first).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let output = ask(&log, &["who-used", "acme/openai"]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn what_an_identity_did_is_counted_and_listed() {
    let log = Log::new(20);
    let answer = json(&log, &["what-did", PROXY]);
    assert_eq!(answer["summary"]["LEASE_GRANTED"], log.granted);
    assert_eq!(answer["summary"]["CREDENTIAL_CREATED"], 1);
    // And the session that they were sealed to.
    assert_eq!(answer["records"].as_array().unwrap().len(), 18);
    let output = ask(&log, &["what-did", "spiffe://test.internal/nobody"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(ask(&log, &["what-did", "nobody"]).status.code(), Some(2));
}

#[test]
fn records_are_listed_by_what_they_say() {
    let log = Log::new(20);
    let answer = json(&log, &["list", "--kind", "credential-created"]);
    assert_eq!(answer["records"][0]["kind"], "CREDENTIAL_CREATED");
    assert_eq!(answer["records"].as_array().unwrap().len(), 1);
    let latest = json(&log, &["list", "--limit", "3"]);
    assert_eq!(latest["records"][0]["index"], 17);
    assert_eq!(latest["records"].as_array().unwrap().len(), 3);
}

#[test]
fn a_leases_story_has_its_proof() {
    let log = Log::new(20);
    let records = json(&log, &["list", "--limit", "1"]);
    let hash = records["records"][0]["lease_hash"].as_str().unwrap();
    let story = json(&log, &["explain", hash]);
    assert_eq!((&story["ended"], &story["steps"][0]["index"]), (&"expired".into(), &19.into()));
    let proof = story["proof"].as_str().unwrap();
    assert!(proof.starts_with("strongroom audit prove 19 -o lease-"), "{proof}");
    let output = ask(&log, &["explain", hash]);
    let text = stdout(&output);
    assert!(text.contains("its time was up") && text.contains("aaaaaaaaaaaaaaaa"), "{text}");
}

#[test]
fn a_pruned_export_verifies_alone_and_says_so_or_whole_with_its_archive() {
    let (log, archive) = Log::pruned();
    let vkey = log.vkey();
    let verify = ["audit", "verify", path(&log.directory), "--vkey", &vkey];
    let output = strongroom(&verify);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("entries 0 to 256 were pruned, as entry 300 says"), "{text}");
    assert!(text.contains("are not checked here"), "{text}");

    let with_archive = [&verify[..], &["--archive", path(&archive), "--json"]].concat();
    let output = strongroom(&with_archive);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["size"], &report["leases"]), (&301.into(), &296.into()));
    assert_eq!(report["pruned"], Value::Null);

    // Questions are answered from what is there.
    let alone = json(&log, &["who-used", "acme/openai"]);
    assert_eq!(
        (&alone["summary"]["leases"], &alone["searched"]["first_index"]),
        (&44.into(), &256.into())
    );
    let both = json(&log, &["who-used", "acme/openai", "--archive", path(&archive)]);
    assert_eq!(both["summary"]["leases"], 296);
}

#[test]
fn the_tiles_of_a_pruned_export_are_compared_as_far_as_they_are_there() {
    let (log, archive) = Log::pruned();
    let vkey = log.vkey();
    let alone = ["audit", "verify", path(&log.directory), "--vkey", &vkey];
    let both = [&alone[..], &["--archive", path(&archive)]].concat();
    let tile = |name: &str| log.directory.path().join("tile").join(name);
    let both_ways = |code: i32| {
        for verify in [&alone[..], &both] {
            let output = strongroom(verify);
            assert_eq!(output.status.code(), Some(code), "{verify:?}: {}", stderr(&output));
        }
    };
    both_ways(0);
    // One over what was pruned, and one over what is there.
    for name in ["1/000.p/1", "0/001.p/45"] {
        let right = std::fs::read(tile(name)).unwrap();
        let mut wrong = right.clone();
        wrong[0] ^= 1;
        std::fs::write(tile(name), wrong).unwrap();
        both_ways(3);
        std::fs::write(tile(name), right).unwrap();
    }
    std::fs::remove_file(tile("1/000.p/1")).unwrap();
    both_ways(0);
    std::fs::remove_file(tile("0/001.p/45")).unwrap();
    both_ways(3);
}

#[test]
fn a_pruned_export_is_converted_as_far_as_it_is_there_and_says_so() {
    let (log, archive) = Log::pruned();
    let vkey = log.vkey();
    let format = ["--vkey", &vkey, "--format", "jsonl"];
    let alone = [&["audit", "convert", path(&log.directory)], &format[..]].concat();
    let output = strongroom(&alone);
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(0), 45));
    assert!(stderr(&output).contains("entries before 256 were pruned"), "{}", stderr(&output));
    let output = strongroom(&[&alone[..], &["--archive", path(&archive)]].concat());
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(0), 301));
    assert_eq!(stderr(&output), "");
}

#[test]
fn missing_records_pass_for_pruned_only_if_the_log_says_so() {
    let (log, _archive) = Log::pruned();
    let start = log.directory.path().join("pruned");
    let vkey = log.vkey();
    let verify = ["audit", "verify", path(&log.directory), "--vkey", &vkey];
    let text = std::fs::read_to_string(&start).unwrap();
    std::fs::write(&start, text.replacen("256", "512", 1)).unwrap();
    assert_eq!(strongroom(&verify).status.code(), Some(3));
    std::fs::remove_file(&start).unwrap();
    let output = strongroom(&verify);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("tile/entries/000"), "{}", stderr(&output));
}
