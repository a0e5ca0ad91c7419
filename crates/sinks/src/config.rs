use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::{
    Format, Sink, file::FileSink, otlp::OtlpSink, syslog::SyslogSink, trust::Tls, wire::Place,
};

/// One way out of the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Under this name it is remembered how far the sink has come: another name begins anew.
    pub name: SinkName,
    /// Where a sink of a new name begins.
    #[serde(default)]
    pub from: From,
    /// Where to, and in which form.
    pub to: Destination,
}

/// The name of a sink: letters a to z, digits and dashes, 63 at most.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct SinkName(String);

/// Where a sink of a new name begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// With the first record that the log still has.
    #[default]
    Start,
    /// With the next record.
    Now,
}

/// Where to, and in which form.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Destination {
    /// Lines in a file.
    File {
        /// The file; its folder must be there.
        path: PathBuf,
        /// The form of a line.
        format: Format,
    },
    /// Syslog over TLS.
    SyslogTls {
        /// `host:port`; 6514 is the port of RFC 5425.
        address: String,
        /// The form of what follows the syslog header.
        format: Format,
        /// What the receiver's certificate must name; the host of the address without it.
        #[serde(default)]
        server_name: Option<String>,
        /// How the receiver proves who it is.
        tls: Tls,
    },
    /// Syslog over TCP, which can be read and changed on the way: for a receiver on this machine,
    /// which goes on over TLS.
    SyslogTcp {
        /// `host:port`.
        address: String,
        /// The form of what follows the syslog header.
        format: Format,
    },
    /// The logs service of an OpenTelemetry collector, over gRPC.
    Otlp {
        /// `https://host:port`, or `http://` for a collector on this machine, which goes on over TLS.
        endpoint: Url,
        /// How the collector proves who it is: needed with `https`, refused with `http`.
        #[serde(default)]
        tls: Option<Tls>,
    },
}

/// Why a destination cannot be used.
#[derive(Debug, Error)]
pub enum BadDestination {
    /// The address lacks its port, or its host.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// The endpoint is not one of a collector.
    #[error("`{0}` is not http://host:port or https://host:port")]
    Endpoint(Url),
    /// `https` without `tls`, or the other way round.
    #[error("`{0}`: https needs `tls`, and http has none")]
    Scheme(Url),
}

/// The name is not one.
#[derive(Debug, Error)]
#[error("a sink's name is a to z, 0 to 9 and `-`, 63 at most")]
pub struct InvalidSinkName;

/// How long a receiver may take over a batch.
const PATIENCE: Duration = Duration::from_secs(30);

impl SinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SinkName {
    type Error = InvalidSinkName;

    fn try_from(name: String) -> Result<Self, InvalidSinkName> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(InvalidSinkName)
        }
    }
}

impl SinkConfig {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        match &mut self.to {
            Destination::File { path, .. } => *path = folder.join(&*path),
            Destination::SyslogTls { tls, .. } | Destination::Otlp { tls: Some(tls), .. } => {
                tls.resolve(folder);
            }
            Destination::SyslogTcp { .. } | Destination::Otlp { tls: None, .. } => {}
        }
    }
}

impl Destination {
    /// Makes the sink. Nothing is connected or opened before the first batch.
    pub fn open(&self) -> Result<Box<dyn Sink>, BadDestination> {
        self.open_with(PATIENCE)
    }

    /// The same, for receivers that may take so long over a batch.
    pub fn open_with(&self, patience: Duration) -> Result<Box<dyn Sink>, BadDestination> {
        Ok(match self {
            Self::File { path, format } => Box::new(FileSink::new(path.clone(), *format)),
            Self::SyslogTls { address, format, server_name, tls } => {
                let place = place(address, Some(tls), server_name.as_deref(), &[])?;
                Box::new(SyslogSink::new(place, *format, patience))
            }
            Self::SyslogTcp { address, format } => {
                let place = place(address, None, None, &[])?;
                Box::new(SyslogSink::new(place, *format, patience))
            }
            Self::Otlp { endpoint, tls } => {
                Box::new(OtlpSink::new(collector(endpoint, tls.as_ref())?, patience))
            }
        })
    }

    /// The file that is written, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::SyslogTls { .. } | Self::SyslogTcp { .. } | Self::Otlp { .. } => None,
        }
    }
}

fn place(
    address: &str,
    tls: Option<&Tls>,
    server_name: Option<&str>,
    protocols: &'static [&'static [u8]],
) -> Result<Place, BadDestination> {
    let bad = || BadDestination::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    Ok(Place {
        address: address.to_owned(),
        tls: tls.cloned(),
        server_name: server_name.unwrap_or(host).to_owned(),
        protocols,
    })
}

fn collector(endpoint: &Url, tls: Option<&Tls>) -> Result<Place, BadDestination> {
    let bad = || BadDestination::Endpoint(endpoint.clone());
    let (Some(host), Some(port)) = (endpoint.host_str(), endpoint.port_or_known_default()) else {
        return Err(bad());
    };
    let plain = endpoint.path() == "/" && endpoint.query().is_none() && endpoint.username() == "";
    match (endpoint.scheme(), tls) {
        ("https", Some(_)) | ("http", None) if plain => {
            place(&format!("{host}:{port}"), tls, None, &[b"h2"])
        }
        ("https" | "http", _) if plain => Err(BadDestination::Scheme(endpoint.clone())),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, usable: bool) {
        let config: Result<SinkConfig, _> = serde_json::from_str(text);
        let opened = config.map(|config| config.to.open().is_ok());
        assert_eq!(opened.unwrap_or(false), usable, "{text}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_before_anything_is_sent() {
        check(r#"{"name":"a","to":{"kind":"file","path":"x","format":"jsonl"}}"#, true);
        check(r#"{"name":"A","to":{"kind":"file","path":"x","format":"jsonl"}}"#, false);
        check(r#"{"name":"a","to":{"kind":"file","path":"x","format":"xml"}}"#, false);
        check(r#"{"name":"a","to":{"kind":"file","path":"x","format":"cef","x":1}}"#, false);
        let tls = r#""tls":{"ca":"ca.pem"}"#;
        let syslog = |kind: &str, rest: &str| {
            format!(r#"{{"name":"a","from":"now","to":{{"kind":"{kind}","format":"cef",{rest}}}}}"#)
        };
        check(&syslog("syslog-tls", &format!(r#""address":"siem:6514",{tls}"#)), true);
        check(&syslog("syslog-tls", r#""address":"siem:6514""#), false);
        check(&syslog("syslog-tls", &format!(r#""address":"siem",{tls}"#)), false);
        check(&syslog("syslog-tcp", r#""address":"[::1]:601""#), true);
        let otlp = |rest: &str| format!(r#"{{"name":"a","to":{{"kind":"otlp",{rest}}}}}"#);
        check(&otlp(r#""endpoint":"http://127.0.0.1:4317""#), true);
        check(&otlp(&format!(r#""endpoint":"https://collector:4317",{tls}"#)), true);
        check(&otlp(r#""endpoint":"https://collector:4317""#), false);
        check(&otlp(&format!(r#""endpoint":"http://collector:4317",{tls}"#)), false);
        check(&otlp(r#""endpoint":"http://collector:4317/v1/logs""#), false);
        check(&otlp(r#""endpoint":"unix:/tmp/x""#), false);
    }
}
