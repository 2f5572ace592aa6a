//! What is counted about every operation on a bucket, under Thanos' names.

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

/// An operation, by the name that Thanos' dashboards ask for.
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
/// Made once from a registry and handed to every bucket that is opened, each of which has its own `bucket`
/// label. The default is registered nowhere, for tests and short-lived tools.
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
            "Operations attempted on a bucket",
            metrics.operations.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_failures",
            "Operations on a bucket that failed, other than by an object that is not there or a condition that is not met",
            metrics.failures.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_duration_seconds",
            "Time from the beginning to the end of operations on a bucket",
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

    /// The counters of one bucket, all present from now on.
    pub(crate) fn of(&self, bucket: &str) -> OneBucket {
        let counters = OPERATIONS.map(|(_, operation)| {
            let labels = OperationLabels { bucket: bucket.to_owned(), operation };
            Counters {
                started: self.operations.get_or_create_owned(&labels),
                failed: self.failures.get_or_create_owned(&labels),
                seconds: self.seconds.get_or_create_owned(&labels),
                bytes: self.transferred.get_or_create_owned(&labels),
            }
        });
        let labels = BucketLabels { bucket: bucket.to_owned() };
        OneBucket { counters, last_upload: self.last_upload.get_or_create_owned(&labels) }
    }
}

#[derive(Debug)]
struct Counters {
    started: Counter,
    failed: Counter,
    seconds: Histogram,
    bytes: Counter,
}

/// The counters of one bucket.
#[derive(Debug)]
pub(crate) struct OneBucket {
    counters: [Counters; 7],
    last_upload: Gauge<f64, AtomicU64>,
}

impl OneBucket {
    fn counters(&self, operation: Operation) -> &Counters {
        &self.counters[operation as usize]
    }

    /// Counts bytes that an operation moved.
    pub(crate) fn moved(&self, operation: Operation, bytes: u64) {
        self.counters(operation).bytes.inc_by(bytes);
    }

    /// Counts an operation whose time ends when the result is dropped.
    pub(crate) fn watch(&self, operation: Operation) -> Watch {
        let counters = self.counters(operation);
        counters.started.inc();
        Watch { seconds: counters.seconds.clone(), start: Instant::now() }
    }

    /// Counts a failure of an operation that is being watched.
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
            // Answers, not failures: the caller asked whether.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(_) => _ = counters.failed.inc(),
        }
        result
    }
}

/// Times an operation until it is dropped.
pub(crate) struct Watch {
    seconds: Histogram,
    start: Instant,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seconds.observe(self.start.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::bucket::{Bucket, Settings};
    use crate::fault::{Faults, FaultyStore};

    #[tokio::test]
    async fn operations_are_counted_under_thanos_names_and_answers_are_no_failures() {
        let mut registry = Registry::default();
        let metrics = BucketMetrics::new(&mut registry);
        let store = FaultyStore::new(Arc::new(InMemory::new()), 1);
        let path = object_store::path::Path::default();
        let bucket = Bucket::open(store.clone(), "blocks".to_owned(), path, &metrics, Settings::default());
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
