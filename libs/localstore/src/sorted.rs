//! The series of an answer whose order is not that of their stored labels: sorted in memory, without their chunks.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use head::{DatabaseView, FoundSeries};
use model::Labels;
use series::Series;
use storeapi::StoreError;
use tsdb::{BlockSeries, ChunkMeta};

use crate::input::{BlockInput, Input, Missing, head_chunks, join};
use crate::question::Question;

/// Most memory of the series of one answer, in bytes.
const SORTED_BYTES: usize = 1 << 30;

/// Where the chunks of a series are.
enum Part {
    Head(FoundSeries),
    /// In this block of the answer.
    Block(usize, BlockSeries),
}

struct Entry {
    sent: Labels,
    stored: Labels,
    part: Part,
}

/// Sorted series whose chunks are not read yet.
pub(crate) struct Sorted {
    entries: Peekable<IntoIter<Entry>>,
    blocks: Vec<BlockInput>,
    mixed: MixedSeries,
}

/// Series that differ only in labels which external labels override. Their samples are mixed.
#[derive(Default)]
struct MixedSeries {
    count: u64,
    overridden: BTreeSet<String>,
    example: Option<Labels>,
}

impl Sorted {
    pub(crate) fn new(
        inputs: Vec<Input>,
        question: &Question,
        view: &DatabaseView,
        missing: &mut Missing,
    ) -> Result<Self, StoreError> {
        let (mut entries, mut blocks, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut add = |stored: &Labels, part: Part, chunks: usize| {
            let sent = question.sent(stored);
            bytes += size_of::<Entry>()
                + sent.size_bytes()
                + stored.size_bytes()
                + chunks * size_of::<ChunkMeta>();
            if bytes > SORTED_BYTES {
                return Err(StoreError::limit(format!(
                    "the request selects more than {SORTED_BYTES} bytes of series that must be sorted; narrow its matchers or \
                     its time range"
                )));
            }
            entries.push(Entry { sent, stored: stored.clone(), part });
            Ok(())
        };
        for input in inputs {
            match input {
                Input::Head(series) => {
                    for found in series {
                        if question.is_in_shard(found.labels())
                            && view.head().has_chunks(&found, question.narrowed.range)
                        {
                            let labels = found.labels().clone();
                            add(&labels, Part::Head(found), 0)?;
                        }
                    }
                }
                Input::Block(mut block) => {
                    let number = blocks.len();
                    while let Some(series) = block.next_entries(question, missing) {
                        for found in series {
                            let (labels, chunks) = (found.labels.clone(), found.chunks.len());
                            add(&labels, Part::Block(number, found), chunks)?;
                        }
                    }
                    blocks.push(block);
                }
            }
        }
        entries.sort_by(|a, b| (&a.sent, &a.stored).cmp(&(&b.sent, &b.stored)));
        Ok(Self { entries: entries.into_iter().peekable(), blocks, mixed: MixedSeries::default() })
    }

    /// The next series, if it has samples; `None` at the end.
    pub(crate) fn next(
        &mut self,
        question: &Question,
        view: &DatabaseView,
        missing: &mut Missing,
    ) -> Option<Option<Series>> {
        let Some(first) = self.entries.next() else {
            self.mixed.warning().into_iter().for_each(|warning| missing.push(warning));
            return None;
        };
        let labels = first.sent.clone();
        let mut stored = first.stored.clone();
        let mut chunks = Vec::new();
        let mut next = Some(first);
        while let Some(entry) = next {
            if entry.stored != stored {
                self.mixed.add(&stored, &entry.stored, &question.narrowed.external);
                stored = entry.stored.clone();
            }
            if !question.request.skip_chunks {
                let more = match &entry.part {
                    Part::Head(found) => head_chunks(view, found, question, missing),
                    Part::Block(number, series) => {
                        self.blocks[*number].read(series, question.producer, missing)
                    }
                };
                join(&mut chunks, more);
            }
            next = self.entries.next_if(|entry| entry.sent == labels);
        }
        let is_there = question.request.skip_chunks || !chunks.is_empty();
        Some(is_there.then_some(Series { labels, chunks }))
    }
}

impl MixedSeries {
    /// Adds two series that are sent as one. They are mixed if the external labels alone make them equal.
    fn add(&mut self, one: &Labels, other: &Labels, external: &Labels) {
        let labels = other.extended(external);
        if one.extended(external) != labels {
            return;
        }
        self.count += 1;
        let differs = external.iter().filter(|label| one.get(label.name) != other.get(label.name));
        self.overridden.extend(differs.map(|label| label.name.to_owned()));
        self.example.get_or_insert(labels);
    }

    fn warning(&mut self) -> Option<String> {
        let example = self.example.take()?;
        let names = Vec::from_iter(self.overridden.iter().map(String::as_str)).join(", ");
        Some(format!(
            "{} series became equal to others because external labels override their labels {names}, for example {example}; \
             their samples are mixed; rename these labels with metric_relabel_configs",
            self.count
        ))
    }
}
