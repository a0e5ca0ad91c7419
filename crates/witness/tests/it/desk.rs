use std::{fs, os::unix::fs::PermissionsExt as _};

use audit::{Note, WitnessRefusal};
use witness::{Answer, WitnessError};

use crate::given::{Given, History};

#[test]
fn what_was_cosigned_is_remembered_by_the_next_process() {
    let (given, log, fork) = (Given::new(), History::new(64), History::new(5));
    let desk = given.open().unwrap();
    let Answer::Cosigned(line) = desk.add(&log.request(0, 10)) else { unreachable!() };
    let mut note = Note::parse(&log.note(10)).unwrap();
    note.add_cosignature(&line, given.witness.witness()).unwrap();
    drop(desk);

    let desk = given.open().unwrap();
    assert_eq!(desk.key(), given.witness.witness().to_string());
    assert!(matches!(
        desk.add(&fork.request(0, 10)),
        Answer::Refused(WitnessRefusal::OutOfDate { size: 10, conflict: Some(_) })
    ));
    assert!(matches!(
        desk.add(&fork.request(10, 12)),
        Answer::Refused(WitnessRefusal::Unproved(_))
    ));
    assert!(matches!(desk.add(&log.request(10, 12)), Answer::Cosigned(_)));
}

#[test]
fn a_checkpoint_that_cannot_be_kept_is_not_cosigned() {
    let (given, log) = (Given::new(), History::new(64));
    let desk = given.open().unwrap();
    assert!(matches!(desk.add(&log.request(0, 3)), Answer::Cosigned(_)));
    // The folder is gone, as if the disk had failed.
    fs::rename(given.path("state/logs"), given.path("state/gone")).unwrap();
    assert_eq!(desk.add(&log.request(3, 4)), Answer::NotKept);
    fs::rename(given.path("state/gone"), given.path("state/logs")).unwrap();
    // Nothing was taken note of that is not kept.
    assert!(matches!(desk.add(&log.request(3, 5)), Answer::Cosigned(_)));
}

#[test]
fn both_notes_of_a_fork_are_kept_once() {
    let (given, log, fork) = (Given::new(), History::new(64), History::new(5));
    let desk = given.open().unwrap();
    desk.add(&log.request(0, 10));
    for _ in 0..3 {
        assert!(matches!(desk.add(&fork.request(10, 10)), Answer::Refused(_)));
    }
    let names = desk.evidence().unwrap();
    assert_eq!(names.len(), 1);
    let name = names.first().unwrap();
    assert!(name.starts_with("fork-10-"), "{name}");
    let read =
        |file| fs::read_to_string(given.path("state/evidence").join(name).join(file)).unwrap();
    assert_eq!((read("cosigned"), read("refused")), (log.note(10), fork.note(10)));
}

#[test]
fn bad_proofs_leave_room_for_evidence_of_forks() {
    let (given, log, fork) = (Given::new(), History::new(64), History::new(5));
    let desk = given.open().unwrap();
    desk.add(&log.request(0, 3));
    // Whoever has seen the checkpoints can do this, whatever the log.
    for note in (4..60).flat_map(|size| [log.note(size), fork.note(size)]) {
        let answer = desk.add(&format!("old 3\n\n{note}"));
        assert!(matches!(answer, Answer::Refused(WitnessRefusal::Unproved(_))));
    }
    assert_eq!(desk.evidence().unwrap().len(), 64);
    desk.add(&History::new(1).request(3, 3));
    assert!(desk.evidence().unwrap().iter().any(|name| name.starts_with("fork-3-")));
}

#[test]
fn a_witness_does_not_start_on_what_it_cannot_believe() {
    let (given, log) = (Given::new(), History::new(64));
    let desk = given.open().unwrap();
    desk.add(&log.request(0, 10));
    assert!(matches!(given.open(), Err(WitnessError::InUse(_))));
    drop(desk);

    let file = fs::read_dir(given.path("state/logs")).unwrap().next().unwrap().unwrap().path();
    let kept = fs::read_to_string(&file).unwrap();
    fs::write(&file, kept.replacen("\n10\n", "\n11\n", 1)).unwrap();
    assert!(matches!(given.open(), Err(WitnessError::State { .. })));
    fs::write(&file, &kept).unwrap();
    drop(given.open().unwrap());

    let key = given.path("witness.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(given.open(), Err(WitnessError::KeyExposed(_))));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "not a key").unwrap();
    assert!(matches!(given.open(), Err(WitnessError::Key { .. })));
}
