use domain::Timestamp;
use prost::Message as _;
use strongroom_proto::v1::LogEntry;

use crate::{
    Hash, InvalidRecord, Kind, Record, decode_record, leaf_hash, proto_time, record::check,
};

/// A record whose place and time are not known yet. It holds nothing that a record must not.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordDraft {
    record: Record,
    kind: Kind,
}

impl RecordDraft {
    /// Takes a record without index and time. What is not allowed in one is refused, never altered.
    pub fn new(record: Record) -> Result<Self, InvalidRecord> {
        if record.index != 0 {
            return Err(InvalidRecord::Field("index"));
        }
        if record.time.is_some() {
            return Err(InvalidRecord::Field("time"));
        }
        let kind = check(&record)?;
        Ok(Self { record, kind })
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The record as far as it is known.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Gives the record its place and time, and with them its bytes for good.
    pub fn seal_at(self, index: u64, time: Timestamp) -> Entry {
        let record = Record { index, time: Some(proto_time(time)), ..self.record };
        Entry { index, body: record.encode_to_vec() }
    }
}

/// A record as it stands in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its place, from 0.
    pub index: u64,
    /// Exactly the bytes that the tree hashes.
    pub body: Vec<u8>,
}

impl Entry {
    /// Its hash as a leaf of the tree.
    pub fn leaf_hash(&self) -> Hash {
        leaf_hash(&self.body)
    }

    /// Reads the record, as strictly as [`decode_record`].
    pub fn record(&self) -> Result<Record, InvalidRecord> {
        let record = decode_record(&self.body)?;
        if record.index == self.index { Ok(record) } else { Err(InvalidRecord::Field("index")) }
    }
}

impl From<Entry> for LogEntry {
    fn from(entry: Entry) -> Self {
        Self { index: entry.index, body: entry.body.into() }
    }
}
