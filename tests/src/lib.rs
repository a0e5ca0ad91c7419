//! Whole deployments for tests: a real broker and a real inference proxy in this process, on ports of
//! their own, with certificates, a log and a stand-in for the providers. A deployment is made on
//! either of two stacks, and its log is verified when it ends.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails"
)]

mod admin;
mod application;
mod backing;
mod database;
mod deployment;
mod export;
mod huffman;
mod logs;
mod official;
mod search;
mod upstream;

pub use admin::NewCredential;
pub use application::Application;
pub use backing::{Backing, server_files, strace};
pub use database::{Backup, Database};
pub use deployment::{Deployment, connect};
pub use export::{Export, export};
pub use logs::logs;
pub use official::{PROMPT, Sdk, fails, refused, run};
pub use search::{Forms, files_with};
pub use upstream::{SAID, Seen, Upstream};
