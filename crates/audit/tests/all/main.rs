//! The log as a stranger meets it: published vectors, proofs, exports, and forgeries of every kind.
#![expect(clippy::unwrap_used, reason = "fixtures of tests may fail loudly")]
#![expect(clippy::indexing_slicing, reason = "fixtures of tests may fail loudly")]

mod export;
mod fixture;
mod forgeries;
mod merkle;
mod misconduct;
mod notes;
mod pruned;
mod records;
mod rotations;
mod single_proofs;
mod tiles;
mod witnesses;
