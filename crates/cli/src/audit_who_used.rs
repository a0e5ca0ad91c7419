use std::{collections::BTreeSet, fmt::Write as _};

use audit::{Kind, LONGEST_LEASE, proto_time};
use clap::Args;
use domain::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;
use strongroom_proto::v1::RecordFilter;

use crate::{
    audit_search::{Period, Searched, Seen, Source, Where},
    context::Context,
    failure::Failure,
    loans::{End, Loan, Loans},
    moment::Zone,
    names::CredentialArg,
    output::table,
    views,
};

#[derive(Args, Debug)]
pub(crate) struct WhoUsed {
    /// The credential, such as `acme/openai`.
    credential: CredentialArg,
    #[command(flatten)]
    place: Where,
    /// Shows the latest so many leases. Absent: 50 for people, all with `--json` and `--csv`.
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Answer {
    credential: String,
    summary: Summary,
    searched: Searched,
    leases: Vec<Use>,
    refusals: Vec<views::RecordView>,
}

#[derive(Serialize)]
struct Summary {
    workloads: usize,
    leases: usize,
    refused: usize,
    last_time: String,
}

/// One lease of the credential.
#[derive(Serialize)]
struct Use {
    who: String,
    tenant: String,
    virtual_key: String,
    version: u64,
    source: &'static str,
    /// When it was granted; empty if that is further back than was searched.
    from: String,
    to: String,
    ended: &'static str,
    ended_by: String,
    ended_at_index: Option<u64>,
    granted_at_index: Option<u64>,
    renewals: usize,
    request_id: String,
    trace_id: String,
    broker: String,
    lease_hash: String,
}

/// From the reading of a broker's clock to the database's.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(10);

impl WhoUsed {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut source = self.place.open(context)?;
        let (period, now) = (self.place.period(), SystemClock.now());
        let credential = self.credential.0.to_string();
        let (loans, mut refused, searched) = collect(&mut source, &credential, period).await?;
        refused.retain(|seen| within(period, seen.time(), seen.time()));
        let mut uses: Vec<(&Loan, End)> = loans
            .iter()
            .filter(|(_, loan)| loan.first().is_some_and(|it| it.record.credential == credential))
            .map(|(_, loan)| (loan, loans.end(loan, now)))
            .filter(|(loan, end)| within(period, loan.first().and_then(Seen::time), end.time))
            .collect();
        uses.sort_by_key(|(loan, _)| loan.first().map(|seen| seen.record.index));
        if uses.is_empty() && refused.is_empty() {
            return Err(self.place.nothing(searched));
        }
        let summary = Summary::of(&uses, refused.len());
        let people = self.place.is_for_people(context);
        let limit = self.limit.or(people.then_some(50)).unwrap_or(usize::MAX);
        let hidden = uses.len().saturating_sub(limit);
        let zone = self.place.zone();
        let time = |time: Option<Timestamp>| match (people, time.map(proto_time)) {
            (true, time) => zone.show(time),
            (false, time) => views::time(time),
        };
        let leases = uses.iter().skip(hidden).map(|(loan, end)| Use::new(loan, end, time));
        let answer = Answer {
            summary,
            searched,
            leases: leases.collect(),
            refusals: refused.into_iter().map(Seen::view).collect(),
            credential,
        };
        let rows = answer.leases.iter().map(Use::cells).collect();
        self.place.show(context, &answer, ((HEADER, rows), |it| human(it, hidden, &zone)))
    }
}

/// Reads what there is about the credential's leases: first its own records, then what is needed to
/// tell how those leases began and ended.
async fn collect(
    source: &mut Source,
    credential: &str,
    period: Period,
) -> Result<(Loans, Vec<Seen>, Searched), Failure> {
    let (mut loans, mut refused) = (Loans::default(), Vec::new());
    // A lease that was granted before the time may have been used in it. An export is read through
    // in any case.
    let bound = |time: Option<Timestamp>| time.filter(|_| !source.is_export()).map(proto_time);
    let start = period.since.map(|since| {
        let reach = i64::try_from((LONGEST_LEASE + MARGIN).as_millis()).unwrap_or(0);
        Timestamp::from_millis(since.as_millis().saturating_sub(reach))
    });
    let end = period.until.map(|until| until + LONGEST_LEASE + MARGIN);
    let (start_time, end_time) = (bound(start), bound(end));
    let kinds = Loans::LEASE.iter().chain([&Kind::Refused]).map(|kind| (*kind).into()).collect();
    let (credential, asked_from) = (credential.to_owned(), start_time);
    let asked = RecordFilter { credential, kinds, start_time, end_time, ..Default::default() };
    let searched = source.search(asked, |seen| {
        if seen.record.kind() == Kind::Refused {
            refused.push(seen);
        } else {
            loans.take(seen);
        }
    });
    let mut searched = searched.await?;
    if !source.is_export() {
        complete(source, &mut loans, end).await?;
    }
    // Revocations that may have ended one of these leases.
    let last = loans
        .iter()
        .filter_map(|(_, loan)| loan.last()?.record.lease_expire_time)
        .max_by(|one, other| (one.seconds, one.nanos).cmp(&(other.seconds, other.nanos)));
    if let Some(end_time) = last {
        let kinds = Loans::REVOCATIONS.iter().map(|kind| (*kind).into()).collect();
        let end_time = Some(end_time);
        let asked = RecordFilter { kinds, start_time: asked_from, end_time, ..Default::default() };
        searched = searched.and(source.search(asked, |seen| loans.take(seen)).await?);
    }
    Ok((loans, refused, searched))
}

