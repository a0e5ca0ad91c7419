//! Makes `vectors/storage-format.json`, with the parts of the format that a writer must not make
//! written out once more, so that what must fail can be made exactly.

mod file;
mod forge;
mod must_fail;

use std::{fs, path::Path};

use serde_json::{Value, json};

use self::{
    file::{opens, valid},
    must_fail::must_fail,
};

#[test]
fn every_valid_vector_opens_and_every_other_fails_alike() {
    let valid = valid();
    let must_fail = must_fail();
    assert!(valid.len() >= 30, "{}", valid.len());
    assert!(must_fail.len() >= 60, "{}", must_fail.len());
    for vector in &valid {
        assert_eq!(opens(vector).as_deref(), vector["secret"].as_str(), "{vector}");
    }
    for vector in &must_fail {
        assert_eq!(opens(vector), None, "{vector}");
    }
}

#[test]
fn the_published_vectors_are_these() {
    let text = format!("{:#}\n", document());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/storage-format.json");
    if fs::read_to_string(&path).is_ok_and(|published| published == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    panic!("the published vectors differed; they have been written anew, see what changed");
}

fn document() -> Value {
    json!({
        "about": "Test vectors for docs/storage-format.md. Bytes are hex, numbers decimal text.",
        "key_files": file::key_files(),
        "must_fail": must_fail(),
        "row_macs": file::row_macs(),
        "valid": valid(),
        "wrapped_keys": file::wrapped_keys(),
    })
}
