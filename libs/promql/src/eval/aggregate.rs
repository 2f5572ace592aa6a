//! Aggregations: [`fold`] has those that keep a few numbers for each group and step, [`pick`] those that choose series,
//! [`collect`] those that need all values at once.

pub(crate) mod collect;
pub(crate) mod fold;
pub(crate) mod pick;
mod ratio;
