use audit::{Reason, Record, Verdict, timestamp};
use strongroom_proto::v1::{Source, Unit};

use crate::{Event, event::rfc3339};

/// What one field of a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(u64),
}

/// All that a record says, but for what it leaves out: names as in the contract, in one order.
///
/// Every form is made from this list, so that a field cannot be in one and missing in another.
pub(crate) fn fields(event: &Event) -> Vec<(&'static str, Value)> {
    let record = &event.record;
    let reason = (event.reason != Reason::Unspecified).then(|| event.reason.as_str_name());
    let source = (record.source() != Source::Unspecified).then(|| record.source().as_str_name());
    let verdict =
        (record.verdict() != Verdict::Unspecified).then(|| record.verdict().as_str_name());
    let ends = record.lease_expire_time.as_ref().and_then(timestamp).map(rfc3339);
    let copies = record.copies_until_time.as_ref().and_then(timestamp).map(rfc3339);
    let previous = record.previous_expire_time.as_ref().and_then(timestamp).map(rfc3339);
    let mut all = vec![
        ("index", Value::Number(event.index)),
        ("time", Value::Text(rfc3339(event.time))),
        ("kind", Value::Text(event.kind.as_str_name().to_owned())),
    ];
    let rest = [
        ("reason", text(reason.unwrap_or_default())),
        ("actor", text(&event.actor)),
        ("actor_commitment", bytes(&record.actor_commitment)),
        ("subject", text(&event.subject)),
        ("subject_commitment", bytes(&record.subject_commitment)),
        ("method", text(&record.method)),
        ("tenant", text(&record.tenant)),
        ("credential", text(&record.credential)),
        ("credential_uid", bytes(&record.credential_uid)),
        ("credential_version", number(record.credential_version)),
        ("deleted_version", number(record.deleted_version)),
        ("rotation_percent", number(record.rotation_percent.into())),
        ("revision", number(record.revision)),
        ("provider", text(&record.provider)),
        ("source", text(source.unwrap_or_default())),
        ("because", text(&record.because)),
        ("verdict", text(verdict.unwrap_or_default())),
        ("virtual_key", text(&record.virtual_key)),
        ("previous_expire_time", text(&previous.unwrap_or_default())),
        ("ends_leases", text(if record.ends_leases { "true" } else { "" })),
        ("lease_hash", bytes(&record.lease_hash)),
        ("lease_expire_time", text(&ends.unwrap_or_default())),
        ("lease_renewals", number(record.lease_renewals.into())),
        ("session_key_sha256", bytes(&record.session_key_sha256)),
        ("certificate_sha256", bytes(&record.certificate_sha256)),
        ("request_id", text(&record.request_id)),
        ("trace_id", bytes(&record.trace_id)),
        ("kek_id", bytes(&record.kek_id)),
        ("kek_version", number(record.kek_version.into())),
        ("config_sha256", bytes(&record.config_sha256)),
        ("policy_sha256", bytes(&record.policy_sha256)),
        ("prices_sha256", bytes(&record.prices_sha256)),
        ("tree_size", number(record.tree_size)),
        ("tree_root", bytes(&record.tree_root)),
        ("root_key_sha256", bytes(&record.root_key_sha256)),
        ("root", text(&record.root)),
        ("kek_overdue", number(record.kek_overdue.into())),
        ("erasure_id", bytes(&record.erasure_id)),
        ("copies_until_time", text(&copies.unwrap_or_default())),
        ("table", text(&record.table)),
        ("count", number(record.count.into())),
        ("broker", bytes(&record.broker)),
    ];
    let rest = rest.into_iter().chain(figures(record));
    all.extend(rest.filter_map(|(name, value)| Some((name, value?))));
    all
}

/// What a record says of budgets and allowances.
fn figures(record: &Record) -> Vec<(&'static str, Option<Value>)> {
    let unit = (record.unit() != Unit::Unspecified).then(|| record.unit().as_str_name());
    let spent = record.spent.unwrap_or_default();
    let amounts = record.amounts.unwrap_or_default();
    vec![
        ("budget", text(&record.budget)),
        ("unit", text(unit.unwrap_or_default())),
        ("percent", number(record.percent.into())),
        ("allowance_id", bytes(&record.allowance_id)),
        ("spent_micro_usd", number(spent.micro_usd)),
        ("spent_micro_usd_millionths", number(spent.micro_usd_millionths.into())),
        ("spent_requests", number(spent.requests)),
        ("spent_input_tokens", number(spent.input_tokens)),
        ("spent_output_tokens", number(spent.output_tokens)),
        ("amounts_micro_usd", number(amounts.micro_usd)),
        ("amounts_requests", number(amounts.requests)),
        ("amounts_input_tokens", number(amounts.input_tokens)),
        ("amounts_output_tokens", number(amounts.output_tokens)),
        ("amounts_tokens", number(amounts.tokens)),
        ("amounts_concurrent", number(amounts.concurrent)),
    ]
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::Text(text.to_owned()))
}

fn bytes(bytes: &[u8]) -> Option<Value> {
    (!bytes.is_empty()).then(|| Value::Text(hex::encode(bytes)))
}

fn number(number: u64) -> Option<Value> {
    (number != 0).then_some(Value::Number(number))
}
