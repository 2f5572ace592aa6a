//! Metrics of the operations on a bucket, under Thanos' names.

use std::future::Future;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::atomic::AtomicU64;

use runtime::Registry;

use crate::error::{BucketError, ErrorKind};

const DURATION_BUCKETS: [f64; 14] =
    [0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0];

/// An operation, under the name that Thanos' dashboards use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Iter,
    Get,
    GetRange,
    Exists,
    Upload,
    Delete,
    Attributes,
}

const OPERATIONS: [(Operation, &str); 7] = [
    (Operation::Iter, "iter"),
    (Operation::Get, "get"),
    (Operation::GetRange, "get_range"),
    (Operation::Exists, "exists"),
    (Operation::Upload, "upload"),
    (Operation::Delete, "delete"),
    (Operation::Attributes, "attributes"),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    bucket: String,
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BucketLabels {
    bucket: String,
}

/// The `thanos_objstore_bucket_*` families of a process; clones share the counts.
///
/// Create it once for a registry and pass it to every bucket that is opened. Each bucket has its own `bucket` label. The
/// default belongs to no registry, for tests and commands that exit soon.
#[derive(Clone, Debug)]
pub struct BucketMetrics {
    operations: Family<OperationLabels, Counter>,
    failures: Family<OperationLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    transferred: Family<OperationLabels, Counter>,
    last_upload: Family<BucketLabels, Gauge<f64, AtomicU64>>,
}

impl Default for BucketMetrics {
    fn default() -> Self {
        Self {
            operations: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            transferred: Family::default(),
            last_upload: Family::default(),
        }
    }
}

impl BucketMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "thanos_objstore_bucket_operations",
            "Operations on a bucket that were started",
            metrics.operations.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_failures",
            "Operations on a bucket that failed. A missing object or a condition that is not met does not count as a failure",
            metrics.failures.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_duration_seconds",
            "Duration of operations on a bucket in seconds",
            metrics.seconds.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_fetched_bytes",
            "Bytes read from or written to a bucket",
            metrics.transferred.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_last_successful_upload_time",
            "Unix time of the last successful upload to a bucket, in seconds",
            metrics.last_upload.clone(),
        );
        metrics
    }

    /// The counters of one bucket. All its time series exist from now on.
    pub(crate) fn of(&self, bucket: &str) -> BucketCounters {
        let counters = OPERATIONS.map(|(_, operation)| {
            let labels = OperationLabels { bucket: bucket.to_owned(), operation };
            OperationCounters {
                started: self.operations.get_or_create_owned(&labels),
                failed: self.failures.get_or_create_owned(&labels),
                seconds: self.seconds.get_or_create_owned(&labels),
                bytes: self.transferred.get_or_create_owned(&labels),
            }
        });
        let labels = BucketLabels { bucket: bucket.to_owned() };
        BucketCounters { counters, last_upload: self.last_upload.get_or_create_owned(&labels) }
    }
}

#[derive(Debug)]
struct OperationCounters {
    started: Counter,
    failed: Counter,
    seconds: Histogram,
    bytes: Counter,
}

/// The counters of one bucket.
#[derive(Debug)]
pub(crate) struct BucketCounters {
    counters: [OperationCounters; 7],
    last_upload: Gauge<f64, AtomicU64>,
}

impl BucketCounters {
    fn counters(&self, operation: Operation) -> &OperationCounters {
        &self.counters[operation as usize]
    }

    /// Counts bytes that an operation transferred.
    pub(crate) fn moved(&self, operation: Operation, bytes: u64) {
        self.counters(operation).bytes.inc_by(bytes);
    }

    /// Counts an operation. It is timed until the returned timer is dropped.
    pub(crate) fn watch(&self, operation: Operation) -> OperationTimer {
        let counters = self.counters(operation);
        counters.started.inc();
        OperationTimer { seconds: counters.seconds.clone(), start: Instant::now() }
    }

    /// Counts a failure of an operation that was started with [`BucketCounters::watch`].
    pub(crate) fn failed(&self, operation: Operation) {
        self.counters(operation).failed.inc();
    }

    /// Runs and counts one operation.
    pub(crate) async fn count<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        let counters = self.counters(operation);
        counters.started.inc();
        let start = Instant::now();
        let result = work.await;
        counters.seconds.observe(start.elapsed().as_secs_f64());
        match &result {
            Ok(_) if operation == Operation::Upload => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.last_upload.set(now.as_secs_f64());
            }
            Ok(_) => {}
            // Not failures: the caller asked for exactly this answer.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(_) => _ = counters.failed.inc(),
        }
        result
    }
}

/// Times an operation until it is dropped.
pub(crate) struct OperationTimer {
    seconds: Histogram,
    start: Instant,
}

impl Drop for OperationTimer {
    fn drop(&mut self) {
        self.seconds.observe(self.start.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::bucket::{Bucket, WriteSettings};
    use crate::fault::{Faults, FaultyStore};

    #[tokio::test]
    async fn operations_have_thanos_names_and_a_missing_object_is_not_a_failure() {
        let mut registry = Registry::default();
        let metrics = BucketMetrics::new(&mut registry);
        let store = FaultyStore::new(Arc::new(InMemory::new()), 1);
        let path = object_store::path::Path::default();
        let bucket = Bucket::open(
            store.clone(),
            "blocks".to_owned(),
            String::new(),
            path,
            &metrics,
            WriteSettings::default(),
        );
        bucket.put("a", "12345".into()).await.unwrap();
        assert!(bucket.put_if_absent("a", "x".into()).await.is_err());
        assert!(bucket.get("absent").await.is_err());
        bucket.get_range("a", 1..3).await.unwrap();
        bucket.list_all("").await.unwrap();
        bucket.exists("a").await.unwrap();
        bucket.head("a").await.unwrap();
        store.set(Faults { requests_left: Some(0), ..Faults::default() });
        assert!(bucket.get("a").await.is_err());
        assert!(bucket.list_all("").await.is_err());

        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let check = |family: &str, operation: &str, value: u64| {
            let labels = format!("bucket=\"blocks\",operation=\"{operation}\"");
            let line = format!("thanos_objstore_bucket_{family}{{{labels}}} {value}\n");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        };
        for (operation, started, failed) in [
            ("upload", 2, 0),
            ("get", 2, 1),
            ("get_range", 1, 0),
            ("iter", 2, 1),
            ("exists", 1, 0),
            ("attributes", 1, 0),
            ("delete", 0, 0),
        ] {
            check("operations_total", operation, started);
            check("operation_failures_total", operation, failed);
            check("operation_duration_seconds_count", operation, started);
        }
        check("operation_fetched_bytes_total", "get_range", 2);
        assert!(text.contains("thanos_objstore_bucket_last_successful_upload_time{bucket=\"blocks\"} 1"));
    }
}
