use std::time::Duration;

use serde_json::{Value, json};

use crate::Running;

#[test]
fn budgets_are_made_shown_changed_and_ended() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let limits = ["--limit", "12.50usd", "--limit", "1000tokens"];
    let terms = ["--per", "week", "--zone", "Asia/Kathmandu", "--alert", "80,100"];
    let create = ["budgets", "create", "acme", "weekly"];
    let made = running.json(&[&create[..], &limits, &terms].concat());
    assert_eq!((&made["mode"], &made["period"]), (&json!("hard"), &json!("week Asia/Kathmandu")));
    assert_eq!(made["alerts"], json!([80, 100]));

    let update = ["budgets", "update", "acme/weekly", "--mode", "shadow", "--limit", "20usd"];
    assert_eq!(running.json(&update)["mode"], "shadow");
    let listed = running.json(&["budgets", "list", "acme"]);
    let accounts = listed["budgets"][0]["accounts"].as_array().unwrap();
    let money = accounts.iter().find(|it| it["unit"] == "usd").unwrap();
    assert_eq!((accounts.len(), &money["cap"]), (2, &json!(20_000_000)));
    for field in ["spent", "own", "managed", "managed_millionths", "unknown", "reserved"] {
        assert_eq!(money[field], 0, "{field}");
    }
    assert_eq!(money["would_refuse"]["allowances"], 0);
    // Weeks begin on Monday at midnight, which is at a quarter past six in the evening in UTC.
    let begins = money["window_start_time"].as_str().unwrap();
    assert!(begins.contains("T18:15:00"), "{begins}");

    let (code, said) = running.refused(&["budgets", "create", "acme", "x", "--limit", "5eur"]);
    assert_eq!((code, said.contains("500usd")), (2, true), "{said}");
    let zone = ["budgets", "create", "acme", "x", "--limit", "5usd", "--zone", "Mars/Olympus"];
    assert_eq!(running.refused(&zone).0, 2);

    let unknown = running.json(&["budgets", "reconcile", "acme"]);
    assert_eq!(unknown["allowances"], Value::Array(vec![]));
    let id = "00112233445566778899aabbccddeeff";
    let one = ["budgets", "reconcile", "acme", "--allowance", id, "--cost", "1.25", "--managed"];
    let settled = running.json(&one);
    let (done, reason) = (&settled["reconciled"], &settled["reason"]);
    assert_eq!((done, reason), (&json!(false), &json!("NO_SUCH_ALLOWANCE")));

    running.json(&["budgets", "delete", "acme/weekly"]);
    assert_eq!(running.json(&["budgets", "list", "acme"])["budgets"], Value::Array(vec![]));
    running.end();
}
