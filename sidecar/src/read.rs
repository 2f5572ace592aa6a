//! A remote read on its way to StoreAPI: chunks as they are, labels changed, order kept.

use model::Labels;
use promapi::{ChunkEncoding, ReadChunk, ReadData, ReadSeries, ReadStream};
use series::{AggrChunk, Series, SeriesSorter};
use storeapi::{SeriesRequest, Shard, StoreError};
use tsdb::{Chunk, Encoding};

use crate::metrics::Metrics;
use crate::order::Reorder;
use crate::upstream::Facts;

/// Most memory that one answer may take which has to be sorted as a whole.
const SORTED_BYTES: usize = 1 << 30;
/// Chunk bytes after which a frame is passed on.
const FRAME_BYTES: usize = 256 << 10;
/// Series after which a frame is passed on.
const FRAME_SERIES: usize = 128;

/// Attaches external labels, which win, and removes replica labels.
pub(crate) struct Attach {
    external: Labels,
    removed: Vec<String>,
}

impl Attach {
    pub(crate) fn new(external: &Labels, removed: &[String]) -> Self {
        let external = external.without(|name| removed.iter().any(|r| r == name));
        Self { external, removed: removed.to_vec() }
    }

    pub(crate) fn to(&self, labels: &Labels) -> Labels {
        labels.without(|name| self.removed.iter().any(|r| r == name)).extended(&self.external)
    }

    /// Whether no stored label has a name that is attached or removed, so that [`Reorder`]'s premise holds.
    fn leaves_order(&self, facts: &Facts) -> bool {
        let stored = |name: &str| facts.stored_names.contains(name);
        !facts.external.iter().any(|label| stored(label.name))
            && !self.removed.iter().any(|name| stored(name))
    }
}

/// How the answer is put in order.
enum Order {
    /// Passed on as it comes.
    Streamed(Reorder),
    /// Held until the end.
    Held(SeriesSorter),
    /// All of it is known; what is left, in reverse.
    Sorted(Vec<Series>),
}

/// One Series answer in the making. Dropping it cancels the request to Prometheus.
pub(crate) struct Reading {
    source: Option<ReadStream>,
    order: Order,
    attach: Attach,
    shard: Option<Shard>,
    /// Series that may still be sent.
    left: usize,
    ready: Vec<Series>,
    url: String,
    metrics: Metrics,
}

impl Reading {
    pub(crate) fn new(
        source: ReadStream,
        facts: &Facts,
        request: &SeriesRequest,
        url: &str,
        metrics: Metrics,
    ) -> Self {
        let attach = Attach::new(&facts.external, &request.without_replica_labels);
        let order = if attach.leaves_order(facts) {
            Order::Streamed(Reorder::new(&facts.external, &request.without_replica_labels))
        } else {
            metrics.sorted_in_memory();
            Order::Held(SeriesSorter::new(SORTED_BYTES))
        };
        Self {
            source: Some(source),
            order,
            attach,
            shard: request.shard.clone(),
            left: request.limit.unwrap_or(usize::MAX),
            ready: Vec::new(),
            url: url.to_owned(),
            metrics,
        }
    }

