use std::{collections::BTreeMap, sync::Arc};

use domain::{Cost, ModelPattern, ProviderId, Timestamp};

use crate::{ModelPrice, NoPrice, PriceTable, Usage};

/// Tables of prices in the order in which they came into force.
#[derive(Clone, Debug)]
pub struct PriceBook {
    first: Arc<PriceTable>,
    later: BTreeMap<Timestamp, Arc<PriceTable>>,
}

/// What a tenant pays in place of list prices.
#[derive(Clone, Debug, Default)]
pub struct TenantPrices {
    /// Prices of its own, by provider and model. No discount is taken from them.
    pub overrides: BTreeMap<(ProviderId, String), ModelPrice>,
    /// Parts of list prices. The first that fits counts.
    pub discounts: Vec<Discount>,
}

/// A part of the list price.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Discount {
    /// Whose models.
    pub provider: ProviderId,
    /// Which of them.
    pub models: ModelPattern,
    /// How many ten-thousandths of the list price are paid: 8,500 at a discount of 15 %.
    pub parts_of_ten_thousand: u32,
}

/// The prices that one tenant's calls have when they start at one moment.
#[derive(Clone, Debug)]
pub struct PriceView<'a> {
    table: &'a PriceTable,
    tenant: Option<&'a TenantPrices>,
}

/// What a call costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Priced {
    /// This, and why.
    Known {
        /// The exact cost.
        cost: Cost,
        /// Who says so.
        basis: Basis,
    },
    /// Nobody knows; never nothing.
    Unknown {
        /// What is missing.
        why: NoPrice,
        /// The part of it that is known.
        at_least: Cost,
    },
}

/// What a cost rests on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Basis {
    /// The provider stated the cost.
    Stated,
    /// A price that was set for the tenant.
    Tenant,
    /// The table of this version, less the tenant's discount.
    Table(u32),
}

impl PriceBook {
    /// A book that begins with this table, which also prices whatever was before.
    pub fn new(first: PriceTable) -> Self {
        Self { first: Arc::new(first), later: BTreeMap::new() }
    }

    /// Puts a table into force from a moment on, in place of one that was to come into force at the
    /// same moment. Calls that started before are priced as they would have been.
    pub fn add(&mut self, from: Timestamp, table: PriceTable) {
        self.later.insert(from, Arc::new(table));
    }

    /// The table in force at a moment.
    pub fn table(&self, at: Timestamp) -> &PriceTable {
        self.later.range(..=at).next_back().map_or(&self.first, |(_, table)| table)
    }

    /// The prices of a call that started at this moment.
    pub fn at<'a>(&'a self, at: Timestamp, tenant: Option<&'a TenantPrices>) -> PriceView<'a> {
        PriceView { table: self.table(at), tenant }
    }
}

impl PriceView<'_> {
    /// What a call came to: what the provider states, where it does, else what its tokens cost.
    pub fn price(&self, provider: &ProviderId, model: &str, usage: &Usage) -> Priced {
        if let Some(cost) = usage.stated {
            return Priced::Known { cost, basis: Basis::Stated };
        }
        let Some((price, basis, parts)) = self.find(provider, model) else {
            return Priced::Unknown { why: NoPrice::UnknownModel, at_least: Cost::ZERO };
        };
        match price.cost(usage) {
            Ok(cost) => Priced::Known { cost: cost.parts_of_ten_thousand(parts), basis },
            Err(why) => {
                let at_least = price.known_part(usage).parts_of_ten_thousand(parts);
                Priced::Unknown { why, at_least }
            }
        }
    }

    /// A model's price, what it rests on, and how many ten-thousandths of it are paid.
    pub(crate) fn find(
        &self,
        provider: &ProviderId,
        model: &str,
    ) -> Option<(&ModelPrice, Basis, u32)> {
        if let Some(tenant) = self.tenant
            && !tenant.overrides.is_empty()
            && let Some(price) = tenant.overrides.get(&(provider.clone(), model.to_owned()))
        {
            return Some((price, Basis::Tenant, WHOLE));
        }
        let price = self.table.price(provider.as_str(), model)?;
        let discounts = self.tenant.map(|tenant| &*tenant.discounts).unwrap_or_default();
        let discount =
            discounts.iter().find(|it| it.provider == *provider && it.models.matches(model));
        let parts = discount.map_or(WHOLE, |it| it.parts_of_ten_thousand);
        Some((price, Basis::Table(self.table.version), parts))
    }
}

const WHOLE: u32 = 10_000;
