//! What every KMS promises, run over each of them, and what stands above a KMS: keyring and roots.
//!
//! A key file needs nothing. The others are played by what `tests/run` starts or installs, and are
//! left out, with a line that says so, where that is missing: AWS KMS by whatever answers at
//! `TEST_KMS_ENDPOINT` (moto), a hardware security module by the library `TEST_PKCS11_MODULE`
//! (SoftHSM2), and transit by servers of the binary `TEST_OPENBAO`, which the tests start.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: one that cannot go on says where"
)]

mod aws;
mod contract;
mod gate;
mod keyring;
mod local;
mod openbao;
mod pkcs11;
mod recovery;
mod roots;
mod softhsm;
mod transit;

use std::{io::Write as _, sync::Arc};

use async_trait::async_trait;
use domain::Uid;
use envelope::{KeyContext, KeyPurpose, Kms, LocalKms};

/// A KMS with a root key of its own, and who has power over it.
#[async_trait]
trait Stand: Send + Sync {
    /// The KMS, as it is configured now.
    fn kms(&self) -> &dyn Kms;

    /// Adds a root key, or a version of it, for new keys.
    async fn rotate(&mut self);
}

/// A KMS that is somewhere else.
#[async_trait]
trait Remote: Stand {
    /// Closes the root key, in the way of this KMS.
    async fn disable(&mut self);

    /// Opens it again.
    async fn enable(&mut self);

    /// A KMS that is configured for an address where nothing answers.
    async fn silent(&self) -> Arc<dyn Kms>;
}

/// A variable of the test runner's. Without it the test is left out, and says so past the capture of
/// the test's output: silence would look like success.
#[expect(clippy::disallowed_methods, reason = "the test runner names things this way")]
fn provided(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "left out: {variable} is not set; tests/run installs what is needed and sets it"
        );
    }
    value
}

/// One with a key file that it alone has read.
fn kms() -> Arc<dyn Kms> {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("root.keyset");
    LocalKms::create_new(&key_file, None).unwrap();
    Arc::new(LocalKms::open(&key_file, None).unwrap())
}

fn context() -> KeyContext {
    let uid = |byte| Uid::from_bytes([byte; 16]);
    KeyContext {
        deployment: uid(1),
        owner: uid(2),
        key: uid(3),
        version: 1,
        purpose: KeyPurpose::Kek,
    }
}

fn wrong_contexts() -> [KeyContext; 5] {
    let other = Uid::from_bytes([9; 16]);
    [
        KeyContext { deployment: other, ..context() },
        KeyContext { owner: other, ..context() },
        KeyContext { key: other, ..context() },
        KeyContext { version: 2, ..context() },
        KeyContext { purpose: KeyPurpose::Pepper, ..context() },
    ]
}

/// Runs a test on threads that really run at once.
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// A file of mode 0400.
fn private_file(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = std::fs::remove_file(path);
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
}
