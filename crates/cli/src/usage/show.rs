use domain::{Cost, Money, Tokens};
use prost_types::{Duration, Timestamp};
use serde::Serialize;
use strongroom_proto::v1::{self, UsageSum};

use super::{By, OrderArg};
use crate::{csv, moment::Zone, output, views};

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    start_time: String,
    end_time: String,
    pub(crate) rows: Vec<Row>,
}

/// One sum. Costs are exact decimals of a USD; of what was not asked for, texts are empty.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    #[serde(skip)]
    period: Option<Timestamp>,
    period_start: String,
    tenant: String,
    virtual_key: String,
    model: String,
    provider: String,
    credential: String,
    source: &'static str,
    outcome: String,
    /// 0 if it was not asked for.
    status: u32,
    calls: u64,
    input_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    audio_input_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    audio_output_tokens: u64,
    searches: u64,
    #[serde(skip)]
    cost: Cost,
    /// What is known of the cost. It is all of it only if `calls_of_unknown_cost` is 0.
    known_cost_usd: String,
    calls_of_unknown_cost: u64,
    calls_of_unknown_usage: u64,
    latency_seconds: Option<f64>,
    first_token_seconds: Option<f64>,
}

/// What a chart shows.
pub(crate) struct Shape<'a> {
    pub(crate) by: &'a [By],
    pub(crate) is_split: bool,
    pub(crate) order: OrderArg,
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>, start: Option<Timestamp>, end: Option<Timestamp>) -> Self {
        Self { start_time: views::time(start), end_time: views::time(end), rows }
    }
}

impl From<UsageSum> for Row {
    fn from(sum: UsageSum) -> Self {
        let outcome = match sum.outcome {
            0 => String::new(),
            _ => sum.outcome().as_str_name().to_ascii_lowercase(),
        };
        let source = views::source_name(sum.source());
        let tokens = sum.tokens.unwrap_or_default();
        let picos = u128::from(sum.cost_micro_usd) * 1_000_000 + u128::from(sum.cost_millionths);
        let cost = Cost::from_picos(picos);
        Self {
            period: sum.period_start,
            period_start: views::time(sum.period_start),
            tenant: sum.tenant,
            virtual_key: sum.virtual_key,
            model: sum.model,
            provider: sum.provider,
            credential: sum.credential,
            source,
            outcome,
            status: sum.status,
            calls: sum.calls,
            input_tokens: tokens.input,
            cache_read_tokens: tokens.cache_read,
            cache_write_tokens: tokens.cache_write_5m.saturating_add(tokens.cache_write_1h),
            audio_input_tokens: tokens.audio_input,
            output_tokens: tokens.output,
            reasoning_tokens: tokens.reasoning,
            audio_output_tokens: tokens.audio_output,
            searches: sum.searches,
            cost,
            known_cost_usd: cost.to_string(),
            calls_of_unknown_cost: sum.calls_of_unknown_cost,
            calls_of_unknown_usage: sum.calls_of_unknown_usage,
            latency_seconds: sum.latency.map(seconds),
            first_token_seconds: sum.first_token.map(seconds),
        }
    }
}

