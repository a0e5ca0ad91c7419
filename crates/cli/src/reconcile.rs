use std::{collections::BTreeSet, fs, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use domain::{Clock as _, Cost, SystemClock};
use jiff::{civil::Date, tz::TimeZone};
use serde::Serialize;
use strongroom_proto::v1::{
    QueryUsageRequest, UsageFilter, UsageSum,
    query_usage_request::{Dimension, Per},
};

use self::{
    compare::{Compared, Figures, Key, Place, compare},
    export::{Export, Line},
};
use crate::{
    context::Context,
    failure::Failure,
    moment::Moment,
    names::{CredentialArg, TenantArg},
    output,
    usage::show::{cost, tokens, usd},
};

mod compare;
mod export;
mod sheet;

/// Holds a provider's usage export against what went through Strongroom with the same credential.
///
/// Exit code 3 when the provider counted more than that: spend that did not pass through Strongroom is
/// what a leaked key looks like.
#[derive(Args, Debug)]
pub(crate) struct Reconcile {
    /// Whose export it is.
    #[arg(long)]
    provider: Account,
    /// The export: JSON of the provider's administration API, or CSV of its console.
    #[arg(long)]
    file: PathBuf,
    /// The credential that the export is of; without it, all of the provider's.
    #[arg(long)]
    credential: Option<CredentialArg>,
    /// One tenant's calls; without it, all tenants', as for a managed credential.
    #[arg(long)]
    tenant: Option<TenantArg>,
    /// Only of this API key, by the id or name that the export has.
    #[arg(long, value_name = "ID")]
    api_key: Option<String>,
    /// Tells keys apart: which credential has, or had, the API key that the export calls so. Once for
    /// each key; a key that is not named is shown as one that nobody knows.
    #[arg(long = "key", value_name = "ID=CREDENTIAL", conflicts_with_all = ["credential", "api_key"])]
    keys: Vec<KeyOf>,
    /// From this day on, UTC; without it from the export's first.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Before this day, UTC; without it to the export's last.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// How many hundredths of what the provider counted may have passed by.
    #[arg(long, value_name = "PERCENT", default_value_t = 1)]
    tolerance: u32,
}

/// A provider whose exports are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Account {
    Openai,
    Anthropic,
}

/// Which credential an API key of the export is of: `key_abc=acme/openai`.
#[derive(Clone, Debug)]
struct KeyOf {
    id: String,
    credential: CredentialArg,
}

impl FromStr for KeyOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a key's id and its credential: key_abc=acme/openai");
        let (id, name) =
            text.rsplit_once('=').filter(|(id, _)| !id.is_empty()).ok_or_else(wrong)?;
        let credential = name.parse::<CredentialArg>();
        Ok(Self { id: id.to_owned(), credential: credential.map_err(|error| error.to_string())? })
    }
}

#[derive(Serialize)]
struct Report {
    provider: &'static str,
    first_day: String,
    last_day: String,
    /// Whether some model's usage is beyond what the tolerance allows.
    beyond: bool,
    /// API keys that the export names.
    api_keys: BTreeSet<String>,
    days: Vec<Row>,
    models: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "String::is_empty")]
    day: String,
    /// The credential, where keys are told apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    credential: String,
    /// The API key that nobody has said the credential of.
    #[serde(skip_serializing_if = "String::is_empty")]
    unnamed_api_key: String,
    model: String,
    provider_input_tokens: Option<u64>,
    strongroom_input_tokens: u64,
    provider_output_tokens: Option<u64>,
    strongroom_output_tokens: u64,
    provider_cost_usd: Option<String>,
    strongroom_cost_usd: String,
    strongroom_calls: u64,
    calls_of_unknown_cost: u64,
    calls_of_unknown_usage: u64,
    beyond: bool,
    #[serde(skip)]
    costs: (Option<Cost>, Cost),
}

