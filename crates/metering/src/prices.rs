//! Prices: tables in force from a date, what a tenant has negotiated, what a call costs by them.

mod book;
mod diff;
mod table;
mod worst_case;

pub use book::{Basis, Discount, PriceBook, PriceView, Priced, TenantPrices};
pub use diff::{PriceChange, diff};
pub use table::{Day, ModelKind, ModelPrice, NoPrice, PriceTable, PriceTableError, Rates, Tier};
pub use worst_case::{Bound, NoBound, WorstCase};
