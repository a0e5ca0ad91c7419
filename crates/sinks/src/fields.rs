use audit::{Reason, timestamp};
use strongroom_proto::v1::Source;

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
    let ends = record.lease_expire_time.as_ref().and_then(timestamp).map(rfc3339);
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
        ("revision", number(record.revision)),
        ("provider", text(&record.provider)),
        ("source", text(source.unwrap_or_default())),
        ("because", text(&record.because)),
        ("virtual_key", text(&record.virtual_key)),
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
        ("tree_size", number(record.tree_size)),
        ("tree_root", bytes(&record.tree_root)),
        ("root_key_sha256", bytes(&record.root_key_sha256)),
        ("root", text(&record.root)),
        ("kek_overdue", number(record.kek_overdue.into())),
        ("count", number(record.count.into())),
        ("broker", bytes(&record.broker)),
    ];
    all.extend(rest.into_iter().filter_map(|(name, value)| Some((name, value?))));
    all
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
