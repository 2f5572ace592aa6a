//! A random series and its replicas.

use std::collections::BTreeMap;

use model::{FloatHistogram, Timestamp};
use tsdb::HistogramEncoder;

use crate::testing::{OPTIONS, Random, cut, decode_all, range};
use crate::{AggrChunk, DecodeOptions};

pub(crate) const LOOKBACK: i64 = 300_000;
const INTERVALS: [i64; 10] = [1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000];

/// The true series and what its replicas have of it.
pub(crate) struct Case {
    /// From when on each interval of scrapes counts.
    pub(crate) intervals: Vec<(i64, i64)>,
    /// When the counter begins from 0.
    pub(crate) resets: Vec<i64>,
    pub(crate) end: i64,
    /// How early or late a scrape can be, in milliseconds.
    pub(crate) jitter: i64,
    /// The scrapes of each replica without losses.
    pub(crate) scrapes: Vec<Vec<i64>>,
    /// What is left of them.
    pub(crate) kept: Vec<Vec<i64>>,
    /// Scrapes that found nothing, of each replica.
    pub(crate) stale: Vec<Vec<i64>>,
    pub(crate) histograms: bool,
    /// How old the values of each replica are, in milliseconds, and by how much it counts more.
    pub(crate) behind: Vec<i64>,
    pub(crate) above: Vec<f64>,
}

