use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use domain::{ModelPattern, ProviderId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Discount, ModelPrice, PriceBook, PriceChange, PriceTable, PriceTableError, PriceView,
    TenantPrices, diff,
};

/// A moment as documents of prices write it: RFC 3339, to the millisecond.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(pub Timestamp);

/// List prices with the moment from which calls are priced by them, as they are kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatedTable {
    /// From when on; absent in the table that comes with a build, which was always in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_time: Option<Moment>,
    /// The table.
    pub table: PriceTable,
}

/// What one tenant pays in place of list prices, as it is written and kept.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// From when on. Whoever sets terms leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_time: Option<Moment>,
    /// Prices of its own, by provider and model.
    #[serde(default)]
    pub overrides: BTreeMap<String, BTreeMap<String, ModelPrice>>,
    /// Parts of list prices. The first that fits counts.
    #[serde(default)]
    pub discounts: Vec<Term>,
}

/// A part of the list price, as it is written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Whose models.
    pub provider: String,
    /// Which of them: a name, or a prefix that ends in `*`.
    pub models: String,
    /// How many ten-thousandths of the list price are paid.
    pub parts_of_ten_thousand: u32,
}

/// All that a tenant's calls are priced by, now and in what is known of the future: what brokers hand
/// to whoever makes calls.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PriceDocument {
    /// As leases name it.
    pub version: String,
    /// The tables, in the order in which they come into force.
    pub tables: Vec<DatedTable>,
    /// The tenant's terms, in the order in which they come into force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Terms>,
}

/// The prices of one version: a [`PriceDocument`] that can be asked.
#[derive(Clone, Debug)]
pub struct Prices {
    version: String,
    book: PriceBook,
    terms: BTreeMap<Timestamp, TenantPrices>,
}

impl PriceDocument {
    /// Reads a document.
    pub fn parse(document: &[u8]) -> Result<Self, PriceTableError> {
        Ok(serde_json::from_slice(document)?)
    }

    /// The document as bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PriceTableError> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl Prices {
    /// Reads a document as brokers hand it out.
    pub fn parse(document: &[u8]) -> Result<Self, PriceTableError> {
        PriceDocument::parse(document)?.try_into()
    }

    /// The version that leases name.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The prices of a call that started at this moment.
    pub fn at(&self, start: Timestamp) -> PriceView<'_> {
        let terms = self.terms.range(..=start).next_back().map(|(_, terms)| terms);
        self.book.at(start, terms)
    }
}

impl TryFrom<PriceDocument> for Prices {
    type Error = PriceTableError;

    fn try_from(document: PriceDocument) -> Result<Self, PriceTableError> {
        let mut tables = document.tables.into_iter();
        let first = tables.next().ok_or(PriceTableError::NoTable)?;
        let mut book = PriceBook::new(first.table.checked()?);
        for DatedTable { effective_time, table } in tables {
            book.add(effective_time.ok_or(PriceTableError::NoTime)?.0, table.checked()?);
        }
        let mut terms = BTreeMap::new();
        for one in document.terms {
            let from = one.effective_time.ok_or(PriceTableError::NoTime)?.0;
            terms.insert(from, TenantPrices::try_from(&one)?);
        }
        Ok(Self { version: document.version, book, terms })
    }
}

impl Terms {
    /// Reads terms and checks them.
    pub fn parse(text: &[u8]) -> Result<Self, PriceTableError> {
        let terms: Self = serde_json::from_slice(text)?;
        TenantPrices::try_from(&terms)?;
        Ok(terms)
    }
}

impl TryFrom<&Terms> for TenantPrices {
    type Error = PriceTableError;

    fn try_from(terms: &Terms) -> Result<Self, PriceTableError> {
        let mut overrides = BTreeMap::new();
        for (provider, models) in &terms.overrides {
            let id: ProviderId = named(provider)?;
            for (model, price) in models {
                price.check(provider, model)?;
                overrides.insert((id.clone(), model.clone()), price.clone());
            }
        }
        let mut discounts = Vec::with_capacity(terms.discounts.len());
        for term in &terms.discounts {
            if term.parts_of_ten_thousand > WHOLE {
                return Err(PriceTableError::Discount(term.parts_of_ten_thousand));
            }
            discounts.push(Discount {
                provider: named(&term.provider)?,
                models: named::<ModelPattern>(&term.models)?,
                parts_of_ten_thousand: term.parts_of_ten_thousand,
            });
        }
        Ok(Self { overrides, discounts })
    }
}

/// All that differs between two tenants' terms: overrides as in tables, and discounts, each with the
/// figure `discount`.
pub fn diff_terms(old: &Terms, new: &Terms) -> Vec<PriceChange> {
    let mut changes = diff(&as_table(old), &as_table(new));
    let find = |terms: &Terms, of: &(String, String)| {
        let mut all = terms.discounts.iter();
        let found = all.find(|it| it.provider == of.0 && it.models == of.1)?;
        Some(found.parts_of_ten_thousand.into())
    };
    let all = old.discounts.iter().chain(&new.discounts);
    let names: BTreeSet<_> = all.map(|it| (it.provider.clone(), it.models.clone())).collect();
    for name in names {
        let (from, to) = (find(old, &name), find(new, &name));
        if from != to {
            let (provider, model) = name;
            let figure = "discount".to_owned();
            changes.push(PriceChange::Changed { provider, model, figure, from, to });
        }
    }
    changes
}

fn as_table(terms: &Terms) -> PriceTable {
    PriceTable {
        version: 0,
        date: crate::Day::default(),
        sources: BTreeMap::new(),
        providers: terms.overrides.clone(),
    }
}

fn named<T: FromStr>(name: &str) -> Result<T, PriceTableError> {
    name.parse().map_err(|_| PriceTableError::Name(name.to_owned()))
}

const WHOLE: u32 = 10_000;

impl TryFrom<String> for Moment {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        let at: jiff::Timestamp = text.parse()?;
        Ok(Self(Timestamp::from_millis(at.as_millisecond())))
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0.as_millis()) {
            Ok(at) => at.fmt(f),
            // Further away than calendars reach.
            Err(_) => jiff::Timestamp::MAX.fmt(f),
        }
    }
}
