//! Keys above the credentials, as an operator changes them.

use std::time::Duration;

use crate::Running;

#[test]
fn keys_are_rotated_and_rewrapped_until_it_is_done() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    let put = ["credentials", "put", "acme/openai", "--provider", "openai"];
    assert!(running.give(&put, b"sk-proj-0123456789abcdef").status.success());
    let status = running.json(&["kms", "status"]);
    assert_eq!(status["roots"][0]["keys"], 3);
    assert_eq!(status["tenants"].as_array().map(Vec::len), Some(0));

    // The tenant, the credential, its version, and what the test of it has shown.
    let rotate = ["kms", "rotate", "acme", "--request-id", "r-1"];
    let rotated = running.json(&rotate);
    assert_eq!((&rotated["done"], &rotated["count"]), (&true.into(), &4.into()));
    let again = running.json(&[&rotate[..], &["--detach"]].concat());
    assert_eq!((&again["log_index"], &again["done"]), (&serde_json::Value::Null, &false.into()));
    let status = running.json(&["kms", "status", "acme"]);
    let versions = &status["tenants"][0]["versions"];
    assert_eq!((&versions[0]["version"], &versions[0]["references"]), (&2.into(), &4.into()));
    assert_eq!((&versions[1]["version"], &versions[1]["references"]), (&1.into(), &0.into()));

    assert_eq!(running.json(&["kms", "rewrap"])["done"], true);
    assert_eq!(running.json(&["kms", "rotate", "--all"])["done"], true);
    let listed = running.json(&["audit", "list", "--kind", "kek-rotated"]);
    let tenants: Vec<_> = (0..3).map(|at| listed["records"][at]["tenant"].as_str()).collect();
    assert_eq!(tenants, [Some("acme"), Some("acme"), Some("platform")]);
    let (code, said) = running.refused(&["kms", "rewrap", "--root", "nobodys"]);
    assert_eq!(code, 1);
    assert!(said.contains("kms_roots"), "{said}");
    running.end();
}
