use std::fmt::Write as _;

use audit::proto_time;
use clap::Args;
use domain::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;
use strongroom_proto::v1::RecordFilter;

use crate::{
    audit_search::{Searched, Seen, Where},
    context::Context,
    failure::Failure,
    loans::{End, Loan, Loans},
    names::Hex,
    output::printable,
    views,
};

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The lease's hash in hex, as lists and records show it.
    lease_hash: Hex,
    #[command(flatten)]
    place: Where,
}

/// One lease's story.
#[derive(Serialize)]
struct Story {
    lease_hash: String,
    steps: Vec<Step>,
    /// How it ended: `released`, `expired`, `live`, or what was revoked.
    ended: &'static str,
    searched: Searched,
    /// Saves the proof that the grant is in the log.
    proof: String,
}

/// Something that happened to the lease.
#[derive(Serialize)]
struct Step {
    what: String,
    time: String,
    /// The record of it; none if it happened by itself.
    index: Option<u64>,
    by: String,
    details: Vec<String>,
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut source = self.place.open(context)?;
        let (mut loans, mut refused) = (Loans::default(), Vec::new());
        let asked =
            RecordFilter { lease_hash: self.lease_hash.0.clone().into(), ..Default::default() };
        let searched = source.search(asked, |seen| {
            if seen.record.kind() == audit::Kind::Refused {
                refused.push(seen);
            } else {
                loans.take(seen);
            }
        });
        let mut searched = searched.await?;
        let span = loans.iter().next().and_then(|(_, loan)| {
            Some((loan.first()?.record.time?, loan.last()?.record.lease_expire_time?))
        });
        if let Some((start, end)) = span {
            let asked = RecordFilter {
                kinds: Loans::REVOCATIONS.iter().map(|kind| (*kind).into()).collect(),
                start_time: Some(start),
                end_time: Some(end),
                ..RecordFilter::default()
            };
            searched = searched.and(source.search(asked, |seen| loans.take(seen)).await?);
        }
        let Some((_, loan)) = loans.iter().next() else {
            return Err(self.place.nothing(searched));
        };
        let end = loans.end(loan, SystemClock.now());
        let people = self.place.is_for_people(context);
        let zone = self.place.zone();
        let time = |time: Option<Timestamp>| match (people, time.map(proto_time)) {
            (true, time) => zone.show(time),
            (false, time) => views::time(time),
        };
        let story = Story::new(&self.lease_hash, loan, &refused, &end, searched, time);
        let rows = story.steps.iter().map(Step::cells).collect();
        self.place.show(context, &story, ((HEADER, rows), human))
    }
}

impl Story {
    fn new(
        hash: &Hex,
        loan: &Loan,
        refused: &[Seen],
        end: &End,
        searched: Searched,
        time: impl Fn(Option<Timestamp>) -> String,
    ) -> Self {
        let step = |what: &str, seen: &Seen, details| Step {
            what: what.to_owned(),
            time: time(seen.time()),
            index: Some(seen.record.index),
            by: seen.actor.clone(),
            details,
        };
        let until = |seen: &Seen| {
            let end = seen.record.lease_expire_time.as_ref().and_then(audit::timestamp);
            format!("until {}", time(end))
        };
        let mut steps: Vec<Step> = Vec::new();
        if let Some(seen) = &loan.granted {
            let mut details = under_what(seen);
            details.push(until(seen));
            steps.push(step("granted", seen, details));
        }
        steps.extend(loan.renewed.iter().map(|seen| step("renewed", seen, vec![until(seen)])));
        for seen in refused {
            let why = seen.record.reason().as_str_name().to_owned();
            steps.push(step("refused", seen, vec![why]));
        }
        steps.sort_by_key(|step| step.index);
        let what = if end.how == "live" { "ends" } else { "ended" };
        steps.push(match &end.by {
            Some(seen) => step(what, seen, vec![words(end.how).to_owned()]),
            None => Step {
                what: what.to_owned(),
                time: time(end.time),
                index: None,
                by: String::new(),
                details: vec![words(end.how).to_owned()],
            },
        });
        let hash = format!("{hash:?}");
        let short = hash.get(..12).unwrap_or(&hash);
        let index = loan.first().map_or(0, |seen| seen.record.index);
        let proof = format!("strongroom audit prove {index} -o lease-{short}.tlog-proof");
        Self { lease_hash: hash, steps, ended: end.how, searched, proof }
    }
}

/// By which key, for whom and by which rules a lease was granted.
fn under_what(seen: &Seen) -> Vec<String> {
    let record = &seen.record;
    let source = views::source(record);
    let mut details = vec![format!(
        "{} version {}, {source}, for {}",
        record.credential, record.credential_version, record.provider
    )];
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            details.push(format!("{name} {value}"));
        }
    };
    say("for tenant", record.tenant.clone());
    say("by virtual key", record.virtual_key.clone());
    say("by the access rules", hex::encode(&record.policy_sha256));
    say("by certificate", hex::encode(&record.certificate_sha256));
    say("to session", hex::encode(&record.session_key_sha256));
    say("request", record.request_id.clone());
    say("trace", hex::encode(&record.trace_id));
    say("from broker", hex::encode(&record.broker));
    details
}

fn words(how: &'static str) -> &'static str {
    match how {
        "released" => "it was released",
        "lease_revoked" => "the lease was revoked",
        "virtual_key_revoked" => "its virtual key was revoked",
        "credential_rotated" => "its credential was rotated",
        "credential_disabled" => "its credential was disabled",
        "credential_deleted" => "its credential was deleted",
        "tenant_updated" => "its tenant's policy was changed",
        "tenant_suspended" => "its tenant was suspended",
        "session_revoked" => "its session was revoked",
        "identity_blocked" => "its holder was blocked",
        "expired" => "its time was up",
        "live" => "it has not ended yet",
        other => other,
    }
}

const HEADER: [&str; 5] = ["what", "time", "index", "by", "details"];

impl Step {
    fn cells(&self) -> [String; 5] {
        [
            self.what.clone(),
            self.time.clone(),
            self.index.map(|index| index.to_string()).unwrap_or_default(),
            self.by.clone(),
            self.details.join("; "),
        ]
    }
}

fn human(story: &Story) -> String {
    let mut text = format!("lease {}\n", story.lease_hash);
    for step in &story.steps {
        let Step { what, time, index, by, details } = step;
        let index = index.map(|index| format!("  entry {index}")).unwrap_or_default();
        let by = match (what.as_str(), by.as_str()) {
            (_, "") => String::new(),
            ("granted", to) => format!("  to {to}"),
            (_, by) => format!("  by {by}"),
        };
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{what:8} {time}{index}{}", printable(&by));
        for detail in details {
            let _ = writeln!(text, "         {}", printable(detail));
        }
    }
    let _ = writeln!(text, "proof    {}", story.proof);
    text
}
