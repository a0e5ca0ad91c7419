//! The page on the storage format is true: a decoder in another language, written from the page
//! alone, opens every published vector that opens and refuses every other. Left out where no
//! `TEST_PYTHON` is set.

use std::{path::Path, process::Command};

#[test]
fn a_decoder_written_from_the_page_agrees_about_every_vector() {
    let Some(python) = python() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(here.join("../../tests/clients/open_vectors.py"))
        .arg(here.join("vectors/storage-format.json"))
        .output()
        .unwrap();
    let (said, failed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}");
    assert!(said.contains("must_fail: "), "{said}");
}

#[expect(clippy::disallowed_methods, reason = "the test runner names the interpreter this way")]
fn python() -> Option<String> {
    std::env::var("TEST_PYTHON").ok()
}