impl Reconcile {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let text = fs::read_to_string(&self.file)
            .map_err(|source| Failure::File { path: self.file.clone(), source })?;
        let export = Export::parse(self.provider, &text)
            .map_err(|why| Failure::Export { path: self.file.clone(), why: why.to_string() })?;
        let lines = self.wanted(export.lines);
        let days = lines.iter().map(|line| line.day);
        let Some((first, last)) = days.clone().min().zip(days.max()) else {
            return Err(Failure::NothingFound { what: "the export has no usage in it".to_owned() });
        };
        let ours = self.ask(context, first, last).await?;
        let theirs = lines.iter().map(|line| Ok((self.place(line)?, line.figures())));
        let theirs = theirs.collect::<Result<Vec<_>, Failure>>()?;
        let compared = compare(theirs, ours, self.tolerance);
        let beyond = compared.models.iter().filter(|it| it.beyond);
        let beyond: Vec<String> = beyond.map(|it| in_words(&it.place)).collect();
        let report = Report {
            provider: self.provider.slug(),
            first_day: first.to_string(),
            last_day: last.to_string(),
            beyond: !beyond.is_empty(),
            api_keys: lines.iter().filter_map(|line| line.api_key.clone()).collect(),
            days: compared.days.into_iter().map(Row::from).collect(),
            models: compared.models.into_iter().map(Row::from).collect(),
        };
        context.output.show(&report, human)?;
        if beyond.is_empty() {
            return Ok(());
        }
        let what = format!(
            "{} counted more than went through Strongroom, of {}",
            self.provider.slug(),
            beyond.join(", ")
        );
        Err(Failure::Beyond { what })
    }

    /// Where a line of the export belongs.
    fn place(&self, line: &Line) -> Result<Place, Failure> {
        let (day, model) = (Some(line.day), line.model.clone());
        if self.keys.is_empty() {
            return Ok(Place { day, key: Key::All, model });
        }
        let untold = || Failure::Export {
            path: self.file.clone(),
            why: "it does not tell keys apart: group it by api_key_id, too".to_owned(),
        };
        let id = line.api_key.as_ref().ok_or_else(untold)?;
        let named = self.keys.iter().find(|key| key.id == *id);
        let key = named.map_or_else(
            || Key::Unnamed(id.clone()),
            |key| Key::Credential(key.credential.0.to_string()),
        );
        Ok(Place { day, key, model })
    }

    /// The lines that are asked for.
    fn wanted(&self, lines: Vec<Line>) -> Vec<Line> {
        let now = SystemClock.now();
        let day = |moment: &Moment| {
            let at = moment.at(now, &TimeZone::UTC).as_millis();
            let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MIN);
            TimeZone::UTC.to_datetime(at).date()
        };
        let since = self.since.as_ref().map(day);
        let until = self.until.as_ref().map(day);
        let key = self.api_key.as_ref();
        lines
            .into_iter()
            .filter(|line| since.is_none_or(|since| line.day >= since))
            .filter(|line| until.is_none_or(|until| line.day < until))
            .filter(|line| key.is_none_or(|key| line.api_key.as_ref() == Some(key)))
            .collect()
    }

    async fn ask(
        &self,
        context: &Context,
        first: Date,
        last: Date,
    ) -> Result<Vec<(Place, Figures)>, Failure> {
        let end = last.tomorrow().unwrap_or(last);
        let mut by = vec![Dimension::Model.into()];
        if !self.keys.is_empty() {
            by.push(Dimension::Credential.into());
        }
        let filter = UsageFilter {
            provider: self.provider.slug().to_owned(),
            credential: self.credential.as_ref().map(|it| it.0.to_string()).unwrap_or_default(),
            ..UsageFilter::default()
        };
        let request = QueryUsageRequest {
            parent: self.tenant.as_ref().map(|it| it.0.resource()).unwrap_or_default(),
            filter: Some(filter),
            start_time: midnight(first),
            end_time: midnight(end),
            by,
            per: Per::Day.into(),
            ..QueryUsageRequest::default()
        };
        let answer = context.broker()?.usage().query_usage(request).await?.into_inner();
        let is_named = |sum: &UsageSum| {
            let named = |key: &KeyOf| key.credential.0.to_string() == sum.credential;
            self.keys.is_empty() || self.keys.iter().any(named)
        };
        answer.sums.into_iter().filter(is_named).map(ours).collect()
    }
}

