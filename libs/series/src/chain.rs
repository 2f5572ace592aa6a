//! Deduplication by plain union: every sample of every replica, one for each timestamp.

use crate::Samples;
use crate::timeline::{MixedTimeline, Timeline};

/// The samples of all replicas in time order. Where several replicas have a sample at the same time, that of the first is
/// taken. Takes time proportional to the number of samples times the logarithm of the number of replicas.
pub(crate) fn union(replicas: &[Samples]) -> Samples {
    let timelines: Vec<MixedTimeline<'_>> = replicas.iter().map(MixedTimeline::new).collect();
    let places = timelines.iter().enumerate().flat_map(|(replica, timeline)| {
        (0..timeline.len()).map(move |index| (timeline.time(index), replica, index))
    });
    let mut places: Vec<(i64, usize, usize)> = places.collect();
    // Stable, so the first replica stays first; and fast, because the sort uses runs that are sorted already.
    places.sort_by_key(|(time, _, _)| *time);
    places.dedup_by_key(|(time, _, _)| *time);
    let mut out = Samples::new();
    out.timestamps.reserve(places.len());
    out.values.reserve(places.len());
    let mut before = None;
    for (_, replica, index) in places {
        // The sample before it in its replica may have been left out.
        let switched = before.is_some_and(|before| before != (replica, index.wrapping_sub(1)));
        timelines[replica].emit(index, 0.0, switched, &mut out);
        before = Some((replica, index));
    }
    out
}
