use std::{collections::VecDeque, path::PathBuf};

use audit::{Bundle, Names, Record, RecordFilter, VerifierKey};
use clap::Args;
use domain::{Clock as _, SystemClock, TenantId, Timestamp};
use serde::Serialize;
use strongroom_client::Transport;
use strongroom_proto::v1::{self, ListRecordsRequest, audit_client::AuditClient};

use crate::{
    audit_verify::{self, Archives, Folder, KeyArgs},
    context::Context,
    csv,
    failure::Failure,
    moment::{Moment, Zone},
    names::TenantArg,
    output::{self, Output},
    views,
};

/// Where to look, and how to show it.
#[derive(Args, Debug)]
pub(crate) struct Where {
    /// From this time on: `24h` (ago), `2026-11-01`, or RFC 3339.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Up to this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// The time zone of what people read and write. Absent: this machine's. `--json` and `--csv`
    /// always have UTC.
    #[arg(long, value_name = "ZONE")]
    tz: Option<Zone>,
    /// Only what concerns this tenant.
    #[arg(long)]
    tenant: Option<TenantArg>,
    /// Answers from an export instead of the broker, and verifies it first. No network is needed.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The log's verifier key, for `--from`.
    #[arg(long, value_name = "KEY", requires = "from")]
    vkey: Option<VerifierKey>,
    /// A file with it.
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "vkey")]
    vkey_file: Option<PathBuf>,
    #[command(flatten)]
    archives: Archives,
    /// Prints comma-separated values.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// A record, and who did what to whom as far as the reader may know.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) record: Record,
    pub(crate) actor: String,
    pub(crate) subject: String,
}

/// Which part of the log an answer rests on.
#[expect(clippy::struct_field_names, reason = "programs read these names")]
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Searched {
    pub(crate) from_index: u64,
    /// One past the last.
    pub(crate) to_index: u64,
    /// Records before this index have been pruned.
    pub(crate) first_index: u64,
}

/// Times that somebody asks about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Period {
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

/// Where records come from. Answers are made in one way from either.
pub(crate) enum Source {
    Broker { client: Box<AuditClient<Transport>>, tenant: Option<TenantId>, output: Output },
    Export { folder: Folder, names: Names, first: u64, size: u64, tenant: Option<TenantId> },
}

/// The most that a page holds.
const PAGE: i32 = 4096;

impl Where {
    pub(crate) fn zone(&self) -> Zone {
        self.tz.clone().unwrap_or_else(Zone::local)
    }

    pub(crate) fn period(&self) -> Period {
        let (now, zone) = (SystemClock.now(), self.zone());
        let at = |moment: &Option<Moment>| moment.as_ref().map(|moment| moment.at(now, &zone.0));
        Period { since: at(&self.since), until: at(&self.until) }
    }

    /// Whether the output is for people, and not for programs.
    pub(crate) fn is_for_people(&self, context: &Context) -> bool {
        !self.csv && !context.output.is_json()
    }

    /// Opens the broker's log, or verifies the export: nothing is answered from one that is not
    /// what was signed.
    pub(crate) fn open(&self, context: &Context) -> Result<Source, Failure> {
        let tenant = self.tenant.as_ref().map(|tenant| tenant.0.clone());
        let Some(directory) = self.from.clone() else {
            let client = Box::new(context.broker()?.audit());
            return Ok(Source::Broker { client, tenant, output: context.output });
        };
        let key = KeyArgs { vkey: self.vkey.clone(), vkey_file: self.vkey_file.clone() }.load()?;
        let folder = Folder { directory, archives: self.archives.directories.clone() };
        let report = audit_verify::walk(&folder, &key, &[], context.output, |_| ())?;
        let first = report.pruned.map_or(0, |pruned| pruned.before);
        let names = folder.names()?;
        Ok(Source::Export { folder, names, first, size: report.size, tenant })
    }

    /// Shows an answer in the form that was asked for.
    pub(crate) fn show<T: Serialize, const N: usize>(
        &self,
        context: &Context,
        answer: &T,
        table: (([&str; N], Vec<[String; N]>), impl FnOnce(&T) -> String),
    ) -> Result<(), Failure> {
        let ((header, rows), human) = table;
        if self.csv {
            return output::raw(csv::table(header, rows).as_bytes());
        }
        context.output.show(answer, human)
    }

    /// Nothing was found: where it was not.
    pub(crate) fn nothing(&self, searched: Searched) -> Failure {
        let (zone, period) = (self.zone(), self.period());
        let time = |time: Option<Timestamp>| zone.show(time.map(audit::proto_time));
        let times = match (period.since, period.until) {
            (None, None) => "at any time".to_owned(),
            (Some(_), None) => format!("from {} on", time(period.since)),
            (None, Some(_)) => format!("before {}", time(period.until)),
            (Some(_), Some(_)) => {
                format!("from {} to {}", time(period.since), time(period.until))
            }
        };
        let Searched { from_index, to_index, first_index } = searched;
        let pruned = if first_index > 0 {
            format!("; entries before {first_index} were pruned and are not searched")
        } else {
            String::new()
        };
        let what = format!("nothing found {times}, in entries {from_index} to {to_index}{pruned}");
        Failure::NothingFound { what }
    }
}

