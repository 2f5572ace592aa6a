//! What keeps values that are not going to be chosen from travelling to `topk`, `bottomk` and `limitk`.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::eval::aggregate::grouping::GroupNumbers;
use crate::plan::node::Grouping;
use crate::syntax::ast::AggregateOp;
use crate::value::column::{ABSENT, Row, is_absent};

/// What a value has to beat to be chosen. The aggregation moves the bars as it chooses; workers look at them.
///
/// Thresholds get only harder to beat, so a value that does not beat an earlier one would not be chosen later either: when workers look makes no
/// difference to the answer.
#[derive(Debug)]
pub(crate) struct Sieve {
    grouping: Grouping,
    order: RankOrder,
    bars: RwLock<Thresholds>,
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

/// The bars of each group at each step.
#[derive(Debug, Default)]
pub(super) struct Thresholds {
    pub(super) groups: GroupNumbers,
    /// Absent while any value will do.
    pub(super) steps: Vec<Vec<f64>>,
}

impl Sieve {
    /// No bar yet. `limitk` takes any value as long as there is none, and then nothing beats the infinite bar that it sets.
    pub(super) fn new(op: AggregateOp, grouping: &Grouping) -> Self {
        let order = match op {
            AggregateOp::TopK | AggregateOp::LimitK => RankOrder::Top,
            AggregateOp::BottomK => RankOrder::Bottom,
            _ => RankOrder::None,
        };
        Self { grouping: grouping.clone(), order, bars: RwLock::default() }
    }

    /// Takes those values out of a series that are not going to be chosen; `false` where none is left.
    pub(crate) fn apply(&self, row: &mut Row, key: &mut Vec<u8>) -> bool {
        // Histograms have no order.
        if matches!(self.order, RankOrder::None) || !row.column.histograms.is_empty() {
            return true;
        }
        let bars = self.look();
        let Some(group) = bars.groups.find(&self.grouping, &row.labels, key) else { return true };
        let mut left = false;
        let steps = bars.steps.get(group).into_iter().flatten();
        for (value, bar) in row.column.floats.iter_mut().zip(steps) {
            if self.is_beaten(*value, *bar) {
                *value = ABSENT;
            }
            left |= !is_absent(*value);
        }
        left
    }

    /// Whether a value does not beat a bar. Nothing is said of NaN.
    #[inline(always)]
    pub(super) fn is_beaten(&self, value: f64, bar: f64) -> bool {
        match self.order {
            RankOrder::Top => value <= bar,
            RankOrder::Bottom => value >= bar,
            RankOrder::None => false,
        }
    }

    /// The bar where nothing more is chosen, whatever the value.
    pub(super) fn unbeatable(&self) -> f64 {
        match self.order {
            RankOrder::Top => f64::INFINITY,
            RankOrder::Bottom => f64::NEG_INFINITY,
            RankOrder::None => ABSENT,
        }
    }

    // Nothing panics while it holds the lock.
    fn look(&self) -> RwLockReadGuard<'_, Thresholds> {
        self.bars.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Thresholds> {
        self.bars.write().unwrap_or_else(PoisonError::into_inner)
    }
}
