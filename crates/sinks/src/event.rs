use audit::{Entry, InvalidRecord, Kind, Reason, Record, timestamp};
use domain::Timestamp;

/// A record on its way to another system, with the names of people put in as far as they are known.
#[derive(Clone, Debug)]
pub struct Event {
    pub(crate) index: u64,
    pub(crate) time: Timestamp,
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    /// Who did it; empty when it was the broker itself.
    pub(crate) actor: String,
    /// Whom it is about.
    pub(crate) subject: String,
    pub(crate) record: Record,
}

impl Event {
    /// Reads an entry. People stand in records as commitments: `disclose` gives the name behind one,
    /// and where it gives none the commitment itself stands for the person, as `sha256:` and hex
    /// digits.
    pub fn read(
        entry: &Entry,
        disclose: impl Fn(&[u8]) -> Option<String>,
    ) -> Result<Self, InvalidRecord> {
        let record = entry.record()?;
        let name = |text: &str, commitment: &[u8]| {
            if commitment.is_empty() {
                return text.to_owned();
            }
            disclose(commitment).unwrap_or_else(|| format!("sha256:{}", hex::encode(commitment)))
        };
        let time = record.time.as_ref().and_then(timestamp);
        Ok(Self {
            index: entry.index,
            time: time.ok_or(InvalidRecord::Missing("time"))?,
            kind: record.kind(),
            reason: record.reason(),
            actor: name(&record.actor, &record.actor_commitment),
            subject: name(&record.subject, &record.subject_commitment),
            record,
        })
    }

    /// Its place in the log: what receivers tell a repeated event by.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// When it was recorded.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whose it is; empty where it is no tenant's.
    pub fn tenant(&self) -> &str {
        &self.record.tenant
    }

    /// Who did it is a person, and not a workload or the broker.
    pub(crate) fn is_by_a_person(&self) -> bool {
        !self.record.actor_commitment.is_empty()
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.kind == Kind::Refused
    }
}

/// A moment as RFC 3339 has it, in UTC and with three digits of a second.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.as_millis())
        .map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}
