//! Aggregations. [`fold`] for those that need only a few numbers for each group and step, [`pick`] for those that choose
//! series, [`collect`] for those that need all values at once.

pub(crate) mod collect;
pub(crate) mod fold;
pub(crate) mod grouping;
pub(crate) mod pick;
pub(crate) mod sieve;
