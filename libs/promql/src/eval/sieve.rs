//! Drops values in workers that `topk`, `bottomk` and `limitk` will not choose.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::eval::grouping::GroupNumbers;
use crate::plan::node::Grouping;
use crate::syntax::ast::AggregateOp;
use crate::value::column::{ABSENT, Row, is_absent};

/// The thresholds that a value must beat to be chosen. The aggregation updates them as it chooses; workers read them.
///
/// Thresholds only become harder to beat. A value that does not beat an earlier one would not be chosen later either, so the
/// answer does not depend on when workers read them.
#[derive(Debug)]
pub(crate) struct Sieve {
    grouping: Grouping,
    order: RankOrder,
    thresholds: RwLock<Thresholds>,
}

/// Which values are better.
#[derive(Clone, Copy, Debug)]
enum RankOrder {
    /// Greater ones.
    Top,
    Bottom,
    /// Any value may be chosen.
    None,
}

/// The threshold of each group at each step.
#[derive(Debug, Default)]
pub(crate) struct Thresholds {
    pub(crate) groups: GroupNumbers,
    /// [`ABSENT`] while any value would be chosen.
    pub(crate) steps: Vec<Vec<f64>>,
}

impl Sieve {
    /// No thresholds yet. `limitk` chooses any value until it has enough, and then sets an infinite threshold.
    pub(crate) fn new(op: AggregateOp, grouping: &Grouping) -> Self {
        let order = match op {
            AggregateOp::TopK | AggregateOp::LimitK => RankOrder::Top,
            AggregateOp::BottomK => RankOrder::Bottom,
            _ => RankOrder::None,
        };
        Self { grouping: grouping.clone(), order, thresholds: RwLock::default() }
    }

    /// Removes the values of a series that will not be chosen; `false` if none is left.
    pub(crate) fn apply(&self, row: &mut Row, key: &mut Vec<u8>) -> bool {
        // Histograms have no order.
        if matches!(self.order, RankOrder::None) || !row.column.histograms.is_empty() {
            return true;
        }
        let thresholds = self.look();
        let Some(group) = thresholds.groups.find(&self.grouping, &row.labels, key) else { return true };
        let mut left = false;
        let steps = thresholds.steps.get(group).into_iter().flatten();
        for (value, threshold) in row.column.floats.iter_mut().zip(steps) {
            if self.is_beaten(*value, *threshold) {
                *value = ABSENT;
            }
            left |= !is_absent(*value);
        }
        left
    }

    /// Whether a value does not beat a threshold. `false` if one of them is NaN.
    #[inline(always)]
    pub(crate) fn is_beaten(&self, value: f64, threshold: f64) -> bool {
        match self.order {
            RankOrder::Top => value <= threshold,
            RankOrder::Bottom => value >= threshold,
            RankOrder::None => false,
        }
    }

    /// A threshold that no value beats.
    pub(crate) fn unbeatable(&self) -> f64 {
        match self.order {
            RankOrder::Top => f64::INFINITY,
            RankOrder::Bottom => f64::NEG_INFINITY,
            RankOrder::None => ABSENT,
        }
    }

    // No code panics while the lock is held.
    fn look(&self) -> RwLockReadGuard<'_, Thresholds> {
        self.thresholds.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self) -> RwLockWriteGuard<'_, Thresholds> {
        self.thresholds.write().unwrap_or_else(PoisonError::into_inner)
    }
}
