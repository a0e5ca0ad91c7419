use std::fs;

use serde_json::json;
use sinks::{Format, Sink, SinkError};
use tempfile::TempDir;

use crate::given::{destination, every_event, grants};

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn sink(&self) -> Box<dyn Sink> {
        let path = self.path("log");
        destination(json!({ "kind": "file", "path": path, "format": "jsonl" })).open().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

#[tokio::test]
async fn batches_follow_each_other_as_lines() {
    let place = Place::new();
    let events = every_event();
    let mut sink = place.sink();
    for batch in events.chunks(5) {
        assert_eq!(sink.send(batch).await.unwrap(), 0);
    }
    let expected: String = events.iter().map(|event| Format::Jsonl.line(event) + "\n").collect();
    assert_eq!(place.read("log"), expected);
    assert!(sink.acknowledges());
}

#[tokio::test]
async fn half_a_line_that_a_crash_left_is_cut_wherever_it_was_torn() {
    let line = Format::Jsonl.line(&grants(1)[0]) + "\n";
    for torn in (0..line.len()).step_by(19) {
        for before in ["", &line] {
            let place = Place::new();
            fs::write(place.path("log"), format!("{before}{}", &line[..torn])).unwrap();
            place.sink().send(&grants(1)).await.unwrap();
            assert_eq!(place.read("log"), format!("{before}{line}"), "torn at {torn}");
        }
    }
}

#[tokio::test]
async fn a_file_that_holds_something_else_is_left_alone() {
    let place = Place::new();
    fs::write(place.path("log"), "password").unwrap();
    let refused = place.sink().send(&grants(1)).await;
    assert!(matches!(refused, Err(SinkError::NotOurs(_))), "{refused:?}");
    assert_eq!(place.read("log"), "password");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_followed_by_a_new_one() {
    let place = Place::new();
    let line = Format::Jsonl.line(&grants(1)[0]) + "\n";
    let mut sink = place.sink();
    sink.send(&grants(1)).await.unwrap();
    fs::rename(place.path("log"), place.path("log.1")).unwrap();
    sink.send(&grants(1)).await.unwrap();
    assert_eq!((place.read("log"), place.read("log.1")), (line.clone(), line.clone()));
    // Also when whoever moved it made the new one.
    fs::rename(place.path("log"), place.path("log.2")).unwrap();
    fs::write(place.path("log"), "").unwrap();
    sink.send(&grants(1)).await.unwrap();
    assert_eq!((place.read("log"), place.read("log.2")), (line.clone(), line));
}

#[tokio::test]
async fn a_folder_that_is_missing_is_an_error_until_it_is_there() {
    let place = Place::new();
    let path = place.path("later/log");
    let to = json!({ "kind": "file", "path": path, "format": "cef" });
    let mut sink = destination(to).open().unwrap();
    let refused = sink.send(&grants(1)).await;
    assert!(matches!(refused, Err(SinkError::File { .. })), "{refused:?}");
    fs::create_dir(place.path("later")).unwrap();
    sink.send(&grants(1)).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
}