impl Seen {
    /// Takes a record with the names that the source told.
    pub(crate) fn new(record: Record, names: &Names) -> Self {
        let (actor, subject) = (names.show_actor(&record), names.show_subject(&record));
        Self { record, actor, subject }
    }

    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.record.time.as_ref().and_then(audit::timestamp)
    }

    pub(crate) fn view(self) -> views::RecordView {
        views::RecordView { actor: self.actor, subject: self.subject, ..self.record.into() }
    }
}

impl Searched {
    /// Both parts together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            from_index: self.from_index.min(other.from_index),
            to_index: self.to_index.max(other.to_index),
            first_index: self.first_index.max(other.first_index),
        }
    }
}

impl Source {
    /// Whether it is read through for each question, so that a narrower one costs as much.
    pub(crate) fn is_export(&self) -> bool {
        matches!(self, Self::Export { .. })
    }

    /// Gives each record that passes, in order.
    pub(crate) async fn search(
        &mut self,
        asked: v1::RecordFilter,
        mut visit: impl FnMut(Seen),
    ) -> Result<Searched, Failure> {
        let filter = filter(asked)?;
        match self {
            Self::Export { folder, names, first, size, tenant } => {
                let person = names.commitment_to(filter.actor());
                let filter = filter.or_by(person);
                for bundle in Bundle::covering(*size).filter(|it| it.first_entry() >= *first) {
                    let bytes = folder.read_bundle(bundle)?;
                    for body in audit_verify::decode(bundle, &bytes)? {
                        let seen = Seen::new(record(body)?, names);
                        let of_tenant = |tenant: &TenantId| seen.record.tenant == tenant.as_str();
                        if tenant.as_ref().is_none_or(of_tenant) && filter.matches(&seen.record) {
                            visit(seen);
                        }
                    }
                }
                Ok(Searched { from_index: *first, to_index: *size, first_index: *first })
            }
            Self::Broker { client, tenant, output } => {
                search_broker(client, tenant.as_ref(), *output, filter.message(), visit).await
            }
        }
    }

    /// The latest records that pass, in order; all if there is no limit.
    pub(crate) async fn latest(
        &mut self,
        asked: v1::RecordFilter,
        limit: Option<usize>,
    ) -> Result<(VecDeque<Seen>, Searched), Failure> {
        let mut latest = VecDeque::new();
        let (Self::Broker { client, tenant, .. }, Some(limit)) = (&mut *self, limit) else {
            let searched = self.search(asked, |seen| {
                latest.push_back(seen);
                if limit.is_some_and(|limit| latest.len() > limit) {
                    latest.pop_front();
                }
            });
            let searched = searched.await?;
            return Ok((latest, searched));
        };
        let mut request = ListRecordsRequest {
            page_size: PAGE.min(i32::try_from(limit).unwrap_or(PAGE)),
            tenant: tenant.as_ref().map(TenantId::resource).unwrap_or_default(),
            filter: Some(asked),
            newest_first: true,
            ..Default::default()
        };
        let mut to_index = None;
        loop {
            let page = client.list_records(request.clone()).await?.into_inner();
            let to_index = *to_index.get_or_insert(page.searched_from);
            let names = Names::told(&page.disclosures);
            for entry in page.entries {
                latest.push_front(Seen::new(record(&entry.body)?, &names));
                if latest.len() == limit {
                    let from_index = entry.index;
                    let first_index = page.first_index;
                    return Ok((latest, Searched { from_index, to_index, first_index }));
                }
            }
            let (from_index, first_index) = (page.next_index, page.first_index);
            if from_index <= first_index {
                return Ok((latest, Searched { from_index, to_index, first_index }));
            }
            request.from_index = from_index;
        }
    }
}

async fn search_broker(
    client: &mut AuditClient<Transport>,
    tenant: Option<&TenantId>,
    output: Output,
    filter: &v1::RecordFilter,
    mut visit: impl FnMut(Seen),
) -> Result<Searched, Failure> {
    let mut request = ListRecordsRequest {
        page_size: PAGE,
        tenant: tenant.map(TenantId::resource).unwrap_or_default(),
        filter: Some(filter.clone()),
        ..Default::default()
    };
    let mut searched: Option<Searched> = None;
    loop {
        let page = match client.list_records(request.clone()).await {
            Ok(page) => page.into_inner(),
            Err(status) => {
                let failure = Failure::from(status);
                // What is pruned is not there to be searched; the answer says so.
                match failure.first_kept() {
                    Some(first) if first > request.from_index => request.from_index = first,
                    Some(_) | None => return Err(failure),
                }
                continue;
            }
        };
        let names = Names::told(&page.disclosures);
        for entry in &page.entries {
            visit(Seen::new(record(&entry.body)?, &names));
        }
        let from_index = searched.map_or(page.searched_from, |searched| searched.from_index);
        let first_index = page.first_index;
        searched = Some(Searched { from_index, to_index: page.next_index, first_index });
        if page.next_index <= request.from_index || page.next_index >= page.tree_size {
            output.progress("");
            return Ok(Searched { from_index, to_index: page.next_index, first_index });
        }
        request.from_index = page.next_index;
        output.progress(&format!("{} of {} entries", page.next_index, page.tree_size));
    }
}

fn filter(asked: v1::RecordFilter) -> Result<RecordFilter, Failure> {
    RecordFilter::new(asked).map_err(|_| Failure::Usage("no record has such a value"))
}

fn record(body: &[u8]) -> Result<Record, Failure> {
    audit::decode_record(body)
        .map_err(|_| Failure::BadAnswer("an entry is not a record of the log"))
}
