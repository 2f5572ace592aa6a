//! A check of the store at start-up: whether it accepts the credential, and whether it honours conditional writes.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};

/// How long the store may take to answer, retries included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of the check at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether the store refuses to create an object that exists already; `None` if nothing was written.
    ///
    /// If it does not refuse, the second of two writers overwrites the first. Publishing checks before it writes, so one
    /// uploader for each block is still safe. A lease is not.
    pub honours_conditions: Option<bool>,
}

impl Bucket {
    /// Lists the bucket and, where `may_write`, creates one small object twice and removes it.
    ///
    /// # Errors
    /// Why the bucket cannot be used, in one line that says what to do: [`ErrorKind::Denied`],
    /// [`ErrorKind::NoBucket`], [`ErrorKind::Unavailable`].
    pub async fn probe(&self, may_write: bool) -> Result<Probe, BucketError> {
        match tokio::time::timeout(TIMEOUT, self.check(may_write)).await {
            Ok(result) => result,
            Err(_) => Err(BucketError::new(
                ErrorKind::Unavailable,
                self.name(),
                "check the bucket",
                format!("no answer within {} s: check the endpoint and the network", TIMEOUT.as_secs()),
            )),
        }
    }

    async fn check(&self, may_write: bool) -> Result<Probe, BucketError> {
        // The folder is empty, so the answer is short in any bucket.
        self.list_dir("isthmus/probe").await?;
        if !may_write {
            return Ok(Probe { honours_conditions: None });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("isthmus/probe/{}-{}", now.as_nanos(), std::process::id());
        self.put_if_absent(&name, Bytes::from_static(b"first")).await?;
        let second = self.put_if_absent(&name, Bytes::from_static(b"second")).await;
        let honours_conditions = match second {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::Conflict => self.get(&name).await? == "first",
            Err(error) => return Err(error),
        };
        self.delete(&name).await?;
        let honours_conditions = honours_conditions && !self.lacks_conditions().load(Ordering::Relaxed);
        if !honours_conditions {
            tracing::warn!(
                bucket = self.name(),
                "the store does not support conditional writes (If-None-Match), so a second writer of an object may overwrite the first: run only one uploader for each Prometheus and one compactor"
            );
        }
        Ok(Probe { honours_conditions: Some(honours_conditions) })
    }
}
