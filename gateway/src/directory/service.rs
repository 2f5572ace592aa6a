//! The gRPC service that publishes the directory on the gateway's local port.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use prost::Message;
use proto::isthmus::mesh::v1::{
    DirectoryEntry, DirectorySnapshot, WatchRequest, directory_server::Directory as DirectoryApi,
};
use runtime::Shutdown;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::directory::{Directory, published::EntryChanges};

/// Shortest time between two snapshots to one watcher. Changes in between are sent together.
const LEAST_SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of entries in a message. A further entry is in the next one.
const MESSAGE_BYTES: usize = 1 << 20;

/// `isthmus.mesh.v1.Directory`.
pub(crate) struct DirectoryService {
    directory: Arc<Directory>,
    stop: Shutdown,
}

impl DirectoryService {
    /// Serves the entries of `directory`. Watches end with `stop`, so that they do not delay the end of the server.
    pub(crate) fn new(directory: Arc<Directory>, stop: Shutdown) -> Self {
        Self { directory, stop }
    }
}

/// A client that watches the directory.
struct Watcher {
    directory: Arc<Directory>,
    versions: watch::Receiver<u64>,
    /// Whether it understands changes.
    takes_changes: bool,
    /// The version that it has; `None` before the first message.
    sent: Option<u64>,
    /// The messages of a version that are not sent yet.
    pending: VecDeque<DirectorySnapshot>,
}

impl Watcher {
    /// The next message; `None` when the gateway stops.
    async fn next(&mut self) -> Option<DirectorySnapshot> {
        if let Some(message) = self.pending.pop_front() {
            return Some(message);
        }
        match self.sent {
            // A watcher that comes from another gateway, or from before a restart, keeps what it knows meanwhile.
            None => self.directory.settled().await,
            Some(_) => {
                tokio::time::sleep(LEAST_SNAPSHOT_INTERVAL).await;
                self.versions.changed().await.ok()?;
            }
        }
        self.versions.borrow_and_update();
        let since = if self.takes_changes { self.sent.unwrap_or(0) } else { 0 };
        let changes = self.directory.changes(since);
        self.sent = Some(changes.version);
        self.pending = match self.takes_changes {
            true => in_messages(changes),
            false => VecDeque::from([DirectorySnapshot {
                entries: changes.entries.iter().map(|entry| DirectoryEntry::clone(entry)).collect(),
                ..DirectorySnapshot::default()
            }]),
        };
        self.pending.pop_front()
    }
}

/// Changes in messages of about [`MESSAGE_BYTES`]; at least one message.
fn in_messages(changes: EntryChanges) -> VecDeque<DirectorySnapshot> {
    let is_change = !changes.is_whole;
    let new = || DirectorySnapshot { is_change, continues: true, ..DirectorySnapshot::default() };
    let mut messages = VecDeque::new();
    let mut message = DirectorySnapshot { removed: changes.removed, ..new() };
    let mut bytes = message.encoded_len();
    for entry in changes.entries {
        let length = entry.encoded_len();
        if bytes + length > MESSAGE_BYTES && !message.entries.is_empty() {
            messages.push_back(std::mem::replace(&mut message, new()));
            bytes = 0;
        }
        bytes += length;
        message.entries.push(DirectoryEntry::clone(&entry));
    }
    messages.push_back(DirectorySnapshot { continues: false, ..message });
    messages
}

#[tonic::async_trait]
impl DirectoryApi for DirectoryService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<DirectorySnapshot, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher {
            directory: self.directory.clone(),
            versions: self.directory.watch(),
            takes_changes: request.into_inner().changes,
            sent: None,
            pending: VecDeque::new(),
        };
        let stop = self.stop.clone();
        let stream = futures::stream::unfold(watcher, move |mut watcher| {
            let stop = stop.clone();
            async move {
                let message = stop.until_triggered(watcher.next()).await??;
                Some((Ok(message), watcher))
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_directory_travels_in_several_messages() {
        let entry = |i: usize| {
            Arc::new(DirectoryEntry {
                name: i.to_string(),
                last_error: "x".repeat(300_000),
                ..Default::default()
            })
        };
        let changes = |count: usize, is_whole| EntryChanges {
            version: 7,
            is_whole,
            entries: (0..count).map(entry).collect(),
            removed: vec!["gone".to_owned(); usize::from(!is_whole)],
        };
        for (count, is_whole, expected) in
            [(0, true, vec![0]), (1, false, vec![1]), (8, false, vec![3, 3, 2])]
        {
            let messages = in_messages(changes(count, is_whole));
            let lengths: Vec<usize> = messages.iter().map(|message| message.entries.len()).collect();
            assert_eq!(lengths, expected);
            let continues: Vec<bool> = messages.iter().map(|message| message.continues).collect();
            assert!(
                continues.iter().rev().skip(1).all(|continues| *continues) && !continues[continues.len() - 1]
            );
            assert!(messages.iter().all(|message| message.is_change != is_whole));
            assert_eq!(messages[0].removed.len(), usize::from(!is_whole));
        }
        // An entry that is larger than a message has one of its own.
        let large = DirectoryEntry { last_error: "x".repeat(2 * MESSAGE_BYTES), ..DirectoryEntry::default() };
        let changes = EntryChanges {
            version: 1,
            is_whole: true,
            entries: vec![entry(1), Arc::new(large), entry(2)],
            removed: Vec::new(),
        };
        assert_eq!(in_messages(changes).len(), 3);
    }
}
