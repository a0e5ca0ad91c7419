use std::collections::BTreeMap;

use audit::{Kind, Reason};
use clap::Args;
use domain::SpiffeId;
use serde::Serialize;
use strongroom_proto::v1::RecordFilter;

use crate::{
    audit_search::{Searched, Seen, Where},
    audit_tail,
    audit_who_used::count,
    context::Context,
    failure::Failure,
    moment::Zone,
    names::{CredentialArg, Hex, KeyArg},
    views::{self, RecordView},
};

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only records that name this credential, such as `acme/openai`.
    #[arg(long)]
    credential: Option<CredentialArg>,
    /// Only records that name this virtual key, such as `acme/{id}`.
    #[arg(long, value_name = "KEY")]
    virtual_key: Option<KeyArg>,
    /// Only what this identity did: a SPIFFE ID, or `sha256:…` as records show a person.
    #[arg(long)]
    actor: Option<String>,
    /// Only records that name this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Only this lease's records, by its hash in hex.
    #[arg(long, value_name = "HASH")]
    lease: Option<Hex>,
    /// Only this kind, such as `lease-granted`. Repeatable.
    #[arg(long, value_parser = kind)]
    kind: Vec<Kind>,
    /// Only this reason, such as `not-permitted`. Repeatable.
    #[arg(long, value_parser = reason)]
    reason: Vec<Reason>,
    #[command(flatten)]
    place: Where,
    /// Shows the latest so many records. Absent: 100 for people, all with `--json` and `--csv`.
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct WhatDid {
    /// The SPIFFE ID, or `sha256:…` as records show a person.
    identity: String,
    #[command(flatten)]
    place: Where,
    /// Shows the latest so many records. Absent: 100 for people, all with `--json` and `--csv`.
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    searched: Searched,
    records: Vec<RecordView>,
}

#[derive(Serialize)]
struct Did {
    identity: String,
    /// How often it did what, in all that was searched.
    summary: BTreeMap<String, usize>,
    searched: Searched,
    records: Vec<RecordView>,
}

/// What people are shown without asking for more.
const FOR_PEOPLE: usize = 100;

impl List {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut source = self.place.open(context)?;
        let period = self.place.period();
        let text = |text: Option<String>| text.unwrap_or_default();
        let asked = RecordFilter {
            credential: text(self.credential.map(|name| name.0.to_string())),
            virtual_key: text(self.virtual_key.map(|name| name.0.id.to_string())),
            actor: text(self.actor),
            provider: text(self.provider),
            lease_hash: self.lease.map(|hash| hash.0).unwrap_or_default().into(),
            kinds: self.kind.into_iter().map(Into::into).collect(),
            reasons: self.reason.into_iter().map(Into::into).collect(),
            start_time: period.since.map(audit::proto_time),
            end_time: period.until.map(audit::proto_time),
            ..RecordFilter::default()
        };
        let people = self.place.is_for_people(context);
        let limit = self.limit.or(people.then_some(FOR_PEOPLE));
        let (latest, searched) = source.latest(asked, limit).await?;
        if latest.is_empty() {
            return Err(self.place.nothing(searched));
        }
        let zone = people.then(|| self.place.zone());
        let records = latest.into_iter().map(|seen| view(seen, zone.as_ref())).collect();
        let listed = Listed { searched, records };
        let rows = listed.records.iter().map(cells).collect();
        self.place.show(context, &listed, ((HEADER, rows), |it| human(&it.records)))
    }
}