/// Tokens as the contract has them.
pub(crate) fn tokens(tokens: v1::Tokens) -> Tokens {
    Tokens {
        input: tokens.input,
        cache_read: tokens.cache_read,
        cache_write_5m: tokens.cache_write_5m,
        cache_write_1h: tokens.cache_write_1h,
        audio_input: tokens.audio_input,
        output: tokens.output,
        reasoning: tokens.reasoning,
        audio_output: tokens.audio_output,
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people: a latency is far below 2^52 s")]
fn seconds(told: Duration) -> f64 {
    told.seconds as f64 + f64::from(told.nanos) / 1e9
}

/// A cost for people: to the micro-USD, rounded up, and never nothing when it is not known.
pub(crate) fn cost(cost: Cost, unknown: u64, calls: u64) -> String {
    let known = format!("${}", cost.rounded_up());
    match unknown {
        0 => known,
        _ if unknown >= calls && cost == Cost::ZERO => "unknown".to_owned(),
        _ => format!("≥ {known}"),
    }
}

impl Row {
    fn all_input(&self) -> u64 {
        let cached = self.cache_read_tokens.saturating_add(self.cache_write_tokens);
        self.input_tokens.saturating_add(cached).saturating_add(self.audio_input_tokens)
    }

    fn all_output(&self) -> u64 {
        let rest = self.reasoning_tokens.saturating_add(self.audio_output_tokens);
        self.output_tokens.saturating_add(rest)
    }

    fn tokens_shown(&self) -> (String, String) {
        let mark = |count: u64| match self.calls_of_unknown_usage {
            0 => count.to_string(),
            _ if self.calls_of_unknown_usage >= self.calls && count == 0 => "unknown".to_owned(),
            _ => format!("≥ {count}"),
        };
        (mark(self.all_input()), mark(self.all_output()))
    }

    fn names(&self, by: &[By], is_split: bool, zone: &Zone) -> Vec<String> {
        let period = is_split.then(|| zone.show(self.period));
        let period = period.map(|text| text.replace(":00.000", ""));
        let name = |by: &By| match by {
            By::Tenant => last(&self.tenant),
            By::Key => last(&self.virtual_key),
            By::Model => self.model.clone(),
            By::Provider => self.provider.clone(),
            By::Credential => self.credential.clone(),
            By::Source => self.source.to_owned(),
            By::Outcome => self.outcome.clone(),
            By::Status => self.status.to_string(),
        };
        let dash = |name: String| if name.is_empty() { "-".to_owned() } else { name };
        period.into_iter().chain(by.iter().map(name).map(dash)).collect()
    }
}

fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

pub(crate) fn table(report: &Report, by: &[By], is_split: bool, zone: &Zone) -> String {
    let word = |by: &By| match by {
        By::Tenant => "TENANT",
        By::Key => "KEY",
        By::Model => "MODEL",
        By::Provider => "PROVIDER",
        By::Credential => "CREDENTIAL",
        By::Source => "SOURCE",
        By::Outcome => "OUTCOME",
        By::Status => "STATUS",
    };
    let figures = ["CALLS", "INPUT", "CACHED", "OUTPUT", "COST"];
    let header: Vec<String> = is_split
        .then_some("FROM")
        .into_iter()
        .chain(by.iter().map(word))
        .chain(figures)
        .map(str::to_owned)
        .collect();
    let cells = |row: &Row| {
        let (input, output) = row.tokens_shown();
        let cost = cost(row.cost, row.calls_of_unknown_cost, row.calls);
        [row.calls.to_string(), input, row.cache_read_tokens.to_string(), output, cost]
    };
    let mut rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| row.names(by, is_split, zone).into_iter().chain(cells(row)).collect())
        .collect();
    if report.rows.len() > 1 {
        let names = header.len().saturating_sub(figures.len());
        let mut total: Vec<String> = vec![String::new(); names];
        if let Some(first) = total.first_mut() {
            "total".clone_into(first);
        }
        total.extend(cells(&total_of(&report.rows)));
        rows.push(total);
    }
    output::columns(header, rows)
}

fn total_of(rows: &[Row]) -> Row {
    let mut total = Row::default();
    for row in rows {
        total.calls = total.calls.saturating_add(row.calls);
        total.input_tokens = total.input_tokens.saturating_add(row.input_tokens);
        total.cache_read_tokens = total.cache_read_tokens.saturating_add(row.cache_read_tokens);
        total.cache_write_tokens = total.cache_write_tokens.saturating_add(row.cache_write_tokens);
        total.audio_input_tokens = total.audio_input_tokens.saturating_add(row.audio_input_tokens);
        total.output_tokens = total.output_tokens.saturating_add(row.all_output());
        total.cost = total.cost.plus(row.cost);
        total.calls_of_unknown_cost += row.calls_of_unknown_cost;
        total.calls_of_unknown_usage += row.calls_of_unknown_usage;
    }
    total
}

/// Bars as long as what the rows are ordered by; of eighths of a character on a terminal.
pub(crate) fn chart(report: &Report, shape: &Shape<'_>, zone: &Zone, is_terminal: bool) -> String {
    let size = |row: &Row| match shape.order {
        OrderArg::Cost => row.cost.rounded_up().micros(),
        OrderArg::Calls => row.calls,
        OrderArg::Tokens => row.all_input().saturating_add(row.all_output()),
    };
    let most = report.rows.iter().map(size).max().unwrap_or(0);
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            let figure = match shape.order {
                OrderArg::Cost => cost(row.cost, row.calls_of_unknown_cost, row.calls),
                OrderArg::Calls | OrderArg::Tokens => size(row).to_string(),
            };
            let mut cells = row.names(shape.by, shape.is_split, zone);
            cells.extend([bar(size(row), most, is_terminal), figure]);
            cells
        })
        .collect();
    let width = rows.first().map_or(0, Vec::len);
    let text = output::columns(vec![String::new(); width], rows);
    text.trim_start_matches('\n').to_owned()
}

