//! The computations of PromQL's functions and operators, independent of how series are processed.

pub(crate) mod arithmetic;
pub(crate) mod buckets;
pub(crate) mod date;
pub(crate) mod kahan;
pub(crate) mod label;
pub(crate) mod math;
pub(crate) mod natural;
pub(crate) mod quantile;
pub(crate) mod range;
