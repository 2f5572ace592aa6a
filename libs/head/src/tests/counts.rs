//! What a head says it contains, without looking at its series.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::head::joined;
use crate::late::LateSamples;
use crate::tests::{at, labels, open};
use crate::{Head, HeadStats};

/// What a look at every series finds.
pub(crate) fn looked_at(head: &Head) -> HeadStats {
    let index = head.index.read().unwrap_or_else(PoisonError::into_inner);
    let (mut chunks, mut times) = (0, None);
    for series in index.all() {
        let state = series.lock();
        chunks += state.chunk_count();
        let late = state.late.as_deref().and_then(LateSamples::range);
        times = joined(joined(times, state.times()), late);
    }
    let exemplars = head.exemplars.read().unwrap_or_else(PoisonError::into_inner).len();
    HeadStats { series: index.len(), chunks, exemplars, times }
}

/// Metrics are read every few seconds, and a head may have millions of series.
#[test]
fn statistics_look_at_no_series() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open(dir.path(), i64::MIN);
    let series = head.series(&labels(&[("__name__", "up")]));
    let mut appender = head.appender();
    appender.append_float(&series, at(1_000), at(0), 1.0).unwrap();
    appender.commit().unwrap();
    let expected = looked_at(&head);
    let head = Arc::new(head);
    let locked = series.0.lock();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn({
        let head = Arc::clone(&head);
        move || sender.send((head.stats(), head.next_block()))
    });
    let found = receiver.recv_timeout(Duration::from_secs(60));
    drop(locked);
    assert_eq!(found, Ok((expected, None)), "the statistics wait for a series that is locked");
}
