use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde::Serialize;
use strongroom_proto::v1::{
    Credential, CredentialTest, LeaseInfo, Record, Rotation, Source, Tenant, VersionCounts,
    VirtualKey, credential, credential_test::Verdict, rotation, tenant, virtual_key,
};

use crate::amounts;

/// What programs see: the contract's fields in `snake_case`, times by RFC 3339, bytes in hex.
#[derive(Debug, Serialize)]
pub(crate) struct TenantView {
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) preferred_provider: String,
    pub(crate) on_missing: &'static str,
    pub(crate) keyless: Vec<String>,
    pub(crate) fallbacks: Vec<String>,
    pub(crate) custom: Vec<String>,
    pub(crate) suspended: bool,
    pub(crate) create_time: String,
    pub(crate) update_time: String,
    pub(crate) etag: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct CredentialView {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) state: &'static str,
    pub(crate) kind: String,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) priority: i32,
    pub(crate) base_url: String,
    pub(crate) models: Vec<String>,
    pub(crate) last_four: String,
    pub(crate) current_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotation: Option<RotationView>,
    /// What the last test has shown; none if there was none.
    pub(crate) test: Option<TestView>,
    /// What is odd about the secret that was just stored.
    pub(crate) warnings: Vec<String>,
    pub(crate) create_time: String,
    pub(crate) update_time: String,
    pub(crate) etag: String,
}

#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct RotationView {
    pub(crate) operation_id: String,
    pub(crate) state: &'static str,
    /// Of 100 leases, so many are of the new version.
    pub(crate) percent: u32,
    pub(crate) candidate_version: u64,
    pub(crate) previous_version: u64,
    pub(crate) canary_percent: u32,
    pub(crate) hold_seconds: i64,
    pub(crate) overlap_seconds: i64,
    pub(crate) keep_previous: bool,
    pub(crate) start_time: String,
    pub(crate) step_time: String,
    pub(crate) next_step_time: String,
    /// Whether the next step is due and waits for a call that is answered with the new key.
    pub(crate) waits: bool,
    /// Why it was set back.
    pub(crate) because: String,
    /// As the broker that answers has counted.
    pub(crate) candidate: CountsView,
    pub(crate) previous: CountsView,
}

#[derive(Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct CountsView {
    pub(crate) leases: u64,
    pub(crate) refused: u64,
    pub(crate) no_quota: u64,
    pub(crate) not_allowed: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct TestView {
    pub(crate) verdict: String,
    pub(crate) test_time: String,
    /// The version that was tested.
    pub(crate) version: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct KeyView {
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) providers: Vec<String>,
    pub(crate) models: Vec<String>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) networks: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner: String,
    pub(crate) group: String,
    /// 0 is no limit, here and in the next two.
    pub(crate) requests_per_minute: u64,
    pub(crate) tokens_per_minute: u64,
    pub(crate) concurrent: u64,
    pub(crate) state: &'static str,
    pub(crate) expire_time: String,
    /// Until when values from before rotations are accepted.
    pub(crate) previous_expire_times: Vec<String>,
    pub(crate) create_time: String,
    pub(crate) update_time: String,
    pub(crate) etag: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct LeaseView {
    pub(crate) lease_hash: String,
    pub(crate) credential: String,
    pub(crate) credential_version: u64,
    pub(crate) holder: String,
    pub(crate) virtual_key: String,
    pub(crate) grant_time: String,
    pub(crate) expire_time: String,
    pub(crate) log_index: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct RecordView {
    pub(crate) index: u64,
    pub(crate) time: String,
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) actor: String,
    pub(crate) method: String,
    pub(crate) tenant: String,
    pub(crate) credential: String,
    pub(crate) credential_uid: String,
    pub(crate) credential_version: u64,
    /// How often the credential, tenant or virtual key had changed.
    pub(crate) revision: u64,
    pub(crate) provider: String,
    pub(crate) source: &'static str,
    pub(crate) virtual_key: String,
    pub(crate) lease_hash: String,
    pub(crate) lease_expire_time: String,
    pub(crate) lease_renewals: u32,
    pub(crate) certificate_sha256: String,
    pub(crate) session_key_sha256: String,
    pub(crate) trace_id: String,
    pub(crate) request_id: String,
    pub(crate) kek_id: String,
    pub(crate) kek_version: u32,
    pub(crate) config_sha256: String,
    pub(crate) broker: String,
    /// Whom the record is about, where that is not who did it.
    pub(crate) subject: String,
    pub(crate) policy_sha256: String,
    pub(crate) tree_size: u64,
    pub(crate) tree_root: String,
    /// How many events it stands for, where it stands for more than it names.
    pub(crate) count: u32,
    /// Why a lease is of this credential, or a rotation was set back.
    pub(crate) because: String,
    /// Of 100 leases, so many are of `credential_version`.
    pub(crate) rotation_percent: u32,
    /// The version whose secret was deleted.
    pub(crate) deleted_version: u64,
    /// What a test of the credential has shown.
    pub(crate) verdict: String,
    pub(crate) prices_sha256: String,
    /// Whether a change of a virtual key has ended its leases.
    pub(crate) ends_leases: bool,
    /// Until when an older value of a virtual key is accepted.
    pub(crate) previous_expire_time: String,
    pub(crate) budget: String,
    pub(crate) allowance_id: String,
    /// What an allowance's calls came to.
    pub(crate) spent: String,
    /// What was granted, or counts as spent although nobody knows.
    pub(crate) amounts: String,
    pub(crate) percent: u32,
    pub(crate) unit: &'static str,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        let on_missing = match tenant.on_missing() {
            tenant::OnMissing::Unspecified | tenant::OnMissing::Refuse => "refuse",
            tenant::OnMissing::Managed => "managed",
            tenant::OnMissing::Keyless => "keyless",
        };
        let keyless = tenant.keyless.iter();
        let fallbacks = tenant.fallbacks.iter();
        let custom = tenant.custom.iter();
        Self {
            on_missing,
            keyless: keyless
                .map(|it| format!("{}={}/{}", it.models, it.provider, it.model))
                .collect(),
            fallbacks: fallbacks.map(|it| format!("{}={}", it.provider, it.to.join(","))).collect(),
            custom: custom.map(|it| format!("{}={}", it.models, it.credential)).collect(),
            suspended: tenant.suspended,
            name: tenant.name,
            display_name: tenant.display_name,
            preferred_provider: tenant.preferred_provider,
            create_time: time(tenant.create_time),
            update_time: time(tenant.update_time),
            etag: tenant.etag,
        }
    }
}

