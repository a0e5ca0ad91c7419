use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::Running;

/// A table with one model, as it is written.
fn table(running: &Running, version: u32, input: u64) -> String {
    let path = running.path(&format!("table-{version}.json"));
    let rates = json!({"input": input, "output": 10_000_000});
    let models = json!({"gpt-x": {"kind": "chat", "rates": rates}});
    let table = json!({"version": version, "date": "2026-11-21", "providers": {"openai": models}});
    fs::write(&path, table.to_string()).unwrap();
    path
}

#[test]
fn prices_are_compared_imported_negotiated_and_shown() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let shown = running.json(&["prices", "show", "--provider", "openai", "--model", "gpt-4o"]);
    assert_eq!((&shown["version"], &shown["list_revision"]), (&json!("0.1"), &json!(0)));

    let (two, three) = (table(&running, 2, 2_500_000), table(&running, 3, 3_000_000));
    let imported = running.json(&["prices", "import", &two]);
    assert_eq!(imported["revision"], 1);
    let differs = running.json(&["prices", "diff", &three]);
    let difference = json!([{"provider": "openai", "model": "gpt-x", "figure": "rates.input",
        "from": "2500000", "to": "3000000"}]);
    assert_eq!((&differs["differences"], &differs["log_index"]), (&difference, &json!(0)));
    running.json(&["prices", "import", &three, "--effective", "2030-01-01T00:00:00Z"]);

    let terms = running.path("terms.json");
    let discounts = json!([{"provider": "openai", "models": "*", "parts_of_ten_thousand": 8500}]);
    fs::write(&terms, json!({"discounts": discounts}).to_string()).unwrap();
    let set = running.json(&["prices", "set", "acme", &terms]);
    assert_eq!(set["differences"][0]["figure"], "discount");
    let shown = running.json(&["prices", "show", "--tenant", "acme"]);
    assert_eq!(shown["version"], "2-1");
    let versions: Vec<_> = shown["tables"].as_array().unwrap().iter().collect();
    let versions: Vec<_> = versions.iter().map(|it| it["table"]["version"].as_u64()).collect();
    assert_eq!(versions, [Some(1), Some(2), Some(3)]);
    assert_eq!(shown["terms"][0]["discounts"], discounts);
    // Every change is in the log.
    let listed = running.json(&["audit", "list", "--kind", "prices-changed"]);
    assert_eq!(listed["records"].as_array().map(Vec::len), Some(3));

    let (code, said) = running.refused(&["prices", "import", &two]);
    assert_eq!(code, 1);
    assert!(said.contains("4 or more"), "{said}");
    running.end();
}

#[test]
fn what_a_provider_counted_beyond_strongroom_ends_with_exit_code_3() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let usage = running.json(&["usage", "--tenant", "acme", "--by", "model,source"]);
    assert_eq!(usage["rows"], Value::Array(vec![]));
    let export = running.path("export.json");
    let page = |input: u64| {
        let result = json!({"input_tokens": input, "output_tokens": 5, "model": "gpt-4o"});
        let bucket = json!({"start_time": 1_793_232_000, "results": [result]});
        json!({"object": "page", "data": [bucket], "has_more": false}).to_string()
    };
    fs::write(&export, page(1000)).unwrap();
    let reconcile = ["usage", "reconcile", "--provider", "openai", "--file", &export];
    let (code, said) = running.refused(&reconcile);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("gpt-4o"), "{said}");
    // All of it may have passed by.
    let report = running.json(&[&reconcile[..], &["--tolerance", "100"]].concat());
    assert_eq!(report["models"][0]["provider_input_tokens"], 1000);
    // Keys cannot be told apart where the export does not.
    let by_key = [&reconcile[..], &["--key", "key_1=acme/openai"]].concat();
    let (code, said) = running.refused(&by_key);
    assert_eq!((code, said.contains("api_key_id")), (2, true), "{said}");
    fs::write(&export, "not an export").unwrap();
    assert_eq!(running.refused(&reconcile).0, 2);
    running.end();
}

#[test]
fn what_was_spent_with_a_key_that_nobody_named_is_shown() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let export = running.path("export.json");
    let of = |key: &str, input: u64| json!({"input_tokens": input, "output_tokens": 0, "model": "gpt-4o", "api_key_id": key});
    let results = [of("key_1", 0), of("key_2", 7)];
    let bucket = json!({"start_time": 1_793_232_000, "results": results});
    fs::write(&export, json!({"data": [bucket], "has_more": false}).to_string()).unwrap();
    let named = ["--key", "key_1=acme/openai"];
    let reconcile = ["usage", "reconcile", "--provider", "openai", "--file", &export];
    let (code, said) = running.refused(&[&reconcile[..], &named].concat());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("gpt-4o with the unnamed key key_2"), "{said}");
    assert!(!said.contains("with tenants/acme"), "{said}");
    let report = running.json(&[&reconcile[..], &named, &["--tolerance", "100"]].concat());
    let keys: Vec<_> = report["models"].as_array().unwrap().iter().collect();
    let keys: Vec<_> = keys.iter().map(|it| (&it["credential"], &it["unnamed_api_key"])).collect();
    let name = json!("tenants/acme/credentials/openai");
    assert_eq!(keys, [(&name, &Value::Null), (&Value::Null, &json!("key_2"))]);
    running.end();
}
