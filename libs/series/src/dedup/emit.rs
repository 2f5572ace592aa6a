//! Writes the samples of the answer, and corrects counters where the replica changes.

use std::ops::Range;

use crate::Samples;
use crate::dedup::markers::Marker;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;
use crate::timeline::Timeline;

/// The sample that was appended last.
#[derive(Clone, Copy)]
struct PreviousSample {
    replica: usize,
    /// Its index in the timeline of the replica.
    place: usize,
    time: i64,
    /// Its value, if it was a float.
    value: Option<f64>,
}

/// Appends samples to an answer.
pub(crate) struct Emitter<'a, T> {
    replicas: Vec<Side<'a, T>>,
    /// Whether a change of replica must not look like a counter reset.
    counter: bool,
    /// Whether the counters are running totals, which never fall.
    totals: bool,
    last: Option<PreviousSample>,
    out: Samples,
}

/// One replica.
struct Side<'a, T> {
    timeline: &'a T,
    /// The amount by which counter values are raised, because they were lower than those of another replica.
    adjust: f64,
    /// Index of the last sample for which `adjust` was checked.
    adjusted_at: usize,
}

impl<'a, T: Timeline> Emitter<'a, T> {
    /// Appends samples of these timelines.
    pub(crate) fn new(timelines: &'a [T], counter: bool, totals: bool) -> Self {
        let side = |timeline| Side { timeline, adjust: 0.0, adjusted_at: 0 };
        let mut out = Samples::new();
        let longest = timelines.iter().map(Timeline::len).max().unwrap_or(0);
        out.timestamps.reserve(longest);
        out.values.reserve(longest);
        Self { replicas: timelines.iter().map(side).collect(), counter, totals, last: None, out }
    }

