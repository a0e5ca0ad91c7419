use domain::{ProviderId, Timestamp};
use metering::{PriceBook, PriceTable, PriceTableError, PriceView, Priced, Usage};

/// The prices that calls have here.
#[derive(Debug)]
pub(crate) struct Prices {
    book: PriceBook,
    version: String,
}

impl Prices {
    /// The table that comes with this build.
    pub(crate) fn of_this_build() -> Result<Self, PriceTableError> {
        let table = PriceTable::builtin()?;
        let version = table.version.to_string();
        Ok(Self { book: PriceBook::new(table), version })
    }

    /// Which prices they are, for records.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The prices of a call that started at this moment.
    pub(crate) fn at(&self, start: Timestamp) -> PriceView<'_> {
        self.book.at(start, None)
    }
}

/// What a call came to under the first of these names of the model that has a price.
pub(crate) fn price(
    view: &PriceView<'_>,
    provider: &ProviderId,
    models: [&str; 2],
    usage: &Usage,
) -> Priced {
    let [first, second] = models;
    let priced = view.price(provider, first, usage);
    let is_known = matches!(priced, Priced::Known { .. });
    if is_known || first == second || second.is_empty() {
        return priced;
    }
    view.price(provider, second, usage)
}
