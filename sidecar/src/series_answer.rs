//! Converts a remote read to a StoreAPI answer: chunks unchanged, labels rewritten, order restored.

use model::Labels;
use promapi::{ChunkEncoding, ReadChunk, ReadData, ReadSeries, ReadStream};
use series::{AggrChunk, OutOfOrder, Producer, Reorder, Series, SeriesSorter};
use storeapi::{PartialResponse, SeriesFrame, SeriesRequest, Shard, StoreError};
use tsdb::{Chunk, Encoding};

use crate::equal_series::EqualSeries;
use crate::metrics::SidecarMetrics;
use crate::upstream::{PrometheusFacts, StateReporter};

/// Maximum memory of an answer that must be sorted in memory, in bytes.
const SORTED_BYTES: usize = 1 << 30;
/// Chunk bytes after which a frame is sent.
const FRAME_BYTES: usize = 256 << 10;
/// Series after which a frame is sent.
const FRAME_SERIES: usize = 128;

/// Attaches external labels, which override stored labels, and removes replica labels.
pub(crate) struct LabelRewriter {
    external: Labels,
    removed: Vec<String>,
}

impl LabelRewriter {
    pub(crate) fn new(external: &Labels, removed: &[String]) -> Self {
        let external = external.without(|name| removed.iter().any(|r| r == name));
        Self { external, removed: removed.to_vec() }
    }

    pub(crate) fn rewrite(&self, labels: &Labels) -> Labels {
        labels.without(|name| self.removed.iter().any(|r| r == name)).extended(&self.external)
    }

    /// Whether no stored label has the name of an attached or removed label. Then the premise of [`Reorder`]
    /// holds.
    fn leaves_order(&self, facts: &PrometheusFacts) -> bool {
        let stored = |name: &str| facts.stored_names.contains(name);
        !facts.external.iter().any(|label| stored(label.name))
            && !self.removed.iter().any(|name| stored(name))
    }
}

/// How the answer is brought into order.
enum AnswerOrder {
    /// Sent while it is read.
    Streamed(Reorder),
    /// Buffered until the end, then sorted.
    Buffered(SeriesSorter),
    /// Sorted; the remaining series in reverse order.
    Sorted(Vec<Series>),
}

/// The answer to one Series request. Dropping it cancels the request to Prometheus.
pub(crate) struct SeriesAnswer {
    source: Option<ReadStream>,
    order: AnswerOrder,
    rewriter: LabelRewriter,
    /// This Prometheus.
    producer: Option<Producer>,
    shard: Option<Shard>,
    /// Number of series that may still be sent.
    left: usize,
    ready: Vec<Series>,
    /// `None` if series cannot become equal, and after the warning about it.
    equal: Option<EqualSeries>,
    /// Whether the caller accepts partial answers. To one that does not, a warning is an error, but series that became equal
    /// are sent with all their chunks.
    accepts_warnings: bool,
    url: String,
    reporter: StateReporter,
    metrics: SidecarMetrics,
}

impl SeriesAnswer {
    pub(crate) fn new(
        source: ReadStream,
        facts: &PrometheusFacts,
        request: &SeriesRequest,
        url: &str,
        reporter: StateReporter,
        metrics: SidecarMetrics,
    ) -> Self {
        let rewriter = LabelRewriter::new(&facts.external, &request.without_replica_labels);
        let order = if rewriter.leaves_order(facts) {
            AnswerOrder::Streamed(Reorder::new(&facts.external, &request.without_replica_labels))
        } else {
            metrics.sorted_in_memory();
            AnswerOrder::Buffered(SeriesSorter::new(SORTED_BYTES))
        };
        Self {
            source: Some(source),
            order,
            rewriter,
            producer: Producer::of(&facts.external),
            shard: request.shard.clone(),
            left: request.limit.unwrap_or(usize::MAX),
            ready: Vec::new(),
            equal: EqualSeries::of(facts),
            accepts_warnings: request.partial_response == PartialResponse::Warn,
            url: url.to_owned(),
            reporter,
            metrics,
        }
    }

