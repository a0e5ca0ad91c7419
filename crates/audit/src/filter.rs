use domain::Timestamp;
use strongroom_proto::v1;
use thiserror::Error;

use crate::{Hash, Kind, Names, Reason, Record, timestamp};

/// Which records somebody asks for, read once and then held against many.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordFilter {
    asked: v1::RecordFilter,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    /// What records hold of the actor that is asked for, if that is a person.
    person: Option<Hash>,
}

/// A filter that lets nothing through because of how it is written. The value is never repeated.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the filter's `{0}` has a value that no record has")]
pub struct InvalidFilter(pub &'static str);

impl RecordFilter {
    /// Reads a filter. A value that no record can have is refused: it is a mistake, and an empty
    /// answer would pass for "it never happened".
    pub fn new(asked: v1::RecordFilter) -> Result<Self, InvalidFilter> {
        if !matches!(asked.credential_uid.len(), 0 | 16) {
            return Err(InvalidFilter("credential_uid"));
        }
        if !matches!(asked.lease_hash.len(), 0 | 32) {
            return Err(InvalidFilter("lease_hash"));
        }
        let unknown = |kind: &i32| Kind::try_from(*kind).map_or(true, |it| it == Kind::Unspecified);
        if asked.kinds.iter().any(unknown) {
            return Err(InvalidFilter("kinds"));
        }
        let unknown =
            |reason: &i32| Reason::try_from(*reason).map_or(true, |it| it == Reason::Unspecified);
        if asked.reasons.iter().any(unknown) {
            return Err(InvalidFilter("reasons"));
        }
        let time = |time: Option<&prost_types::Timestamp>, name| {
            time.map(|time| moment(time).ok_or(InvalidFilter(name))).transpose()
        };
        let start = time(asked.start_time.as_ref(), "start_time")?;
        let end = time(asked.end_time.as_ref(), "end_time")?;
        Ok(Self { asked, start, end, person: None })
    }

    /// The message that it was read from.
    pub fn message(&self) -> &v1::RecordFilter {
        &self.asked
    }

    /// Finds the actor by the commitment to the name too.
    #[must_use]
    pub fn or_by(self, person: Option<Hash>) -> Self {
        Self { person, ..self }
    }

    /// The actor that is asked for; empty for any.
    pub fn actor(&self) -> &str {
        &self.asked.actor
    }

    /// The time before which no record is asked for.
    pub fn start(&self) -> Option<Timestamp> {
        self.start
    }

    /// The time from which on no record is asked for.
    pub fn end(&self) -> Option<Timestamp> {
        self.end
    }

    /// The one lease that is asked for, by its hash.
    pub fn lease_hash(&self) -> Option<&[u8]> {
        (!self.asked.lease_hash.is_empty()).then_some(self.asked.lease_hash.as_ref())
    }

    /// Whether it lets every record through.
    pub fn is_open(&self) -> bool {
        self.asked == v1::RecordFilter::default()
    }

    /// Whether a record is asked for.
    pub fn matches(&self, record: &Record) -> bool {
        let asked = &self.asked;
        let text = |asked: &str, found: &str| asked.is_empty() || asked == found;
        let time = record.time.as_ref().and_then(timestamp);
        text(&asked.credential, &record.credential)
            && text(&asked.virtual_key, &record.virtual_key)
            && text(&asked.provider, &record.provider)
            && (asked.credential_uid.is_empty() || asked.credential_uid == record.credential_uid)
            && (asked.lease_hash.is_empty() || asked.lease_hash == record.lease_hash)
            && (asked.kinds.is_empty() || asked.kinds.contains(&record.kind))
            && (asked.reasons.is_empty() || asked.reasons.contains(&record.reason))
            && self.start.is_none_or(|start| time >= Some(start))
            && self.end.is_none_or(|end| time < Some(end))
            && (asked.actor.is_empty()
                || self.person.is_some_and(|it| record.actor_commitment == it.as_slice())
                || asked.actor == Names::default().show_actor(record))
    }
}

/// A moment, to the next whole millisecond: records have no finer times.
fn moment(time: &prost_types::Timestamp) -> Option<Timestamp> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let millis = time.seconds.checked_mul(1000)?;
    millis.checked_add(i64::from(nanos.div_ceil(1_000_000))).map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use crate::proto_time;

    use super::*;

    fn record() -> Record {
        Record {
            time: Some(proto_time(Timestamp::from_millis(5_000))),
            kind: Kind::LeaseGranted.into(),
            actor: "spiffe://a.b/c".into(),
            credential: "tenants/acme/credentials/openai".into(),
            credential_uid: vec![1; 16].into(),
            virtual_key: "aaaaaaaaaaaaaaaa".into(),
            provider: "openai".into(),
            lease_hash: vec![2; 32].into(),
            ..Record::default()
        }
    }

    #[track_caller]
    fn check(asked: &v1::RecordFilter, expected: bool) {
        let filter = RecordFilter::new(asked.clone()).unwrap();
        assert_eq!(filter.matches(&record()), expected, "{asked:?}");
    }

    fn at(millis: i64) -> prost_types::Timestamp {
        proto_time(Timestamp::from_millis(millis))
    }

    #[test]
    fn a_record_passes_if_all_that_is_set_applies() {
        type Asked = v1::RecordFilter;
        check(&Asked::default(), true);
        check(&Asked { actor: "spiffe://a.b/c".into(), ..Asked::default() }, true);
        check(&Asked { actor: "spiffe://a.b".into(), ..Asked::default() }, false);
        check(&Asked { provider: "openai".into(), ..Asked::default() }, true);
        check(&Asked { provider: "anthropic".into(), ..Asked::default() }, false);
        check(&Asked { lease_hash: vec![2; 32].into(), ..Asked::default() }, true);
        check(&Asked { credential_uid: vec![2; 16].into(), ..Asked::default() }, false);
        let kinds = vec![Kind::Refused.into(), Kind::LeaseGranted.into()];
        check(&Asked { kinds: kinds.clone(), ..Asked::default() }, true);
        check(&Asked { kinds, virtual_key: "b".into(), ..Asked::default() }, false);
        check(&Asked { reasons: vec![Reason::NotPermitted.into()], ..Asked::default() }, false);
        check(
            &Asked { start_time: Some(at(5_000)), end_time: Some(at(5_001)), ..Asked::default() },
            true,
        );
        check(&Asked { start_time: Some(at(5_001)), ..Asked::default() }, false);
        check(&Asked { end_time: Some(at(5_000)), ..Asked::default() }, false);
    }

    #[test]
    fn a_person_is_found_by_what_is_disclosed_or_by_the_commitment() {
        let commitment = vec![0xab; 32];
        let person =
            Record { actor: String::new(), actor_commitment: commitment.into(), ..record() };
        let asked = |actor: &str| {
            let actor = actor.to_owned();
            RecordFilter::new(v1::RecordFilter { actor, ..Default::default() }).unwrap()
        };
        let admin = "spiffe://a.b/admin/ann";
        assert!(asked(admin).or_by(Some([0xab; 32])).matches(&person));
        assert!(!asked(admin).or_by(Some([0xac; 32])).matches(&person));
        assert!(!asked(admin).matches(&person));
        assert!(asked(&format!("sha256:{}", "ab".repeat(32))).matches(&person));
    }

    #[test]
    fn a_filter_that_no_record_can_pass_is_a_mistake() {
        type Asked = v1::RecordFilter;
        let refused = |asked| RecordFilter::new(asked).unwrap_err().0;
        assert_eq!(refused(Asked { kinds: vec![999], ..Asked::default() }), "kinds");
        assert_eq!(refused(Asked { reasons: vec![0], ..Asked::default() }), "reasons");
        assert_eq!(refused(Asked { lease_hash: vec![1].into(), ..Asked::default() }), "lease_hash");
        let uid = vec![1; 15].into();
        assert_eq!(refused(Asked { credential_uid: uid, ..Asked::default() }), "credential_uid");
        let never = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        assert_eq!(refused(Asked { end_time: never, ..Asked::default() }), "end_time");
    }
}
