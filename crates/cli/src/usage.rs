use clap::{Args, Subcommand, ValueEnum};
use domain::{Clock as _, ProviderId, SystemClock};
use strongroom_proto::v1::{
    QueryUsageRequest, Source, UsageFilter,
    query_usage_request::{Dimension, Order, Per},
};

use self::show::{Report, Row};
use crate::{
    context::Context,
    failure::Failure,
    moment::{Moment, Zone},
    names::{CredentialArg, KeyArg, TenantArg},
    output, reconcile,
};

pub(crate) mod show;

/// What calls took and cost, for all that this identity may see.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Usage {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Holds a provider's own usage export against what went through Strongroom.
    Reconcile(reconcile::Reconcile),
}

#[derive(Args, Debug)]
struct Question {
    /// One tenant's; without it, all tenants'.
    #[arg(long)]
    tenant: Option<TenantArg>,
    /// One row for each of these, 3 at the most.
    #[arg(long, value_delimiter = ',', value_name = "WHAT,…", default_value = "model")]
    by: Vec<By>,
    /// Calls since then.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: Moment,
    /// Calls before then.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// One row for each stretch of time.
    #[arg(long)]
    per: Option<PerArg>,
    /// Of one virtual key.
    #[arg(long)]
    key: Option<KeyArg>,
    /// Of one provider.
    #[arg(long)]
    provider: Option<ProviderId>,
    /// Of one model, as the provider was asked for it.
    #[arg(long)]
    model: Option<String>,
    /// With one credential.
    #[arg(long)]
    credential: Option<CredentialArg>,
    /// Whose credentials: the tenant's own, or the platform's.
    #[arg(long)]
    source: Option<SourceArg>,
    /// What comes first.
    #[arg(long, default_value = "cost")]
    order: OrderArg,
    /// Only so many rows, of each stretch of time.
    #[arg(long, default_value_t = 0)]
    limit: u32,
    /// Where days and months begin, as an IANA name; this machine's zone without it.
    #[arg(long, value_name = "ZONE")]
    tz: Option<Zone>,
    /// Bars.
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    chart: bool,
    /// For spreadsheets: every column, costs exactly.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// What sums are told apart by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum By {
    Tenant,
    Key,
    Model,
    Provider,
    Credential,
    Source,
    Outcome,
    Status,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PerArg {
    Hour,
    Day,
    Month,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SourceArg {
    Byok,
    Managed,
    Custom,
    Keyless,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum OrderArg {
    Cost,
    Calls,
    Tokens,
}

impl Usage {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.verb {
            Some(Verb::Reconcile(reconcile)) => reconcile.run(context).await,
            None => self.question.run(context).await,
        }
    }
}

impl Question {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.by.len() > 3 {
            return Err(Failure::Usage("--by names 3 at the most"));
        }
        let zone = self.tz.clone().unwrap_or_else(Zone::local);
        let request = self.request(&zone);
        let answer = context.broker()?.usage().query_usage(request).await?.into_inner();
        let is_split = self.per.is_some();
        let rows: Vec<Row> = answer.sums.into_iter().map(Row::from).collect();
        if self.csv {
            return output::raw(show::csv(&rows).as_bytes());
        }
        let report = Report::new(rows, answer.start_time, answer.end_time);
        context.output.show(&report, |report| {
            if report.rows.is_empty() {
                return "no calls in that time\n".to_owned();
            }
            if self.chart {
                let shape = show::Shape { by: &self.by, is_split, order: self.order };
                return show::chart(report, &shape, &zone, context.output.is_terminal());
            }
            show::table(report, &self.by, is_split, &zone)
        })
    }

    fn request(&self, zone: &Zone) -> QueryUsageRequest {
        let now = SystemClock.now();
        let at = |moment: &Moment| Some(audit::proto_time(moment.at(now, &zone.0)));
        let text = |text: Option<String>| text.unwrap_or_default();
        let filter = UsageFilter {
            virtual_key: text(self.key.as_ref().map(|key| key.0.to_string())),
            provider: text(self.provider.as_ref().map(ToString::to_string)),
            model: text(self.model.clone()),
            credential: text(self.credential.as_ref().map(|name| name.0.to_string())),
            source: self.source.map_or(0, |source| source.on_the_wire().into()),
            ..UsageFilter::default()
        };
        QueryUsageRequest {
            parent: text(self.tenant.as_ref().map(|tenant| tenant.0.resource())),
            filter: Some(filter),
            start_time: at(&self.since),
            end_time: self.until.as_ref().and_then(at),
            by: self.by.iter().map(|by| by.on_the_wire().into()).collect(),
            per: match self.per {
                None => Per::Unspecified,
                Some(PerArg::Hour) => Per::Hour,
                Some(PerArg::Day) => Per::Day,
                Some(PerArg::Month) => Per::Month,
            }
            .into(),
            time_zone: zone.0.iana_name().unwrap_or("UTC").to_owned(),
            order: match self.order {
                OrderArg::Cost => Order::Unspecified,
                OrderArg::Calls => Order::Calls,
                OrderArg::Tokens => Order::Tokens,
            }
            .into(),
            limit: self.limit,
        }
    }
}

impl By {
    fn on_the_wire(self) -> Dimension {
        match self {
            Self::Tenant => Dimension::Tenant,
            Self::Key => Dimension::VirtualKey,
            Self::Model => Dimension::Model,
            Self::Provider => Dimension::Provider,
            Self::Credential => Dimension::Credential,
            Self::Source => Dimension::Source,
            Self::Outcome => Dimension::Outcome,
            Self::Status => Dimension::Status,
        }
    }
}

impl SourceArg {
    fn on_the_wire(self) -> Source {
        match self {
            Self::Byok => Source::Byok,
            Self::Managed => Source::Managed,
            Self::Custom => Source::Custom,
            Self::Keyless => Source::Keyless,
        }
    }
}
