//! Deduplication by plain union: every sample of every replica, one for each timestamp.

use crate::Samples;
use crate::timeline::{Mixed, Timeline};

/// The samples of both in time order; where both have one at the same time, that of `a`.
pub(crate) fn merge(a: &Samples, b: &Samples) -> Samples {
    let mut out = Samples::new();
    out.timestamps.reserve(a.timestamps.len() + b.timestamps.len());
    out.values.reserve(a.values.len() + b.values.len());
    let (x, y) = (Mixed::new(a), Mixed::new(b));
    let (mut i, mut j) = (0, 0);
    let mut used_a = None;
    while i < x.len() || j < y.len() {
        let take_a = j == y.len() || (i < x.len() && x.time(i) <= y.time(j));
        let switched = used_a.is_some_and(|used| used != take_a);
        used_a = Some(take_a);
        if take_a {
            if j < y.len() && x.time(i) == y.time(j) {
                j += 1;
            }
            x.emit(i, 0.0, switched, &mut out);
            i += 1;
        } else {
            y.emit(j, 0.0, switched, &mut out);
            j += 1;
        }
    }
    out
}
