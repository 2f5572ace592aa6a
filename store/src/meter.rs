//! What one request may read, counted before it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storeapi::StoreError;
use tsdb::SAMPLES_PER_CHUNK;

use crate::reading::{ReadContext, ReadRefused};

/// The limits of one request; `u64::MAX` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadLimits {
    /// Series, counted in each block.
    pub(crate) series: u64,
    /// Samples, where each chunk counts as 120.
    pub(crate) samples: u64,
    /// Bytes from object storage.
    pub(crate) bytes: u64,
}

/// What one request has read. Clones are the same request.
#[derive(Clone, Debug)]
pub(crate) struct RequestMeter {
    limits: ReadLimits,
    counts: Arc<Counts>,
    reads: ReadContext,
}

#[derive(Debug, Default)]
struct Counts {
    series: AtomicU64,
    chunks: AtomicU64,
}

impl RequestMeter {
    pub(crate) fn new(limits: ReadLimits) -> Self {
        Self { limits, counts: Arc::default(), reads: ReadContext::new(limits.bytes) }
    }

    /// The reads of the request.
    pub(crate) fn reads(&self) -> &ReadContext {
        &self.reads
    }

    /// Counts series whose entries are about to be used.
    ///
    /// # Errors
    /// When they are more than the request may read.
    pub(crate) fn count_series(&self, series: u64) -> Result<(), StoreError> {
        let count = self.counts.series.fetch_add(series, Ordering::Relaxed) + series;
        if count > self.limits.series {
            return Err(StoreError::limit(format!(
                "exceeded series limit: the request selects more than {} series of blocks (--store.limits.request-series); narrow its matchers or its time range",
                self.limits.series
            )));
        }
        Ok(())
    }

    /// Counts chunks that are about to be read.
    ///
    /// # Errors
    /// When their samples are more than the request may read.
    pub(crate) fn count_chunks(&self, chunks: u64) -> Result<(), StoreError> {
        let count = self.counts.chunks.fetch_add(chunks, Ordering::Relaxed) + chunks;
        if count.saturating_mul(SAMPLES_PER_CHUNK as u64) > self.limits.samples {
            return Err(StoreError::limit(format!(
                "exceeded chunks limit: the request selects more than {} samples, where each chunk counts as {SAMPLES_PER_CHUNK} (--store.limits.request-samples); narrow its matchers or its time range",
                self.limits.samples
            )));
        }
        Ok(())
    }

    /// Series and chunks that were counted.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.counts.series.load(Ordering::Relaxed), self.counts.chunks.load(Ordering::Relaxed))
    }

    /// The error of a read that was refused.
    pub(crate) fn refused(refused: ReadRefused) -> StoreError {
        match refused {
            ReadRefused::Cancelled => StoreError::new(storeapi::Code::Cancelled, refused.to_string()),
            ReadRefused::Limit { .. } => StoreError::limit(refused.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_a_limit_names_it() {
        let meter = RequestMeter::new(ReadLimits { series: 10, samples: 240, bytes: 0 });
        assert_eq!(meter.count_series(10), Ok(()));
        assert_eq!(meter.count_chunks(2), Ok(()));
        for (error, name) in [
            (meter.count_series(1).unwrap_err(), "--store.limits.request-series"),
            (meter.count_chunks(1).unwrap_err(), "--store.limits.request-samples"),
            (
                RequestMeter::refused(meter.reads().admit(1, 1).unwrap_err()),
                "--store.grpc.downloaded-bytes-limit",
            ),
        ] {
            assert_eq!(error.code(), storeapi::Code::ResourceExhausted);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