impl From<Credential> for CredentialView {
    fn from(credential: Credential) -> Self {
        let state = match credential.state() {
            credential::State::Unspecified => "unknown",
            credential::State::Enabled => "enabled",
            credential::State::Disabled => "disabled",
        };
        Self {
            state,
            name: credential.name,
            provider: credential.provider,
            kind: credential.kind,
            settings: credential.settings.into_iter().map(|it| (it.name, it.value)).collect(),
            priority: credential.priority,
            base_url: credential.base_url,
            models: credential.models,
            last_four: credential.last_four,
            current_version: credential.current_version,
            rotation: credential.rotation.map(RotationView::from),
            test: credential.test.map(TestView::from),
            warnings: credential.warnings,
            create_time: time(credential.create_time),
            update_time: time(credential.update_time),
            etag: credential.etag,
        }
    }
}

impl From<Rotation> for RotationView {
    fn from(rotation: Rotation) -> Self {
        let state = match rotation.state() {
            rotation::State::Unspecified => "unknown",
            rotation::State::Canary => "canary",
            rotation::State::Overlap => "overlap",
            rotation::State::Done => "done",
            rotation::State::RolledBack => "rolled_back",
        };
        let plan = rotation.plan.unwrap_or_default();
        let seconds = |time: Option<prost_types::Duration>| time.map_or(0, |time| time.seconds);
        Self {
            state,
            operation_id: rotation.operation_id,
            percent: rotation.percent,
            candidate_version: rotation.candidate_version,
            previous_version: rotation.previous_version,
            canary_percent: plan.canary_percent,
            hold_seconds: seconds(plan.hold),
            overlap_seconds: seconds(plan.overlap),
            keep_previous: plan.keep_previous,
            start_time: time(rotation.start_time),
            step_time: time(rotation.step_time),
            next_step_time: time(rotation.next_step_time),
            waits: rotation.waits,
            because: rotation.because,
            candidate: rotation.candidate.map(CountsView::from).unwrap_or_default(),
            previous: rotation.previous.map(CountsView::from).unwrap_or_default(),
        }
    }
}

impl CredentialView {
    /// What the last test has shown, and when, in one line.
    pub(crate) fn tested(&self) -> String {
        let Some(test) = &self.test else { return String::new() };
        let old = if test.version == self.current_version {
            String::new()
        } else {
            format!(" (version {})", test.version)
        };
        format!("{} {}{old}", test.verdict, test.test_time)
    }
}

impl From<CredentialTest> for TestView {
    fn from(test: CredentialTest) -> Self {
        Self {
            verdict: verdict_word(test.verdict()),
            test_time: time(test.test_time),
            version: test.version,
        }
    }
}

impl From<VersionCounts> for CountsView {
    fn from(counts: VersionCounts) -> Self {
        let VersionCounts { leases, refused, no_quota, not_allowed } = counts;
        Self { leases, refused, no_quota, not_allowed }
    }
}

