//! Logs, traces and metrics, set up the same way in every binary.
//!
//! Logs go to standard error, one event a line, whatever a peer puts into a field. Traces go to an
//! OpenTelemetry collector when one is named; trace IDs exist and are handed on without one too.
//! Metrics are read at the operations listener.

mod config;
mod escape;
mod guard;
mod init;
mod ops;
mod propagation;

pub use config::{LogFormat, TelemetryConfig};
pub use guard::Guard;
pub use init::{TelemetryError, init};
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use ops::{Readiness, serve_ops};
pub use propagation::{continue_trace, inject_trace, trace_id};