impl Account {
    fn slug(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

fn midnight(day: Date) -> Option<prost_types::Timestamp> {
    let at = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(prost_types::Timestamp { seconds: at.as_second(), nanos: 0 })
}

/// A sum as it is compared.
fn ours(sum: UsageSum) -> Result<(Place, Figures), Failure> {
    let wrong = || Failure::BadAnswer("a sum has no day");
    let start = sum.period_start.ok_or_else(wrong)?;
    let start = jiff::Timestamp::from_second(start.seconds).map_err(|_| wrong())?;
    let day = TimeZone::UTC.to_datetime(start).date();
    let all = tokens(sum.tokens.unwrap_or_default());
    let picos = u128::from(sum.cost_micro_usd) * 1_000_000 + u128::from(sum.cost_millionths);
    let figures = Figures {
        input: Some(all.all_input()),
        output: Some(all.all_output()),
        cost: Some(Cost::from_picos(picos)),
        calls: sum.calls,
        cost_unknown: sum.calls_of_unknown_cost,
        usage_unknown: sum.calls_of_unknown_usage,
    };
    // Where it was not asked for, none is set.
    let key = if sum.credential.is_empty() { Key::All } else { Key::Credential(sum.credential) };
    Ok((Place { day: Some(day), key, model: sum.model }, figures))
}

impl Row {
    fn key_in_words(&self) -> String {
        match (self.credential.as_str(), self.unnamed_api_key.as_str()) {
            ("", "") => "all".to_owned(),
            ("", id) => format!("{id} (unnamed)"),
            (name, _) => name.to_owned(),
        }
    }
}

impl From<Compared> for Row {
    fn from(compared: Compared) -> Self {
        let Compared { place, theirs, ours, beyond } = compared;
        let (credential, unnamed_api_key) = match place.key {
            Key::All => (String::new(), String::new()),
            Key::Credential(name) => (name, String::new()),
            Key::Unnamed(id) => (String::new(), id),
        };
        Self {
            credential,
            unnamed_api_key,
            day: place.day.map(|day| day.to_string()).unwrap_or_default(),
            model: place.model,
            provider_input_tokens: theirs.input,
            strongroom_input_tokens: ours.input.unwrap_or(0),
            provider_output_tokens: theirs.output,
            strongroom_output_tokens: ours.output.unwrap_or(0),
            provider_cost_usd: theirs.cost.map(|cost| cost.to_string()),
            strongroom_cost_usd: ours.cost.unwrap_or_default().to_string(),
            strongroom_calls: ours.calls,
            calls_of_unknown_cost: ours.cost_unknown,
            calls_of_unknown_usage: ours.usage_unknown,
            beyond,
            costs: (theirs.cost, ours.cost.unwrap_or_default()),
        }
    }
}

/// What is beyond, for people.
fn in_words(place: &Place) -> String {
    match &place.key {
        Key::All => place.model.clone(),
        Key::Credential(name) => format!("{} with {name}", place.model),
        Key::Unnamed(id) => format!("{} with the unnamed key {id}", place.model),
    }
}

fn human(report: &Report) -> String {
    let pair = |theirs: Option<u64>, ours: u64| {
        theirs.map_or_else(|| format!("- / {ours}"), |theirs| format!("{theirs} / {ours}"))
    };
    let row = |it: &Row| {
        let ours = cost(it.costs.1, it.calls_of_unknown_cost, it.strongroom_calls);
        let theirs = it.costs.0.map_or("-".to_owned(), usd);
        [
            if it.day.is_empty() { "all".to_owned() } else { it.day.clone() },
            it.key_in_words(),
            it.model.clone(),
            pair(it.provider_input_tokens, it.strongroom_input_tokens),
            pair(it.provider_output_tokens, it.strongroom_output_tokens),
            format!("{theirs} / {ours}"),
            if it.beyond { "BEYOND".to_owned() } else { String::new() },
        ]
    };
    let header = ["DAY", "KEY", "MODEL", "INPUT", "OUTPUT", "COST", ""];
    let rows = report.days.iter().chain(&report.models).map(row).collect();
    format!(
        "{} from {} to {}, UTC: the provider's figure / Strongroom's\n\n{}",
        report.provider,
        report.first_day,
        report.last_day,
        output::table(header, rows)
    )
}
