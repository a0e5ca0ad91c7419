use std::{fs, path::Path};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use sinks::{Event, Format};

use crate::given::{every_event, kinds};

#[test]
fn every_kind_as_json_lines_is_what_is_checked_in() {
    check("jsonl.txt", &lines(Format::Jsonl));
}

#[test]
fn every_kind_as_ocsf_is_what_is_checked_in() {
    check("ocsf.txt", &lines(Format::Ocsf));
}

#[test]
fn every_kind_as_cef_is_what_is_checked_in() {
    check("cef.txt", &lines(Format::Cef));
}

#[test]
fn every_form_has_one_line_for_one_record() {
    for format in [Format::Jsonl, Format::Ocsf, Format::Cef] {
        for event in every_event() {
            assert!(!format.line(&event).contains(['\n', '\r']), "{format:?}");
        }
    }
}

#[test]
fn no_field_of_the_contract_is_left_out() {
    let contract = FileDescriptorSet::decode(strongroom_proto::DESCRIPTORS).unwrap();
    let mut messages = contract.file.iter().flat_map(|file| &file.message_type);
    let record = messages.find(|message| message.name() == "Record").unwrap();
    let lines = lines(Format::Jsonl).join("\n");
    assert!(record.field.len() > 30);
    for field in &record.field {
        let whole = lines.contains(&format!("\"{}\":", field.name()));
        // What is a message of our own is told figure by figure.
        let parts = lines.contains(&format!("\"{}_", field.name()));
        let is_ours = field.type_name().starts_with(".strongroom.");
        assert!(whole || (is_ours && parts), "{} goes nowhere", field.name());
    }
}

#[test]
fn the_json_forms_say_all_that_the_record_says() {
    for event in every_event() {
        let own: Value = serde_json::from_str(&Format::Jsonl.line(&event)).unwrap();
        let ocsf = Format::Ocsf.line(&event);
        assert_eq!(own["index"], event.index());
        for (name, value) in own.as_object().unwrap() {
            // The time is in milliseconds there.
            let there = ocsf.contains(&value.to_string()) || name == "time";
            assert!(there, "{name} is not in {ocsf}");
        }
    }
}

/// `tests/golden/ocsf-required.json` says where the list comes from.
#[test]
fn every_ocsf_event_has_what_its_class_requires() {
    let rules: Value = serde_json::from_str(&golden("ocsf-required.json")).unwrap();
    let mut seen = Vec::new();
    for event in every_event() {
        let line: Value = serde_json::from_str(&Format::Ocsf.line(&event)).unwrap();
        let class = line["class_uid"].as_u64().unwrap();
        let rules = [&rules["every class"], &rules["classes"][class.to_string()]];
        for rule in rules {
            for path in rule["required"].as_array().unwrap() {
                assert!(at(&line, path).is_some(), "{path} is missing in {line}");
            }
            for choice in rule["at least one"].as_array().unwrap() {
                let under = at(&line, &choice["of"]);
                let Some(under) = under else { continue };
                let names = choice["names"].as_array().unwrap();
                assert!(names.iter().any(|name| at(under, name).is_some()), "{choice}: {line}");
            }
            for (path, values) in rule["values"].as_object().unwrap() {
                let value = at(&line, &Value::from(path.clone())).unwrap();
                assert!(values.as_array().unwrap().contains(value), "{path} in {line}");
            }
        }
        let type_uid = class * 100 + line["activity_id"].as_u64().unwrap();
        assert_eq!(line["type_uid"], type_uid);
        seen.push(class);
    }
    for class in [6003, 3004, 3002] {
        assert!(seen.contains(&class), "no event is of class {class}");
    }
    assert!(seen.len() > kinds().len());
}

fn lines(format: Format) -> Vec<String> {
    every_event().iter().map(|event: &Event| format.line(event)).collect()
}

/// The value at a path such as `metadata.product`; the empty path is the whole.
fn at<'a>(value: &'a Value, path: &Value) -> Option<&'a Value> {
    let path = path.as_str().unwrap();
    path.split('.').filter(|name| !name.is_empty()).try_fold(value, |value, name| value.get(name))
}

/// Compares with a file that is checked in, and leaves what it found beside the build for whoever
/// means to change it.
#[track_caller]
pub(crate) fn check(name: &str, lines: &[String]) {
    let found = lines.join("\n") + "\n";
    let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&left, &found).unwrap();
    for (at, (found, expected)) in found.lines().zip(golden(name).lines()).enumerate() {
        assert_eq!(found, expected, "line {} of {name}; see {}", at + 1, left.display());
    }
    assert_eq!(found.lines().count(), golden(name).lines().count(), "lines of {name}");
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read_to_string(&path).unwrap_or_default()
}
