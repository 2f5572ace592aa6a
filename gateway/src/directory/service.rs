//! The gRPC service that publishes the directory on the gateway's local port.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use proto::isthmus::mesh::v1::{
    DirectorySnapshot, WatchRequest, directory_server::Directory as DirectoryApi,
};
use tonic::{Request, Response, Status};

use crate::directory::Directory;

/// Shortest time between two snapshots to one watcher. Changes in between are sent together.
const LEAST_SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// `isthmus.mesh.v1.Directory`.
pub(crate) struct DirectoryService {
    directory: Arc<Directory>,
}

impl DirectoryService {
    /// Serves the snapshots of `directory`.
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }
}

#[tonic::async_trait]
impl DirectoryApi for DirectoryService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<DirectorySnapshot, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut snapshots = self.directory.watch();
        snapshots.mark_changed();
        let stream = futures::stream::unfold((snapshots, false), |(mut snapshots, sent)| async move {
            if sent {
                tokio::time::sleep(LEAST_SNAPSHOT_INTERVAL).await;
            }
            snapshots.changed().await.ok()?;
            let snapshot = DirectorySnapshot::clone(&snapshots.borrow_and_update());
            Some((Ok(snapshot), (snapshots, true)))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
