//! Endpoints that a gateway announces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Authority;
use proto::isthmus::mesh::v1 as wire;
use storeapi::{info_from_wire, labels_from_wire};

use crate::endpoints::{Endpoint, SharedGroup, read, write};

/// First pause before the directory is asked for again, doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A directory of thousands of stores with many label sets stays far below this.
const SNAPSHOT_BYTES: usize = 64 << 20;

/// Follows the directory of the gateway at `address` for ever.
///
/// While the gateway is away its stores stay known: requests for them fail visibly instead of being left out.
pub(super) async fn follow(address: &str, group: &SharedGroup) {
    let channel = match mesh::direct(address) {
        Ok(channel) => channel,
        Err(error) => return write(group).unknown = Some(error.to_string()),
    };
    let mut pause = BACKOFF.0;
    loop {
        let outcome = watch(&channel, address, group, &mut pause).await;
        let reason = match outcome {
            Ok(()) => "the gateway ended the directory's stream".to_owned(),
            Err(status) => storeapi::StoreError::from(status).message().to_owned(),
        };
        tracing::warn!(gateway = address, error = %reason, "directory lost, asking again");
        write(group).unknown = Some(reason);
        // Several queriers that lost the same gateway must not come back in step.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn watch(
    channel: &mesh::Channel,
    address: &str,
    group: &SharedGroup,
    pause: &mut Duration,
) -> Result<(), tonic::Status> {
    let mut client = wire::directory_client::DirectoryClient::new(channel.clone())
        .max_decoding_message_size(SNAPSHOT_BYTES);
    let mut snapshots = client.watch(wire::WatchRequest {}).await?.into_inner();
    while let Some(snapshot) = snapshots.message().await? {
        *pause = BACKOFF.0;
        apply(address, group, snapshot);
    }
    Ok(())
}

/// Replaces what is known by a snapshot; endpoints that stay keep their connection.
fn apply(gateway: &str, group: &SharedGroup, snapshot: wire::DirectorySnapshot) {
    let mut endpoints = BTreeMap::new();
    for mut entry in snapshot.entries {
        let target = entry.name.parse::<Authority>();
        if let (Err(cause), true) = (&target, entry.healthy) {
            (entry.healthy, entry.last_error) = (false, cause.to_string());
        }
        let known = read(group).endpoints.get(entry.name.as_str()).cloned();
        match known.map_or_else(|| connect(gateway, &entry.name, target.ok().as_ref()), Ok) {
            Ok(endpoint) => {
                let name = Arc::from(entry.name.as_str());
                update(&endpoint, entry);
                endpoints.insert(name, endpoint);
            }
            Err(error) => return write(group).unknown = Some(error.to_string()),
        }
    }
    let mut group = write(group);
    for gone in group.endpoints.keys().filter(|name| !endpoints.contains_key(*name)) {
        tracing::info!(store = %gone, gateway, "store left the directory");
    }
    group.endpoints = endpoints;
    group.unknown = None;
}

/// A name that is no target's is that of a registered cluster that has not been heard of: which stores it has is
/// unknown, so the cluster stands for them and is missed as a whole. It is never healthy, so its channel is never used.
fn connect(gateway: &str, name: &str, target: Option<&Authority>) -> Result<Arc<Endpoint>, mesh::Error> {
    let channel = target.map_or_else(|| mesh::direct(gateway), |target| mesh::via(gateway, target))?;
    Ok(Arc::new(Endpoint::new(name, channel, true)))
}

fn update(endpoint: &Endpoint, entry: wire::DirectoryEntry) {
    let info = entry.info.map(info_from_wire).transpose();
    let bound = labels_from_wire(entry.bound_labels.as_ref().map_or(&[], |set| &set.labels));
    endpoint.update(|state| {
        state.transport = entry.transport;
        state.round_trip =
            Duration::try_from_secs_f64(entry.round_trip_seconds).ok().filter(|length| !length.is_zero());
        state.last_check = entry.last_check.and_then(|at| SystemTime::try_from(at).ok());
        state.last_error = match entry.healthy {
            true => None,
            false if entry.last_error.is_empty() => {
                Some("its gateway says that it is not healthy".to_owned())
            }
            false => Some(entry.last_error),
        };
        match info {
            Ok(Some(info)) => state.info = Some(Arc::new(info)),
            Ok(None) => {}
            Err(error) => state.last_error = Some(error.message().to_owned()),
        }
        match bound {
            Ok(bound) => state.bound = bound,
            Err(error) => state.last_error = Some(format!("bound labels: {error}")),
        }
    });
}
