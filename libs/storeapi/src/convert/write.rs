//! Writes frames as `thanos.SeriesResponse`, the mirror of [`super::read`].
//!
//! Lengths come before contents in protobuf, so a frame is measured first ([`Measured::measure`], which also hashes the
//! chunks) and then written. As gogoproto does for fields that cannot be null, chunk times are always written.

use bytes::BufMut;
use model::{Label, Labels};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use series::{AggrChunk, Producer, Series};
use tsdb::{Chunk, Encoding};
use xxhash_rust::xxh64::xxh64;

use crate::SeriesFrame;
use crate::convert::hints::{HintsOf, answer_to_wire};

/// The number of the field that names the producer of a chunk or a series.
pub(super) const PRODUCER: u32 = 1000;
/// Bytes of such a field: two of key, eight of number.
const PRODUCER_LEN: usize = 10;
/// The number of the field with the milliseconds between the windows of a chunk.
pub(super) const RESOLUTION: u32 = 1001;

/// Bytes of a field that holds `length` bytes; all other field numbers fit one byte of key.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn number_len(value: u64) -> usize {
    1 + encoded_len_varint(value)
}

fn put_head(field: u32, length: usize, to: &mut impl BufMut) {
    encode_varint(u64::from(field << 3 | 2), to);
    encode_varint(length as u64, to);
}

fn put_number(field: u32, value: u64, to: &mut impl BufMut) {
    encode_varint(u64::from(field << 3), to);
    encode_varint(value, to);
}

fn put_producer(producer: Option<Producer>, to: &mut impl BufMut) {
    if let Some(producer) = producer {
        encode_varint(u64::from(PRODUCER << 3 | 1), to);
        to.put_u64_le(producer.number());
    }
}

fn producer_len(producer: Option<Producer>) -> usize {
    producer.map_or(0, |_| PRODUCER_LEN)
}

/// Milliseconds between the windows of a chunk; 0 is not written.
fn resolution(chunk: &AggrChunk) -> u64 {
    u64::try_from(chunk.resolution.as_millis()).unwrap_or(u64::MAX)
}

fn put_resolution(resolution: u64, to: &mut impl BufMut) {
    if resolution > 0 {
        encode_varint(u64::from(RESOLUTION << 3), to);
        encode_varint(resolution, to);
    }
}

fn resolution_len(resolution: u64) -> usize {
    // Two bytes of key.
    if resolution > 0 { 2 + encoded_len_varint(resolution) } else { 0 }
}

/// The producer that a series names for its chunks: that of the first one, if all have one.
fn common_producer(series: &Series) -> Option<Producer> {
    let first = series.chunks.first()?.producer;
    first.filter(|_| series.chunks.iter().all(|chunk| chunk.producer.is_some()))
}

/// The producer that a chunk of a series has to name itself.
fn own_producer(chunk: &AggrChunk, common: Option<Producer>) -> Option<Producer> {
    chunk.producer.filter(|_| chunk.producer != common)
}

fn put_bytes(field: u32, bytes: &[u8], to: &mut impl BufMut) {
    put_head(field, bytes.len(), to);
    to.put_slice(bytes);
}

/// What is known of a frame before it is written. It is reused, so that a frame needs no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The length of each series.
    series: Vec<usize>,
    /// The hash of each chunk, and the length of the chunk of aggregates that it is in.
    chunks: Vec<MeasuredChunk>,
}

#[derive(Clone, Copy, Debug)]
struct MeasuredChunk {
    hash: u64,
    aggregates_len: usize,
}

impl Measured {
    /// Measures a frame. Returns the length of the message.
    pub(super) fn measure(&mut self, frame: &SeriesFrame) -> usize {
        self.series.clear();
        self.chunks.clear();
        match frame {
            SeriesFrame::Warning(text) => field_len(text.len()),
            SeriesFrame::Hints(hints) => field_len(answer_to_wire(HintsOf::Series, hints).encoded_len()),
            SeriesFrame::Series(batch) => {
                batch.iter().for_each(|series| self.measure_series(series));
                match self.series.as_slice() {
                    [one] => field_len(*one),
                    _ => field_len(self.batch_len()),
                }
            }
        }
    }