    /// The answer: the pieces and the markers in order of time.
    pub(crate) fn emit(mut self, tracks: &[Track<'_>], pieces: &[Piece], markers: &[Marker]) -> Samples {
        let mut markers = markers.iter().peekable();
        for Piece { replica, samples } in pieces {
            let track = &tracks[*replica];
            let mut begin = samples.start;
            while let Some(marker) =
                markers.next_if(|marker| samples.end > begin && marker.time < track.times[samples.end - 1])
            {
                let cut = begin.max(track.at_or_after(marker.time));
                self.samples(*replica, track, begin..cut);
                self.mark(marker);
                begin = cut;
            }
            self.samples(*replica, track, begin..samples.end);
        }
        markers.for_each(|marker| self.mark(marker));
        self.out
    }

    fn mark(&mut self, marker: &Marker) {
        self.replicas[marker.replica].timeline.emit(marker.place, 0.0, true, &mut self.out);
    }

    /// Appends samples of a track: runs whose places in the timeline follow each other.
    fn samples(&mut self, replica: usize, track: &Track<'_>, samples: Range<usize>) {
        let mut begin = samples.start;
        while begin < samples.end {
            let first = track.place(begin);
            // Without staleness markers, all places follow each other.
            let mut end = begin + 1;
            if track.markers.is_empty() {
                end = samples.end;
            }
            while end < samples.end && track.place(end) == first + (end - begin) {
                end += 1;
            }
            self.run(replica, first..first + (end - begin));
            begin = end;
        }
    }

    /// Appends consecutive samples of a timeline.
    fn run(&mut self, replica: usize, places: Range<usize>) {
        let first = places.start;
        let follows = |last: PreviousSample| last.replica == replica && last.place + 1 == first;
        let switched = self.last.is_some_and(|last| !follows(last));
        if self.counter {
            self.adjust(replica, first);
        }
        let side = &mut self.replicas[replica];
        let mut adjust = side.adjust;
        side.timeline.emit(first, adjust, switched, &mut self.out);
        let (mut at, place) = (first + 1, places.end - 1);
        if adjust != 0.0 {
            let reset = first_fall(side.timeline, side.adjusted_at, place).map(|reset| reset.max(at));
            let end = reset.unwrap_or(places.end);
            side.timeline.emit_raised(at..end, adjust, &mut self.out);
            at = end;
            if reset.is_some() {
                (adjust, side.adjust) = (0.0, 0.0);
            }
            side.adjusted_at = place;
        }
        side.timeline.emit_run(at..places.end, &mut self.out);
        let value = side.timeline.float(place).map(|value| value + adjust);
        self.last = Some(PreviousSample { replica, place, time: side.timeline.time(place), value });
    }

    /// Updates the amount by which a replica is raised, for its sample at `place`, which is appended next. A sample whose
    /// counter began after the one before it shows a real reset.
    fn adjust(&mut self, replica: usize, place: usize) {
        let side = &self.replicas[replica];
        let timeline = side.timeline;
        let Some(value) = timeline.float(place) else { return };
        let mut adjust = side.adjust;
        if adjust != 0.0 && falls(timeline, side.adjusted_at, place) {
            adjust = 0.0;
        }
        if let Some(last @ PreviousSample { value: Some(before), .. }) = self.last
            && last.replica != replica
            && before > value + adjust
            && (self.totals || !self.was_reset(last, replica, place))
        {
            adjust += before - (value + adjust);
        }
        let side = &mut self.replicas[replica];
        (side.adjust, side.adjusted_at) = (adjust, place);
    }

    /// Whether the counter was reset between the sample `last` and that of another replica at `place`: one of the two
    /// replicas shows it.
    fn was_reset(&self, last: PreviousSample, replica: usize, place: usize) -> bool {
        let timeline = self.replicas[replica].timeline;
        let (time, start) = (timeline.time(place), timeline.start(place));
        // A start that is not before its own sample is ignored.
        if start > last.time && start < time {
            return true;
        }
        let left = self.replicas[last.replica].timeline;
        let back = (last.place + 1..left.len()).find(|&at| left.time(at) >= time);
        if back.is_some_and(|back| falls(left, last.place, back)) {
            return true;
        }
        let is_value = |at: &usize| timeline.float(*at).is_some_and(|value| !value.is_nan());
        let known = (0..place).rev().find(|at| timeline.time(*at) <= last.time && is_value(at));
        // A replica that began later cannot know. Counters of one target fall only by a reset.
        let Some(known) = known else { return true };
        if falls(timeline, known, place) {
            return true;
        }
        // A replica that is now this much lower was lower before, too.
        let (Some(at_known), Some(at_last), Some(value)) =
            (timeline.float(known), value_at(left, last.place, timeline.time(known)), timeline.float(place))
        else {
            return false;
        };
        let lower_now = left.float(last.place).map_or(0.0, |before| before - value);
        at_last - at_known < lower_now / 2.0
    }
}

/// Whether a counter falls somewhere from index `from` to `to`.
fn falls<T: Timeline>(timeline: &T, from: usize, to: usize) -> bool {
    first_fall(timeline, from, to).is_some()
}

/// The first index after `from` and up to `to` at which a counter is less than before.
fn first_fall<T: Timeline>(timeline: &T, from: usize, to: usize) -> Option<usize> {
    let mut before = f64::NAN;
    (from..=to).find(|&at| {
        let value = timeline.float(at).unwrap_or(f64::NAN);
        let falls = value < before;
        if !value.is_nan() {
            before = value;
        }
        falls
    })
}

/// The value of a counter at a time, by its samples before and after, up to index `to`. Where it was reset between them, or
/// has none before, it is not more than the one after.
fn value_at<T: Timeline>(timeline: &T, to: usize, time: i64) -> Option<f64> {
    let after = (0..=to).rev().take_while(|&at| timeline.time(at) >= time).last()?;
    let (after_time, after_value) = (timeline.time(after), timeline.float(after)?);
    let before = after.checked_sub(1).and_then(|at| Some((timeline.time(at), timeline.float(at)?)));
    Some(match before {
        Some((before_time, before_value)) if before_value <= after_value => {
            let part = (time - before_time) as f64 / (after_time - before_time) as f64;
            before_value + (after_value - before_value) * part
        }
        _ => after_value,
    })
}