/// A verdict as programs see it.
pub(crate) fn verdict_word(verdict: Verdict) -> String {
    verdict.as_str_name().to_lowercase()
}

impl From<VirtualKey> for KeyView {
    fn from(key: VirtualKey) -> Self {
        let state = match key.state() {
            virtual_key::State::Unspecified => "unknown",
            virtual_key::State::Active => "active",
            virtual_key::State::Revoked => "revoked",
            virtual_key::State::Blocked => "blocked",
        };
        Self {
            state,
            name: key.name,
            display_name: key.display_name,
            providers: key.providers,
            models: key.models,
            endpoints: key.endpoints,
            networks: key.networks,
            labels: key.labels.into_iter().collect(),
            owner: key.owner,
            group: key.group,
            requests_per_minute: key.requests_per_minute,
            tokens_per_minute: key.tokens_per_minute,
            concurrent: key.concurrent,
            previous_expire_times: key
                .previous_expire_times
                .into_iter()
                .map(|it| time(Some(it)))
                .collect(),
            expire_time: time(key.expire_time),
            create_time: time(key.create_time),
            update_time: time(key.update_time),
            etag: key.etag,
        }
    }
}

impl From<LeaseInfo> for LeaseView {
    fn from(lease: LeaseInfo) -> Self {
        Self {
            lease_hash: hex::encode(&lease.lease_hash),
            credential: lease.credential,
            credential_version: lease.credential_version,
            holder: lease.holder,
            virtual_key: lease.virtual_key,
            grant_time: time(lease.grant_time),
            expire_time: time(lease.expire_time),
            log_index: lease.log_index,
        }
    }
}

impl From<Record> for RecordView {
    fn from(record: Record) -> Self {
        let reason = match record.reason {
            0 => "",
            _ => record.reason().as_str_name(),
        };
        let source = source(&record);
        let tested = record.verdict() != Verdict::Unspecified;
        let verdict = if tested { verdict_word(record.verdict()) } else { String::new() };
        let unit = amounts::unit_name(record.unit());
        let nobody = audit::Names::default();
        let (actor, subject) = (nobody.show_actor(&record), nobody.show_subject(&record));
        Self {
            index: record.index,
            time: time(record.time),
            kind: record.kind().as_str_name(),
            reason,
            source,
            actor,
            method: record.method,
            tenant: record.tenant,
            credential: record.credential,
            credential_uid: hex::encode(&record.credential_uid),
            credential_version: record.credential_version,
            revision: record.revision,
            provider: record.provider,
            virtual_key: record.virtual_key,
            lease_hash: hex::encode(&record.lease_hash),
            lease_expire_time: time(record.lease_expire_time),
            lease_renewals: record.lease_renewals,
            certificate_sha256: hex::encode(&record.certificate_sha256),
            session_key_sha256: hex::encode(&record.session_key_sha256),
            trace_id: hex::encode(&record.trace_id),
            request_id: record.request_id,
            kek_id: hex::encode(&record.kek_id),
            kek_version: record.kek_version,
            config_sha256: hex::encode(&record.config_sha256),
            broker: hex::encode(&record.broker),
            subject,
            policy_sha256: hex::encode(&record.policy_sha256),
            tree_size: record.tree_size,
            tree_root: hex::encode(&record.tree_root),
            count: record.count,
            verdict,
            because: record.because,
            rotation_percent: record.rotation_percent,
            deleted_version: record.deleted_version,
            prices_sha256: hex::encode(&record.prices_sha256),
            ends_leases: record.ends_leases,
            previous_expire_time: time(record.previous_expire_time),
            budget: record.budget,
            allowance_id: hex::encode(&record.allowance_id),
            spent: record.spent.map(amounts::spent).unwrap_or_default(),
            amounts: record.amounts.map(amounts::amounts).unwrap_or_default(),
            percent: record.percent,
            unit,
        }
    }
}

/// Whose key it was.
pub(crate) fn source(record: &Record) -> &'static str {
    source_name(record.source())
}

/// The word for whose key it is.
pub(crate) fn source_name(source: Source) -> &'static str {
    match source {
        Source::Unspecified => "",
        Source::Byok => "byok",
        Source::Managed => "managed",
        Source::Custom => "custom",
        Source::Keyless => "keyless",
    }
}

/// The name of an enum's value in the contract, as people write it: `lease-granted`.
pub(crate) fn enum_name(text: &str) -> String {
    text.replace('-', "_").to_ascii_uppercase()
}

/// RFC 3339; empty for a time that is absent.
pub(crate) fn time(time: Option<Timestamp>) -> String {
    time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let moment = Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        assert_eq!(time(Some(moment)), "2023-11-14T22:13:20.005Z");
        assert_eq!(time(None), "");
        assert_eq!(time(Some(Timestamp { seconds: i64::MAX, nanos: 0 })), "");
    }
}
