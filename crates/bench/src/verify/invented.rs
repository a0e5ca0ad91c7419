use std::collections::VecDeque;

use audit::{Kind, Reason, Record, RecordDraft, leaf_hash, proto_time};
use domain::Timestamp;

/// A log as a busy broker writes it: its start, a session, credentials of many tenants, then leases
/// of them by virtual key, of which some are renewed, some released and some asked for in vain, and
/// now and then a rotation.
#[derive(Debug, Default)]
pub(super) struct Invented {
    index: u64,
    /// How often each credential has changed, which is its version and its revision.
    versions: Vec<u64>,
    /// Leases that have not ended, with the number of their credential.
    lent: VecDeque<(u64, usize)>,
}

impl Invented {
    /// The body of the next record.
    pub(super) fn next_body(&mut self) -> anyhow::Result<Vec<u8>> {
        let index = self.index;
        self.index += 1;
        // Some two hundred records a second.
        let time = Timestamp::from_millis(START.saturating_add_unsigned(index * 5));
        let record = self.record(index, time);
        Ok(RecordDraft::new(record)?.seal_at(index, time).body)
    }

    fn record(&mut self, index: u64, time: Timestamp) -> Record {
        if let Some(record) = before(index) {
            return record;
        }
        if self.versions.len() < CREDENTIALS {
            self.versions.push(1);
            return self.change(Kind::CredentialCreated, self.versions.len() - 1);
        }
        let number = usize::try_from(index % 997).unwrap_or_default() % CREDENTIALS;
        if index.is_multiple_of(1009) {
            if let Some(version) = self.versions.get_mut(number) {
                *version += 1;
            }
            return self.change(Kind::CredentialRotated, number);
        }
        match index % 10 {
            0 => refused(),
            1 | 2 => match self.lent.pop_front() {
                Some((lease, number)) => {
                    self.lent.push_back((lease, number));
                    self.lend(Kind::LeaseRenewed, lease, number, time)
                }
                None => refused(),
            },
            3 | 4 => match self.lent.pop_front() {
                Some((lease, number)) => {
                    let released = self.lend(Kind::LeaseReleased, lease, number, time);
                    Record { lease_expire_time: None, ..released }
                }
                None => refused(),
            },
            _ => {
                self.lent.push_back((index, number));
                self.lend(Kind::LeaseGranted, index, number, time)
            }
        }
    }

    fn change(&self, kind: Kind, number: usize) -> Record {
        let version = self.versions.get(number).copied().unwrap_or_default();
        let uid = (number as u128).to_be_bytes();
        Record {
            kind: kind.into(),
            actor: "spiffe://strongroom.local/admin".to_owned(),
            certificate_sha256: vec![1; 32].into(),
            method: "Credentials/RotateCredential".to_owned(),
            tenant: format!("tenant-{number}"),
            credential: format!("tenants/tenant-{number}/credentials/openai"),
            credential_uid: uid.to_vec().into(),
            credential_version: version,
            revision: version,
            provider: "openai".to_owned(),
            trace_id: vec![4; 16].into(),
            broker: vec![6; 16].into(),
            ..Record::default()
        }
    }

    fn lend(&self, kind: Kind, lease: u64, number: usize, time: Timestamp) -> Record {
        // Any hash does, as long as it is another for each lease.
        let lease = leaf_hash(&lease.to_be_bytes());
        let ends = Timestamp::from_millis(time.as_millis() + 300_000);
        Record {
            actor: "spiffe://strongroom.local/inference-proxy".to_owned(),
            session_key_sha256: vec![2; 32].into(),
            method: "Leases/AcquireLease".to_owned(),
            source: 1,
            lease_hash: lease.to_vec().into(),
            lease_expire_time: Some(proto_time(ends)),
            virtual_key: "aaaaaaaaaaaaaaaa".to_owned(),
            kek_id: vec![5; 16].into(),
            kek_version: 1,
            ..self.change(kind, number)
        }
    }
}

/// What stands in a log before the first change and the first lease.
fn before(index: u64) -> Option<Record> {
    let of =
        |kind: Kind| Record { kind: kind.into(), broker: vec![6; 16].into(), ..Record::default() };
    match index {
        0 => Some(of(Kind::BrokerStarted)),
        1 => Some(Record { policy_sha256: vec![8; 32].into(), ..of(Kind::PolicyLoaded) }),
        2 => Some(Record {
            actor: "spiffe://strongroom.local/inference-proxy".to_owned(),
            method: "Leases/OpenSession".to_owned(),
            session_key_sha256: vec![2; 32].into(),
            ..of(Kind::SessionOpened)
        }),
        _ => None,
    }
}

fn refused() -> Record {
    Record {
        kind: Kind::Refused.into(),
        reason: Reason::VirtualKeyRefused.into(),
        actor: "spiffe://strongroom.local/inference-proxy".to_owned(),
        certificate_sha256: vec![1; 32].into(),
        method: "Leases/AcquireLease".to_owned(),
        virtual_key: "bbbbbbbbbbbbbbbb".to_owned(),
        trace_id: vec![4; 16].into(),
        broker: vec![6; 16].into(),
        ..Record::default()
    }
}

const START: i64 = 1_700_000_000_000;
const CREDENTIALS: usize = 200;
