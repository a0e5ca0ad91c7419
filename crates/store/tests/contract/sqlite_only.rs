use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
};

use store::{SqliteStore, Store as _, StoreConfig, StoreError};

use crate::{
    given::{append, pending, refusal},
    log::check_tree,
};

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strongroom.db");
    let first = SqliteStore::open(&path).await.unwrap();
    let refused = SqliteStore::open(&path).await.unwrap_err();
    let StoreError::Misconfigured(text) = refused else { panic!("{refused:?}") };
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    first.close().await;
    SqliteStore::open(&path).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let parent = directory.path().join("a/b");
    let store = SqliteStore::open(&parent.join("strongroom.db")).await.unwrap();
    append(&store, vec![refusal("a")]).await;

    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(parent.clone()), 0o700);
    let files: Vec<_> = fs::read_dir(parent).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(file.clone()), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_and_records_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strongroom.db");
    let store = SqliteStore::open(&path).await.unwrap();
    append(&store, vec![refusal("a")]).await;
    store.close().await;

    // Byte 18 is the file format's write version: a program that does not know it may only read.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[9], 18).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let refused = store.append(&[pending(refusal("b"))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    check_tree(&store, 1).await;
}

#[tokio::test]
async fn a_store_in_memory_keeps_the_contract_too() {
    let (store, other) =
        (SqliteStore::in_memory().await.unwrap(), SqliteStore::in_memory().await.unwrap());
    append(&store, vec![refusal("a"); 300]).await;
    check_tree(&store, 300).await;
    check_tree(&other, 0).await;
    assert_ne!(store.deployment(), other.deployment());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strongroom.db");
    fs::write(&path, vec![b'x'; 8192]).unwrap();
    let refused = store::open(&StoreConfig::Sqlite { path }).await;
    assert!(refused.is_err());
}
