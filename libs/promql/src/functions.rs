//! What the functions of the language compute, apart from how series flow through them.

pub(crate) mod arithmetic;
pub(crate) mod buckets;
pub(crate) mod date;
pub(crate) mod kahan;
pub(crate) mod label;
pub(crate) mod math;
pub(crate) mod natural;
pub(crate) mod quantile;
pub(crate) mod range;
