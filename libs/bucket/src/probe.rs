//! A question to the store at start-up: are we let in, and does it keep its word about conditions?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};

/// How long the store may take to answer; requests are repeated within it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a start-up test found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether the store refuses to create an object that is there already; `None` where nothing was written.
    ///
    /// Without it two writers of one object are not kept apart. Publishing looks before it writes, so one uploader
    /// for each block is safe all the same; a lease is not.
    pub keeps_conditions: Option<bool>,
}

impl Bucket {
    /// Lists the bucket and, where `may_write`, creates one small object twice and removes it.
    ///
    /// # Errors
    /// What keeps the bucket from being used, in one line that says what to do: [`ErrorKind::Denied`],
    /// [`ErrorKind::NoBucket`], [`ErrorKind::Unavailable`].
    pub async fn probe(&self, may_write: bool) -> Result<Probe, BucketError> {
        match tokio::time::timeout(PATIENCE, self.ask(may_write)).await {
            Ok(result) => result,
            Err(_) => Err(BucketError::new(
                ErrorKind::Unavailable,
                self.name(),
                "try the bucket",
                format!("no answer within {} s: check the endpoint and the network", PATIENCE.as_secs()),
            )),
        }
    }

    async fn ask(&self, may_write: bool) -> Result<Probe, BucketError> {
        // A folder that is not there: the answer is short, whatever the bucket holds.
        self.list_dir("isthmus/probe").await?;
        if !may_write {
            return Ok(Probe { keeps_conditions: None });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("isthmus/probe/{}-{}", now.as_nanos(), std::process::id());
        self.put_if_absent(&name, Bytes::from_static(b"first")).await?;
        let second = self.put_if_absent(&name, Bytes::from_static(b"second")).await;
        let keeps_conditions = match second {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::Conflict => self.get(&name).await? == "first",
            Err(error) => return Err(error),
        };
        self.delete(&name).await?;
        if !keeps_conditions {
            tracing::warn!(
                "bucket {:?} ignores conditional writes (If-None-Match): two writers of one object are not kept apart; run one uploader for each Prometheus and one compactor",
                self.name()
            );
        }
        Ok(Probe { keeps_conditions: Some(keeps_conditions) })
    }
}
