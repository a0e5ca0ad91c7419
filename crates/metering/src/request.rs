//! Requests before they are sent, and what of their answers the caller did not ask for.
mod edit;
mod filter;
mod outline;
mod output;
mod usage_opt_in;

pub use edit::{Edit, apply};
pub use filter::{Filter, Piece};
pub use outline::{CacheUse, InvalidRequest, RequestOutline};
pub use output::OutputLimit;
pub use usage_opt_in::UsageOptIn;
