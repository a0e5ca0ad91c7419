use std::{fmt::Write as _, fs, path::PathBuf};

use clap::{Args, Subcommand};
use domain::{Clock as _, ProviderId, SystemClock};
use metering::PriceDocument;
use serde::Serialize;
use strongroom_proto::v1::{
    ChangedPrices, GetPricesRequest, ImportPricesRequest, PriceDifference, SetTenantPricesRequest,
};

use crate::{
    context::Context,
    failure::Failure,
    moment::{Moment, Zone},
    names::TenantArg,
    output, views,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Shows the prices in force, and those that are to come.
    Show(Show),
    /// Says what would change, and changes nothing.
    Diff(Diff),
    /// Puts another table of list prices into force, for all tenants.
    Import(Import),
    /// Puts a tenant's own prices and discounts into force, in place of all that it had.
    Set(Set),
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// With what this tenant has negotiated.
    #[arg(long)]
    tenant: Option<TenantArg>,
    /// Of one provider.
    #[arg(long)]
    provider: Option<ProviderId>,
    /// Of models whose names contain this.
    #[arg(long)]
    model: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// A table of prices; with `--tenant`, a tenant's terms. JSON.
    file: PathBuf,
    /// The tenant whose terms the file has.
    #[arg(long)]
    tenant: Option<TenantArg>,
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// A table of prices, JSON.
    file: PathBuf,
    /// From when on; without it as soon as it can be, in about five minutes.
    #[arg(long, value_name = "TIME")]
    effective: Option<Moment>,
}

#[derive(Args, Debug)]
pub(crate) struct Set {
    /// The tenant, such as `acme`.
    tenant: TenantArg,
    /// The terms, JSON: `overrides` and `discounts`. `{}` for list prices again.
    file: PathBuf,
    /// From when on; without it as soon as it can be, in about five minutes.
    #[arg(long, value_name = "TIME")]
    effective: Option<Moment>,
}

#[derive(Serialize)]
struct Shown {
    version: String,
    list_revision: u64,
    tenant_revision: u64,
    #[serde(flatten)]
    document: PriceDocument,
}

#[derive(Serialize)]
struct Changed {
    revision: u64,
    effective_time: String,
    /// 0 when nothing was changed.
    log_index: u64,
    differences: Vec<Difference>,
}

#[derive(Serialize)]
struct Difference {
    provider: String,
    model: String,
    figure: String,
    from: String,
    to: String,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Show(show) => show.run(context).await,
            Self::Diff(diff) => diff.run(context).await,
            Self::Import(import) => import.run(context).await,
            Self::Set(set) => set.run(context).await,
        }
    }
}

impl Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = self.tenant.map(|tenant| tenant.0.resource()).unwrap_or_default();
        let request = GetPricesRequest { tenant, known_version: String::new() };
        let answer = context.broker()?.prices().get_prices(request).await?.into_inner();
        let mut document = PriceDocument::parse(&answer.document)
            .map_err(|_| Failure::BadAnswer("it has no prices that can be read"))?;
        let provider = self.provider.as_ref().map(ProviderId::as_str);
        let model = self.model.as_deref();
        for table in &mut document.tables {
            let providers = &mut table.table.providers;
            providers.retain(|name, _| provider.is_none_or(|wanted| wanted == name));
            for models in providers.values_mut() {
                models.retain(|name, _| model.is_none_or(|part| name.contains(part)));
            }
        }
        let shown = Shown {
            version: answer.version,
            list_revision: answer.list_revision,
            tenant_revision: answer.tenant_revision,
            document,
        };
        context.output.show(&shown, human)
    }
}

impl Diff {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let document = read(self.file)?;
        let mut prices = context.broker()?.prices();
        let changed = match self.tenant {
            None => {
                let request = ImportPricesRequest {
                    table: document.into(),
                    validate_only: true,
                    ..ImportPricesRequest::default()
                };
                prices.import_prices(request).await?
            }
            Some(tenant) => {
                let request = SetTenantPricesRequest {
                    tenant: tenant.0.resource(),
                    terms: document.into(),
                    validate_only: true,
                    ..SetTenantPricesRequest::default()
                };
                prices.set_tenant_prices(request).await?
            }
        };
        context.output.show(&Changed::from(changed.into_inner()), differences)
    }
}

impl Import {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = ImportPricesRequest {
            table: read(self.file)?.into(),
            effective_time: effective(self.effective.as_ref()),
            ..ImportPricesRequest::default()
        };
        let changed = context.broker()?.prices().import_prices(request).await?;
        context.output.show(&Changed::from(changed.into_inner()), done)
    }
}

impl Set {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = SetTenantPricesRequest {
            tenant: self.tenant.0.resource(),
            terms: read(self.file)?.into(),
            effective_time: effective(self.effective.as_ref()),
            ..SetTenantPricesRequest::default()
        };
        let changed = context.broker()?.prices().set_tenant_prices(request).await?;
        context.output.show(&Changed::from(changed.into_inner()), done)
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(&path).map_err(|source| Failure::File { path, source })
}

