//! Writes the samples of the answer, and corrects counters where the replica changes.

use std::ops::Range;

use crate::Samples;
use crate::dedup::level::{Appended, Change, ReplicaChange, first_fall};
use crate::dedup::markers::Marker;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;
use crate::timeline::Timeline;

/// Appends samples to an answer.
pub(crate) struct Emitter<'a, T> {
    timelines: &'a [T],
    /// Whether a change of replica must not look like a counter reset.
    counter: bool,
    /// Whether the counters are running totals, which never fall.
    totals: bool,
    /// The amount by which counters are raised, or lowered, until the next reset: their replica is at another level than the
    /// one that the answer began with.
    adjust: f64,
    /// Counters are raised to this value until they exceed it: their replica is behind another one.
    floor: Option<f64>,
    last: Option<Appended>,
    out: Samples,
}

impl<'a, T: Timeline> Emitter<'a, T> {
    /// Appends samples of these timelines.
    pub(crate) fn new(timelines: &'a [T], counter: bool, totals: bool) -> Self {
        let mut out = Samples::new();
        let longest = timelines.iter().map(Timeline::len).max().unwrap_or(0);
        out.timestamps.reserve(longest);
        out.values.reserve(longest);
        Self { timelines, counter, totals, adjust: 0.0, floor: None, last: None, out }
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
        self.timelines[marker.replica].emit(marker.place, 0.0, true, &mut self.out);
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
        let (first, place) = (places.start, places.end - 1);
        let follows = |last: Appended| last.replica == replica && last.place + 1 == first;
        let last = self.last.filter(|last| !follows(*last));
        if self.counter
            && let Some(last) = last
        {
            self.change(last, replica, first);
        }
        let timeline = &self.timelines[replica];
        let begin = self.out.timestamps.len();
        if self.adjust == 0.0 && self.floor.is_none() {
            timeline.emit(first, 0.0, last.is_some(), &mut self.out);
            timeline.emit_run(first + 1..places.end, &mut self.out);
        } else {
            self.run_raised(timeline, places, last.is_some());
        }
        let emitted = (self.out.timestamps.len() > begin).then(|| self.out.values.last().copied()).flatten();
        self.last = Some(Appended {
            replica,
            place,
            time: timeline.time(place),
            value: timeline.float(place).zip(emitted),
        });
    }

    /// Appends consecutive samples of a timeline: raised ones up to the next reset, and the others as they are.
    fn run_raised(&mut self, timeline: &T, places: Range<usize>, switched: bool) {
        let from = if switched { places.start } else { places.start.saturating_sub(1) };
        let reset = first_fall(timeline, from, places.end - 1);
        let end = reset.unwrap_or(places.end);
        let mut at = places.start;
        while at < end
            && let Some(floor) = self.floor
        {
            let adjust = match timeline.float(at) {
                Some(value) if value + self.adjust < floor => raise(value, floor),
                Some(value) if value + self.adjust >= floor => {
                    self.floor = None;
                    self.adjust
                }
                _ => 0.0,
            };
            timeline.emit(at, adjust, switched && at == places.start, &mut self.out);
            at += 1;
        }
        if at == places.start && at < end {
            timeline.emit(at, self.adjust, switched, &mut self.out);
            at += 1;
        }
        timeline.emit_raised(at..end, self.adjust, &mut self.out);
        if reset.is_some() {
            (self.adjust, self.floor) = (0.0, None);
        }
        timeline.emit_run(end..places.end, &mut self.out);
    }

    /// Updates the correction for the sample of a replica at `place`, which is appended after `last`, a sample of another
    /// replica or one before samples that are left out.
    fn change(&mut self, last: Appended, replica: usize, place: usize) {
        let timeline = &self.timelines[replica];
        let is_raised = self.adjust != 0.0 || self.floor.is_some();
        let change = match () {
            () if last.replica != replica => {
                let change = ReplicaChange::new(last, &self.timelines[last.replica], timeline, place);
                if self.totals { change.of_totals() } else { change.of_raw(is_raised) }
            }
            () if is_raised && first_fall(timeline, last.place, place).is_some() => Change::Reset,
            () => Change::Same,
        };
        match (change, last.value, timeline.float(place)) {
            (Change::Reset, ..) => (self.adjust, self.floor) = (0.0, None),
            (Change::Behind, Some((_, emitted)), _) => self.floor = Some(emitted),
            (Change::Level(growth), Some((_, emitted)), Some(value)) => {
                let adjust = raise(value, emitted + growth);
                let is_noise = adjust.abs() <= value.abs() * ROUNDING && value >= emitted;
                (self.adjust, self.floor) = (if is_noise { 0.0 } else { adjust }, None);
            }
            _ => {}
        }
    }
}

/// Differences of levels that are less than this part of a value come from rounding.
const ROUNDING: f64 = 1e-12;

/// The amount that raises a value to another one, or above it by a rounding error: never below, which would be a reset.
fn raise(value: f64, to: f64) -> f64 {
    let mut amount = to - value;
    while value + amount < to && amount.is_finite() {
        amount = amount.next_up();
    }
    amount
}