impl WhatDid {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.identity.parse::<SpiffeId>().is_err() && !self.identity.starts_with("sha256:") {
            return Err(Failure::Usage("an identity is a SPIFFE ID: `spiffe://domain/path`"));
        }
        let mut source = self.place.open(context)?;
        let period = self.place.period();
        let asked = RecordFilter {
            actor: self.identity.clone(),
            start_time: period.since.map(audit::proto_time),
            end_time: period.until.map(audit::proto_time),
            ..RecordFilter::default()
        };
        let people = self.place.is_for_people(context);
        let limit = self.limit.or(people.then_some(FOR_PEOPLE)).unwrap_or(usize::MAX);
        let (mut summary, mut latest) = (BTreeMap::new(), std::collections::VecDeque::new());
        let searched = source.search(asked, |seen| {
            let what = match seen.record.reason {
                0 => seen.record.kind().as_str_name().to_owned(),
                _ => format!("REFUSED {}", seen.record.reason().as_str_name()),
            };
            *summary.entry(what).or_insert(0) += 1;
            latest.push_back(seen);
            if latest.len() > limit {
                latest.pop_front();
            }
        });
        let searched = searched.await?;
        if latest.is_empty() {
            return Err(self.place.nothing(searched));
        }
        let zone = people.then(|| self.place.zone());
        let records: Vec<_> = latest.into_iter().map(|seen| view(seen, zone.as_ref())).collect();
        let did = Did { identity: self.identity, summary, searched, records };
        let rows = did.records.iter().map(cells).collect();
        self.place.show(
            context,
            &did,
            ((HEADER, rows), |it| {
                let counts = it.summary.iter().map(|(what, times)| format!("{times} {what}"));
                let counts: Vec<String> = counts.collect();
                let all = count(it.summary.values().sum(), "record");
                format!("{}{all}: {}\n", human(&it.records), counts.join(", "))
            }),
        )
    }
}

fn view(seen: Seen, zone: Option<&Zone>) -> RecordView {
    let time = seen.record.time;
    let view = seen.view();
    match zone {
        Some(zone) => RecordView { time: zone.show(time), ..view },
        None => view,
    }
}

fn human(records: &[RecordView]) -> String {
    let mut text = String::new();
    for record in records {
        text.push_str(&audit_tail::human(record));
        text.push('\n');
    }
    text
}

const HEADER: [&str; 49] = [
    "index",
    "time",
    "kind",
    "reason",
    "actor",
    "method",
    "tenant",
    "credential",
    "credential_uid",
    "credential_version",
    "revision",
    "provider",
    "source",
    "virtual_key",
    "lease_hash",
    "lease_expire_time",
    "lease_renewals",
    "certificate_sha256",
    "session_key_sha256",
    "trace_id",
    "request_id",
    "kek_id",
    "kek_version",
    "config_sha256",
    "broker",
    "subject",
    "policy_sha256",
    "tree_size",
    "tree_root",
    "count",
    "because",
    "rotation_percent",
    "deleted_version",
    "verdict",
    "prices_sha256",
    "ends_leases",
    "previous_expire_time",
    "budget",
    "allowance_id",
    "spent",
    "amounts",
    "percent",
    "unit",
    "root_key_sha256",
    "root",
    "kek_overdue",
    "erasure_id",
    "copies_until_time",
    "table",
];

fn cells(record: &RecordView) -> [String; 49] {
    [
        record.index.to_string(),
        record.time.clone(),
        record.kind.to_owned(),
        record.reason.to_owned(),
        record.actor.clone(),
        record.method.clone(),
        record.tenant.clone(),
        record.credential.clone(),
        record.credential_uid.clone(),
        record.credential_version.to_string(),
        record.revision.to_string(),
        record.provider.clone(),
        record.source.to_owned(),
        record.virtual_key.clone(),
        record.lease_hash.clone(),
        record.lease_expire_time.clone(),
        record.lease_renewals.to_string(),
        record.certificate_sha256.clone(),
        record.session_key_sha256.clone(),
        record.trace_id.clone(),
        record.request_id.clone(),
        record.kek_id.clone(),
        record.kek_version.to_string(),
        record.config_sha256.clone(),
        record.broker.clone(),
        record.subject.clone(),
        record.policy_sha256.clone(),
        record.tree_size.to_string(),
        record.tree_root.clone(),
        record.count.to_string(),
        record.because.clone(),
        record.rotation_percent.to_string(),
        record.deleted_version.to_string(),
        record.verdict.clone(),
        record.prices_sha256.clone(),
        record.ends_leases.to_string(),
        record.previous_expire_time.clone(),
        record.budget.clone(),
        record.allowance_id.clone(),
        record.spent.clone(),
        record.amounts.clone(),
        record.percent.to_string(),
        record.unit.to_owned(),
        record.root_key_sha256.clone(),
        record.root.clone(),
        record.kek_overdue.to_string(),
        record.erasure_id.clone(),
        record.copies_until_time.clone(),
        record.table.clone(),
    ]
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::from_str_name(&views::enum_name(text))
        .ok_or_else(|| "no such kind; kinds are in the `Record` of `audit.proto`".to_owned())
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::from_str_name(&views::enum_name(text))
        .ok_or_else(|| "no such reason; reasons are in the `Record` of `audit.proto`".to_owned())
}
