//! `route explain`, as a broker answers it.

use std::time::Duration;

use serde_json::json;

use crate::{Running, answer};

#[test]
fn a_call_s_way_is_explained_and_so_is_why_it_has_none() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let explain = ["route", "explain", "gpt-4o", "--tenant", "acme"];
    let none = running.json(&explain);
    assert_eq!((&none["refusal"], &none["attempts"]), (&json!("NO_CREDENTIAL"), &json!([])));
    assert!(none["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{none}");

    let put = ["credentials", "put", "acme/openai", "--provider", "openai"];
    answer(&put, &running.give(&put, b"sk-proj-0123456789abcdef0123456789"));
    let way = running.json(&explain);
    let attempt = &way["attempts"][0];
    assert_eq!(attempt["credential"], "tenants/acme/credentials/openai", "{way}");
    assert_eq!((&attempt["provider"], &attempt["source"]), (&json!("openai"), &json!("byok")));
    assert_eq!((&attempt["model"], &attempt["because"]), (&json!("gpt-4o"), &json!("detected")));
    assert!(attempt["origin"].as_str().is_some_and(|at| at.starts_with("http://127.0.0.1:")));
    assert_eq!((&way["refusal"], way["attempts"].as_array().unwrap().len()), (&json!(""), 1));
    let named = running.json(&[&explain[..], &["--provider", "anthropic"]].concat());
    assert_eq!(named["refusal"], "NO_CREDENTIAL", "{named}");
    let dialect = running.json(&[&explain[..], &["--dialect", "anthropic"]].concat());
    assert_eq!(dialect["refusal"], "DIALECT_NOT_SERVED", "{dialect}");

    // The same for people.
    let people = running.told(&explain);
    for part in ["CREDENTIAL", "tenants/acme/credentials/openai", "byok", "detected"] {
        assert!(people.contains(part), "{people}");
    }
    let (code, said) = running.refused(&["route", "explain", "gpt-4o", "--tenant", "nobody"]);
    assert!(code != 0 && !said.is_empty(), "{code} {said}");
    running.end();
}
