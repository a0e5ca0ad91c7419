use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

use tempfile::TempDir;

use super::*;
use crate::KeyPurpose;

const CONTEXT: KeyContext = KeyContext {
    deployment: Uid::from_bytes([1; 16]),
    owner: Uid::from_bytes([2; 16]),
    key: Uid::from_bytes([3; 16]),
    version: 1,
    purpose: KeyPurpose::Kek,
};

fn made() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.keyset");
    LocalKms::create_new(&path, None).unwrap();
    (directory, path)
}

fn passphrase(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_new_key_file_is_for_its_owner_only() {
    let (_directory, path) = made();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    LocalKms::open(&path, None).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    LocalKms::open(&path, None).unwrap();
}

#[test]
fn a_key_file_that_is_there_is_left_alone() {
    let (_directory, path) = made();
    let before = fs::read(&path).unwrap();
    assert!(matches!(LocalKms::create_new(&path, None), Err(KeyFileError::Io(..))));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_key_file_that_others_can_reach_is_refused() {
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
        let (_directory, path) = made();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let refused = LocalKms::open(&path, None);
        assert!(matches!(refused, Err(KeyFileError::Exposed(_))), "{mode:o}");
    }
}

#[test]
fn links_and_what_is_not_a_file_are_refused() {
    let (directory, path) = made();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(LocalKms::open(&link, None), Err(KeyFileError::Exposed(_))));
    assert!(matches!(LocalKms::open(directory.path(), None), Err(KeyFileError::Exposed(_))));
    fs::hard_link(&path, directory.path().join("second name")).unwrap();
    assert!(matches!(LocalKms::open(&path, None), Err(KeyFileError::Exposed(_))));
}

#[test]
fn what_is_not_a_key_file_is_refused() {
    let (_directory, path) = made();
    let text = fs::read_to_string(&path).unwrap();
    for wrong in [
        String::new(),
        text.trim_end().to_owned(),
        format!("{text}\n"),
        format!("{text}key 1 {}\n", "00".repeat(32)),
        format!("{text}key 2 {}\n", "00".repeat(31)),
        format!("{text}key two {}\n", "00".repeat(32)),
        text.replace("keyset 1", "keyset 2"),
        text.replace("lock none", "lock rot13"),
        text.replace("lock none\n", ""),
        text.replace("key 1", "key 0"),
        text.replace("id ", "id z"),
        text.split_inclusive('\n').take(3).collect(),
    ] {
        fs::write(&path, &wrong).unwrap();
        let refused = LocalKms::open(&path, None);
        assert!(matches!(refused, Err(KeyFileError::Malformed(_))), "{wrong:?}");
    }
}

#[test]
fn a_locked_file_opens_with_its_passphrase_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.keyset");
    let right = passphrase(&directory, "right", "correct horse battery\n");
    let same = passphrase(&directory, "same", "correct horse battery");
    let wrong = passphrase(&directory, "wrong", "correct horse batterx\n");
    LocalKms::create_new(&path, Some(&right)).unwrap();

    LocalKms::open(&path, Some(&right)).unwrap();
    LocalKms::open(&path, Some(&same)).unwrap();
    let refused = LocalKms::open(&path, Some(&wrong));
    assert!(matches!(refused, Err(KeyFileError::WrongPassphrase(_))));
    assert!(matches!(LocalKms::open(&path, None), Err(KeyFileError::Passphrase(_))));
    fs::set_permissions(&right, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(LocalKms::open(&path, Some(&right)), Err(KeyFileError::Exposed(_))));

    let cheap = fs::read_to_string(&path).unwrap().replace("m=65536", "m=8");
    fs::write(&path, cheap).unwrap();
    assert!(matches!(LocalKms::open(&path, Some(&same)), Err(KeyFileError::Malformed(_))));
}

#[test]
fn a_passphrase_for_an_open_file_and_a_short_one_are_refused() {
    let (directory, path) = made();
    let right = passphrase(&directory, "right", "correct horse battery\n");
    let short = passphrase(&directory, "short", "hunter2\n");
    assert!(matches!(LocalKms::open(&path, Some(&right)), Err(KeyFileError::Passphrase(_))));
    let refused = LocalKms::create_new(&directory.path().join("new"), Some(&short));
    assert!(matches!(refused, Err(KeyFileError::WeakPassphrase(_))));
    assert!(!directory.path().join("new").exists());
}

#[tokio::test]
async fn rotation_adds_a_version_and_rewrapping_moves_to_it() {
    for locked in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.keyset");
        let lock = passphrase(&directory, "lock", "correct horse battery\n");
        let lock = locked.then_some(lock.as_path());
        LocalKms::create_new(&path, lock).unwrap();
        let before = LocalKms::open(&path, lock).unwrap();
        let (key, wrapped) = before.generate(&CONTEXT).await.unwrap();

        // What a crash left behind is in nobody's way.
        fs::write(directory.path().join("root.keyset.new"), "half a file").unwrap();
        assert_eq!(LocalKms::rotate(&path, lock).unwrap(), 2);
        let after = LocalKms::open(&path, lock).unwrap();

        assert_eq!(after.unwrap(&CONTEXT, &wrapped).await.unwrap().expose(), key.expose());
        assert_ne!(after.wrapped_by(&wrapped), Some(after.status().await.key_ref));
        let rewrapped = after.rewrap(&CONTEXT, &wrapped).await.unwrap();
        assert_eq!(after.wrapped_by(&rewrapped), Some(after.status().await.key_ref));
        assert_eq!(after.unwrap(&CONTEXT, &rewrapped).await.unwrap().expose(), key.expose());
        let refused = before.unwrap(&CONTEXT, &rewrapped).await;
        assert!(matches!(refused, Err(KmsError::Corrupt)));
    }
}
