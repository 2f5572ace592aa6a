//! Marks that do not do what they are meant to do.

use std::time::Duration;

use ::bucket::BucketView;
use ::bucket::marks::Mark;
use model::Timestamp;

use crate::bucket::verify::FoundProblem;
use crate::text;

/// A mark may be from this far in the future, because clocks differ a little.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Marks that cannot be used, and marks that were made later than `now`: the clock of a machine is wrong. Such a block is
/// deleted later than planned.
pub(super) fn odd(view: &BucketView, now: Timestamp) -> impl Iterator<Item = FoundProblem> + '_ {
    let unusable = view.unusable_marks.iter().map(|((kind, block), reason)| {
        let text = format!(
            "{kind} cannot be used, so it has no effect: {reason}; remove it with `mark --remove`, then mark the block \
             again"
        );
        FoundProblem { block: *block, issue: "mark", text }
    });
    let is_future = move |mark: &&Mark| mark.time > now + CLOCK_SKEW;
    let future = view.marks.values().filter(is_future).map(|mark| {
        let (kind, at) = (mark.kind, text::instant(mark.time));
        let text = format!(
            "{kind} is from {at}, which is in the future; set the clocks, remove it with `mark --remove`, then mark the block \
             again"
        );
        FoundProblem { block: mark.block, issue: "mark", text }
    });
    unusable.chain(future)
}