    /// The next part of the answer, or `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<SeriesFrame>, StoreError> {
        match self.advance().await {
            Ok(Some(batch)) => {
                let bytes = batch.iter().flat_map(|s| &s.chunks).map(AggrChunk::size_bytes).sum();
                self.metrics.sent(batch.len(), bytes);
                Ok(Some(SeriesFrame::Series(batch)))
            }
            Ok(None) => {
                let Some(equal) = self.equal.take() else { return Ok(None) };
                self.metrics.made_equal(equal.count());
                let warning = equal.warning(&self.url).filter(|_| self.accepts_warnings);
                Ok(warning.map(SeriesFrame::Warning))
            }
            Err(error) => {
                self.source = None;
                self.metrics.failed_read();
                self.reporter.probe().await;
                Err(error)
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Vec<Series>>, StoreError> {
        let mut bytes = 0;
        while self.ready.len() < FRAME_SERIES.min(self.left) && bytes < FRAME_BYTES {
            if let AnswerOrder::Sorted(rest) = &mut self.order {
                let Some(series) = rest.pop() else { break };
                bytes += series.chunks.iter().map(AggrChunk::size_bytes).sum::<usize>();
                self.ready.push(series);
                continue;
            }
            let Some(source) = &mut self.source else { break };
            let received = source.next().await;
            match received.map_err(|e| StoreError::unavailable(format!("{}: {e}", self.url)))? {
                Some(series) => bytes += self.add(series)?,
                None => self.finish()?,
            }
        }
        self.ready.truncate(self.left);
        if self.ready.is_empty() {
            return Ok(None);
        }
        self.left -= self.ready.len();
        if self.left == 0 {
            self.source = None;
            self.order = AnswerOrder::Sorted(Vec::new());
        }
        Ok(Some(std::mem::take(&mut self.ready)))
    }

    /// Adds one series; returns the bytes of its chunks.
    fn add(&mut self, received: ReadSeries) -> Result<usize, StoreError> {
        let ReadSeries { labels, data } = received;
        let attached = self.rewriter.rewrite(&labels);
        if self.shard.as_ref().is_some_and(|shard| !shard.keeps(&attached)) {
            return Ok(0);
        }
        if let Some(equal) = &mut self.equal {
            equal.add(&labels);
        }
        let chunks: Vec<AggrChunk> = match data {
            ReadData::Chunks(chunks) => chunks
                .into_iter()
                .map(|chunk| chunk_of(chunk).map(AggrChunk::raw))
                .collect::<Result<_, _>>()
                .map_err(|e| StoreError::internal(format!("{}: series {labels}: {e}", self.url)))?,
            ReadData::Samples(samples) => {
                // The old form is sorted by other labels than the streamed form, and is in memory already.
                if let AnswerOrder::Streamed(_) = self.order {
                    self.order = AnswerOrder::Buffered(SeriesSorter::new(SORTED_BYTES));
                }
                AggrChunk::from_floats(&samples)
                    .map_err(|e| StoreError::internal(format!("{}: series {labels}: {e}", self.url)))?
            }
        };
        let chunks: Vec<AggrChunk> =
            chunks.into_iter().map(|chunk| chunk.from_producer(self.producer)).collect();
        let bytes = chunks.iter().map(AggrChunk::size_bytes).sum();
        match &mut self.order {
            AnswerOrder::Streamed(reorder) => {
                reorder.offer(&labels, chunks, &mut self.ready).map_err(|e| out_of_order(&self.url, &e))?
            }
            AnswerOrder::Buffered(sorter) => {
                sorter.push(attached, chunks).map_err(|e| StoreError::limit(format!("{}: {e}", self.url)))?;
            }
            AnswerOrder::Sorted(_) => {}
        }
        Ok(bytes)
    }

    /// Handles the end of the remote read.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.source = None;
        match std::mem::replace(&mut self.order, AnswerOrder::Sorted(Vec::new())) {
            AnswerOrder::Streamed(reorder) => {
                reorder.finish(&mut self.ready).map_err(|e| out_of_order(&self.url, &e))
            }
            AnswerOrder::Buffered(sorter) => {
                let mut sorted: Vec<Series> = Vec::new();
                for series in sorter.into_sorted() {
                    match sorted.last_mut().filter(|last| last.labels == series.labels) {
                        Some(last) => last.chunks.extend(series.chunks),
                        None => sorted.push(series),
                    }
                }
                sorted.reverse();
                self.order = AnswerOrder::Sorted(sorted);
                Ok(())
            }
            AnswerOrder::Sorted(rest) => {
                self.order = AnswerOrder::Sorted(rest);
                Ok(())
            }
        }
    }
}

/// Converts a chunk; its payload stays unchanged.
fn chunk_of(chunk: ReadChunk) -> Result<Chunk, String> {
    let encoding = match chunk.encoding {
        ChunkEncoding::Xor => Encoding::Xor,
        ChunkEncoding::Histogram => Encoding::Histogram,
        ChunkEncoding::FloatHistogram => Encoding::FloatHistogram,
        // Encodings with start timestamps. `storeapi::StoreServer` converts them for clients that cannot read
        // them.
        ChunkEncoding::Xor2 => Encoding::Xor2,
        ChunkEncoding::HistogramSt => Encoding::HistogramSt,
        ChunkEncoding::FloatHistogramSt => Encoding::FloatHistogramSt,
        ChunkEncoding::Unknown(number) => {
            return Err(format!(
                "chunk encoding {number} is not supported; disable it in Prometheus, or update the sidecar"
            ));
        }
    };
    Ok(Chunk { range: chunk.range, encoding, data: chunk.data })
}

/// The error for an answer that the streamed order cannot sort.
fn out_of_order(url: &str, error: &OutOfOrder) -> StoreError {
    StoreError::unavailable(format!(
        "{url}: {error}; the likely cause is a new label with the name of an external label, try again after \
         --prometheus.get_config_interval"
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::TimeRange;

    use super::*;

    #[test]
    fn chunks_of_all_encodings_are_passed_on_unchanged() {
        let read = |encoding| {
            chunk_of(ReadChunk { range: TimeRange::ALL, encoding, data: Bytes::from_static(b"x") })
                .map(|chunk| (chunk.encoding, chunk.data))
        };
        for (encoding, expected) in [
            (ChunkEncoding::Xor, Encoding::Xor),
            (ChunkEncoding::Histogram, Encoding::Histogram),
            (ChunkEncoding::FloatHistogram, Encoding::FloatHistogram),
            (ChunkEncoding::Xor2, Encoding::Xor2),
            (ChunkEncoding::HistogramSt, Encoding::HistogramSt),
            (ChunkEncoding::FloatHistogramSt, Encoding::FloatHistogramSt),
        ] {
            assert_eq!(read(encoding), Ok((expected, Bytes::from_static(b"x"))));
        }
        assert_eq!(
            read(ChunkEncoding::Unknown(7)).unwrap_err(),
            "chunk encoding 7 is not supported; disable it in Prometheus, or update the sidecar"
        );
    }
}
