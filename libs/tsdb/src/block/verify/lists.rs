//! Checks postings lists against the labels of the series.

use std::collections::HashMap;
use std::ops::ControlFlow;

use model::{Label, Labels};

use crate::SeriesRef;
use crate::block::verify::findings::Findings;
use crate::error::BlockPart;
use crate::index::label_hash;
use crate::mix::mixed;

/// What the lists should be, from the labels of the series: for each label, by its hash, how many series have it, and a
/// sum over them.
#[derive(Default)]
pub(super) struct ListCheck {
    lists: HashMap<u64, Sum>,
}

/// A set of series in a few bytes. Two sets with the same sum are almost certainly equal.
#[derive(Default)]
struct Sum {
    count: u32,
    /// One of the series, to look up the label for an error.
    example: u32,
    sum: u64,
}

impl Sum {
    fn add(&mut self, series: SeriesRef) {
        self.count += 1;
        self.example = series.0;
        self.sum = self.sum.wrapping_add(mixed(u64::from(series.0)));
    }
}

impl ListCheck {
    pub(super) fn add(&mut self, series: SeriesRef, labels: &Labels) {
        for label in labels {
            self.lists.entry(label_hash(label)).or_default().add(series);
        }
    }

    /// Reads all lists and reports those that differ from the labels of the series.
    pub(super) fn finish(mut self, findings: &mut Findings<'_>) {
        let index = &findings.block.index;
        let names: Vec<&str> = index.label_names().map(|(name, _)| name).collect();
        for name in names {
            let mut problems = Vec::new();
            let read = index.for_each_list(name, &mut |value, list| {
                match index.read_list(list) {
                    Err(error) => problems.push(error),
                    Ok(found) => {
                        let mut sum = Sum::default();
                        found.iter().for_each(|series| sum.add(series));
                        let said = self.lists.remove(&label_hash(Label { name, value })).unwrap_or_default();
                        if (said.count, said.sum) != (sum.count, sum.sum) {
                            let what = format!(
                                "the postings list of {name}={value:?} has {} series, which are not the {} series with this label",
                                sum.count, said.count
                            );
                            problems.push(
                                index.place().at(BlockPart::Postings).contradiction(list.offset, what),
                            );
                        }
                    }
                }
                ControlFlow::Continue(())
            });
            problems.into_iter().for_each(|problem| findings.problem(problem));
            findings.ok_or_report(read);
        }
        let mut missing: Vec<(u64, Sum)> = self.lists.into_iter().collect();
        missing.sort_unstable_by_key(|(_, sum)| sum.example);
        for (hash, sum) in missing {
            let labels = index.series(SeriesRef(sum.example)).map(|series| series.labels);
            let label = labels.ok().and_then(|labels| {
                labels
                    .iter()
                    .find(|label| label_hash(*label) == hash)
                    .map(|l| format!("{}={:?}", l.name, l.value))
            });
            let what = format!(
                "{} series have {}, but it has no postings list",
                sum.count,
                label.as_deref().unwrap_or("a label")
            );
            let place = findings.place(BlockPart::PostingsTable);
            findings.problem(place.malformed(None, what));
        }
    }
}
