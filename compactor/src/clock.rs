//! The clock of this machine, and whether it agrees with that of a bucket.
//!
//! Ages of objects and marks are measured by the clock of the bucket, and only while both clocks agree: while one of them is wrong,
//! nothing is marked or removed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bucket::{Bucket, BucketError, Retry, store_time};
use model::Timestamp;

use crate::history::rfc3339;

/// The clocks may differ by this much.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The clock of this machine. Tests set another one.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

/// Why the time of a bucket is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClockError {
    /// The bucket cannot be written or read.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The clocks differ.
    #[error(
        "the clock of bucket {bucket:?} says {}, that of this machine {}: nothing is retired or removed before both agree within 5 \
         minutes; correct the clock of this machine",
        rfc3339(*of_bucket),
        rfc3339(*here)
    )]
    Differs {
        /// The name of the bucket.
        bucket: String,
        /// Its time.
        of_bucket: Timestamp,
        /// The time of this machine.
        here: Timestamp,
    },
}

impl Clock {
    /// The clock of the system.
    pub(crate) fn system() -> Self {
        Self(Arc::new(crate::now))
    }

    /// A clock that says what `now` returns.
    #[cfg(test)]
    pub(crate) fn of(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time of this machine.
    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// The time by the clock of the bucket, if both clocks agree.
    ///
    /// # Errors
    /// See [`ClockError`]. Nothing may be marked or removed then.
    pub(crate) async fn of_bucket(&self, bucket: &Bucket, retry: Retry) -> Result<Timestamp, ClockError> {
        let before = self.now();
        let of_bucket = retry.run(|| store_time(bucket)).await?;
        let (early, late) = (before.millis_since(of_bucket), of_bucket.millis_since(self.now()));
        let tolerated = TOLERANCE.as_millis() as i64;
        if early > tolerated || late > tolerated {
            return Err(ClockError::Differs { bucket: bucket.name().to_owned(), of_bucket, here: before });
        }
        Ok(of_bucket)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
