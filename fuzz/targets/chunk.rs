//! Chunks: any payload is decoded or rejected, in time bounded by its length. A rejected payload appends
//! nothing.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::{TimeRange, Timestamp};
use tsdb::{Chunk, Encoding};

fuzz_target!(|input: &[u8]| {
    let Some((&encoding, data)) = input.split_first() else { return };
    let Some(encoding) = Encoding::from_byte(encoding % 16) else { return };
    let range = TimeRange::new(Timestamp::EPOCH, Timestamp::from_millis(i64::MAX));
    let chunk = Chunk { range, encoding, data: Bytes::copy_from_slice(data) };
    let (mut timestamps, mut values, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
    let floats = chunk.decode_floats(&mut timestamps, &mut values);
    assert_eq!(timestamps.len(), values.len());
    assert!(floats.is_ok() || timestamps.is_empty());
    let decoded = chunk.decode_histograms(&mut histograms);
    assert!(decoded.is_ok() || histograms.is_empty());
    if floats.is_ok() || decoded.is_ok() {
        assert_eq!(timestamps.len() + histograms.len(), chunk.sample_count());
    }
    let _ = chunk.aggregates();
});
