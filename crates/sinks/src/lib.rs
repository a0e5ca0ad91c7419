//! The log for other systems: a record as JSON Lines, OCSF, CEF or an OTLP log record, and the ways
//! out: a file, syslog over TCP or TLS, an OTLP collector. It knows nothing of the database, the KMS
//! or the broker: what goes out is what stands in a record, and nothing else. `docs/export.md` gives
//! every field.

mod cef;
mod config;
mod event;
mod fields;
mod file;
mod format;
mod json_lines;
mod meaning;
mod ocsf;
mod otlp;
mod otlp_record;
mod rfc5424;
mod sink;
mod syslog;
mod trust;
mod wire;

pub use config::{BadDestination, Destination, From, InvalidSinkName, SinkConfig, SinkName};
pub use event::Event;
pub use format::Format;
pub use sink::{Sink, SinkError};
pub use trust::Tls;
