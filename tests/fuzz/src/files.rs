use metering::PriceTable;

use crate::text;

/// What an operator writes.
pub(crate) fn broker_config(input: &[u8]) -> bool {
    text(input).is_some_and(|text| toml::from_str::<broker::Config>(text).is_ok())
}

/// What an operator writes.
pub(crate) fn proxy_config(input: &[u8]) -> bool {
    text(input).is_some_and(|text| toml::from_str::<inference_proxy::Config>(text).is_ok())
}

/// Price tables that somebody imports. No price is out of bounds, or costs would be.
pub(crate) fn prices(input: &[u8]) -> bool {
    let Some(table) = text(input).and_then(|text| PriceTable::parse(text).ok()) else {
        return false;
    };
    assert!(metering::diff(&table, &table).is_empty(), "a table differs from itself");
    true
}
