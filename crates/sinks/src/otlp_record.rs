use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};

use crate::{
    Event,
    fields::{Value, fields},
    meaning::{Weight, summary, weight},
};

/// One request with all of a batch.
pub(crate) fn request(batch: &[Event]) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope {
        name: "strongroom.log".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let logs = ScopeLogs {
        scope: Some(scope),
        log_records: batch.iter().map(log_record).collect(),
        ..ScopeLogs::default()
    };
    let service = attribute("service.name", Value::Text("strongroom-broker".to_owned()));
    let resource = Resource { attributes: vec![service], ..Resource::default() };
    let resource_logs =
        ResourceLogs { resource: Some(resource), scope_logs: vec![logs], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

/// A record as OTLP has it: its fields are attributes, named `strongroom.` and as in the contract.
pub(crate) fn log_record(event: &Event) -> LogRecord {
    let nanos = u64::try_from(event.time.as_millis()).unwrap_or(0).saturating_mul(1_000_000);
    let (number, text) = severity(weight(event));
    LogRecord {
        time_unix_nano: nanos,
        // When it was observed is when it was recorded: it does not change when it is sent again.
        observed_time_unix_nano: nanos,
        severity_number: number.into(),
        severity_text: text.to_owned(),
        body: Some(any(Value::Text(summary(event.kind).to_owned()))),
        attributes: fields(event)
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "time" | "trace_id"))
            .map(|(name, value)| attribute(&format!("strongroom.{name}"), value))
            .collect(),
        trace_id: event.record.trace_id.to_vec(),
        event_name: format!("strongroom.{}", event.kind.as_str_name().to_ascii_lowercase()),
        ..LogRecord::default()
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn any(value: Value) -> AnyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        // No index or count comes near 2^63.
        Value::Number(number) => {
            any_value::Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX))
        }
    };
    AnyValue { value: Some(value) }
}

fn severity(weight: Weight) -> (SeverityNumber, &'static str) {
    match weight {
        Weight::Routine => (SeverityNumber::Info, "INFO"),
        Weight::Notice => (SeverityNumber::Info2, "NOTICE"),
        Weight::Warning => (SeverityNumber::Warn, "WARN"),
        Weight::Alarm => (SeverityNumber::Error, "ERROR"),
    }
}
