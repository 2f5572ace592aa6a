//! Tests at start-up whether the bucket can be read and written. A configuration error ends the program at
//! once; an outage does not.

use std::time::Duration;

use bucket::{Bucket, BucketError};
use runtime::Shutdown;
use tracing::{info, warn};

/// Delay between two attempts.
pub(crate) const RETRY: Duration = Duration::from_secs(30);

/// Tries the bucket every `retry` until it answers. Logs a warning while it cannot be used.
///
/// # Errors
/// The credentials, the bucket or the configuration are wrong, so that uploads can never succeed.
pub(crate) async fn admitted(
    bucket: &Bucket,
    retry: Duration,
    shutdown: &Shutdown,
) -> Result<(), BucketError> {
    let mut complaint = None;
    loop {
        let cause = match shutdown.until_triggered(bucket.probe(true)).await {
            None => return Ok(()),
            Some(Ok(_)) => {
                info!(bucket = bucket.name(), "the bucket can be read and written");
                return Ok(());
            }
            Some(Err(cause)) if cause.exit_code() == runtime::EXIT_USAGE => return Err(cause),
            Some(Err(cause)) => cause.to_string(),
        };
        if complaint.as_ref() != Some(&cause) {
            warn!(
                bucket = bucket.name(),
                ?retry,
                error = %cause,
                "the bucket cannot be used, uploads wait and it is retried"
            );
        }
        complaint = Some(cause);
        if shutdown.until_triggered(tokio::time::sleep(retry)).await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bucket::fault::{Faults, FaultyStore};
    use bucket::{BucketConfig, BucketMetrics, ErrorKind};
    use object_store::memory::InMemory;
    use runtime::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::{free_port, wait_until};

    const SOON: Duration = Duration::from_millis(5);

    fn s3(endpoint: impl std::fmt::Display) -> Bucket {
        let yaml = format!(
            "type: S3\nconfig: {{bucket: b, endpoint: '{endpoint}', insecure: true, access_key: a, secret_key: s, max_retries: 1}}"
        );
        let config = BucketConfig::parse(&yaml).expect("a configuration");
        config.open(&BucketMetrics::new(&mut Registry::default())).expect("a bucket")
    }

    #[tokio::test]
    async fn rejected_credentials_end_the_attempts_with_the_exit_code_of_a_configuration_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let body = "<Error><Code>InvalidAccessKeyId</Code></Error>";
                let answer = format!(
                    "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                drop(connection.read(&mut [0; 4096]).await);
                drop(connection.write_all(answer.as_bytes()).await);
            }
        });
        let refused = admitted(&s3(address), SOON, &Shutdown::new()).await.expect_err("a refusal");
        assert_eq!((refused.kind(), refused.exit_code()), (ErrorKind::Denied, 2));
        let line = refused.to_string();
        assert!(line.contains("InvalidAccessKeyId") && !line.contains('\n'), "{line}");
    }

    #[tokio::test]
    async fn unreachable_bucket_is_retried_until_shutdown() {
        let (bucket, shutdown) = (s3(free_port()), Shutdown::new());
        let failed = bucket.probe(true).await.expect_err("nothing listens");
        assert_eq!(failed.kind(), ErrorKind::Unavailable);
        let attempts = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { admitted(&bucket, SOON, &shutdown).await }
        });
        assert!(!attempts.is_finished());
        shutdown.trigger();
        attempts.await.expect("no panic").expect("an outage ends nothing");
    }

    #[tokio::test]
    async fn bucket_that_recovers_is_accepted() {
        let store = FaultyStore::new(Arc::new(InMemory::new()), 1);
        store.set(Faults { requests_left: Some(0), ..Faults::default() });
        let bucket = Bucket::new(Arc::clone(&store) as Arc<dyn object_store::ObjectStore>);
        let attempts = tokio::spawn(async move { admitted(&bucket, SOON, &Shutdown::new()).await });
        wait_until("three attempts", async || store.requests() >= 3).await;
        assert!(!attempts.is_finished());
        store.set(Faults::default());
        attempts.await.expect("no panic").expect("it is let in");
    }
}
