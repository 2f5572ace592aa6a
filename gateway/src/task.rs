//! Spawns tasks whose futures all have one type.
//!
//! tokio compiles its task code for each type of future, twice (for each of its schedulers). 22 types were a seventh of the
//! code of this crate. Boxing the future costs one allocation for each task.

use futures::{FutureExt, future::BoxFuture};
use tokio::task::JoinHandle;

/// Spawns a task.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    spawn_boxed(future.boxed())
}

fn spawn_boxed(future: BoxFuture<'static, ()>) -> JoinHandle<()> {
    tokio::spawn(future)
}

/// Spawns the tasks of hyper's HTTP/2 connections and streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BoxingExecutor;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for BoxingExecutor {
    fn execute(&self, future: F) {
        drop(spawn(future));
    }
}
