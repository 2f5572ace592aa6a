//! Label names and label values of blocks.
//!
//! Without matchers they come from the tables of the index, which a store has on its disk. With matchers, the entries of the
//! series that match are read, but no chunks.

use std::collections::BTreeSet;
use std::sync::Arc;

use bucket::BlockFault;
use futures::StreamExt;
use model::Labels;
use storeapi::{PartialResponse, StoreError};
use tsdb::BlockError;

use crate::answer::{BeginError, Workers};
use crate::blocks::{BlockFailure, OpenBlock};
use crate::cache::Cache;
use crate::catalog::SelectedBlock;
use crate::deleted::is_left;
use crate::expand::expand;
use crate::meter::RequestMeter;
use crate::reading::ReadRefused;

/// Blocks that are asked at once.
const AT_ONCE: usize = 16;
/// Most bytes of the names or values of one answer.
const MAX_BYTES: usize = 256 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum LabelQuestion {
    /// The names of all labels.
    Names,
    /// The values of this label.
    Values(Arc<str>),
}

/// A request for labels.
pub(crate) struct LabelsOfBlocks {
    pub(crate) workers: Workers,
    pub(crate) cache: Arc<Cache>,
    pub(crate) meter: RequestMeter,
    pub(crate) partial: PartialResponse,
}

/// What blocks have, and what could not be read.
#[derive(Debug, Default)]
pub(crate) struct FoundLabels {
    pub(crate) values: BTreeSet<String>,
    pub(crate) warnings: Vec<String>,
}

/// Why one block gives no answer.
enum LabelError {
    Request(StoreError),
    Block(BlockFailure),
}

impl LabelsOfBlocks {
    /// Asks all blocks. With `is_final`, blocks that are gone are like others that cannot be read.
    ///
    /// # Errors
    /// When a block is gone, or it cannot be read and the request does not permit that data is missing, or a limit is exceeded.
    pub(crate) async fn ask(
        self,
        selected: Vec<SelectedBlock>,
        question: &LabelQuestion,
        is_final: bool,
    ) -> Result<FoundLabels, BeginError> {
        let _cancel = CancelOnDrop(self.meter.clone());
        let count = selected.len();
        let asked = selected.into_iter().map(|selected| self.ask_block(selected, question.clone(), count));
        let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        let (mut found, mut bytes) = (FoundLabels::default(), 0);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(values) => {
                    for value in values {
                        let length = value.len();
                        if found.values.insert(value) {
                            bytes += length;
                        }
                    }
                    if bytes > MAX_BYTES {
                        return Err(BeginError::Failed(StoreError::limit(format!(
                            "the label names or values of the request have more than {MAX_BYTES} bytes; narrow its matchers or its time range"
                        ))));
                    }
                }
                Err(LabelError::Request(error)) => return Err(BeginError::Failed(error)),
                Err(LabelError::Block(failure)) => {
                    self.workers.blocks.note_failure(&failure);
                    if failure.fault == BlockFault::Gone && !is_final {
                        return Err(BeginError::Gone);
                    }
                    if self.partial == PartialResponse::Abort {
                        return Err(BeginError::Failed(StoreError::aborted(failure.reason)));
                    }
                    found.warnings.push(failure.reason);
                }
            }
        }
        Ok(found)
    }

    async fn ask_block(
        &self,
        selected: SelectedBlock,
        question: LabelQuestion,
        at_once: usize,
    ) -> Result<BTreeSet<String>, LabelError> {
        let key = selected.known.key;
        let open = self.workers.blocks.open_compared(&selected.known, at_once, self.meter.reads());
        let open = open.await.map_err(LabelError::Block)?;
        let (cache, meter) = (Arc::clone(&self.cache), self.meter.clone());
        let read = move || {
            let reads = meter.reads().clone();
            reads.enter(|| read(&open, &selected, &question, &cache, &meter))
        };
        match self.workers.run(read).await {
            Some(Ok(values)) => Ok(values),
            Some(Err(ReadError::Request(error))) => Err(LabelError::Request(error)),
            Some(Err(ReadError::Block(error))) => Err(match ReadRefused::of(&error) {
                Some(refused) => LabelError::Request(RequestMeter::refused(refused)),
                None => LabelError::Block(BlockFailure::of_read(key, &error)),
            }),
            None => Err(LabelError::Request(StoreError::unavailable("the program is shutting down"))),
        }
    }
}

/// Stops the reads of a request that is dropped.
struct CancelOnDrop(RequestMeter);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.reads().cancel();
    }
}

enum ReadError {
    Request(StoreError),
    Block(BlockError),
}

impl From<BlockError> for ReadError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

/// The names or values that the series of a block have. It blocks the thread while the bucket answers.
fn read(
    open: &OpenBlock,
    selected: &SelectedBlock,
    question: &LabelQuestion,
    cache: &Cache,
    meter: &RequestMeter,
) -> Result<BTreeSet<String>, ReadError> {
    let index = open.block.index();
    let external = &open.known.external;
    // The tables of the index also have the labels of series of which all samples are deleted.
    let is_table = selected.matchers.is_empty() && selected.known.deletions.is_empty();
    // Stored labels with the name of an external label are overridden.
    match question {
        LabelQuestion::Names if is_table => {
            let mut names: BTreeSet<String> = index.label_names().map(|(name, _)| name.to_owned()).collect();
            add_external(&mut names, external);
            Ok(names)
        }
        LabelQuestion::Values(label) if is_table => match external.get(label) {
            Some(value) => Ok(BTreeSet::from([value.to_owned()])),
            None => Ok(index.label_values(label)?.into_iter().collect()),
        },
        LabelQuestion::Names => {
            let mut names = BTreeSet::new();
            each_match(open, selected, cache, meter, |labels| {
                for label in labels {
                    if !names.contains(label.name) {
                        names.insert(label.name.to_owned());
                    }
                }
                true
            })?;
            add_external(&mut names, external);
            Ok(names)
        }
        LabelQuestion::Values(label) => {
            let mut values = BTreeSet::new();
            let of_all = external.get(label);
            each_match(open, selected, cache, meter, |labels| {
                let value = of_all.or_else(|| labels.get(label));
                if let Some(value) = value.filter(|value| !values.contains(*value)) {
                    values.insert(value.to_owned());
                }
                // One series shows that the value of an external label exists.
                of_all.is_none()
            })?;
            Ok(values)
        }
    }
}

fn add_external(names: &mut BTreeSet<String>, external: &Labels) {
    if !names.is_empty() {
        names.extend(external.iter().map(|label| label.name.to_owned()));
    }
}

/// Calls `visit` with the labels of each series that matches and has a chunk in the slice, until it returns `false`.
fn each_match(
    open: &OpenBlock,
    selected: &SelectedBlock,
    cache: &Cache,
    meter: &RequestMeter,
    mut visit: impl FnMut(&Labels) -> bool,
) -> Result<(), ReadError> {
    let expanded = expand(open, &selected.matchers, cache)?;
    meter.count_series(expanded.postings.len() as u64).map_err(ReadError::Request)?;
    for found in open.block.select_from(expanded.postings.clone(), selected.slice) {
        let found = found?;
        let deleted = selected.known.deleted(&found.labels);
        let mut chunks = found.chunks;
        chunks.retain(|chunk| !deleted.covers(&chunk.range));
        let is_kept = expanded.left.iter().all(|matcher| matcher.matches_labels(&found.labels))
            && is_left(&open.block, &chunks, &deleted)?;
        if is_kept && !visit(&found.labels) {
            break;
        }
    }
    Ok(())
}
