//! Writes of objects that must not exist yet, on stores that support the condition and on those that do not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::PutMode;

use crate::bucket::{Bucket, ObjectVersion};
use crate::error::{BucketError, ErrorKind};

/// Attempts while the store answers 409 because another write or removal of the same name is running.
const ATTEMPTS: u32 = 6;
/// Wait after the first of these answers; doubled after each.
const DELAY: Duration = Duration::from_millis(50);

impl Bucket {
    /// Writes an object that must not exist yet.
    ///
    /// If the answer to a first attempt was lost, a second attempt conflicts with the object of the first. So compare the
    /// content before treating a conflict as another writer's object. Some stores ignore the condition, others refuse any
    /// request that has one ([`Bucket::probe`] detects both). On the latter, the name is looked up before the object is
    /// written, so that only a second writer at the same moment is not noticed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the object exists.
    pub async fn put_if_absent(&self, name: &str, content: Bytes) -> Result<ObjectVersion, BucketError> {
        let mut delay = DELAY;
        for attempt in 1.. {
            if self.lacks_conditions().load(Ordering::Relaxed) {
                return self.look_then_put(name, content).await;
            }
            match self.put_mode(name, content.clone(), PutMode::Create).await {
                Err(error) if error.refuses_conditions() => {
                    let written = self.look_then_put(name, content).await;
                    // If this fails for the same reason, the condition was not the cause.
                    if !matches!(&written, Err(error) if error.refuses_conditions()) {
                        self.lacks_conditions().store(true, Ordering::Relaxed);
                    }
                    return written;
                }
                Err(error) if error.is_concurrent_write() && attempt < ATTEMPTS => {
                    if self.exists(name).await? {
                        return Err(error);
                    }
                    tokio::time::sleep(delay).await;
                    delay *= 2;
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns its result")
    }

    async fn look_then_put(&self, name: &str, content: Bytes) -> Result<ObjectVersion, BucketError> {
        if self.exists(name).await? {
            let action = format!("create {name}");
            return Err(BucketError::new(
                ErrorKind::Conflict,
                self.name(),
                action,
                "the object exists already",
            ));
        }
        self.put(name, content).await
    }
}
