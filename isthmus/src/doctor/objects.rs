//! The bucket: each right that the role needs, tried alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bucket::{Bucket, BucketError, BucketMetrics, ErrorKind, ServedBucket};
use bytes::Bytes;
use futures::StreamExt;

use crate::doctor::clocks::judge;
use crate::doctor::finding::Finding;

const CHECK: &str = "bucket";

/// Time limit of one request, retries included.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What is written, and read again in two ways.
const CONTENT: &[u8] = b"isthmus doctor";

/// The buckets of a role.
#[derive(Debug)]
pub(super) struct Buckets {
    pub(super) configured: Vec<ServedBucket>,
    /// Whether the role writes: a store only reads.
    pub(super) writes: bool,
}

/// Tries each right on each bucket. An object is written only for a role that writes, and removed.
pub(super) async fn check(buckets: &Buckets) -> Vec<Finding> {
    let metrics = BucketMetrics::default();
    let mut findings = Vec::new();
    for served in &buckets.configured {
        let bucket = match served.config.open(&metrics) {
            Ok(bucket) => bucket,
            Err(error) => {
                findings.push(Finding::critical(CHECK, error.to_string()));
                continue;
            }
        };
        findings.push(tried(&bucket, "list", "s3:ListBucket", bucket.list_dir("isthmus/doctor")).await);
        match buckets.writes {
            true => check_writing(&bucket, &mut findings).await,
            false => check_reading(&bucket, &mut findings).await,
        }
    }
    findings
}

/// Writes an object and does with it what uploads and compaction do.
async fn check_writing(bucket: &Bucket, findings: &mut Vec<Finding>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("isthmus/doctor/{}-{}", now.as_nanos(), std::process::id());
    let put = bucket.put_if_absent(&name, Bytes::from_static(CONTENT));
    let (finding, written) = tried_with(bucket, "put", "s3:PutObject", put).await;
    findings.push(finding);
    if written.is_none() {
        findings.push(Finding::warning(
            CHECK,
            format!("{}: get, delete and conditional put were not tried, because put failed", bucket.name()),
        ));
        return;
    }
    read_rights(bucket, &name, CONTENT.len() as u64, findings).await;
    findings.push(conditional_put(bucket, &name).await);
    let now = SystemTime::now();
    if let Ok(Ok(info)) = tokio::time::timeout(TIMEOUT, bucket.head(&name)).await {
        let written_at = Duration::from_millis(info.last_modified.as_millis().max(0).unsigned_abs());
        findings.push(judge(&format!("the one of bucket {}", bucket.name()), UNIX_EPOCH + written_at, now));
    }
    findings.push(tried(bucket, "delete", "s3:DeleteObject", bucket.delete(&name)).await);
}

/// Reads an object that is there, if there is one.
async fn check_reading(bucket: &Bucket, findings: &mut Vec<Finding>) {
    let first = tokio::time::timeout(TIMEOUT, async { bucket.list("").next().await }).await;
    match first {
        Ok(Some(Ok(object))) if object.size_bytes > 0 => {
            let length = object.size_bytes.min(CONTENT.len() as u64);
            read_rights(bucket, &object.name, length, findings).await;
        }
        _ => findings.push(Finding::ok(
            CHECK,
            format!("{}: get was not tried, because no object is listed", bucket.name()),
        )),
    }
}

async fn read_rights(bucket: &Bucket, name: &str, length: u64, findings: &mut Vec<Finding>) {
    findings.push(tried(bucket, "get", "s3:GetObject", bucket.get_range(name, 0..length)).await);
    findings.push(tried(bucket, "attributes", "s3:GetObject", bucket.head(name)).await);
}

/// Without conditional writes, two writers may overwrite each other.
async fn conditional_put(bucket: &Bucket, name: &str) -> Finding {
    let second = bucket.put_if_absent(name, Bytes::from_static(b"second"));
    let name = bucket.name();
    match tokio::time::timeout(TIMEOUT, second).await {
        Ok(Err(error)) if error.kind() == ErrorKind::Conflict => {
            Finding::ok(CHECK, format!("{name}: conditional put is honoured"))
        }
        Ok(Ok(_)) => Finding::warning(
            CHECK,
            format!(
                "{name}: conditional put (If-None-Match) is ignored; run one compactor for this bucket, and one uploader for each block"
            ),
        ),
        Ok(Err(error)) => Finding::critical(CHECK, format!("{name}: conditional put: {error}")),
        Err(_) => Finding::critical(
            CHECK,
            format!("{name}: conditional put: no answer within {} s", TIMEOUT.as_secs()),
        ),
    }
}

async fn tried<T>(
    bucket: &Bucket,
    verb: &str,
    right: &str,
    request: impl Future<Output = Result<T, BucketError>>,
) -> Finding {
    tried_with(bucket, verb, right, request).await.0
}

/// The finding about a request, and its result if it was permitted.
async fn tried_with<T>(
    bucket: &Bucket,
    verb: &str,
    right: &str,
    request: impl Future<Output = Result<T, BucketError>>,
) -> (Finding, Option<T>) {
    let name = bucket.name();
    let failed = |why: String| Finding::critical(CHECK, format!("{name}: {verb}: {why}"));
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(value)) => (Finding::ok(CHECK, format!("{name}: {verb} is permitted")), Some(value)),
        Ok(Err(error)) if error.kind() == ErrorKind::Denied => {
            (failed(format!("{error}; grant {right}, or the like, to this credential")), None)
        }
        Ok(Err(error)) => (failed(error.to_string()), None),
        Err(_) => (
            failed(format!("no answer within {} s; check the endpoint and the network", TIMEOUT.as_secs())),
            None,
        ),
    }
}
