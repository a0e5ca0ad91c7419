use std::net::SocketAddr;

use serde::Deserialize;

/// Where logs, traces and metrics go. What is logged is set by `RUST_LOG`, `info` without it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The form of the log.
    pub log: LogFormat,
    /// The OpenTelemetry collector to send traces to, over gRPC without TLS, as in
    /// `http://127.0.0.1:4317`: one on this machine, which goes on over TLS. Not set: none are sent.
    pub otlp_endpoint: Option<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` listen, over HTTP without authentication: an address
    /// that only the operators' network reaches. Not set: nowhere.
    pub metrics_listen: Option<SocketAddr>,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A JSON object a line, for machines.
    #[default]
    Json,
    /// Plain lines, for people.
    Text,
}
