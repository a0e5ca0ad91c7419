//! The sample for clients in other languages is true: it opens every published lease that opens,
//! refuses every other, and seals each box to the same bytes. Left out where no `TEST_PYTHON` is set.

use std::{path::Path, process::Command};

#[test]
fn the_python_sample_agrees_about_every_vector() {
    let Some(python) = python() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(here.join("../../docs/samples/session.py"))
        .arg(here.join("vectors/sealing.json"))
        .output()
        .unwrap();
    let (said, failed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}");
    assert_eq!(said, "9 leases opened, 42 refused, 3 boxes sealed\n");
}

#[expect(clippy::disallowed_methods, reason = "the test runner names the interpreter this way")]
fn python() -> Option<String> {
    std::env::var("TEST_PYTHON").ok()
}
