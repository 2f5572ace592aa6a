//! Work that blocks its thread, such as reading a block.

use crate::error::{Cause, DescribeAction, Result, ToolError};

/// Runs `work` on a thread that may block. Reading a block blocks until its bytes arrive.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ToolError::new(Cause::Failed, error.to_string())).context("read blocks")?
}