fn effective(asked: Option<&Moment>) -> Option<prost_types::Timestamp> {
    let at = asked?.at(SystemClock.now(), &Zone::local().0);
    Some(audit::proto_time(at))
}

impl From<ChangedPrices> for Changed {
    fn from(changed: ChangedPrices) -> Self {
        let difference = |it: PriceDifference| Difference {
            provider: it.provider,
            model: it.model,
            figure: it.figure,
            from: it.from,
            to: it.to,
        };
        Self {
            revision: changed.revision,
            effective_time: views::time(changed.effective_time),
            log_index: changed.log_index,
            differences: changed.differences.into_iter().map(difference).collect(),
        }
    }
}

fn differences(changed: &Changed) -> String {
    if changed.differences.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
    let row = |it: &Difference| {
        let mark = match (it.figure.is_empty(), it.from.is_empty()) {
            (true, true) => "+",
            (true, false) => "-",
            (false, _) => "~",
        };
        let (from, to) = if it.figure.is_empty() {
            (String::new(), String::new())
        } else {
            (or(&it.from, "not stated"), or(&it.to, "not stated"))
        };
        [mark.to_owned(), it.provider.clone(), it.model.clone(), it.figure.clone(), from, to]
    };
    let header = ["", "PROVIDER", "MODEL", "FIGURE", "WAS", "IS"];
    output::table(header, changed.differences.iter().map(row).collect())
}

fn done(changed: &Changed) -> String {
    let what = if changed.log_index == 0 {
        "nothing was changed: these prices are there already\n".to_owned()
    } else {
        format!(
            "revision {}, for calls that begin at {} or later (record {})\n",
            changed.revision, changed.effective_time, changed.log_index
        )
    };
    format!("{}{what}", differences(changed))
}

/// Prices of a million tokens in USD, as providers' price lists have them.
fn human(shown: &Shown) -> String {
    let mut text = format!("version {}\n", shown.version);
    for table in &shown.document.tables {
        let from = table
            .effective_time
            .map_or("from the beginning".to_owned(), |from| format!("from {from}"));
        let (version, date) = (table.table.version, table.table.date);
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "\nlist prices {version} of {date}, {from}");
        let mut rows = Vec::new();
        for (provider, models) in &table.table.providers {
            for (model, price) in models {
                let rates = price.rates_for(0);
                let figures = [rates.input, rates.cache_read, rates.output].map(per_million);
                let [input, cached, output] = figures;
                rows.push([provider.clone(), model.clone(), input, cached, output]);
            }
        }
        let header = ["PROVIDER", "MODEL", "INPUT/M", "CACHED/M", "OUTPUT/M"];
        text.push_str(&output::table(header, rows));
    }
    for terms in &shown.document.terms {
        let from = terms.effective_time.map(|from| from.to_string()).unwrap_or_default();
        let _ = writeln!(text, "\nthe tenant's own, from {from}");
        let discounts = terms.discounts.iter().map(|it| {
            let share = format!("{} of 10000", it.parts_of_ten_thousand);
            [it.provider.clone(), it.models.clone(), share]
        });
        let overrides = terms.overrides.iter().flat_map(|(provider, models)| {
            models.iter().map(move |(model, price)| {
                let rates = price.rates_for(0);
                let [input, output] = [rates.input, rates.output].map(per_million);
                [provider.clone(), model.clone(), format!("{input} in, {output} out")]
            })
        });
        let rows = discounts.chain(overrides).collect();
        text.push_str(&output::table(["PROVIDER", "MODELS", "PRICE"], rows));
    }
    text
}

/// Pico-USD of a token as USD of a million: six digits behind the point are exact.
fn per_million(rate: Option<u64>) -> String {
    rate.map_or("-".to_owned(), |rate| {
        let text = format!("{}.{:06}", rate / 1_000_000, rate % 1_000_000);
        let short = text.trim_end_matches('0').trim_end_matches('.');
        format!("${short}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_shown_as_price_lists_have_it() {
        assert_eq!(per_million(Some(2_500_000)), "$2.5");
        assert_eq!(per_million(Some(10_000_000)), "$10");
        assert_eq!(per_million(Some(75)), "$0.000075");
        assert_eq!(per_million(None), "-");
    }

    #[test]
    fn differences_are_told_with_what_was_and_what_is() {
        let difference = |figure: &str, from: &str, to: &str| PriceDifference {
            provider: "openai".to_owned(),
            model: "gpt-x".to_owned(),
            figure: figure.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let changed = Changed::from(ChangedPrices {
            differences: vec![
                difference("", "", "priced"),
                difference("", "priced", ""),
                difference("rates.input", "", "5"),
            ],
            ..ChangedPrices::default()
        });
        let text = differences(&changed);
        let lines: Vec<_> = text.lines().skip(1).map(str::trim_end).collect();
        assert_eq!(lines[0], "+  openai    gpt-x");
        assert_eq!(lines[1], "-  openai    gpt-x");
        assert_eq!(lines[2], "~  openai    gpt-x  rates.input  not stated  5");
    }
}
