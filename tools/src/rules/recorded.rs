//! What a recording rule records over a range, and the block that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use model::{Labels, Sample, Timestamp, is_stale_nan, stale_nan};
use promapi::AnsweredSeries;
use rules::{Rule, Schedule};
use tsdb::{BlockMeta, BlockOptions, BlockWriter, ChunkBuilder, Encoding, ThanosMeta, Ulid};

use crate::error::{Cause, Result, ToolError};

/// A recording rule and when it is evaluated.
pub(super) struct RecordedRule {
    rule: Rule,
    schedule: Schedule,
    offset_millis: i64,
    /// Most series; 0 for no limit.
    limit: usize,
    /// The series of its last instant, which get a staleness marker if they are not in the next one.
    open: BTreeSet<Labels>,
}

/// The samples of all rules in the time of a block.
#[derive(Default)]
pub(super) struct WindowSamples {
    series: BTreeMap<Labels, BTreeMap<Timestamp, f64>>,
}

impl RecordedRule {
    pub(super) fn new(rule: Rule, schedule: Schedule, offset: Duration, limit: usize) -> Self {
        let offset_millis = i64::try_from(offset.as_millis()).unwrap_or(i64::MAX);
        Self { rule, schedule, offset_millis, limit, open: BTreeSet::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.rule.name
    }

    pub(super) fn query(&self) -> &str {
        &self.rule.query
    }

    pub(super) fn interval(&self) -> Duration {
        self.schedule.interval()
    }

    fn step_millis(&self) -> i64 {
        i64::try_from(self.interval().as_millis()).unwrap_or(i64::MAX).max(1)
    }

    /// The first and the last instant of a range at which the rule records; `None` if there is none.
    pub(super) fn instants(&self, (from, until): (Timestamp, Timestamp)) -> Option<(Timestamp, Timestamp)> {
        // Samples have the time of the evaluation less the offset.
        let at_or_after = self.schedule.after(from.offset_millis(self.offset_millis).offset_millis(-1));
        let first = at_or_after.offset_millis(-self.offset_millis);
        let steps = until.millis_since(first).checked_div(self.step_millis()).filter(|_| first <= until)?;
        Some((first, first.offset_millis(steps.saturating_mul(self.step_millis()))))
    }

    /// Adds what it records at the instants from `first` to `last` to `samples`, and the staleness markers of series that vanish.
    ///
    /// # Errors
    /// Two series are equal after the labels of the rule are set, there are more than the limit, or there are native histograms,
    /// which answers in JSON do not have exactly.
    pub(super) fn record(
        &mut self,
        answer: Vec<AnsweredSeries>,
        (first, last): (Timestamp, Timestamp),
        samples: &mut WindowSamples,
    ) -> Result<(), String> {
        let step = self.step_millis();
        let mut counts: BTreeMap<Timestamp, usize> = BTreeMap::new();
        let mut own: BTreeMap<Labels, BTreeMap<Timestamp, f64>> = BTreeMap::new();
        for series in answer {
            if series.histograms > 0 {
                return Err("its values are native histograms, which cannot be backfilled; remove the rule"
                    .to_owned());
            }
            let labels = self.rule.series_labels(&series.labels);
            let values = own.entry(labels).or_default();
            for Sample { timestamp, value } in series.floats {
                *counts.entry(timestamp).or_default() += 1;
                if values.insert(timestamp, value).is_some() {
                    return Err("vector contains metrics with the same labelset after applying rule labels"
                        .to_owned());
                }
            }
        }
        if let Some((at, count)) = counts.iter().find(|(_, count)| self.limit > 0 && **count > self.limit) {
            return Err(format!(
                "exceeded limit of {} with {count} series at {}",
                self.limit,
                crate::text::instant(*at)
            ));
        }
        for labels in std::mem::take(&mut self.open) {
            own.entry(labels).or_default().entry(first).or_insert_with(stale_nan);
        }
        for (labels, mut values) in own {
            let ends: Vec<Timestamp> = values
                .iter()
                .filter(|(_, value)| !is_stale_nan(**value))
                .map(|(at, _)| at.offset_millis(step))
                .filter(|next| !values.contains_key(next))
                .collect();
            for end in ends {
                if end <= last {
                    values.insert(end, stale_nan());
                } else {
                    self.open.insert(labels.clone());
                }
            }
            let all = samples.series.entry(labels).or_default();
            for (at, value) in values {
                // A rule does not write over what an earlier one has recorded.
                all.entry(at).or_insert(value);
            }
        }
        Ok(())
    }
}

impl WindowSamples {
    /// Writes the block of the window, or nothing if there is no sample.
    pub(super) fn write(
        self,
        dir: &Path,
        (from, until): (Timestamp, Timestamp),
        labels: &[(String, String)],
    ) -> Result<Option<BlockMeta>> {
        if self.series.values().all(BTreeMap::is_empty) {
            return Ok(None);
        }
        let mut options = BlockOptions::new(self.id(until));
        options.times = Some((from, until));
        options.thanos = (!labels.is_empty()).then(|| ThanosMeta {
            version: 1,
            labels: labels.iter().cloned().collect(),
            source: "tools.rules.backfill".to_owned(),
            ..ThanosMeta::default()
        });
        let mut writer = BlockWriter::create(dir, options)?;
        for (labels, values) in &self.series {
            let mut builder = ChunkBuilder::new();
            let failed =
                |error: tsdb::AppendError| ToolError::new(Cause::Failed, format!("{labels}: {error}"));
            for (at, value) in values {
                let sample = Sample { timestamp: *at, value: *value };
                builder.append_float(Encoding::Xor, sample, Timestamp::EPOCH).map_err(failed)?;
            }
            writer.add_series(labels, builder.finish().map_err(failed)?)?;
        }
        Ok(Some(writer.finish()?))
    }

