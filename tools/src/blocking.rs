//! Work that blocks its thread, such as reading a block.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Cause, DescribeAction, Result, ToolError};

/// Runs `work` on a thread that may block. Reading a block blocks until its bytes arrive.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let slot = Arc::new(Mutex::new(None));
    let filled = Arc::clone(&slot);
    let task = move || *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(work());
    run(Box::new(task)).await.context("read blocks")?;
    let done = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.unwrap_or_else(|| Err(ToolError::new(Cause::Failed, "internal error: the work left no result")))
}

/// All work has one type here, because tokio's code is compiled once for each type of task.
async fn run(task: Box<dyn FnOnce() + Send>) -> Result<()> {
    let done = tokio::task::spawn_blocking(task).await;
    done.map_err(|error| ToolError::new(Cause::Failed, error.to_string()))
}
