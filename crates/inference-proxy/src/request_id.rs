use std::sync::atomic::{AtomicU64, Ordering};

use domain::Uid;

/// Makes names for requests: unique among all proxies, and cheap.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: String,
    next: AtomicU64,
}

impl RequestIds {
    /// A source whose names begin with random letters of its own.
    pub(crate) fn new() -> std::io::Result<Self> {
        let uid = Uid::random().map_err(std::io::Error::other)?;
        let random = uid.as_bytes().iter().take(8).map(|byte| format!("{byte:02x}"));
        Ok(Self { process: random.collect(), next: AtomicU64::new(1) })
    }

    pub(crate) fn next(&self) -> String {
        format!("req-{}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