    /// An id that follows from the samples: a second run finds the block of the first.
    fn id(&self, until: Timestamp) -> Ulid {
        // FNV-1a with 128 bits.
        let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
            }
        };
        for (labels, values) in &self.series {
            add(labels.to_string().as_bytes());
            for (at, value) in values {
                add(&at.as_millis().to_le_bytes());
                add(&value.to_bits().to_le_bytes());
            }
        }
        Ulid::from_parts(u64::try_from(until.as_millis()).unwrap_or(0), hash)
    }
}

#[cfg(test)]
mod tests {
    use rules::{RuleFile, RuleFileOptions};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn recorded(labels: &str, limit: usize) -> RecordedRule {
        let text = format!("groups: [{{name: g, rules: [{{record: r, expr: x, labels: {labels}}}]}}]");
        let file = RuleFile::parse(&text, &RuleFileOptions::default()).unwrap();
        let rule = file.groups.into_iter().next().unwrap().rules.pop().unwrap();
        RecordedRule::new(
            rule,
            Schedule::new("f", "g", Duration::from_secs(60)),
            Duration::from_secs(120),
            limit,
        )
    }

    fn series(job: &str, floats: &[(i64, f64)]) -> AnsweredSeries {
        AnsweredSeries {
            labels: Labels::from_pairs([("__name__", "x"), ("job", job)]).unwrap(),
            floats: floats
                .iter()
                .map(|(seconds, value)| Sample { timestamp: at(*seconds), value: *value })
                .collect(),
            histograms: 0,
        }
    }

    fn shown(samples: &WindowSamples) -> Vec<String> {
        let values = samples.series.iter().map(|(labels, values)| {
            let values = values.iter().map(|(at, value)| {
                let value = if is_stale_nan(*value) { "stale".to_owned() } else { value.to_string() };
                format!("{}={value}", at.as_millis() / 1000)
            });
            format!("{labels} {}", values.collect::<Vec<_>>().join(" "))
        });
        values.collect()
    }

    #[test]
    fn instants_are_those_of_the_schedule_less_the_offset() {
        let rule = recorded("{}", 0);
        let (first, last) = rule.instants((at(7200), at(14_399))).unwrap();
        assert!(first >= at(7200) && first < at(7260) && last > at(14_339) && last <= at(14_399));
        assert_eq!(rule.schedule.at_or_before(first.offset_millis(120_000)), first.offset_millis(120_000));
        assert_eq!(rule.instants((first.offset_millis(1), first.offset_millis(2))), None);
        assert_eq!(rule.instants((first, first)), Some((first, first)));
    }

    #[test]
    fn series_get_staleness_markers_where_they_vanish_also_in_the_next_block() {
        let mut rule = recorded("{new: n}", 0);
        let mut samples = WindowSamples::default();
        let answer = vec![series("a", &[(60, 1.0), (120, 2.0), (240, 3.0)]), series("b", &[(60, 5.0)])];
        rule.record(answer, (at(60), at(240)), &mut samples).unwrap();
        assert_eq!(
            shown(&samples),
            [r#"r{job="a", new="n"} 60=1 120=2 180=stale 240=3"#, r#"r{job="b", new="n"} 60=5 120=stale"#]
        );
        let mut samples = WindowSamples::default();
        rule.record(vec![series("b", &[(300, 1.0)])], (at(300), at(360)), &mut samples).unwrap();
        assert_eq!(
            shown(&samples),
            [r#"r{job="a", new="n"} 300=stale"#, r#"r{job="b", new="n"} 300=1 360=stale"#]
        );
    }

    #[test]
    fn what_a_ruler_would_refuse_is_refused() {
        let check = |rule: &mut RecordedRule, answer: Vec<AnsweredSeries>, expected: &str| {
            let error = rule.record(answer, (at(60), at(120)), &mut WindowSamples::default()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let both = || vec![series("a", &[(60, 1.0)]), series("b", &[(60, 2.0)])];
        check(&mut recorded("{job: x}", 0), both(), "same labelset");
        check(&mut recorded("{}", 1), both(), "exceeded limit of 1 with 2 series at 1970-01-01T00:01:00Z");
        let histogram = AnsweredSeries { histograms: 1, ..series("a", &[]) };
        check(&mut recorded("{}", 0), vec![histogram], "native histograms");
        let apart = vec![series("a", &[(60, 1.0)]), series("b", &[(120, 2.0)])];
        recorded("{job: x}", 1).record(apart, (at(60), at(120)), &mut WindowSamples::default()).unwrap();
    }
}
