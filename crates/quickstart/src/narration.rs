use audit::{Kind, Names, Reason, Record, decode_record, timestamp};
use strongroom_client::Broker;
use strongroom_proto::v1::TailRecordsRequest;

use crate::speech::say;

/// Tells each record as it becomes durable, from an index on, until the broker is gone.
pub(crate) async fn narrate(admin: Broker, mut from_index: u64) {
    let mut followed = false;
    loop {
        let request = TailRecordsRequest { from_index: Some(from_index), ..Default::default() };
        let Ok(answer) = admin.audit().tail_records(request).await else {
            if !followed {
                say("  The log cannot be followed.");
            }
            return;
        };
        followed = true;
        let mut records = answer.into_inner();
        // A stream ends with its connection, which has an age; the next one goes on from there.
        while let Ok(Some(page)) = records.message().await {
            let names = Names::told(&page.disclosures);
            for entry in page.entries {
                if let Ok(record) = decode_record(&entry.body) {
                    say(line(&record, &names));
                }
            }
            from_index = page.next_index;
        }
    }
}

/// One line on a record. A record has no free text in it, so nothing needs to be escaped.
fn line(record: &Record, names: &Names) -> String {
    let time = record.time.as_ref().and_then(timestamp);
    let time = time.and_then(|time| jiff::Timestamp::from_millisecond(time.as_millis()).ok());
    let time = time.map(|time| time.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    format!("  log {:>4}  {time}  {}{}", record.index, what(record, names), actor(record, names))
}

#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
fn what(record: &Record, names: &Names) -> String {
    let (credential, key) = (&record.credential, &record.virtual_key);
    match record.kind() {
        Kind::Unspecified => "something".to_owned(),
        Kind::BrokerStarted => "the broker started".to_owned(),
        Kind::BrokerStopped => "the broker stopped".to_owned(),
        Kind::SessionOpened => "session opened".to_owned(),
        Kind::Refused => format!("refused: {}", reason(record)),
        Kind::Read => format!("read: {}", record.method),
        Kind::PolicyLoaded => "access rules loaded".to_owned(),
        Kind::SessionRevoked => "session revoked".to_owned(),
        Kind::IdentityBlocked => format!("blocked {}", names.show_subject(record)),
        Kind::IdentityUnblocked => format!("no longer blocked: {}", names.show_subject(record)),
        Kind::Finding => format!("FOUND: {}", reason(record)),
        Kind::CheckpointGivenUp => "a checkpoint was given up".to_owned(),
        Kind::PricesChanged => "prices changed".to_owned(),
        Kind::LogPruned => format!("records before {} pruned", record.tree_size),
        Kind::LeaseGranted => {
            format!("lent {credential} v{}{}", record.credential_version, by(key))
        }
        Kind::LeaseRenewed => format!("lease of {credential} renewed{}", by(key)),
        Kind::LeaseReleased => format!("lease of {credential} given back"),
        Kind::LeaseRevoked => "lease revoked".to_owned(),
        Kind::TenantCreated => format!("tenant {} created", record.tenant),
        Kind::TenantUpdated => format!("tenant {} changed", record.tenant),
        Kind::TenantSuspended => format!("tenant {} suspended", record.tenant),
        Kind::TenantResumed => format!("tenant {} resumed", record.tenant),
        Kind::CredentialCreated => format!("{credential} stored"),
        Kind::CredentialRotated => {
            format!("{credential} rotated to v{}", record.credential_version)
        }
        Kind::CredentialRotationStarted | Kind::CredentialRotationAdvanced => {
            let percent = record.rotation_percent;
            format!("{credential} v{} serves {percent} %", record.credential_version)
        }
        Kind::CredentialRotationFinished => {
            format!("{credential} v{} serves alone", record.credential_version)
        }
        Kind::CredentialRotationRolledBack => {
            format!("{credential} v{} set back: {}", record.credential_version, record.because)
        }
        Kind::CredentialDisabled => format!("{credential} disabled"),
        Kind::CredentialEnabled => format!("{credential} enabled"),
        Kind::CredentialDeleted => format!("{credential} deleted"),
        Kind::CredentialTested => {
            format!("{credential} tested: {}", record.verdict().as_str_name().to_lowercase())
        }
        Kind::KekRotated => {
            format!("key of tenant {} rotated to v{}", record.tenant, record.kek_version)
        }
        Kind::KekRetired => {
            format!("key of tenant {} retired before v{}", record.tenant, record.kek_version)
        }
        Kind::KeyRewrapped => format!("key of tenant {} wrapped anew", record.tenant),
        Kind::KekRotationBegun => "rotation of all tenants' keys begun".to_owned(),
        Kind::KeyRewrapBegun => "keys are being wrapped under another root key".to_owned(),
        Kind::CredentialShredded => format!("{credential} erased"),
        Kind::TenantShredded => format!("tenant {} erased", record.tenant),
        Kind::SharesDestroyed => format!("shares of {} destroyed", erased(record)),
        Kind::SecretInAnswer => format!("{credential} v{} in an answer", record.credential_version),
        Kind::VirtualKeyCreated => format!("virtual key {key} created"),
        Kind::VirtualKeyRevoked => format!("virtual key {key} revoked"),
        Kind::VirtualKeyUpdated => format!("virtual key {key} changed"),
        Kind::VirtualKeyRotated => format!("virtual key {key} has a new value"),
        Kind::VirtualKeyBlocked => format!("virtual key {key} blocked"),
        Kind::VirtualKeyUnblocked => format!("virtual key {key} no longer blocked"),
        Kind::BudgetCreated => format!("budget {} created", record.budget),
        Kind::BudgetUpdated => format!("budget {} changed", record.budget),
        Kind::BudgetDeleted => format!("budget {} deleted", record.budget),
        Kind::BudgetAlert => format!("{} % of budget {} spent", record.percent, record.budget),
        Kind::AllowanceSettled => format!("allowance settled{}", by(key)),
        Kind::AllowanceExpired => format!("allowance expired{}", by(key)),
        Kind::AllowanceReconciled => format!("allowance reconciled{}", by(key)),
        Kind::BudgetWouldRefuse => format!("budget {} would refuse if it were hard", record.budget),
        Kind::AllowanceDrawn => format!("allowance drawn{}", by(key)),
        Kind::UsageReported => "usage reported".to_owned(),
        Kind::ApprovalRequested => format!("{} needs a second person", record.method),
        Kind::ApprovalGiven => "a second person approved".to_owned(),
        Kind::ApprovalDeclined => "approval declined".to_owned(),
        Kind::ApprovalUsed => format!("{} as approved", record.method),
        Kind::PolicyAdmitted => "access policy admitted".to_owned(),
    }
}

fn reason(record: &Record) -> String {
    let reason = Reason::try_from(record.reason).unwrap_or_default();
    let place = if record.method.is_empty() { "" } else { " at " };
    format!("{}{place}{}", reason.as_str_name(), record.method)
}

fn erased(record: &Record) -> &str {
    if record.credential.is_empty() { &record.tenant } else { &record.credential }
}

fn by(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" by virtual key {key}") }
}

fn actor(record: &Record, names: &Names) -> String {
    let path = names.actor(record).and_then(|id| id.strip_prefix("spiffe://")?.split_once('/'));
    path.map(|(_, path)| format!(" · {path}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_told_with_who_and_what() {
        let record = Record {
            index: 7,
            kind: Kind::LeaseGranted.into(),
            time: Some(audit::proto_time(domain::Timestamp::from_millis(3_661_000))),
            actor: "spiffe://strongroom.local/inference-proxy".to_owned(),
            credential: "tenants/a/credentials/b".to_owned(),
            credential_version: 2,
            virtual_key: "abc".to_owned(),
            ..Record::default()
        };
        assert_eq!(
            line(&record, &Names::default()),
            "  log    7  01:01:01  lent tenants/a/credentials/b v2 by virtual key abc · inference-proxy"
        );
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let record = Record {
            kind: Kind::Refused.into(),
            reason: Reason::VirtualKeyRefused.into(),
            method: "Leases/AcquireLease".to_owned(),
            ..Record::default()
        };
        assert!(
            line(&record, &Names::default())
                .ends_with("refused: VIRTUAL_KEY_REFUSED at Leases/AcquireLease")
        );
    }
}
