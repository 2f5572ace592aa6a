//! Threads for reading files.

use storeapi::StoreError;

/// Runs work that reads files on a thread of its own.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StoreError::internal(format!("reading the data folder: {error}"))))
}
