//! What calls cost. Prices as data; usage read from answers in every dialect, as they pass; what a
//! call may come to at the most, before it is made; and the changes to requests and answers that make
//! both possible. Pure: no I/O, no async, no clock, and of what passes through it keeps figures only.

mod json;
mod prices;
mod request;
mod usage;

pub use prices::{
    BUILTIN_VERSION, Basis, Bound, DatedTable, Day, Discount, ModelKind, ModelPrice, Moment,
    NoBound, NoPrice, PriceBook, PriceChange, PriceDocument, PriceTable, PriceTableError,
    PriceView, Priced, Prices, Rates, TenantPrices, Term, Terms, Tier, WorstCase, diff, diff_terms,
};
pub use request::{
    CacheUse, Edit, Filter, InvalidRequest, OutputLimit, Piece, RequestOutline, UsageOptIn, apply,
};
pub use usage::{Ended, Format, Framing, Meter, Metered, Reading, Usage};
