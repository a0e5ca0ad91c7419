//! Prices: tables in force from a date, what a tenant has negotiated, what a call costs by them.

mod book;
mod diff;
mod document;
mod table;
mod worst_case;

pub use book::{Basis, Discount, PriceBook, PriceView, Priced, TenantPrices};
pub use diff::{PriceChange, diff};
pub use document::{DatedTable, Moment, PriceDocument, Prices, Term, Terms, diff_terms};
pub use table::{
    BUILTIN_VERSION, Day, ModelKind, ModelPrice, NoPrice, PriceTable, PriceTableError, Rates, Tier,
};
pub use worst_case::{Bound, NoBound, WorstCase};