/// Looks up the leases that began before the search or go on after it, each by its hash.
async fn complete(
    source: &mut Source,
    loans: &mut Loans,
    end: Option<Timestamp>,
) -> Result<(), Failure> {
    let open: Vec<Vec<u8>> = loans
        .iter()
        .filter(|(_, loan)| {
            let expiry = loan.last().and_then(|seen| seen.record.lease_expire_time.as_ref());
            loan.granted.is_none() || end.is_some() && expiry.and_then(audit::timestamp) >= end
        })
        .map(|(hash, _)| hash.to_vec())
        .collect();
    for hash in open {
        let asked = RecordFilter { lease_hash: hash.into(), ..Default::default() };
        source.search(asked, |seen| loans.take(seen)).await?;
    }
    Ok(())
}

/// Whether what lasted from the one time to the other touches the period.
fn within(period: Period, from: Option<Timestamp>, to: Option<Timestamp>) -> bool {
    period.until.is_none_or(|until| from < Some(until))
        && period.since.is_none_or(|since| to >= Some(since))
}

impl Summary {
    fn of(uses: &[(&Loan, End)], refused: usize) -> Self {
        let actors = uses.iter().filter_map(|(loan, _)| Some(loan.first()?.actor.as_str()));
        let last = uses.iter().filter_map(|(loan, _)| loan.last()?.time()).max();
        Self {
            workloads: actors.collect::<BTreeSet<_>>().len(),
            leases: uses.len(),
            refused,
            last_time: views::time(last.map(proto_time)),
        }
    }
}

impl Use {
    fn new(loan: &Loan, end: &End, time: impl Fn(Option<Timestamp>) -> String) -> Self {
        let first = loan.first();
        let text = |read: fn(&audit::Record) -> String| {
            first.map(|seen| read(&seen.record)).unwrap_or_default()
        };
        Self {
            who: first.map(|seen| seen.actor.clone()).unwrap_or_default(),
            tenant: text(|record| record.tenant.clone()),
            virtual_key: text(|record| record.virtual_key.clone()),
            version: loan.last().map_or(0, |seen| seen.record.credential_version),
            source: first.map_or("", |seen| views::source(&seen.record)),
            from: time(loan.granted.as_ref().and_then(Seen::time)),
            to: time(end.time),
            ended: end.how,
            ended_by: end.by.as_ref().map(|seen| seen.actor.clone()).unwrap_or_default(),
            ended_at_index: end.by.as_ref().map(|seen| seen.record.index),
            granted_at_index: loan.granted.as_ref().map(|seen| seen.record.index),
            renewals: loan.renewed.len(),
            request_id: text(|record| record.request_id.clone()),
            trace_id: text(|record| hex::encode(&record.trace_id)),
            broker: text(|record| hex::encode(&record.broker)),
            lease_hash: text(|record| hex::encode(&record.lease_hash)),
        }
    }

    fn cells(&self) -> [String; 16] {
        let index = |index: Option<u64>| index.map(|index| index.to_string()).unwrap_or_default();
        [
            self.who.clone(),
            self.tenant.clone(),
            self.virtual_key.clone(),
            self.version.to_string(),
            self.source.to_owned(),
            self.from.clone(),
            self.to.clone(),
            self.ended.to_owned(),
            self.ended_by.clone(),
            index(self.ended_at_index),
            index(self.granted_at_index),
            self.renewals.to_string(),
            self.request_id.clone(),
            self.trace_id.clone(),
            self.broker.clone(),
            self.lease_hash.clone(),
        ]
    }
}

const HEADER: [&str; 16] = [
    "who",
    "tenant",
    "virtual_key",
    "version",
    "source",
    "from",
    "to",
    "ended",
    "ended_by",
    "ended_at_index",
    "granted_at_index",
    "renewals",
    "request_id",
    "trace_id",
    "broker",
    "lease_hash",
];

fn human(answer: &Answer, hidden: usize, zone: &Zone) -> String {
    let row = |it: &Use| {
        let by = match it.ended_by.as_str() {
            "" => String::new(),
            by if by == it.who => String::new(),
            by => format!(" by {by}"),
        };
        [
            it.who.clone(),
            if it.virtual_key.is_empty() { "-".to_owned() } else { it.virtual_key.clone() },
            it.version.to_string(),
            it.from.clone(),
            it.to.clone(),
            format!("{}{by}", it.ended),
            it.source.to_owned(),
            if it.request_id.is_empty() { it.trace_id.clone() } else { it.request_id.clone() },
            it.broker.get(..8).unwrap_or_default().to_owned(),
            it.lease_hash.clone(),
        ]
    };
    let header =
        ["WHO", "KEY", "VERSION", "FROM", "TO", "ENDED", "SOURCE", "REQUEST", "BROKER", "LEASE"];
    let mut text = String::new();
    if hidden > 0 {
        text = format!("({hidden} earlier leases are not shown: --limit)\n");
    }
    if !answer.leases.is_empty() {
        text.push_str(&table(header, answer.leases.iter().map(row).collect()));
    }
    let Summary { workloads, leases, refused, last_time } = &answer.summary;
    let last = last_time.parse::<jiff::Timestamp>().ok().map(|time| prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    });
    let last = last.map(|time| format!(", last at {}", zone.show(Some(time)))).unwrap_or_default();
    let (workloads, leases) = (count(*workloads, "workload"), count(*leases, "lease"));
    let refused = count(*refused, "call");
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{workloads}, {leases}{last}; {refused} refused");
    if answer.searched.first_index > 0 {
        let first = answer.searched.first_index;
        let _ = writeln!(text, "entries before {first} were pruned and are not searched");
    }
    text
}

pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
