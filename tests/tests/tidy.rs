//! What the compiler does not check about the house: which crate knows which, where SQL, KMS clients
//! and plaintext may stand, how long a file gets, whose code is built in, and that operators are told of
//! metrics that exist.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/exposed.rs"]
mod exposed;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/supply.rs"]
mod supply;
#[path = "tidy/words.rs"]
mod words;