/// What is not nothing has a bar.
fn bar(size: u64, most: u64, is_terminal: bool) -> String {
    const BLOCKS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let parts = if is_terminal { WIDTH * 8 } else { WIDTH };
    let scaled = u128::from(size) * u128::from(parts);
    let filled = scaled.checked_div(u128::from(most)).unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(0).max(usize::from(size > 0));
    if !is_terminal {
        return "#".repeat(filled);
    }
    let rest = (filled % 8).checked_sub(1).and_then(|at| BLOCKS.get(at));
    "█".repeat(filled / 8).chars().chain(rest.copied()).collect()
}

/// The longest bar, in characters.
const WIDTH: u64 = 40;

pub(crate) fn csv(rows: &[Row]) -> String {
    let seconds = |it: Option<f64>| it.map(|it| format!("{it:.3}")).unwrap_or_default();
    let cells = |row: &Row| {
        [
            row.period_start.clone(),
            row.tenant.clone(),
            row.virtual_key.clone(),
            row.model.clone(),
            row.provider.clone(),
            row.credential.clone(),
            row.source.to_owned(),
            row.outcome.clone(),
            if row.status == 0 { String::new() } else { row.status.to_string() },
            row.calls.to_string(),
            row.input_tokens.to_string(),
            row.cache_read_tokens.to_string(),
            row.cache_write_tokens.to_string(),
            row.audio_input_tokens.to_string(),
            row.output_tokens.to_string(),
            row.reasoning_tokens.to_string(),
            row.audio_output_tokens.to_string(),
            row.searches.to_string(),
            row.known_cost_usd.clone(),
            row.calls_of_unknown_cost.to_string(),
            row.calls_of_unknown_usage.to_string(),
            seconds(row.latency_seconds),
            seconds(row.first_token_seconds),
        ]
    };
    csv::table(HEADER, rows.iter().map(cells))
}

const HEADER: [&str; 23] = [
    "period_start",
    "tenant",
    "virtual_key",
    "model",
    "provider",
    "credential",
    "source",
    "outcome",
    "status",
    "calls",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
    "searches",
    "known_cost_usd",
    "calls_of_unknown_cost",
    "calls_of_unknown_usage",
    "latency_seconds",
    "first_token_seconds",
];

/// A cap in whole micro-USD of an exact cost.
pub(crate) fn usd(cost: Cost) -> String {
    let money: Money = cost.rounded_up();
    format!("${money}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, micros: u64, unknown: u64) -> Row {
        Row::from(UsageSum {
            model: model.to_owned(),
            calls: 2,
            cost_micro_usd: micros,
            cost_millionths: u32::from(micros > 0),
            calls_of_unknown_cost: unknown,
            tokens: Some(v1::Tokens { input: 10, output: 3, ..Default::default() }),
            ..UsageSum::default()
        })
    }

    fn report() -> Report {
        let rows = vec![row("gpt-4o", 2_000_000, 0), row("b", 500_000, 1), row("c", 0, 2)];
        Report::new(rows, None, None)
    }

    fn utc() -> Zone {
        "UTC".parse().unwrap()
    }

    #[test]
    fn an_unknown_cost_is_unknown_and_never_nothing() {
        let text = table(&report(), &[By::Model], false, &utc());
        let costs: Vec<_> =
            text.lines().map(|line| line.split("  ").last().unwrap().trim()).collect();
        assert_eq!(costs, ["COST", "$2.000001", "≥ $0.500001", "unknown", "≥ $2.500001"]);
        assert!(text.lines().last().unwrap().starts_with("total"), "{text}");
    }

    #[test]
    fn bars_are_of_blocks_on_a_terminal_and_plain_elsewhere() {
        let shape = Shape { by: &[By::Model], is_split: false, order: OrderArg::Cost };
        let text = chart(&report(), &shape, &utc(), false);
        let bars: Vec<_> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars, [40, 10, 0], "{text}");
        let text = chart(&report(), &shape, &utc(), true);
        assert_eq!(text.lines().next().unwrap().matches('█').count(), 40, "{text}");
        assert!(text.is_ascii() != text.contains('█'));
        assert_eq!((bar(1, 1_000_000, true), bar(0, 9, true)), ("▏".to_owned(), String::new()));
    }

    #[test]
    fn spreadsheets_get_exact_costs() {
        let text = csv(&report().rows);
        assert!(text.contains(",2.000000000001,0,0,"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