impl Case {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random::seeded(seed);
        let mut intervals = Vec::new();
        let mut end = 1_700_000_000_000 + random.below(1_000_000) as i64;
        let begin = end;
        for _ in 0..1 + random.below(2) {
            let interval = INTERVALS[random.below(INTERVALS.len())];
            intervals.push((end, interval));
            end += interval * (60 + random.below(140)) as i64;
        }
        let least = intervals.iter().map(|(_, interval)| *interval).min().unwrap_or(1_000);
        let jitter = least * [0, 0, 1, 3][random.below(4)] / 100;
        let resets = (0..random.below(4)).map(|_| begin + random.below((end - begin) as usize) as i64);
        let mut resets: Vec<i64> = resets.chain([begin - 50_000_000]).collect();
        resets.sort_unstable();
        let mut case = Self {
            intervals,
            resets,
            end,
            jitter,
            scrapes: Vec::new(),
            kept: Vec::new(),
            stale: Vec::new(),
            histograms: random.below(5) == 0,
            behind: Vec::new(),
            above: Vec::new(),
        };
        for _ in 0..2 + random.below(4) {
            case.add_replica(random);
        }
        case.behind = vec![0; case.scrapes.len()];
        case.above = vec![0.0; case.scrapes.len()];
        case
    }

    /// The same case with replicas that are behind, or at different levels.
    pub(crate) fn uneven(mut self, seed: u64) -> Self {
        let random = &mut Random::seeded(seed ^ 0xaa);
        let least = self.intervals.iter().map(|(_, interval)| *interval).min().unwrap_or(1_000) as usize;
        let levels = random.below(2) == 0;
        if levels {
            // Otherwise a reset would count what a replica has more.
            self.resets.truncate(1);
        }
        for (behind, above) in self.behind.iter_mut().zip(&mut self.above) {
            match levels {
                true => *above = [0.0, 1e8, 2.5e8][random.below(3)],
                false => *behind = random.below(least / 2) as i64,
            }
        }
        self
    }

    fn add_replica(&mut self, random: &mut Random) {
        let mut scrapes = Vec::new();
        for (index, &(from, interval)) in self.intervals.iter().enumerate() {
            let to = self.intervals.get(index + 1).map_or(self.end, |(to, _)| *to);
            let mut at = from + random.below(interval as usize) as i64;
            while at + self.jitter < to {
                let late = random.below(2 * self.jitter as usize + 1) as i64 - self.jitter;
                let after = scrapes.last().map_or(i64::MIN, |last| last + interval / 2);
                if at + late > after {
                    scrapes.push(at + late);
                }
                at += interval;
            }
        }
        let lost = losses(random, scrapes.len());
        let fails = random.below(4) == 0;
        let pick = |wanted: bool| {
            let picked = scrapes.iter().zip(&lost).filter(move |(_, lost)| **lost == wanted);
            picked.map(|(time, _)| *time).collect::<Vec<i64>>()
        };
        let mut stale = pick(true);
        if !fails {
            stale.clear();
        }
        self.kept.push(pick(false));
        self.stale.push(stale);
        self.scrapes.push(scrapes);
    }

    /// Whether some replicas count more than others.
    pub(crate) fn has_levels(&self) -> bool {
        self.above.iter().any(|above| *above != self.above[0])
    }

    /// The longest time without a sample of a replica.
    pub(crate) fn longest_absence(&self) -> i64 {
        let longest = |kept: &Vec<i64>| {
            let ends = [self.intervals[0].0].into_iter().chain(kept.iter().copied()).chain([self.end]);
            let times: Vec<i64> = ends.collect();
            times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
        };
        self.kept.iter().map(longest).max().unwrap_or(0)
    }

    pub(crate) fn value(&self, time: i64) -> f64 {
        let since = self.resets.iter().rev().find(|reset| **reset <= time).copied().unwrap_or(0);
        (time - since) as f64
    }

    pub(crate) fn interval(&self, time: i64) -> i64 {
        self.intervals
            .iter()
            .rev()
            .find(|(from, _)| *from <= time)
            .map_or(self.intervals[0].1, |(_, interval)| *interval)
    }

    /// The chunks of the replicas.
    fn replicas(&self) -> Vec<Vec<AggrChunk>> {
        let replica = |index: usize| {
            let mut all: BTreeMap<i64, f64> =
                self.stale[index].iter().map(|&time| (time, model::stale_nan())).collect();
            let value = |time: i64| self.value(time - self.behind[index]) + self.above[index];
            all.extend(self.kept[index].iter().map(|&time| (time, value(time))));
            let all: Vec<(i64, f64)> = all.into_iter().collect();
            if !self.histograms {
                // By its header, a chunk with a hole and more samples elsewhere can look complete. In short chunks it cannot.
                return cut(&all, 20);
            }
            let histogram = |samples: &[(i64, f64)]| {
                let mut encoder = HistogramEncoder::float();
                for &(time, sum) in samples {
                    let histogram = FloatHistogram { count: 1.0, sum, ..FloatHistogram::default() };
                    encoder.append(Timestamp::from_millis(time), &histogram).unwrap();
                }
                AggrChunk::raw(encoder.finish().unwrap())
            };
            all.chunk_by(|a, b| a.1.is_nan() == b.1.is_nan())
                .flat_map(|run| run.chunks(20))
                .map(histogram)
                .collect()
        };
        (0..self.kept.len()).map(replica).collect()
    }

    /// The samples of the answer to a query that begins at `from`, without staleness markers.
    pub(crate) fn answer(&self, from: i64, window: i64) -> Vec<(i64, f64)> {
        let range = range(from, self.end);
        let options = DecodeOptions { range, window: window.max(LOOKBACK / 3), counter: true, ..OPTIONS };
        let out = decode_all(self.replicas(), &options).unwrap();
        let floats = out.timestamps.into_iter().zip(out.values);
        let histograms = out.histograms.into_iter().map(|(time, h)| (time, h.sum));
        floats.chain(histograms).filter(|(_, value)| !value.is_nan()).collect()
    }
}

/// Which of `count` scrapes are lost: up to 90 of 100.
fn losses(random: &mut Random, count: usize) -> Vec<bool> {
    let mut lost = vec![false; count];
    match random.below(7) {
        0 => {}
        1 | 2 => {
            let percent = [1, 3, 10, 20, 35, 50, 70, 90][random.below(8)];
            lost.iter_mut().for_each(|lost| *lost = random.below(100) < percent);
        }
        3 => {
            let (every, first) = (2 + random.below(9), random.below(10));
            lost.iter_mut().enumerate().for_each(|(index, lost)| *lost = (index + first) % every == 0);
        }
        4 => {
            for _ in 0..1 + random.below(4) {
                let begin = random.below(count.max(1));
                let end = (begin + 1 + random.below(30)).min(count);
                lost[begin..end].fill(true);
            }
        }
        5 => lost[..random.below(count / 2 + 1)].fill(true),
        _ => lost[count - random.below(count / 2 + 1)..].fill(true),
    }
    lost
}
