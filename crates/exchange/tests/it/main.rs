//! Token exchange as its users see it, against stand-ins that check what they are sent.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]
#![expect(clippy::indexing_slicing, reason = "what a stand-in is not sent fails its test")]

mod aws;
mod cache;
mod entra;
mod google;
mod keys;
mod trial;
mod world;
