use domain::Cost;
use jiff::{civil::Date, tz::TimeZone};
use serde_json::Value;
use thiserror::Error;

use super::{Account, compare::Figures, sheet::Sheet};

/// A provider's own count of usage.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) lines: Vec<Line>,
}

/// What a provider counted of one model on one day, UTC; of one API key, where the export says so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) day: Date,
    pub(super) model: String,
    pub(super) api_key: Option<String>,
    /// All input, from caches and into caches included.
    pub(super) input: Option<u64>,
    /// All output, reasoning included.
    pub(super) output: Option<u64>,
    pub(super) cost: Option<Cost>,
}

/// Why an export cannot be read.
#[derive(Debug, Error)]
pub(super) enum InvalidExport {
    #[error("it is neither JSON nor CSV with a header: {0}")]
    Form(String),
    #[error("it is one page of several: save all of them as one JSON array")]
    MorePages,
    #[error("it does not tell models apart: group it by model, costs by line item or description")]
    NoModel,
    #[error("the column `{0}` is missing")]
    Column(&'static str),
    #[error("`{field}` is not what it should be: `{value}`")]
    Value { field: &'static str, value: String },
}

impl Export {
    /// Reads an export, JSON of the administration API or CSV of the console, of usage or of costs.
    pub(super) fn parse(account: Account, text: &str) -> Result<Self, InvalidExport> {
        let lines = if text.trim_start().starts_with(['{', '[']) {
            let document: Value = serde_json::from_str(text)
                .map_err(|error| InvalidExport::Form(error.to_string()))?;
            json(account, &document)?
        } else {
            let sheet = Sheet::parse(text.trim_start_matches('\u{feff}'))
                .map_err(|why| InvalidExport::Form(why.to_owned()))?;
            match account {
                Account::Openai => openai_sheet(&sheet)?,
                Account::Anthropic => anthropic_sheet(&sheet)?,
            }
        };
        Ok(Self { lines })
    }
}

impl Line {
    pub(super) fn figures(&self) -> Figures {
        let Self { input, output, cost, .. } = *self;
        Figures { input, output, cost, ..Figures::default() }
    }
}

/// The buckets of one page, or of an array of pages.
fn json(account: Account, document: &Value) -> Result<Vec<Line>, InvalidExport> {
    let one = std::slice::from_ref(document);
    let pages = document.as_array().map_or(one, Vec::as_slice);
    if pages.last().is_some_and(|page| page.get("has_more") == Some(&Value::Bool(true))) {
        return Err(InvalidExport::MorePages);
    }
    let mut lines = Vec::new();
    for page in pages {
        let buckets = page.get("data").and_then(Value::as_array);
        let buckets =
            buckets.ok_or_else(|| InvalidExport::Form("there is no `data`".to_owned()))?;
        for bucket in buckets {
            let day = match account {
                Account::Openai => unix_day(bucket.get("start_time"))?,
                Account::Anthropic => day(text(bucket, "starting_at").unwrap_or_default())?,
            };
            let results = bucket.get("results").or_else(|| bucket.get("result"));
            for result in results.and_then(Value::as_array).into_iter().flatten() {
                lines.push(match account {
                    Account::Openai => openai(day, result)?,
                    Account::Anthropic => anthropic(day, result)?,
                });
            }
        }
    }
    Ok(lines)
}

/// `organization.usage.*.result`, whose input includes what is cached, and
/// `organization.costs.result`, whose line items are as `gpt-4o-2024-08-06, input`.
fn openai(day: Date, result: &Value) -> Result<Line, InvalidExport> {
    let api_key = text(result, "api_key_id").map(str::to_owned);
    if let Some(amount) = result.get("amount") {
        let item = text(result, "line_item").ok_or(InvalidExport::NoModel)?;
        check_currency(text(amount, "currency").unwrap_or("usd"))?;
        let cost = Some(usd("amount", amount.get("value"))?);
        return Ok(Line { day, model: model_of(item), api_key, input: None, output: None, cost });
    }
    let model = text(result, "model").ok_or(InvalidExport::NoModel)?.to_owned();
    let input = Some(count(result, "input_tokens")?);
    Ok(Line {
        day,
        model,
        api_key,
        input,
        output: Some(count(result, "output_tokens")?),
        cost: None,
    })
}

/// Results of `usage_report/messages`, whose kinds of input do not overlap, and of `cost_report`,
/// whose amounts are in cents.
fn anthropic(day: Date, result: &Value) -> Result<Line, InvalidExport> {
    let api_key = text(result, "api_key_id").map(str::to_owned);
    let model = text(result, "model").ok_or(InvalidExport::NoModel)?.to_owned();
    if let Some(amount) = result.get("amount") {
        check_currency(text(result, "currency").unwrap_or("USD"))?;
        let cents = usd("amount", Some(amount))?;
        let cost = Some(Cost::from_picos(cents.picos().div_ceil(100)));
        return Ok(Line { day, model, api_key, input: None, output: None, cost });
    }
    let writes = result.get("cache_creation").unwrap_or(&Value::Null);
    let input = count(result, "uncached_input_tokens")?
        .saturating_add(count(result, "cache_read_input_tokens")?)
        .saturating_add(count(writes, "ephemeral_5m_input_tokens")?)
        .saturating_add(count(writes, "ephemeral_1h_input_tokens")?);
    let output = Some(count(result, "output_tokens")?);
    Ok(Line { day, model, api_key, input: Some(input), output, cost: None })
}

/// The dashboard's exports of costs (`amount_value`) and of usage (`input_tokens`).
fn openai_sheet(sheet: &Sheet) -> Result<Vec<Line>, InvalidExport> {
    let start = sheet.column("start_time").ok_or(InvalidExport::Column("start_time"))?;
    let key = sheet.column("api_key_id");
    let api_key = |row: &[String]| key.and_then(|at| cell(row, at)).map(str::to_owned);
    let start_of = |row: &[String]| {
        let seconds = cell(row, start).unwrap_or_default();
        let number = seconds.parse::<i64>().map(Value::from);
        unix_day(Some(&number.unwrap_or_else(|_| Value::from(seconds))))
    };
    if let Some(amount) = sheet.column("amount_value") {
        let item = sheet.column("line_item").ok_or(InvalidExport::NoModel)?;
        let currency = sheet.column("amount_currency");
        let line = |row: &Vec<String>| {
            check_currency(currency.and_then(|at| cell(row, at)).unwrap_or("usd"))?;
            let item = cell(row, item).ok_or(InvalidExport::NoModel)?;
            let cost = Some(usd_text("amount_value", cell(row, amount).unwrap_or("0"))?);
            let (day, api_key) = (start_of(row)?, api_key(row));
            Ok(Line { day, model: model_of(item), api_key, input: None, output: None, cost })
        };
        return sheet.rows().iter().map(line).collect();
    }
    let model = sheet.column("model").ok_or(InvalidExport::NoModel)?;
    let input = sheet.column("input_tokens").ok_or(InvalidExport::Column("input_tokens"))?;
    let output = sheet.column("output_tokens");
    let line = |row: &Vec<String>| {
        let model = cell(row, model).ok_or(InvalidExport::NoModel)?.to_owned();
        let input = Some(number("input_tokens", cell(row, input))?);
        let output = output.map(|at| number("output_tokens", cell(row, at))).transpose()?;
        let (day, api_key) = (start_of(row)?, api_key(row));
        Ok(Line { day, model, api_key, input, output, cost: None })
    };
    sheet.rows().iter().map(line).collect()
}

/// The console's exports of usage (`usage_output_tokens`) and of costs (`cost_usd`).
fn anthropic_sheet(sheet: &Sheet) -> Result<Vec<Line>, InvalidExport> {
    const INPUTS: [&str; 4] = [
        "usage_input_tokens_no_cache",
        "usage_input_tokens_cache_read",
        "usage_input_tokens_cache_write_5m",
        "usage_input_tokens_cache_write_1h",
    ];
    let date = sheet.column("usage_date_utc").ok_or(InvalidExport::Column("usage_date_utc"))?;
    let model = sheet.column("model_version").or_else(|| sheet.column("model"));
    let model = model.ok_or(InvalidExport::NoModel)?;
    let key = sheet.column("api_key");
    let cost = sheet.column("cost_usd");
    let output = sheet.column("usage_output_tokens");
    let [plain, read, short, long] = INPUTS.map(|name| sheet.column(name));
    if cost.is_none() && (plain.is_none() || output.is_none()) {
        return Err(InvalidExport::Column("usage_input_tokens_no_cache"));
    }
    let line = |row: &Vec<String>| {
        let mut input = None;
        for (name, at) in INPUTS.into_iter().zip([plain, read, short, long]) {
            if let Some(at) = at {
                let more = number(name, cell(row, at))?;
                input = Some(input.unwrap_or(0_u64).saturating_add(more));
            }
        }
        let usd = |at: usize| usd_text("cost_usd", cell(row, at).unwrap_or("0"));
        Ok(Line {
            day: day(cell(row, date).unwrap_or_default())?,
            model: cell(row, model).unwrap_or("-").to_owned(),
            api_key: key.and_then(|at| cell(row, at)).map(str::to_owned),
            input,
            output: output.map(|at| number("usage_output_tokens", cell(row, at))).transpose()?,
            cost: cost.map(usd).transpose()?,
        })
    };
    sheet.rows().iter().map(line).collect()
}

fn cell(row: &[String], at: usize) -> Option<&str> {
    row.get(at).map(|cell| cell.trim()).filter(|cell| !cell.is_empty())
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A line item is of the model that stands before its first comma.
fn model_of(item: &str) -> String {
    item.split(',').next().unwrap_or(item).trim().to_owned()
}

fn unix_day(at: Option<&Value>) -> Result<Date, InvalidExport> {
    let wrong = || InvalidExport::Value {
        field: "start_time",
        value: at.map(ToString::to_string).unwrap_or_default(),
    };
    let at = at.and_then(Value::as_i64).ok_or_else(wrong)?;
    let at = jiff::Timestamp::from_second(at).map_err(|_| wrong())?;
    Ok(TimeZone::UTC.to_datetime(at).date())
}

/// The day of `2025-08-01` or `2025-08-01T00:00:00Z`.
fn day(text: &str) -> Result<Date, InvalidExport> {
    let wrong = || InvalidExport::Value { field: "day", value: text.to_owned() };
    let date = text.split_once(['T', ' ']).map_or(text, |(date, _)| date);
    date.parse().map_err(|_| wrong())
}

fn count(object: &Value, field: &'static str) -> Result<u64, InvalidExport> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => {
            value.as_u64().ok_or_else(|| InvalidExport::Value { field, value: value.to_string() })
        }
    }
}

fn number(field: &'static str, text: Option<&str>) -> Result<u64, InvalidExport> {
    let Some(text) = text else { return Ok(0) };
    text.replace(',', "")
        .parse()
        .map_err(|_| InvalidExport::Value { field, value: text.to_owned() })
}

fn usd(field: &'static str, value: Option<&Value>) -> Result<Cost, InvalidExport> {
    match value {
        Some(Value::String(text)) => usd_text(field, text),
        // As it was written: no sum is made of it.
        Some(Value::Number(number)) => usd_text(field, &number.to_string()),
        other => {
            let value = other.map(ToString::to_string).unwrap_or_default();
            Err(InvalidExport::Value { field, value })
        }
    }
}

fn usd_text(field: &'static str, text: &str) -> Result<Cost, InvalidExport> {
    Cost::from_usd(text.trim().trim_start_matches('$'))
        .map_err(|_| InvalidExport::Value { field, value: text.to_owned() })
}

fn check_currency(currency: &str) -> Result<(), InvalidExport> {
    if currency.eq_ignore_ascii_case("usd") {
        return Ok(());
    }
    Err(InvalidExport::Value { field: "currency", value: currency.to_owned() })
}

#[cfg(test)]
mod tests;