    /// The next series of the answer, or `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Series>>, StoreError> {
        let outcome = self.advance().await;
        match &outcome {
            Ok(Some(batch)) => {
                let bytes = batch.iter().flat_map(|s| &s.chunks).map(AggrChunk::size_bytes).sum();
                self.metrics.sent(batch.len(), bytes);
            }
            Ok(None) => {}
            Err(_) => {
                self.source = None;
                self.metrics.failed_read();
            }
        }
        outcome
    }

    async fn advance(&mut self) -> Result<Option<Vec<Series>>, StoreError> {
        let mut bytes = 0;
        while self.ready.len() < FRAME_SERIES.min(self.left) && bytes < FRAME_BYTES {
            if let Order::Sorted(rest) = &mut self.order {
                let Some(series) = rest.pop() else { break };
                bytes += series.chunks.iter().map(AggrChunk::size_bytes).sum::<usize>();
                self.ready.push(series);
                continue;
            }
            let Some(source) = &mut self.source else { break };
            let received = source.next().await;
            match received.map_err(|e| StoreError::unavailable(format!("{}: {e}", self.url)))? {
                Some(series) => bytes += self.take(series)?,
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
            self.order = Order::Sorted(Vec::new());
        }
        Ok(Some(std::mem::take(&mut self.ready)))
    }

    /// Takes one series and says how many bytes of chunks it has.
    fn take(&mut self, received: ReadSeries) -> Result<usize, StoreError> {
        let ReadSeries { labels, data } = received;
        let attached = self.attach.to(&labels);
        if self.shard.as_ref().is_some_and(|shard| !shard.keeps(&attached)) {
            return Ok(0);
        }
        let chunks: Vec<AggrChunk> = match data {
            ReadData::Chunks(chunks) => chunks
                .into_iter()
                .map(|chunk| chunk_of(chunk).map(AggrChunk::raw))
                .collect::<Result<_, _>>()
                .map_err(|e| StoreError::internal(format!("{}: series {labels}: {e}", self.url)))?,
            ReadData::Samples(samples) => {
                // The old form is sorted by other labels than the streamed one, and all in memory already.
                if let Order::Streamed(_) = self.order {
                    self.order = Order::Held(SeriesSorter::new(SORTED_BYTES));
                }
                AggrChunk::from_floats(&samples)
                    .map_err(|e| StoreError::internal(format!("{}: series {labels}: {e}", self.url)))?
            }
        };
        let bytes = chunks.iter().map(AggrChunk::size_bytes).sum();
        match &mut self.order {
            Order::Streamed(reorder) => reorder.offer(&labels, chunks, &mut self.ready).map_err(|e| {
                // A label came to be stored since the names were last read; the next round will know it.
                StoreError::unavailable(format!("{}: {e}: try again in a moment", self.url))
            })?,
            Order::Held(sorter) => {
                sorter.push(attached, chunks).map_err(|e| StoreError::limit(format!("{}: {e}", self.url)))?;
            }
            Order::Sorted(_) => {}
        }
        Ok(bytes)
    }

    /// Prometheus has sent everything.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.source = None;
        match std::mem::replace(&mut self.order, Order::Sorted(Vec::new())) {
            Order::Streamed(reorder) => reorder
                .finish(&mut self.ready)
                .map_err(|e| StoreError::unavailable(format!("{}: {e}: try again in a moment", self.url))),
            Order::Held(sorter) => {
                let mut sorted: Vec<Series> = Vec::new();
                for series in sorter.into_sorted() {
                    match sorted.last_mut().filter(|last| last.labels == series.labels) {
                        Some(last) => last.chunks.extend(series.chunks),
                        None => sorted.push(series),
                    }
                }
                sorted.reverse();
                self.order = Order::Sorted(sorted);
                Ok(())
            }
            Order::Sorted(rest) => {
                self.order = Order::Sorted(rest);
                Ok(())
            }
        }
    }
}

/// Passes a chunk's payload on as it is.
fn chunk_of(chunk: ReadChunk) -> Result<Chunk, String> {
    let encoding = match chunk.encoding {
        ChunkEncoding::Xor => Encoding::Xor,
        ChunkEncoding::Histogram => Encoding::Histogram,
        ChunkEncoding::FloatHistogram => Encoding::FloatHistogram,
        // With start timestamps; who does not read them gets the others from `storeapi::StoreServer`.
        ChunkEncoding::Xor2 => Encoding::Xor2,
        ChunkEncoding::HistogramSt => Encoding::HistogramSt,
        ChunkEncoding::FloatHistogramSt => Encoding::FloatHistogramSt,
        ChunkEncoding::Unknown(number) => {
            return Err(format!(
                "chunk encoding {number} is that of a later Prometheus: turn it off there, or update the sidecar"
            ));
        }
    };
    Ok(Chunk { range: chunk.range, encoding, data: chunk.data })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::TimeRange;

    use super::*;

    #[test]
    fn every_encoding_of_prometheus_is_passed_on_as_it_is() {
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
            "chunk encoding 7 is that of a later Prometheus: turn it off there, or update the sidecar"
        );
    }
}
