use std::{
    fs::File,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use tracing_subscriber::EnvFilter;

/// The folder with everything that was logged in this process so far, by our crates and by those
/// below them, down to their debug messages.
pub fn logs() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("strongroom-e2e-logs").tempdir().unwrap();
        let file = File::create(folder.path().join("log")).unwrap();
        tracing_subscriber::fmt()
            .json()
            .with_env_filter(EnvFilter::new(LEVELS))
            .with_writer(Mutex::new(file))
            .init();
        // It is there for as long as the process is; `tests/run` removes it.
        folder.keep()
    });
    folder.clone()
}

const LEVELS: &str = "debug,broker=trace,envelope=trace,inference_proxy=trace,mtls=trace,\
    sealing=trace,store=trace,strongroom_client=trace";
