//! The HTTP gateway that puts leased keys on outgoing calls.
//!
//! An application calls it with a virtual key in OpenAI's, Anthropic's or a provider's own format. The
//! proxy gets a lease for that key and model, puts the real credential on the outgoing request, and
//! streams the answer back byte for byte. It stores nothing, and there is no way by which something a
//! caller sends could change where a credential goes.

mod aim;
mod answering;
mod beginning;
mod body;
mod brokered;
mod busy;
mod calling;
mod config;
mod encoding;
mod explain;
mod framing;
mod gateway;
mod head_deadline;
mod hidden_usage;
mod leak;
mod lease_refusal;
mod leases;
mod limit_headers;
mod limit_refusal;
mod listener_tls;
mod members;
mod metering;
mod meters;
mod models;
mod outgoing;
mod place;
mod presented;
mod proxy;
mod redact;
mod refusal;
mod reply;
mod reporter;
mod request_id;
mod rewriting;
mod route;
mod scan;
mod server;
mod steering;
mod tried;
mod trouble;
mod upstream;
mod upstream_error;

pub use config::{
    Config, ConfigError, EgressConfig, Limits, ListenerTls, MeteringConfig, OnDisconnect,
    OnProviderTools, OnUnknownPrice,
};
pub use egress::RootsError;
pub use leases::{Leases, Loan, LoanAccount};
pub use listener_tls::ListenerTlsError;
pub use proxy::{OpenError, Proxy};
