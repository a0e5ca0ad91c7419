//! A key file, with a passphrase and without.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use envelope::{Kms, KmsConfig, LocalKms};
use tempfile::TempDir;

use crate::{Stand, block_on, private_file};

mod file {
    crate::contract::contract!(super::with_a_file);
}

mod passphrase {
    crate::contract::contract!(super::with_a_passphrase);
}

struct Files {
    folder: TempDir,
    passphrase: Option<PathBuf>,
    kms: Arc<dyn Kms>,
}

#[async_trait]
impl Stand for Files {
    fn kms(&self) -> &dyn Kms {
        &*self.kms
    }

    async fn rotate(&mut self) {
        LocalKms::rotate(&key_file(&self.folder), self.passphrase.as_deref()).unwrap();
        self.kms = open(&self.folder, self.passphrase.clone()).await;
    }
}

fn with_a_file(_: &str, test: impl AsyncFnOnce(&mut Files)) {
    with(tempfile::tempdir().unwrap(), None, test);
}

fn with_a_passphrase(_: &str, test: impl AsyncFnOnce(&mut Files)) {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = folder.path().join("passphrase");
    private_file(&passphrase, "correct horse battery staple\n");
    with(folder, Some(passphrase), test);
}

fn with(folder: TempDir, passphrase: Option<PathBuf>, test: impl AsyncFnOnce(&mut Files)) {
    block_on(async {
        LocalKms::create_new(&key_file(&folder), passphrase.as_deref()).unwrap();
        let kms = open(&folder, passphrase.clone()).await;
        test(&mut Files { folder, passphrase, kms }).await;
    });
}

async fn open(folder: &TempDir, passphrase_file: Option<PathBuf>) -> Arc<dyn Kms> {
    KmsConfig::Local { key_file: key_file(folder), passphrase_file }.open().await.unwrap()
}

fn key_file(folder: &TempDir) -> PathBuf {
    folder.path().join("root.keyset")
}