    fn measure_series(&mut self, series: &Series) {
        let common = common_producer(series);
        let mut length = labels_len(&series.labels) + producer_len(common);
        for chunk in &series.chunks {
            let first = self.chunks.len();
            let mut aggregates_len = aggregates_head_len(chunk, common);
            for part in chunk.parts() {
                let hash = xxh64(&part.data, 0);
                aggregates_len += field_len(chunk_len(part, hash));
                self.chunks.push(MeasuredChunk { hash, aggregates_len: 0 });
            }
            self.chunks[first..].iter_mut().for_each(|part| part.aggregates_len = aggregates_len);
            length += field_len(aggregates_len);
        }
        self.series.push(length);
    }

    fn batch_len(&self) -> usize {
        self.series.iter().map(|length| field_len(*length)).sum()
    }

    /// Writes the frame that was measured last.
    pub(super) fn write(&self, frame: &SeriesFrame, to: &mut impl BufMut) {
        match frame {
            SeriesFrame::Warning(text) => put_bytes(2, text.as_bytes(), to),
            SeriesFrame::Hints(hints) => {
                put_bytes(3, &answer_to_wire(HintsOf::Series, hints).encode_to_vec(), to);
            }
            SeriesFrame::Series(batch) => {
                if batch.len() != 1 {
                    put_head(4, self.batch_len(), to);
                }
                let mut chunks = self.chunks.as_slice();
                for (series, length) in batch.iter().zip(&self.series) {
                    put_head(1, *length, to);
                    put_series(series, &mut chunks, to);
                }
            }
        }
    }
}

fn labels_len(labels: &Labels) -> usize {
    labels.iter().map(|label| field_len(label_len(label))).sum()
}

fn label_len(label: Label<'_>) -> usize {
    field_len(label.name.len()) + field_len(label.value.len())
}

/// Bytes of a chunk of aggregates besides its parts.
fn aggregates_head_len(chunk: &AggrChunk, common: Option<Producer>) -> usize {
    let range = chunk.range();
    number_len(range.min.as_millis() as u64)
        + number_len(range.max.as_millis() as u64)
        + producer_len(own_producer(chunk, common))
        + resolution_len(resolution(chunk))
}

fn chunk_len(chunk: &Chunk, hash: u64) -> usize {
    number_len(encoding_number(chunk.encoding)) + field_len(chunk.data.len()) + number_len(hash)
}

/// The next chunk that was measured, which is at `left`.
fn next_chunk(left: &mut &[MeasuredChunk]) -> MeasuredChunk {
    // A hash of 0 means "not computed", which is always correct.
    let Some((first, rest)) = left.split_first() else { return MeasuredChunk { hash: 0, aggregates_len: 0 } };
    *left = rest;
    *first
}

/// StoreAPI numbers encodings one below Prometheus. It has no number for a chunk of aggregates, which is sent as its parts.
/// Every reader rejects the number that such a chunk would get here.
fn encoding_number(encoding: Encoding) -> u64 {
    u64::from(encoding.byte()) - 1
}

fn put_series(series: &Series, measured: &mut &[MeasuredChunk], to: &mut impl BufMut) {
    for label in &series.labels {
        put_head(1, label_len(label), to);
        put_bytes(1, label.name.as_bytes(), to);
        put_bytes(2, label.value.as_bytes(), to);
    }
    let common = common_producer(series);
    for chunk in &series.chunks {
        put_aggr_chunk(chunk, common, measured, to);
    }
    put_producer(common, to);
}

fn put_aggr_chunk(
    chunk: &AggrChunk,
    common: Option<Producer>,
    measured: &mut &[MeasuredChunk],
    to: &mut impl BufMut,
) {
    let has_parts = chunk.parts().next().is_some();
    let length = match measured.first() {
        Some(first) if has_parts => first.aggregates_len,
        _ => aggregates_head_len(chunk, common),
    };
    put_head(2, length, to);
    let range = chunk.range();
    put_number(1, range.min.as_millis() as u64, to);
    put_number(2, range.max.as_millis() as u64, to);
    let parts = [&chunk.raw, &chunk.count, &chunk.sum, &chunk.min, &chunk.max, &chunk.counter];
    for (field, part) in (3..).zip(parts) {
        if let Some(part) = part {
            let hash = next_chunk(measured).hash;
            put_head(field, chunk_len(part, hash), to);
            put_number(1, encoding_number(part.encoding), to);
            put_bytes(2, &part.data, to);
            put_number(3, hash, to);
        }
    }
    put_producer(own_producer(chunk, common), to);
    put_resolution(resolution(chunk), to);
}
