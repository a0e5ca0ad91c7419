//! Credentials and tenants erased by hand, with receipts that anybody can verify.

use std::time::Duration;

use crate::Running;

#[test]
fn what_is_erased_has_a_receipt_that_is_verified_without_a_network() {
    let running = Running::start(Duration::ZERO);
    running.json(&["tenants", "create", "acme"]);
    for id in ["acme/openai", "acme/second"] {
        let put = ["credentials", "put", id, "--provider", "openai"];
        assert!(running.give(&put, b"sk-proj-0123456789abcdef").status.success());
    }
    let (code, said) = running.refused(&["audit", "receipt", "acme/openai", "-o", "none"]);
    assert_eq!(code, 5, "{said}");
    let (code, said) = running.refused(&["credentials", "shred", "acme/openai"]);
    assert_eq!(code, 1);
    assert!(said.contains("--yes"), "nobody is there to be asked: {said}");

    let shred = ["credentials", "shred", "acme/openai", "--yes"];
    let erased = running.json(&shred);
    assert_eq!(erased["erased"], "tenants/acme/credentials/openai");
    assert!(erased["receipt_index"].as_u64() > erased["log_index"].as_u64(), "{erased}");
    assert_eq!(running.json(&shred), erased);
    let (code, _) = running.refused(&["credentials", "get", "acme/openai"]);
    assert_eq!(code, 1);
    let erased = running.json(&["tenants", "shred", "acme", "--yes"]);
    assert_eq!(erased["erased"], "tenants/acme");

    let index = &erased["receipt_index"];
    // The checkpoint that covers it is not signed yet: the command waits for it.
    let saved = running.json(&["audit", "receipt", "acme", "-o", "receipt"]);
    assert_eq!(&saved["index"], index);
    assert_eq!(saved["record"]["kind"], "SHARES_DESTROYED");
    assert_eq!(saved["record"]["copies_until_time"], erased["copies_until_time"]);
    assert!(saved["statement"].as_str().unwrap().contains("Backups of the store of shares"));
    let key = running.layout.log_verifier.to_str().unwrap();
    let verified = running.json(&["audit", "verify-proof", "receipt", "--vkey-file", key]);
    assert_eq!(&verified["record"]["index"], index);
    let checked = running.json(&["audit", "check-rows"]);
    assert_eq!(checked["findings"], serde_json::json!([]));
    assert_eq!(checked["tenants"], 1);
    running.end();
}
